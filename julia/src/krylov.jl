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

"Run `work` with the threads that may work on the system."
with_helpers(work, system) = work()
with_helpers(work, s::KrylovSystem) = with_helpers(work, s.split.crew)

"work(range) for ranges that make up 1:count, on those threads."
each_share(work::F, count::Int, system::System) where {F} =
    system isa KrylovSystem ? each_share(work, count, system.split.crew) : work(1:count)

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

"What a helper needs to evaluate columns of the Jacobian of `model`."
struct Probe
    model::Model
    twin::Model
    seed::V
    product::V
end
Probe(m::Model) = Probe(m, twin(m), zeros(m.n), zeros(m.n))

function evaluate!(s::KrylovSystem, u::V, m::Model, t::Float64)
    J, crew = s.jacobian, s.split.crew
    moved!(J.seen, t) || return nothing
    if length(s.probes) != crew.size - 1 || any(probe -> (probe::Probe).model !== m, s.probes)
        copy!(s.probes, [Probe(m) for _ in 2:crew.size])
    end
    each_member(crew) do rank
        groups = portion(length(J.pattern.groups), rank, crew.size)
        if rank == 1
            evaluate_groups!(J, J.seed, J.product, groups, u, m, t)
        else
            probe = s.probes[rank-1]::Probe
            evaluate_groups!(J, probe.seed, probe.product, groups, u, probe.twin, t)
        end
    end
    each_rows(s.split) do rows
        @inbounds for i in rows
            s.size[i] = abs(u[s.ordered.order[i]])
        end
    end
    return nothing
end

"""
Scale residuals of E x = b by what they are made of, |E| |u| (Skeel, J. ACM 26, 1979), so that unknowns of any unit and
equations of any speed count alike; those of the transpose, where b is a cotangent of u, by the size of u.
"""
function scale!(s::KrylovSystem)
    E, diagonal, bands = s.E, s.diagonal, s.ordered.bands
    sums, sizes = s.rows.inverse, s.columns.factor
    each_rows(s.split) do rows
        @inbounds for i in rows
            sums[i] = abs(E.nzval[diagonal[i]]) * s.step_atol[s.ordered.order[i]] / s.step_rtol
        end
    end
    if bands === nothing
        @inbounds for j in axes(E, 2), k in nzrange(E, j)
            sums[E.rowval[k]] += abs(E.nzval[k]) * s.size[j]
        end
    else
        each_part(part -> add_absolute_runs!(sums, bands.matrix, part, s.matrix, s.size), s.split.crew)
    end
    each_rows(s.split) do rows
        @inbounds for i in rows
            sums[i] > 0 || (sums[i] = 1.0)
            d = abs(E.nzval[diagonal[i]])
            sizes[i] = d > 0 ? sums[i] / d : 1.0
            s.rows.factor[i] = 1 / sums[i]
            s.columns.inverse[i] = 1 / sizes[i]
        end
    end
    return nothing
end

"Newton's method: each right-hand side is a residual that counts by its own size."
forget_scale!(system) = nothing
forget_scale!(s::KrylovSystem) = (s.earlier.scale = 0.0; nothing)

"Whether a sparse LU had to take over."
gave_up(system) = false
gave_up(s::KrylovSystem) = s.gave_up

function factor!(s::KrylovSystem, m::Model, r::Float64)
    s.gave_up && return factor!(s.direct, m, r)
    forget!(s.earlier)
    fill_matrix!(s, m.mass, r) || return false
    prepare!(s) || give_up!(s)
    return !s.gave_up || refactor!(s.direct)
end

"E = r M - J in the system's order. False where a number is not finite."
function fill_matrix!(s::KrylovSystem, ::Nothing, r::Float64)
    values, J, place, crew = s.E.nzval, s.jacobian.values, s.ordered.places.nzval, s.split.crew
    each_part(crew) do part
        finite = true
        @inbounds for k in portion(length(values), part, length(crew.sums))
            values[k] = -J[place[k]]
            finite &= isfinite(values[k])
        end
        crew.sums[part] = finite
    end
    each_rows(s.split) do rows
        @inbounds for i in rows
            values[s.diagonal[i]] += r
        end
    end
    return isfinite(r) && all(==(1), crew.sums)
end

function fill_matrix!(s::KrylovSystem, mass::Sparse, r::Float64)
    fill_matrix!(s.direct.E, s.jacobian, mass, r)
    gather!(s.E.nzval, s.direct.E.nzval, s.ordered.places.nzval, s.split.crew)
    return all(isfinite, s.E.nzval)
end

function prepare!(s::KrylovSystem)
    crew = s.split.crew
    bands = s.ordered.bands
    bands === nothing || gather!(s.matrix, s.E.nzval, bands.matrix.source, crew)
    scale!(s)
    return !s.precise && prepare_levels!(s.single, s) || take_double!(s)
end

