# The order of a Krylov system's unknowns, and products in it at the speed of memory: there most entries of a grid's matrix
# lie in runs along diagonals, (i, j), (i+1, j+1), ..., multiplied a register at a time without looking up where they are.

# Runs that are shorter on average are no faster than the sparse matrix.
const LEAST_RUN = 6.0
# Rows of a run at most: what is added to stays in the fastest cache.
const RUN_ROWS = 512

# Rows of a part at least: fewer take no longer than it takes to share them out. And parts at most.
const PART_ROWS = 4096
const PARTS = 16

"""
An order of E's rows by the colours of a greedy colouring of its graph, then by `part`, and the range of each colour.
"""
function colour_order(E::SparseMatrixCSC, part = zeros(Int, size(E, 2)))
    n = size(E, 2)
    S = SparseMatrixCSC(n, n, E.colptr, E.rowval, ones(length(E.rowval)))
    S += sparse(transpose(S))
    colour, seen = zeros(Int, n), zeros(Int, n + 1)
    for j in 1:n
        for k in nzrange(S, j)
            c = colour[S.rowval[k]]
            c == 0 || (seen[c] = j)
        end
        colour[j] = findfirst(!=(j), seen)
    end
    order = sortperm(collect(zip(colour, part)); alg = MergeSort)
    return order, [searchsorted(view(colour, order), c) for c in 1:maximum(colour; init = 0)]
end

"`count` ranges of nearly the same length that make up `range`."
shares_of(range::UnitRange{Int}, count::Int) =
    [first(range)+(p-1)*length(range)÷count:first(range)-1+p*length(range)÷count for p in 1:count]

function Ordered(S::SparseMatrixCSC)
    n = size(S, 1)
    order, colours = colour_order(S)
    places = permute(SparseMatrixCSC(size(S)..., S.colptr, S.rowval, collect(1:nnz(S))), order, order)
    count = clamp(n ÷ PART_ROWS, 1, PARTS)
    by_colour = [shares_of(colour, count) for colour in colours]
    shares = neighbours_together([[by_colour[c][p] for c in eachindex(colours)] for p in 1:count], places)
    bands = Bands(places, shares)
    return bands === nothing ? Ordered(order, [[1:n]], places, nothing) : Ordered(order, shares, places, bands)
end

"The colour and part of each row."
function homes(shares::Vector{Vector{UnitRange{Int}}}, n::Int)
    home = fill((0, 0), n)
    for p in eachindex(shares), c in eachindex(shares[p])
        home[shares[p][c]] .= Ref((c, p))
    end
    return home
end

"""
The parts in an order in which those with many entries of E in common follow each other (species at the same place), so
that they come to the same thread, and what they exchange stays in its cache.
"""
function neighbours_together(shares::Vector{Vector{UnitRange{Int}}}, E::SparseMatrixCSC)
    home = homes(shares, size(E, 1))
    common = zeros(Int, length(shares), length(shares))
    for j in axes(E, 2), i in view(E.rowval, nzrange(E, j))
        common[home[i][2], home[j][2]] += 1
    end
    common += transpose(common)
    taken = [1]
    while length(taken) < length(shares)
        left = setdiff(eachindex(shares), taken)
        # With the one taken last, before all others.
        push!(taken, left[argmax([(common[p, taken[end]], sum(common[p, taken])) for p in left])])
    end
    return shares[taken]
end

"The entries (i, j) of E that `takes(i, j)` takes."
function Runs(takes, E::SparseMatrixCSC, shares::Vector{Vector{UnitRange{Int}}})
    parts, colours = length(shares), length(shares[1])
    home = homes(shares, size(E, 1))
    entries = [(home[i]..., i ÷ RUN_ROWS, j - i, i, k)
               for j in axes(E, 2) for (i, k) in zip(view(E.rowval, nzrange(E, j)), nzrange(E, j)) if takes(i, j)]
    sort!(entries)
    start, rows, columns = Int[], Int[], Int[]
    last, last_home = (0, 0, 0, 0, 0), (0, 0)
    for (q, (c, p, block, offset, i, _)) in enumerate(entries)
        if last != (c, p, block, offset, i - 1) || last_home != home[i+offset]
            push!(start, q)
            push!(rows, i)
            push!(columns, i + offset)
        end
        last, last_home = (c, p, block, offset, i), home[i+offset]
    end
    push!(start, length(entries) + 1)
    turned = sortperm([(home[j]..., j ÷ RUN_ROWS, i - j) for (i, j) in zip(rows, columns)])
    return Runs(start, rows, columns, ranges_by(home[rows], parts, colours), turned,
                ranges_by(home[columns[turned]], parts, colours), [entry[6] for entry in entries])
end

"Where each (colour, part) stands in a sorted list of them."
ranges_by(homes::Vector{Tuple{Int,Int}}, parts::Int, colours::Int) =
    [searchsorted(homes, (c, p)) for p in 1:parts, c in 1:colours]

