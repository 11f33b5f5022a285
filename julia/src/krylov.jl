# Systems whose factors would fill up: iterative refinement, of which each pass is GMRES in single precision (Carson &
# Higham, SIAM J. Sci. Comput. 40, 2018): half the memory to move, and exact residuals. gmres.jl has the iteration,
# multigrid.jl the cycle that keeps its number independent of the grid, coarsening.jl what that cycle is made of.

# A solve ends at this share of the right-hand side's (scaled) norm, given the tolerance of the steps, within these bounds.
# Rosenbrock methods keep their order, and the adjoint its agreement with differences, only while the stages are solved
# well beyond the tolerance of the step. At these shares errors stay at a tenth of those of the steps, which are often
# far below their tolerance; gradients feel the error of their own solves more than that of the steps'. Given steps are
# there to compare runs, down to small differences: they are solved to the lower bound.
const FORWARD_SHARE = 1e-3
const ADJOINT_SHARE = 1e-4
const KRYLOV_RTOL = (1e-11, 1e-8)

# A stage's error is kept below this share of what the tolerance of the steps allows, also where the right-hand side is
# so large in a few places that the share above would not do; and no residual is asked to be smaller than rounding.
const STAGE_SHARE = 1e-3
const LEAST_RTOL = 1e-12

# What a pass in single precision is asked for at most; where it fails to reduce the residual to the second share,
# though GMRES took it to be much smaller, its rounding is in the way and double precision takes over.
const PASS_SHARE = 1e-4
const POOR_SHARE = 0.1
# Of a pass's target, so that the last one need not be repeated for a trifle.
const PASS_MARGIN = 0.8

# More iterations than this are not worth it: a sparse LU takes over for the rest of the solve, if its factors of so
# many unknowns may fit into memory. Without it GMRES goes on for longer.
const KRYLOV_ITERATIONS = 100
const DIRECT_UNKNOWNS = 200_000
const KRYLOV_LAST_ITERATIONS = 1000

"At the start of a sample's steps: nothing of what was solved before is to be seen in the results."
begin_solve!(system, rtol::Float64, atol::V; given = false) = forget!(system)

function begin_solve!(s::KrylovSystem, rtol::Float64, atol::V; given = false)
    forget!(s)
    s.step_rtol, s.step_atol, s.given = rtol, atol, given
    s.precise = s.gave_up = false
    forget!(s.single)
    s.double === nothing || forget!(s.double)
    forget_factor!(s.direct)
    return nothing
end

function forget!(k::Inner)
    resize!(k.levels, 1)
    k.slow = false
    return nothing
end

function evaluate!(s::KrylovSystem, u::V, m::Model, t::Float64)
    before = s.seen.count
    evaluate!(s.jacobian, u, m, t)
    s.seen.count == before && return nothing
    @inbounds for i in eachindex(u)
        s.size[i] = abs(u[s.ordered.order[i]])
    end
    return nothing
end

"""
Scale residuals of E x = b by what they are made of, |E| |u| (Skeel, J. ACM 26, 1979), so that unknowns of any unit and
equations of any speed count alike; those of the transpose, where b is a cotangent of u, by the size of u.
"""
function scale!(s::KrylovSystem)
    E, diagonal = s.E, s.diagonal
    sums, sizes = s.rows.inverse, s.columns.factor
    @inbounds for i in eachindex(sums)
        sums[i] = abs(E.nzval[diagonal[i]]) * s.step_atol[s.ordered.order[i]] / s.step_rtol
    end
    @inbounds for j in axes(E, 2), k in nzrange(E, j)
        sums[E.rowval[k]] += abs(E.nzval[k]) * s.size[j]
    end
    @inbounds for i in eachindex(sums)
        sums[i] > 0 || (sums[i] = 1.0)
        d = abs(E.nzval[diagonal[i]])
        sizes[i] = d > 0 ? sums[i] / d : 1.0
        s.rows.factor[i] = 1 / sums[i]
        s.columns.inverse[i] = 1 / sizes[i]
    end
    return nothing
end

