# Systems whose factors would fill up: restarted GMRES. This file has the iteration and the incomplete LU, multigrid.jl the
# cycle that keeps the number of iterations independent of the grid, coarsening.jl what that cycle is made of.

# GMRES stops at this share of the right-hand side's (scaled) norm, given the tolerance of the steps, within these bounds.
# Rosenbrock methods keep their order, and the adjoint its agreement with differences, only while the stages are solved
# well beyond the tolerance of the step.
const KRYLOV_SHARE = 1e-4
const KRYLOV_RTOL = (1e-11, 1e-8)

# A stage's error is kept below this share of what the tolerance of the steps allows, also where the right-hand side is
# so large in a few places that the share above would not do; and no residual is asked to be smaller than rounding.
const STAGE_SHARE = 1e-3
const LEAST_RTOL = 1e-12

# More iterations than this are not worth it: a sparse LU takes over for the rest of the solve, if its factors of so
# many unknowns may fit into memory. Without it GMRES goes on for longer.
const KRYLOV_ITERATIONS = 100
const DIRECT_UNKNOWNS = 200_000
const KRYLOV_LAST_ITERATIONS = 1000

"At the start of a sample's steps: nothing of what was solved before is to be seen in the results."
begin_solve!(system, rtol::Float64, atol::V) = forget!(system)

function begin_solve!(s::KrylovSystem, rtol::Float64, atol::V)
    forget!(s)
    s.step_rtol, s.step_atol = rtol, atol
    s.rtol = clamp(KRYLOV_SHARE * rtol, KRYLOV_RTOL...)
    resize!(s.levels, 1)
    forget_factor!(s.direct)
    s.slow = s.gave_up = false
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
    E, diagonal = s.levels[1].E, s.levels[1].smoother.diagonal
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

function LinearAlgebra.ldiv!(y::V, P::IncompleteLU, x::V)
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

function LinearAlgebra.ldiv!(y::V, T::TransposedLU, x::V)
    P = T.parent
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
    values, entries = s.levels[1].E.nzval, s.direct.E.nzval
    @inbounds for k in eachindex(values)
        values[k] = entries[s.ordered.places.nzval[k]]
    end
    all(isfinite, values) || return false
    scale!(s)
    prepare_levels!(s) || give_up!(s)
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
    allowed = s.rtol * earlier.scale
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
    scaling = transposed ? s.columns : s.rows
    A, C = Operator(s.levels[1], scaling, transposed), Cycle(s.levels, scaling, s.depth, transposed)
    limit = length(s.x) <= DIRECT_UNKNOWNS ? KRYLOV_ITERATIONS : KRYLOV_LAST_ITERATIONS
    # The preconditioner on the right: the residual that is tested is that of the system itself. The flexible variant
    # keeps what the cycle returned, and so applies it once less.
    fgmres!(s.workspace, A, s.rhs; N = C, ldiv = true, atol = allowed, rtol = 0.0, restart = true, itmax = limit)
    s.slow |= s.workspace.stats.niter > SLOW_ITERATIONS
    s.workspace.stats.solved || return false
    correction = s.workspace.x
    axpy!(1.0, correction, s.x)
    mul!(s.rhs, A, correction)
    keep!(s.earlier, correction, s.rhs)
    return true
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
