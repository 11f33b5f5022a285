# The preconditioner of krylov.jl: a cycle that corrects on the coarse levels first and smooths once by an incomplete LU
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

"The cycle as Krylov.jl takes it: from scaled residuals to unknowns."
struct Cycle
    levels::Vector{Level}
    scaling::Scaling
    depth::Int
    transposed::Bool
end

"Whether an incomplete LU of E should be followed by a coarser level."
function needs_levels(E::Sparse, diagonal::Vector{Int}, share::Float64)
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
function prepare_levels!(s::KrylovSystem)
    s.depth = 1
    finest = s.levels[1]
    factor!(finest.smoother) || return false
    load!(finest.fast, finest)
    needs_levels(finest.E, finest.smoother.diagonal, DOMINANT_SHARE) || return true
    stale = s.slow && s.seen.count >= s.built + REBUILD_AFTER
    if length(s.levels) == 1 || stale
        build_levels!(s.levels, s.jacobian.values[s.ordered.places.nzval])
        s.slow, s.built = false, s.seen.count
    end
    for l in 2:length(s.levels)
        level = s.levels[l]
        galerkin!(level.E.nzval, s.levels[l-1], s.levels[l-1].E.nzval)
        prepare!(level) || break
        s.depth = l
        needs_levels(level.E, level.smoother.diagonal, DOMINANT_SHARE_COARSE) || break
    end
    return true
end

"Factor a coarse level's matrix. False if that fails."
function prepare!(level::Level)
    isempty(level.dense) && return factor!(level.smoother)
    fill!(level.dense, 0.0)
    @inbounds for j in axes(level.E, 2), k in nzrange(level.E, j)
        level.dense[level.E.rowval[k], j] = level.E.nzval[k]
    end
    return factor!(level.dense, level.pivots)
end

function LinearAlgebra.ldiv!(x::V, c::Cycle, b::V)
    plain = c.levels[1].b
    multiply!(plain, b, c.scaling.inverse)
    c.transposed ? transposed_cycle!(x, plain, c, 1) : cycle!(x, plain, c, 1)
    return x
end

"The matrix of the first level, or its transpose, as Krylov.jl takes it: from unknowns to scaled residuals."
struct Operator
    level::Level
    scaling::Scaling
    transposed::Bool
end
Base.eltype(::Operator) = Float64
Base.size(A::Operator) = size(A.level.E)

function LinearAlgebra.mul!(y::V, A::Operator, x::V)
    fill!(y, 0.0)
    add_product!(y, A.level, x, 1.0, A.transposed)
    multiply!(y, y, A.scaling.factor)
    return y
end

"y += a E x, or with E transposed."
function add_product!(y::V, level::Level, x::V, a::Float64, transposed::Bool)
    fast = level.fast
    fast === nothing || return add_product!(y, fast, x, a, transposed)
    transposed ? mul!(y, transpose(level.E), x, a, 1.0) : mul!(y, level.E, x, a, 1.0)
    return nothing
end

"x = (LU)⁻¹ b, or transposed; b may be x."
function smooth!(x::V, level::Level, b::V, transposed::Bool)
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
function cycle!(x::V, b::V, c::Cycle, l::Int)
    level = c.levels[l]
    l == c.depth && return solve_last!(x, b, level, false)
    next, r = c.levels[l+1], level.r
    mul!(next.b, transpose(level.P), b)
    cycle!(next.x, next.b, c, l + 1)
    mul!(x, level.P, next.x)
    copyto!(r, b)
    add_product!(r, level, x, -1.0, false)
    smooth!(r, level, r, false)
    axpy!(1.0, r, x)
    return nothing
end

"x = Cᵀ b from level l on."
function transposed_cycle!(x::V, b::V, c::Cycle, l::Int)
    level = c.levels[l]
    l == c.depth && return solve_last!(x, b, level, true)
    next, r = c.levels[l+1], level.r
    smooth!(x, level, b, true)
    copyto!(r, b)
    add_product!(r, level, x, -1.0, true)
    mul!(next.b, transpose(level.P), r)
    transposed_cycle!(next.x, next.b, c, l + 1)
    mul!(x, level.P, next.x, 1.0, 1.0)
    return nothing
end

function solve_last!(x::V, b::V, level::Level, transposed::Bool)
    isempty(level.dense) && return smooth!(x, level, b, transposed)
    copyto!(x, b)
    transposed ? solve_transposed!(x, level.dense, level.pivots) : solve!(x, level.dense, level.pivots)
    return nothing
end