"Newton's method: each right-hand side is a residual that counts by its own size."
forget_scale!(system) = nothing
forget_scale!(s::KrylovSystem) = (s.earlier.scale = 0.0; nothing)

"Whether a sparse LU had to take over."
gave_up(system) = false
gave_up(s::KrylovSystem) = s.gave_up

"Factor E's present values. False where a pivot vanishes."
function factor!(P::IncompleteLU)
    colptr, rowval, values, place = P.E.colptr, P.E.rowval, P.values, P.place
    copyto!(values, P.E.nzval)
    @inbounds for j in axes(P.E, 2)
        range = colptr[j]:colptr[j+1]-1
        for k in range
            place[rowval[k]] = k
        end
        for k in range
            i = rowval[k]
            i < j || break
            a = values[k]
            for q in P.diagonal[i]+1:colptr[i+1]-1
                at = place[rowval[q]]
                at == 0 || (values[at] -= values[q] * a)
            end
        end
        for k in range
            place[rowval[k]] = 0
        end
        pivot = values[P.diagonal[j]]
        (pivot != 0 && isfinite(pivot)) || return false
        for k in P.diagonal[j]+1:colptr[j+1]-1
            values[k] /= pivot
        end
    end
    return true
end

function LinearAlgebra.ldiv!(y::Vector{T}, P::IncompleteLU{T}, x::Vector{T}) where {T}
    colptr, rowval, values = P.E.colptr, P.E.rowval, P.values
    y === x || copyto!(y, x)
    n = length(y)
    @inbounds for j in 1:n, k in P.diagonal[j]+1:colptr[j+1]-1
        y[rowval[k]] -= values[k] * y[j]
    end
    @inbounds for j in n:-1:1
        y[j] /= values[P.diagonal[j]]
        for k in colptr[j]:P.diagonal[j]-1
            y[rowval[k]] -= values[k] * y[j]
        end
    end
    return y
end

function LinearAlgebra.ldiv!(y::Vector{T}, transposed::TransposedLU{T}, x::Vector{T}) where {T}
    P = transposed.parent
    colptr, rowval, values = P.E.colptr, P.E.rowval, P.values
    y === x || copyto!(y, x)
    n = length(y)
    @inbounds for j in 1:n
        s = y[j]
        for k in colptr[j]:P.diagonal[j]-1
            s -= values[k] * y[rowval[k]]
        end
        y[j] = s / values[P.diagonal[j]]
    end
    @inbounds for j in n:-1:1
        s = y[j]
        for k in P.diagonal[j]+1:colptr[j+1]-1
            s -= values[k] * y[rowval[k]]
        end
        y[j] = s
    end
    return y
end

function factor!(s::KrylovSystem, m::Model, r::Float64)
    s.gave_up && return factor!(s.direct, m, r)
    forget!(s.earlier)
    fill_matrix!(s.direct.E, s.jacobian, m.mass, r)
    gather!(s.E.nzval, s.direct.E.nzval, s.ordered.places.nzval)
    all(isfinite, s.E.nzval) || return false
    bands = s.ordered.bands
    bands === nothing || gather!(s.matrix, s.E.nzval, bands.matrix.source)
    scale!(s)
    (!s.precise && prepare_levels!(s.single, s)) || take_double!(s) || give_up!(s)
    return !s.gave_up || factor!(s.direct, m, r)
end

solve!(x, s::KrylovSystem) = s.gave_up ? solve!(x, s.direct) : iterate!(x, s, false)
solve_transposed!(x, s::KrylovSystem) = s.gave_up ? solve_transposed!(x, s.direct) : iterate!(x, s, true)