"Runs of E and of its incomplete LU; nothing where they would be short."
function Bands(E::SparseMatrixCSC, shares::Vector{Vector{UnitRange{Int}}})
    whole = Runs((i, j) -> true, E, shares)
    length(whole.source) >= LEAST_RUN * length(whole.rows) || return nothing
    return Bands(whole, Runs((i, j) -> i > j, E, shares), Runs((i, j) -> i < j, E, shares))
end

"y[k] = x[from[k]]"
function gather!(y::Vector{T}, x::Vector{T}, from::Vector{Int}, crew::Crew) where {T}
    each_share(length(y), crew) do range
        @inbounds for k in range
            y[k] = x[from[k]]
        end
    end
    return nothing
end

"Take over the values of the level's matrix, which are there as runs in double, and its factors."
load!(::Nothing, level::Level, matrix::V) = nothing
function load!(f::BandValues, level::Level, matrix::V)
    factors, diagonal, crew = level.smoother.values, level.smoother.diagonal, level.split.crew
    each_share(range -> copy_rows!(f.matrix, matrix, range), length(matrix), crew)
    gather!(f.lower, factors, f.bands.lower.source, crew)
    gather!(f.upper, factors, f.bands.upper.source, crew)
    each_rows(level.split) do rows
        @inbounds for j in rows
            f.inverse[j] = inv(factors[diagonal[j]])
        end
    end
    return nothing
end

"Add to the rows (transposed: columns) of one part and colour what `runs` of A, or of its transpose, have there: y += a A x."
function add_runs!(y::Vector{T}, A::Runs, part::Int, colour::Int, values::Vector{T}, x::Vector{T}, a::T,
                   transposed::Bool) where {T}
    @inbounds if transposed
        for t in A.to_columns[part, colour]
            q = A.turned[t]
            add_run!(y, A.columns[q] - 1, a, values, A.start[q] - 1, x, A.rows[q] - 1, A.start[q+1] - A.start[q])
        end
    else
        for q in A.to_rows[part, colour]
            add_run!(y, A.rows[q] - 1, a, values, A.start[q] - 1, x, A.columns[q] - 1, A.start[q+1] - A.start[q])
        end
    end
    return nothing
end

"The same for all colours of a part."
function add_runs!(y::Vector{T}, A::Runs, part::Int, values::Vector{T}, x::Vector{T}, a::T, transposed::Bool) where {T}
    for colour in axes(A.to_rows, 2)
        add_runs!(y, A, part, colour, values, x, a, transposed)
    end
    return nothing
end

"y[at + t] += a v[from + t] x[of + t] for t in 1:count."
@inline function add_run!(y::Vector{T}, at::Int, a::T, v::Vector{T}, from::Int, x::Vector{T}, of::Int, count::Int) where {T}
    t, step = 0, wide(T)
    w = Val(step)
    share, zero = _all(w, a), _all(w, T(0))
    while t + step <= count
        product = _fma(_load(w, v, from + t + 1), _load(w, x, of + t + 1), zero)
        _store!(y, at + t + 1, _fma(share, product, _load(w, y, at + t + 1)))
        t += step
    end
    @inbounds while t < count
        t += 1
        y[at+t] = muladd(a * v[from+t], x[of+t], y[at+t])
    end
    return nothing
end

"y += |A| x in the rows of a part."
function add_absolute_runs!(y::V, A::Runs, part::Int, values::V, x::V)
    @inbounds for colour in axes(A.to_rows, 2), q in A.to_rows[part, colour]
        i, j = A.rows[q] - A.start[q], A.columns[q] - A.start[q]
        @simd ivdep for k in A.start[q]:A.start[q+1]-1
            y[i+k] += abs(values[k]) * x[j+k]
        end
    end
    return nothing
end

"y = (LU)⁻¹ y, colour by colour, and x += y: what is done to a part's rows of a colour is done at once."
function substitute_and_add!(x::Vector{T}, y::Vector{T}, f::BandValues{T}, split::Split) where {T}
    L, U, minus = f.bands.lower, f.bands.upper, T(-1)
    last = size(L.to_rows, 2)
    for c in 2:last-1
        each_part(part -> add_runs!(y, L, part, c, f.lower, y, minus, false), split.crew)
    end
    for c in last:-1:1
        each_part(split.crew) do part
            add_runs!(y, c == last ? L : U, part, c, c == last ? f.lower : f.upper, y, minus, false)
            rows = split.rows[part][c]
            multiply!(y, y, f.inverse, rows)
            add!(x, T(1), y, rows)
        end
    end
    return nothing
end

"y = (LU)⁻ᵀ y."
function substitute_transposed!(y::Vector{T}, f::BandValues{T}, split::Split) where {T}
    L, U, minus = f.bands.lower, f.bands.upper, T(-1)
    last = size(L.to_rows, 2)
    for c in 1:last
        each_part(split.crew) do part
            add_runs!(y, U, part, c, f.upper, y, minus, true)
            multiply!(y, y, f.inverse, split.rows[part][c])
        end
    end
    for c in last-1:-1:1
        each_part(part -> add_runs!(y, L, part, c, f.lower, y, minus, true), split.crew)
    end
    return nothing
end
