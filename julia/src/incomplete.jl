# The incomplete LU of systems.jl: its factors, and substitution where they are not runs (bands.jl).

"""
Factor E's present values. False where a pivot vanishes. Columns of one colour need those of the colours before: shared
out over a crew, whose parts all hold a range of each colour.
"""
function factor!(P::IncompleteLU, split::Split)
    copyto!(P.values, P.E.nzval)
    for c in eachindex(split.rows[1])
        each_part(split.crew) do part
            split.crew.sums[part] = factor_columns!(P, split.rows[part][c])
        end
        sum(split.crew.sums) == 0 || return false
    end
    gather!(P.rows.values, P.values, P.rows.place, split.crew)
    return true
end

"Returns the number of pivots that vanish."
function factor_columns!(P::IncompleteLU, columns::UnitRange{Int})
    colptr, rowval, values, diagonal = P.E.colptr, P.E.rowval, P.values, P.diagonal
    failures = 0
    @inbounds for j in columns
        last = colptr[j+1] - 1
        for k in colptr[j]:diagonal[j]-1
            i, a, at = rowval[k], values[k], k + 1
            for q in diagonal[i]+1:colptr[i+1]-1
                row = rowval[q]
                while at < last && rowval[at] < row
                    at += 1
                end
                rowval[at] == row && (values[at] -= values[q] * a)
            end
        end
        pivot = values[diagonal[j]]
        failures += pivot == 0 || !isfinite(pivot)
        for k in diagonal[j]+1:last
            values[k] /= pivot
        end
    end
    return failures
end

"y = (LU)⁻¹ y: rows of one colour need those of the colours before, then behind."
function substitute!(y::Vector{T}, P::IncompleteLU{T}, split::Split) where {T}
    start, columns, values, diagonal = P.rows.start, P.rows.columns, P.rows.values, P.rows.diagonal
    colours = eachindex(split.rows[1])
    for c in colours
        each_part(split.crew) do part
            @inbounds for i in split.rows[part][c]
                y[i] -= row_sum(values, columns, y, start[i]:diagonal[i]-1)
            end
        end
    end
    for c in reverse(colours)
        each_part(split.crew) do part
            @inbounds for i in reverse(split.rows[part][c])
                y[i] = (y[i] - row_sum(values, columns, y, diagonal[i]+1:start[i+1]-1)) / values[diagonal[i]]
            end
        end
    end
    return nothing
end

"y = (LU)⁻ᵀ y."
function substitute_transposed!(y::Vector{T}, P::IncompleteLU{T}, split::Split) where {T}
    colptr, rowval, values, diagonal = P.E.colptr, P.E.rowval, P.values, P.diagonal
    colours = eachindex(split.rows[1])
    for c in colours
        each_part(split.crew) do part
            @inbounds for j in split.rows[part][c]
                y[j] = (y[j] - row_sum(values, rowval, y, colptr[j]:diagonal[j]-1)) / values[diagonal[j]]
            end
        end
    end
    for c in reverse(colours)
        each_part(split.crew) do part
            @inbounds for j in reverse(split.rows[part][c])
                y[j] -= row_sum(values, rowval, y, diagonal[j]+1:colptr[j+1]-1)
            end
        end
    end
    return nothing
end

"The sum of values times the y that belong to their places."
@inline function row_sum(values::Vector{T}, of::Vector{Int32}, y::Vector{T}, places) where {T}
    total = T(0)
    @inbounds @simd ivdep for k in places
        total += values[k] * y[of[k]]
    end
    return total
end
