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

"Whether an incomplete LU of E should be followed by a coarser level."
function needs_levels(E::SparseMatrixCSC, diagonal::Vector{Int}, share::Float64)
    limit = FEW_COLUMNS * size(E, 2)
    weak = 0
    @inbounds for j in axes(E, 2)
        total = 0.0
        for k in nzrange(E, j)
            total += abs(E.nzval[k])
        end
        own = abs(E.nzval[diagonal[j]])
        weak += total - own > share * own
    end
    return weak > limit
end

"Factor the smoothers of as many levels as E needs, building these if need be. False where the first pivot vanishes."
function prepare_levels!(k::Inner{T}, s::KrylovSystem) where {T}
    copyto!(k.rows, s.rows)
    copyto!(k.columns, s.columns)
    k.depth = 1
    finest = k.levels[1]
    copyto!(finest.E.nzval, s.E.nzval)
    factor!(finest.smoother) || return false
    load!(finest.fast, finest)
    needs_levels(finest.E, finest.smoother.diagonal, DOMINANT_SHARE) || return true
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
        needs_levels(level.E, level.smoother.diagonal, DOMINANT_SHARE_COARSE) || break
    end
    return true
end

"Factor a coarse level's matrix. False if that fails."
function prepare!(level::Level)
    isempty(level.dense) && return factor!(level.smoother)
    fill!(level.dense, 0)
    @inbounds for j in axes(level.E, 2), k in nzrange(level.E, j)
        level.dense[level.E.rowval[k], j] = level.E.nzval[k]
    end
    return factor!(level.dense, level.pivots)
end

"x = C b for a scaled residual b."
function precondition!(x::Vector{T}, k::Inner{T}, b::Vector{T}, transposed::Bool) where {T}
    plain = k.levels[1].b
    multiply!(plain, b, (transposed ? k.columns : k.rows).inverse)
    transposed ? transposed_cycle!(x, plain, k, 1) : cycle!(x, plain, k, 1)
    return nothing
end

"y = the scaled residual that belongs to the unknowns x."
function image!(y::Vector{T}, k::Inner{T}, x::Vector{T}, transposed::Bool) where {T}
    fill!(y, 0)
    add_product!(y, k.levels[1], x, T(1), transposed)
    multiply!(y, y, (transposed ? k.columns : k.rows).factor)
    return nothing
end

"y += a E x, or with E transposed."
function add_product!(y::Vector{T}, level::Level{T}, x::Vector{T}, a::T, transposed::Bool) where {T}
    fast = level.fast
    fast === nothing || return add_runs!(y, fast.bands.matrix, fast.matrix, x, a, transposed)
    transposed ? mul!(y, transpose(level.E), x, a, T(1)) : mul!(y, level.E, x, a, T(1))
    return nothing
end

"x = (LU)⁻¹ b, or transposed; b may be x."
function smooth!(x::Vector{T}, level::Level{T}, b::Vector{T}, transposed::Bool) where {T}
    fast = level.fast
    if fast !== nothing
        x === b || copyto!(x, b)
        transposed ? substitute_transposed!(x, fast) : substitute!(x, fast)
    else
        transposed ? ldiv!(x, TransposedLU(level.smoother), b) : ldiv!(x, level.smoother, b)
    end
    return nothing
end

"x = C b from level l on."
function cycle!(x::Vector{T}, b::Vector{T}, k::Inner{T}, l::Int) where {T}
    level = k.levels[l]
    l == k.depth && return solve_last!(x, b, level, false)
    next, r = k.levels[l+1], level.r
    restrict!(next.b, level.P, b)
    cycle!(next.x, next.b, k, l + 1)
    mul!(x, level.P, next.x)
    copyto!(r, b)
    add_product!(r, level, x, T(-1), false)
    smooth!(r, level, r, false)
    axpy!(T(1), r, x)
    return nothing
end

"x = Cᵀ b from level l on."
function transposed_cycle!(x::Vector{T}, b::Vector{T}, k::Inner{T}, l::Int) where {T}
    level = k.levels[l]
    l == k.depth && return solve_last!(x, b, level, true)
    next, r = k.levels[l+1], level.r
    smooth!(x, level, b, true)
    copyto!(r, b)
    add_product!(r, level, x, T(-1), true)
    restrict!(next.b, level.P, r)
    transposed_cycle!(next.x, next.b, k, l + 1)
    mul!(x, level.P, next.x, T(1), T(1))
    return nothing
end

"y = Pᵀ x."
function restrict!(y::Vector{T}, P::SparseMatrixCSC{T,Int32}, x::Vector{T}) where {T}
    @inbounds for j in eachindex(y)
        total = T(0)
        @simd ivdep for k in nzrange(P, j)
            total += P.nzval[k] * x[P.rowval[k]]
        end
        y[j] = total
    end
    return nothing
end

function solve_last!(x::Vector{T}, b::Vector{T}, level::Level{T}, transposed::Bool) where {T}
    isempty(level.dense) && return smooth!(x, level, b, transposed)
    copyto!(x, b)
    transposed ? solve_transposed!(x, level.dense, level.pivots) : solve!(x, level.dense, level.pivots)
    return nothing
end
