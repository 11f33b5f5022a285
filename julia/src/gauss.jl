# The continuous adjoint: λ' = -J(y(t), t)ᵀ λ backwards from output to output, with jumps of λ at outputs, and
# ∫ λᵀ f_p dt by Gauss-Legendre quadrature over each backward step. The parameters never enter the implicit
# solve, whose cost is that of n unknowns.

# Nodes and weights on [-1, 1]; exact to degree 7, above the order of the backward method.
const GAUSS_NODES = (-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526)
const GAUSS_WEIGHTS = (0.3478548451374538, 0.6521451548625461, 0.6521451548625461, 0.3478548451374538)

# λ's absolute tolerance as a share of its largest component, times rtol: components far below it matter
# little to any gradient, but stiff ones are of very different size.
const ADJOINT_ATOL_SHARE = 1e-3

const StateFn = FunctionWrapper{Nothing,Tuple{V,Float64}}

"What the backward right-hand side needs; its accumulators are scratch, not the gradient."
struct Backward
    m::Model
    state::StateFn              # y(t) of the forward solve
    y::V
    ydot::V
end

function backward_rhs!(dl::V, l::V, b::Backward, t::Float64)
    b.state(b.y, t)
    fill!(dl, 0.0)
    vjpu!(dl, l, b.y, b.m, t)
    dl .*= -1
    return nothing
end

function backward_jacobian!(J::M, l::V, b::Backward, t::Float64)
    b.state(b.y, t)
    jacobian!(J, b.y, b.m, t)
    n = length(l)
    @inbounds for j in 1:n, i in 1:j
        J[i, j], J[j, i] = -J[j, i], -J[i, j]
    end
    return nothing
end

# d/dt of -J(y(t), t)ᵀ λ, which by symmetry of second derivatives is -∇_u λᵀ(J y' + f_t).
function backward_tgrad!(dT::V, l::V, b::Backward, t::Float64)
    b.state(b.y, t)
    rhs!(b.ydot, b.y, b.m, t)
    fill!(dT, 0.0)
    hvp!(dT, l, b.ydot, 1.0, b.y, b.m, t)
    dT .*= -1
    return nothing
end

const BACKWARD = ODEFunction{true,FullSpecialize}(backward_rhs!; jac = backward_jacobian!, tgrad = backward_tgrad!)

"""
    gauss_adjoint!(grad, alg, m, scratch, state, ts, g, ctl) -> (status, time, steps)

As `discrete_adjoint!`, by a backward solve with `alg`; `state(y, t)` gives the forward solution.
"""
function gauss_adjoint!(grad::V, alg, m::Model, scratch::Model, state, ts::V, g, ctl::Controls)
    n = m.n
    b = Backward(scratch, StateFn(state), zeros(n), zeros(n))
    lambda = zeros(n)
    taken = 0
    for j in length(ts):-1:2
        lambda .+= g(j)
        any(!iszero, lambda) || continue
        upper = ts[j]
        for lower in [reverse(inside(m.stops, ts[j-1:j])); ts[j-1]]     # f may jump in between
            enter_step!(m, lower)
            enter_step!(scratch, lower)
            status, time, count = backward_segment!(alg, lambda, b, m, upper, lower, ctl)
            taken += count
            status == SUCCESS || return status, time, taken
            upper = lower
        end
    end
    grad .= lambda .+ g(1)
    return SUCCESS, ts[1], taken
end

function backward_segment!(alg, lambda::V, b::Backward, m::Model, from::Float64, to::Float64, ctl::Controls)
    prob = ODEProblem{true,FullSpecialize}(BACKWARD, lambda, (from, to), b)
    atol = fill(ADJOINT_ATOL_SHARE * ctl.rtol * maximum(abs, lambda), length(lambda))
    integrator = init(prob, alg; abstol = atol, reltol = ctl.rtol,
                      maxiters = ctl.max_steps, save_everystep = false, save_start = false, save_end = false,
                      dense = false, calck = true, verbose = QUIET)
    l, y, trash = similar(lambda), similar(lambda), similar(lambda)
    count = 0
    while integrator.t > to
        status = cancelled(ctl)
        status == SUCCESS && (status = status_of(step!(integrator)))
        status == SUCCESS && !all(isfinite, integrator.u) && (status = NON_FINITE)
        status == SUCCESS || return status, integrator.t, count
        count += 1
        middle, half = (integrator.tprev + integrator.t) / 2, (integrator.tprev - integrator.t) / 2
        for q in eachindex(GAUSS_NODES)
            t = middle + half * GAUSS_NODES[q]
            integrator(l, t)
            l .*= half * GAUSS_WEIGHTS[q]
            b.state(y, t)
            vjp!(trash, l, y, m, t)
        end
    end
    copyto!(lambda, integrator.u)
    return SUCCESS, to, count
end

"y(t) of a Rosenbrock solve by the method's interpolant; `a` holds the step at hand."
function step_state(tape::StepTape, tab, m::Model, a::AdjointSpace)
    current = Ref(0)
    return function (y::V, t::Float64)
        step = clamp(searchsortedlast(tape.t, t), 1, steps(tape))
        t0, t1 = tape.t[step], tape.t[step+1]
        if step != current[]
            limit = m.clock.limit   # that of the backward step, which this step may only touch
            load_step!(a, tape, tab, step, m) || fill!(a.ks, NaN)
            if needs_slopes(tab)
                rhs!(a.f0, a.u0, m, t0)
                rhs!(a.fbar1, a.u1, m, t1)
            end
            m.clock.limit = limit
            current[] = step
        end
        interpolate!(y, (t - t0) / (t1 - t0), tab, a.u0, a.u1, a.ks, t1 - t0, a.f0, a.fbar1)
        return nothing
    end
end

dense_state(tape::DenseTape) = (y::V, t::Float64) -> (tape.sol(y, t); nothing)
