# The preconditioner of gmres.jl: a cycle that corrects on the coarse levels first and smooths once by an incomplete LU
# after it; its transpose smooths first. With one level it is the incomplete LU alone.

# Matrices up to this size are factored densely: the end of the levels.
const DENSE_LEVEL = 60
# A level must shrink at least to this share of the one above.
const LEAST_SHRINKAGE = 0.7
# The incomplete LU alone does where entries off the diagonal are, in total, below this share of the diagonal in all
# columns but a few: a condition number of (1 + s) / (1 - s) = 19, where it takes twice the iterations of a cycle that
# costs twice as much. On a coarse level, where it is applied only once, one of 9.
const DOMINANT_SHARE = 0.9
const DOMINANT_SHARE_COARSE = 0.8
const FEW_COLUMNS = 0.05
# Levels are made anew, once this many Jacobians later, if a solve took more iterations than that.
const SLOW_ITERATIONS = 30
const REBUILD_AFTER = 10

"Whether an incomplete LU of the level's matrix should be followed by a coarser level."
function needs_levels(level::Level, share::Float64)
    E, diagonal = level.E, level.smoother.diagonal
    weak = total(level.split) do columns
        count = 0.0
        @inbounds for j in columns
            total = 0.0
            for k in nzrange(E, j)
                total += abs(E.nzval[k])
            end
            own = abs(E.nzval[diagonal[j]])
            count += total - own > share * own
        end
        count
    end
    return weak > FEW_COLUMNS * size(E, 2)
end

"Factor the smoothers of as many levels as E needs, building these if need be. False where the first pivot vanishes."
function prepare_levels!(k::Inner{T}, s::KrylovSystem) where {T}
    finest = k.levels[1]
    load!(k, s)
    k.depth = 1
    factor!(finest.smoother, finest.split) || return false
    load!(finest.fast, finest, s.matrix)
    needs_levels(finest, DOMINANT_SHARE) || return true
    stale = k.slow && s.seen.count >= k.built + REBUILD_AFTER
    if length(k.levels) == 1 || stale
        build_levels!(k.levels, Vector{T}(s.jacobian.values[s.ordered.places.nzval]))
        k.slow, k.built = false, s.seen.count
    end
    for l in 2:length(k.levels)
        level = k.levels[l]
        galerkin!(level.E.nzval, k.levels[l-1], k.levels[l-1].E.nzval)
        prepare!(level) || break
        k.depth = l
        needs_levels(level, DOMINANT_SHARE_COARSE) || break
    end
    return true
end

"Take over the system's matrix and scaling."
function load!(k::Inner, s::KrylovSystem)
    values = k.levels[1].E.nzval
    each_share(range -> copy_rows!(values, s.E.nzval, range), length(values), s.split.crew)
    each_rows(s.split) do rows
        copy_rows!(k.rows.factor, s.rows.factor, rows)
        copy_rows!(k.rows.inverse, s.rows.inverse, rows)
        copy_rows!(k.columns.factor, s.columns.factor, rows)
        copy_rows!(k.columns.inverse, s.columns.inverse, rows)
    end
    return nothing
end

"Factor a coarse level's matrix. False if that fails."
function prepare!(level::Level)
    isempty(level.dense) && return factor!(level.smoother, level.split)
    fill!(level.dense, 0)
    @inbounds for j in axes(level.E, 2), k in nzrange(level.E, j)
        level.dense[level.E.rowval[k], j] = level.E.nzval[k]
    end
    return factor!(level.dense, level.pivots)
end

"x = C b for a scaled residual b."
function precondition!(x::Vector{T}, k::Inner{T}, b::Vector{T}, transposed::Bool) where {T}
    plain = k.levels[1].b
    multiply!(plain, b, (transposed ? k.columns : k.rows).inverse, k.levels[1].split)
    transposed ? transposed_cycle!(x, plain, k, 1) : cycle!(x, plain, k, 1)
    return nothing
end