function iterate!(x, s::KrylovSystem, transposed::Bool)
    factor = (transposed ? s.columns : s.rows).factor
    @inbounds for i in eachindex(x)
        s.rhs[i] = factor[i] * x[s.ordered.order[i]]
    end
    earlier = s.earlier
    earlier.transposed == transposed || forget!(earlier)
    earlier.transposed = transposed
    # All stages of a step enter the next state alike, so their errors are measured by the largest of them.
    earlier.scale = max(earlier.scale, norm(s.rhs))
    share = s.given ? 0.0 : transposed ? ADJOINT_SHARE : FORWARD_SHARE
    allowed = clamp(share * s.step_rtol, KRYLOV_RTOL...) * earlier.scale
    transposed || (allowed = min(allowed, STAGE_SHARE * s.step_rtol * sqrt(length(x))))
    allowed = max(allowed, LEAST_RTOL * earlier.scale)
    guess!(s.x, s.rhs, earlier)
    norm(s.rhs) > allowed && !correct!(s, transposed, allowed) && return solve_directly!(x, s, transposed)
    @inbounds for i in eachindex(x)
        x[s.ordered.order[i]] = s.x[i]
    end
    return nothing
end

"s.x += E⁻¹ s.rhs up to a residual of norm `allowed`. False if that takes too long."
function correct!(s::KrylovSystem, transposed::Bool, allowed::Float64)
    limit = length(s.x) <= DIRECT_UNKNOWNS ? KRYLOV_ITERATIONS : KRYLOV_LAST_ITERATIONS
    solution = begin_next!(s.earlier, s.rhs)
    residual = norm(s.rhs)
    s.iterations = 0
    while residual > allowed
        s.iterations < limit || return false
        share = allowed / residual
        residual = s.precise ? pass!(solution, s, s.double::Inner{Float64}, transposed, share, limit) :
                   pass!(solution, s, s.single, transposed, share, limit)
    end
    axpy!(1.0, solution, s.x)
    keep_next!(s.earlier, s.rhs)
    return true
end

"""
One pass of refinement, in k's precision, towards `share` of the residual in s.rhs: solution += the correction found, and
its image is taken from s.rhs. Returns the norm of what is left.
"""
function pass!(solution::V, s::KrylovSystem, k::Inner, transposed::Bool, share::Float64, limit::Int)
    before = norm(s.rhs)
    expected, count = gmres!(k, s.rhs, pass_share(k, share), limit - s.iterations, transposed)
    s.iterations += count
    k.slow |= s.iterations > SLOW_ITERATIONS
    copyto!(s.correction, k.correction)
    left = residual!(s.image, s, s.correction, transposed)
    left <= max(POOR_SHARE, 2expected) * before || s.precise || take_double!(s)     # NaN too
    left < before || return before
    axpy!(1.0, s.correction, solution)
    copyto!(s.rhs, s.image)
    return left
end

"The share of the residual that a pass aims at, given what is still wanted: passes of one length."
pass_share(::Inner{Float64}, share::Float64) = share
function pass_share(::Inner{Float32}, share::Float64)
    passes = max(1.0, ceil(log(share) / log(PASS_SHARE)))
    return PASS_MARGIN * share^(1 / passes)
end

"y = s.rhs less the image of x; its norm."
function residual!(y::V, s::KrylovSystem, x::V, transposed::Bool)
    fill!(y, 0.0)
    bands = s.ordered.bands
    if bands !== nothing
        add_runs!(y, bands.matrix, s.matrix, x, -1.0, transposed)
    else
        transposed ? mul!(y, transpose(s.E), x, -1.0, 1.0) : mul!(y, s.E, x, -1.0, 1.0)
    end
    multiply!(y, y, (transposed ? s.columns : s.rows).factor)
    axpy!(1.0, s.rhs, y)
    return norm(y)
end

"Double precision from here to the end of the solve. False where E has no incomplete LU."
function take_double!(s::KrylovSystem)
    s.precise = true
    s.double === nothing && (s.double = Inner{Float64}(s.ordered, length(s.x)))
    return prepare_levels!(s.double::Inner{Float64}, s)
end

function solve_directly!(x, s::KrylovSystem, transposed::Bool)
    give_up!(s)
    refactor!(s.direct) || throw(SingularException(0))
    return transposed ? solve_transposed!(x, s.direct) : solve!(x, s.direct)
end

function give_up!(s::KrylovSystem)
    size(s.direct.E, 1) <= DIRECT_UNKNOWNS || throw(SingularException(0))
    s.gave_up = true
    return nothing
end