solve!(x, s::KrylovSystem) = s.gave_up ? solve!(x, s.direct) : iterate!(x, s, false)
solve_transposed!(x, s::KrylovSystem) = s.gave_up ? solve_transposed!(x, s.direct) : iterate!(x, s, true)

iterate!(x, s::KrylovSystem, transposed::Bool) =
    try_iterate!(x, s, transposed) ? nothing : solve_directly!(x, s, transposed)

"x = E⁻¹ x, or transposed. False, with x as it was, if that takes too long."
function try_iterate!(x, s::KrylovSystem, transposed::Bool)
    split, earlier, order = s.split, s.earlier, s.ordered.order
    factor = (transposed ? s.columns : s.rows).factor
    earlier.transposed == transposed || forget!(earlier)
    earlier.transposed = transposed
    each_rows(split) do rows
        @inbounds for i in rows
            s.rhs[i] = factor[i] * x[order[i]]
        end
    end
    # All stages of a step enter the next state alike, so their errors are measured by the largest of them.
    earlier.scale = max(earlier.scale, length_of(s.rhs, split))
    allowed = allowed_residual(s, transposed, length(x))
    guess!(s.x, s.rhs, earlier, split)
    residual = length_of(s.rhs, split)
    residual > allowed && !correct!(s, transposed, residual, allowed) && return false
    each_rows(split) do rows
        @inbounds for i in rows
            x[order[i]] = s.x[i]
        end
    end
    return true
end

"The norm at which a residual is small enough."
function allowed_residual(s::KrylovSystem, transposed::Bool, n::Int)
    share = s.given ? 0.0 : transposed ? ADJOINT_SHARE : FORWARD_SHARE
    allowed = clamp(share * s.step_rtol, KRYLOV_RTOL...) * s.earlier.scale
    transposed || (allowed = min(allowed, STAGE_SHARE * s.step_rtol * sqrt(n)))
    return max(allowed, LEAST_RTOL * s.earlier.scale)
end

"s.x += E⁻¹ s.rhs up to a residual of norm `allowed`. False if that takes too long."
function correct!(s::KrylovSystem, transposed::Bool, residual::Float64, allowed::Float64)
    limit = length(s.x) <= DIRECT_UNKNOWNS ? KRYLOV_ITERATIONS : KRYLOV_LAST_ITERATIONS
    solution = begin_next!(s.earlier, s.rhs, s.split)
    s.iterations = 0
    while residual > allowed
        s.iterations < limit || return false
        share = allowed / residual
        residual = s.precise ? pass!(solution, s, s.double::Inner{Float64}, transposed, residual, share, limit) :
                   pass!(solution, s, s.single, transposed, residual, share, limit)
    end
    add!(s.x, 1.0, solution, s.split)
    keep_next!(s.earlier, s.rhs, s.split)
    return true
end

"""
One pass of refinement, in k's precision, towards `share` of the residual in s.rhs, whose norm is `before`: solution += the
correction found, and its image is taken from s.rhs. Returns the norm of what is left.
"""
function pass!(solution::V, s::KrylovSystem, k::Inner, transposed::Bool, before::Float64, share::Float64, limit::Int)
    expected, count = gmres!(k, s.rhs, pass_share(k, share), limit - s.iterations, transposed)
    s.iterations += count
    k.slow |= s.iterations > SLOW_ITERATIONS
    copy_rows!(s.correction, k.correction, s.split)
    left = residual!(s.image, s, s.correction, transposed)
    left <= max(POOR_SHARE, 2expected) * before || s.precise || take_double!(s)     # NaN too
    left < before || return before
    each_rows(s.split) do rows
        add!(solution, 1.0, s.correction, rows)
        copy_rows!(s.rhs, s.image, rows)
    end
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
    bands, split, factor = s.ordered.bands, s.split, (transposed ? s.columns : s.rows).factor
    if bands === nothing
        fill!(y, 0.0)
        transposed ? mul!(y, transpose(s.E), x, -1.0, 1.0) : mul!(y, s.E, x, -1.0, 1.0)
        each_rows(rows -> multiply_add!(y, factor, s.rhs, rows), split)
    else
        each_part(split.crew) do part
            foreach(rows -> fill_rows!(y, 0.0, rows), split.rows[part])
            add_runs!(y, bands.matrix, part, s.matrix, x, -1.0, transposed)
            foreach(rows -> multiply_add!(y, factor, s.rhs, rows), split.rows[part])
        end
    end
    return length_of(y, split)
end

"Double precision from here to the end of the solve. False where E has no incomplete LU."
function take_double!(s::KrylovSystem)
    s.precise = true
    s.double === nothing && (s.double = Inner{Float64}(s.ordered, s.split, s.diagonal, length(s.x)))
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
    for (k, place) in enumerate(s.ordered.places.nzval)
        s.direct.E.nzval[place] = s.E.nzval[k]
    end
    return nothing
end