"y = the scaled residual that belongs to the unknowns x; its product with z."
function image!(y::Vector{T}, k::Inner{T}, x::Vector{T}, z::Vector{T}, transposed::Bool) where {T}
    level = k.levels[1]
    fast, split, factor = level.fast, level.split, (transposed ? k.columns : k.rows).factor
    if fast === nothing
        fill!(y, 0)
        add_product!(y, level, x, T(1), transposed)
        multiply!(y, y, factor, split)
        return product(y, z, split)
    end
    sums = split.crew.sums
    each_part(split.crew) do part
        foreach(rows -> fill_rows!(y, T(0), rows), split.rows[part])
        add_runs!(y, fast.bands.matrix, part, fast.matrix, x, T(1), transposed)
        share = 0.0
        for rows in split.rows[part]
            multiply!(y, y, factor, rows)
            share += product(y, z, rows)
        end
        sums[part] = share
    end
    return sum(sums)
end

"y += a E x, or with E transposed."
function add_product!(y::Vector{T}, level::Level{T}, x::Vector{T}, a::T, transposed::Bool) where {T}
    fast = level.fast
    if fast === nothing
        transposed ? mul!(y, transpose(level.E), x, a, T(1)) : mul!(y, level.E, x, a, T(1))
    else
        each_part(part -> add_runs!(y, fast.bands.matrix, part, fast.matrix, x, a, transposed), level.split.crew)
    end
    return nothing
end

"x += (LU)⁻¹ r; r is overwritten."
function smooth!(x::Vector{T}, level::Level{T}, r::Vector{T}) where {T}
    fast = level.fast
    fast === nothing || return substitute_and_add!(x, r, fast, level.split)
    substitute!(r, level.smoother, level.split)
    add!(x, T(1), r, level.split)
    return nothing
end

"x = (LU)⁻ᵀ x."
function smooth_transposed!(x::Vector{T}, level::Level{T}) where {T}
    fast = level.fast
    fast === nothing ? substitute_transposed!(x, level.smoother, level.split) : substitute_transposed!(x, fast, level.split)
    return nothing
end

"x = C b from level l on."
function cycle!(x::Vector{T}, b::Vector{T}, k::Inner{T}, l::Int) where {T}
    level = k.levels[l]
    l == k.depth && return solve_last!(x, b, level, false)
    next, r = k.levels[l+1], level.r
    restrict!(next.b, level, b)
    cycle!(next.x, next.b, k, l + 1)
    each_rows(level.split) do rows
        fill_rows!(x, T(0), rows)
        prolong!(x, level.P_padded, next.x, rows)
        copy_rows!(r, b, rows)
    end
    add_product!(r, level, x, T(-1), false)
    smooth!(x, level, r)
    return nothing
end

"x = Cᵀ b from level l on."
function transposed_cycle!(x::Vector{T}, b::Vector{T}, k::Inner{T}, l::Int) where {T}
    level = k.levels[l]
    l == k.depth && return solve_last!(x, b, level, true)
    next, r = k.levels[l+1], level.r
    copy_rows!(x, b, level.split)
    smooth_transposed!(x, level)
    copy_rows!(r, b, level.split)
    add_product!(r, level, x, T(-1), true)
    restrict!(next.b, level, r)
    transposed_cycle!(next.x, next.b, k, l + 1)
    each_rows(rows -> prolong!(x, level.P_padded, next.x, rows), level.split)
    return nothing
end

"y = Pᵀ x."
function restrict!(y::Vector{T}, level::Level{T}, x::Vector{T}) where {T}
    P = level.P
    each_rows(level.below) do rows
        @inbounds for j in rows
            total = T(0)
            @simd ivdep for k in nzrange(P, j)
                total += P.nzval[k] * x[P.rowval[k]]
            end
            y[j] = total
        end
    end
    return nothing
end

"x += P y in some rows."
function prolong!(x::Vector{T}, P::Padded{T}, y::Vector{T}, rows::UnitRange{Int}) where {T}
    values, columns = P.values, P.columns
    for q in axes(values, 2)
        @inbounds @simd ivdep for i in rows
            x[i] = muladd(values[i, q], y[columns[i, q]], x[i])
        end
    end
    return nothing
end

function solve_last!(x::Vector{T}, b::Vector{T}, level::Level{T}, transposed::Bool) where {T}
    if isempty(level.dense)
        copy_rows!(transposed ? x : level.r, b, level.split)
        transposed && return smooth_transposed!(x, level)
        fill!(x, 0)
        return smooth!(x, level, level.r)
    end
    copyto!(x, b)
    transposed ? solve_transposed!(x, level.dense, level.pivots) : solve!(x, level.dense, level.pivots)
    return nothing
end
