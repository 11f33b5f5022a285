# The order of a Krylov system's unknowns, and products in it at the speed of memory: there most entries of a grid's matrix
# lie in runs along diagonals, (i, j), (i+1, j+1), ..., multiplied a register at a time without looking up where they are.

# Runs that are shorter on average are no faster than the sparse matrix.
const LEAST_RUN = 6.0
# Rows of a run at most: what is added to stays in the fastest cache.
const RUN_ROWS = 512

"An order of E's rows by the colours of a greedy colouring of its graph, and the range of each colour."
function colour_order(E::SparseMatrixCSC)
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
    order = sortperm(colour; alg = MergeSort)
    return order, [searchsorted(view(colour, order), c) for c in 1:maximum(colour; init = 0)]
end

function Ordered(S::SparseMatrixCSC)
    order, colours = colour_order(S)
    places = permute(SparseMatrixCSC(size(S)..., S.colptr, S.rowval, collect(1:nnz(S))), order, order)
    return Ordered(order, colours, places, Bands(places, colours))
end

"The entries (i, j) of E that `takes(i, j)` takes."
function Runs(takes, E::SparseMatrixCSC, colours::Vector{UnitRange{Int}})
    colour = zeros(Int, size(E, 1))
    foreach(c -> colour[colours[c]] .= c, eachindex(colours))
    entries = [(colour[i], i ÷ RUN_ROWS, j - i, i, k)
               for j in axes(E, 2) for (i, k) in zip(view(E.rowval, nzrange(E, j)), nzrange(E, j)) if takes(i, j)]
    sort!(entries)
    start, rows, columns, of = Int[], Int[], Int[], [1:0 for _ in colours]
    last = (0, 0, 0, 0)
    for (q, (c, block, offset, i, _)) in enumerate(entries)
        if last != (c, block, offset, i - 1)
            push!(start, q)
            push!(rows, i)
            push!(columns, i + offset)
        end
        last = (c, block, offset, i)
        of[c] = (isempty(of[c]) ? length(start) : first(of[c])):length(start)
    end
    push!(start, length(entries) + 1)
    return Runs(start, rows, columns, of, [entry[5] for entry in entries])
end

"Runs of E and of its incomplete LU; nothing where they would be short."
function Bands(E::SparseMatrixCSC, colours::Vector{UnitRange{Int}})
    whole = Runs((i, j) -> true, E, colours)
    length(whole.source) >= LEAST_RUN * length(whole.rows) || return nothing
    return Bands(whole, Runs((i, j) -> i > j, E, colours), Runs((i, j) -> i < j, E, colours))
end

"Take over the values of the level's matrix and its factors."
load!(::Nothing, level::Level) = nothing
function load!(f::BandValues, level::Level)
    factors, diagonal = level.smoother.values, level.smoother.diagonal
    gather!(f.matrix, level.E.nzval, f.bands.matrix.source)
    gather!(f.lower, factors, f.bands.lower.source)
    gather!(f.upper, factors, f.bands.upper.source)
    @inbounds for j in eachindex(f.inverse)
        f.inverse[j] = inv(factors[diagonal[j]])
    end
    return nothing
end

function gather!(y::Vector{T}, x::Vector{T}, from::Vector{Int}) where {T}
    @inbounds for k in eachindex(y)
        y[k] = x[from[k]]
    end
    return nothing
end

"y += a A x for some `runs` of A, or with A transposed; y may be x where rows and columns have no number in common."
function add_runs!(y::Vector{T}, A::Runs, runs::UnitRange{Int}, values::Vector{T}, x::Vector{T}, a::T,
                   transposed::Bool) where {T}
    @inbounds for q in runs
        from = A.start[q]
        count, i, j = A.start[q+1] - from, A.rows[q], A.columns[q]
        transposed && ((i, j) = (j, i))
        add_run!(y, i - 1, a, values, from - 1, x, j - 1, count)
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

"y += a A x for all of A, or with A transposed."
add_runs!(y::Vector{T}, A::Runs, values::Vector{T}, x::Vector{T}, a::T, transposed::Bool) where {T} =
    add_runs!(y, A, 1:length(A.rows), values, x, a, transposed)

"y = (LU)⁻¹ y, colour by colour."
function substitute!(y::Vector{T}, f::BandValues{T}) where {T}
    L, U, minus = f.bands.lower, f.bands.upper, T(-1)
    for c in eachindex(f.colours)
        add_runs!(y, L, L.of[c], f.lower, y, minus, false)
    end
    for c in reverse(eachindex(f.colours))
        add_runs!(y, U, U.of[c], f.upper, y, minus, false)
        divide_by_pivots!(y, f, f.colours[c])
    end
    return nothing
end

"y = (LU)⁻ᵀ y."
function substitute_transposed!(y::Vector{T}, f::BandValues{T}) where {T}
    L, U, minus = f.bands.lower, f.bands.upper, T(-1)
    for c in eachindex(f.colours)
        divide_by_pivots!(y, f, f.colours[c])
        add_runs!(y, U, U.of[c], f.upper, y, minus, true)
    end
    for c in reverse(eachindex(f.colours))
        add_runs!(y, L, L.of[c], f.lower, y, minus, true)
    end
    return nothing
end

function divide_by_pivots!(y::Vector{T}, f::BandValues{T}, rows::UnitRange{Int}) where {T}
    @inbounds @simd ivdep for i in rows
        y[i] *= f.inverse[i]
    end
    return nothing
end

"y = x times a vector of factors; y may be x."
function multiply!(y::Vector, x::Vector, factors::Vector)
    @inbounds @simd ivdep for i in eachindex(y)
        y[i] = x[i] * factors[i]
    end
    return nothing
end
