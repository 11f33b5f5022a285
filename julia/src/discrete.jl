# The discrete adjoint of a Rosenbrock method: the reverse of the steps that the forward solve accepted.
#
# Given λ, the cotangent of u_{n+1}, a step's reverse is (E as in tableau.jl, J at (u_n, t_n)):
#     k̄_i = b_i λ;  for i = s..1:  μ_i = E⁻ᵀ k̄_i,  ū_i = J(u_i)ᵀ μ_i,  p̄ += f_p(u_i)ᵀ μ_i,
#                   and for j < i:  k̄_j += A_ij ū_i + (C_ij/h) Mᵀ μ_i;
#     λ += Σ ū_i + ∇_u s,  p̄ += ∇_p s   with  s = Σ_i μ_iᵀ (J(u_n) k_i + h d_i f_t(u_n)).
# Outputs between steps enter k̄ and the cotangents of both ends through the interpolant's weights.

"States of the steps from `start` on, computed again because the tape left them out."
mutable struct Block
    states::V
    start::Int                  # number of the first state, -1: none
end

"Memory for the reverse of one sample's steps."
struct AdjointSpace
    system::System
    ks::M
    kbar::M
    u0::V
    u1::V
    ui::V
    ubar::V
    mu::V
    mass_mu::V
    lambda::V
    lambda0::V
    direction::V
    unit::V
    mt::V
    f0::V
    fbar0::V
    fbar1::V
    carried::V                  # cotangent of the slope that a step shares with the one before (explicit methods)
    Z::M
    block::Block
end
AdjointSpace(system, n, s) = AdjointSpace(system, zeros(n, s), zeros(n, s), (zeros(n) for _ in 1:15)...,
                                          n < s ? zeros(n, n) : zeros(0, 0), Block(V(), -1))

stage_state!(ui::V, a::AdjointSpace, tab::Tableau, i::Int, ::Float64) =
    each_share(rows -> stage_state!(ui, a, tab, i, rows), length(ui), a.system)

function stage_state!(ui::V, a::AdjointSpace, tab::Tableau, i::Int, rows::UnitRange{Int})
    @inbounds for r in rows
        ui[r] = a.u0[r]
    end
    @inbounds for j in 1:i-1
        c = tab.A[i, j]
        c == 0 && continue
        for r in rows
            ui[r] += c * a.ks[r, j]
        end
    end
    return nothing
end

"k̄_j += A_ij ū_i + (C_ij/h) Mᵀ μ_i for j < i, in some rows."
function add_to_earlier!(a::AdjointSpace, tab::Tableau, i::Int, h::Float64, rows::UnitRange{Int})
    @inbounds for j in 1:i-1
        A, C = tab.A[i, j], tab.C[i, j] / h
        for r in rows
            a.kbar[r, j] += A * a.ubar[r] + C * a.mass_mu[r]
        end
    end
    return nothing
end

"What a step from a.u0 needs before its stages: the factors of E. False if it is singular."
start_step!(a::AdjointSpace, tab::Tableau, m::Model, t::Float64, h::Float64) =
    assemble!(a.system, a.u0, m, t, 1 / (tab.gamma * h))

"The stages of the step from a.u0 again, where the tape did not keep them. False if they cannot be computed."
function compute_stages!(a::AdjointSpace, tab::Tableau, m::Model, t::Float64, h::Float64)
    tgrad!(a.mt, a.u0, m, t)
    for i in 1:tab.stages
        stage_state!(a.ui, a, tab, i, h)
        rhs!(a.mu, a.ui, m, t + tab.c[i] * h)
        @inbounds for r in eachindex(a.mu)
            s = 0.0
            for j in 1:i-1
                s += tab.C[i, j] / h * a.ks[r, j]
            end
            a.ubar[r] = s
            a.mu[r] += h * tab.d[i] * a.mt[r]
        end
        add_product!(a.mu, m.mass, a.ubar, 1.0)
        solve!(a.mu, a.system)
        copyto!(view(a.ks, :, i), a.mu)
    end
    return true
end

"Weight of stage i in u_{n+1} - u_n."
end_weight(tab::Tableau, i::Int, ::Float64) = tab.b[i]

"Bring step number `step` back: both ends, stages, and for implicit methods the factors of its matrix."
function load_step!(a::AdjointSpace, tape::StepTape, tab, step::Int, m::Model)
    n = m.n
    load_states!(a, tape, tab, step, m) || return false
    t, h = tape.t[step], tape.t[step+1] - tape.t[step]
    enter_step!(m, t)
    start_step!(a, tab, m, t, h) || return false
    tape.full || return compute_stages!(a, tab, m, t, h)
    copyto!(a.ks, 1, tape.ks, (step - 1) * n * tab.stages + 1, n * tab.stages)
    return true
end

function load_states!(a::AdjointSpace, tape::StepTape, tab, step::Int, m::Model)
    n = m.n
    if tape.stride == 1
        copyto!(a.u0, 1, tape.u, (step - 1) * n + 1, n)
        copyto!(a.u1, 1, tape.u, step * n + 1, n)
        return true
    end
    start = (step - 1) ÷ tape.stride * tape.stride
    a.block.start == start || compute_block!(a, tape, tab, start, m) || return false
    copyto!(a.u0, 1, a.block.states, (step - 1 - start) * n + 1, n)
    copyto!(a.u1, 1, a.block.states, (step - start) * n + 1, n)
    return true
end

"States from number `start`, which the tape kept, to the next that it kept."
function compute_block!(a::AdjointSpace, tape::StepTape, tab, start::Int, m::Model)
    n, count = m.n, min(tape.stride, steps(tape) - start)
    states = resize!(a.block.states, n * (count + 1))
    copyto!(states, 1, tape.u, start ÷ tape.stride * n + 1, n)
    for q in 1:count
        t, h = tape.t[start+q], tape.t[start+q+1] - tape.t[start+q]
        copyto!(a.u0, 1, states, (q - 1) * n + 1, n)
        enter_step!(m, t)
        start_step!(a, tab, m, t, h) && compute_stages!(a, tab, m, t, h) || return false
        copyto!(a.u1, a.u0)
        for i in 1:tab.stages
            axpy!(end_weight(tab, i, h), view(a.ks, :, i), a.u1)
        end
        copyto!(states, q * n + 1, a.u1, 1, n)
    end
    a.block.start = start
    return true
end

"""
    discrete_adjoint!(grad, m, tab, tape, ts, g, a, ctl) -> (status, time)

Cotangent of the initial state into `grad`; those of context and parameters into the model's accumulators.
`g(j)` is a view of the cotangent of output j.
"""
function discrete_adjoint!(grad::V, m::Model, tab, tape::StepTape, ts::V, g, a::AdjointSpace, ctl::Controls)
    fill!(a.lambda, 0.0)
    fill!(a.carried, 0.0)
    j = length(ts)
    for step in steps(tape):-1:1
        status = cancelled(ctl)
        status == SUCCESS || return status, tape.t[step+1]
        t0, t1 = tape.t[step], tape.t[step+1]
        load_step!(a, tape, tab, step, m) || return NONLINEAR_SOLVER, t0
        j = gather_outputs!(a, m, tab, t0, t1, ts, j, g)
        reverse_step!(a, m, tab, t0, t1 - t0)
        all(isfinite, a.lambda) || return NON_FINITE, t0
    end
    reverse_start!(a, m, tab, ts[1])
    all(isfinite, a.lambda) || return NON_FINITE, ts[1]
    first_output = g(1)
    @inbounds for r in eachindex(grad)
        grad[r] = a.lambda[r] + first_output[r]
    end
    return SUCCESS, ts[1]
end

reverse_start!(::AdjointSpace, ::Model, _, ::Float64) = nothing

# Cotangents of the outputs in (t0, t1]: into λ (for u_{n+1}), λ0 (for u_n), and k̄. Returns the next output.
function gather_outputs!(a::AdjointSpace, m::Model, tab::Tableau, t0::Float64, t1::Float64, ts::V, j::Int, g)
    h = t1 - t0
    use_hermite = isempty(tab.H)
    fill!(a.lambda0, 0.0)
    fill!(a.fbar0, 0.0)
    fill!(a.fbar1, 0.0)
    first = j
    inside = false
    while j > 1 && ts[j] > t0
        gj = g(j)
        theta = ts[j] == t1 ? 1.0 : (ts[j] - t0) / h
        inside |= theta < 1
        a0, a1, b0, b1 = use_hermite ? hermite(theta) : (1 - theta, theta, 0.0, 0.0)
        @inbounds for r in eachindex(a.lambda)
            a.lambda[r] += a1 * gj[r]
            a.lambda0[r] += a0 * gj[r]
            a.fbar0[r] += h * b0 * gj[r]
            a.fbar1[r] += h * b1 * gj[r]
        end
        j -= 1
    end
    if use_hermite && inside
        vjp!(a.lambda, a.fbar1, a.u1, m, t1)
        vjp!(a.lambda0, a.fbar0, a.u0, m, t0)
    end
    @inbounds for i in 1:tab.stages, r in eachindex(a.lambda)
        a.kbar[r, i] = tab.b[i] * a.lambda[r]
    end
    if inside && !use_hermite
        for jj in first:-1:j+1
            ts[jj] < t1 || continue
            gj, theta = g(jj), (ts[jj] - t0) / h
            @inbounds for i in 1:tab.stages
                w = weight(tab, i, theta)
                for r in eachindex(a.lambda)
                    a.kbar[r, i] += w * gj[r]
                end
            end
        end
    end
    return j
end

# λ of u_{n+1} becomes λ of u_n.
function reverse_step!(a::AdjointSpace, m::Model, tab::Tableau, t::Float64, h::Float64)
    n, s = m.n, tab.stages
    a.lambda .+= a.lambda0
    fill!(a.mt, 0.0)
    fill!(a.Z, 0.0)
    low_rank = !isempty(a.Z)    # n < s: then Σ k_i μ_iᵀ is summed first: n products with J's derivative, not s
    for i in s:-1:1
        copyto!(a.mu, view(a.kbar, :, i))
        solve_transposed!(a.mu, a.system)
        stage_state!(a.ui, a, tab, i, h)
        fill!(a.ubar, 0.0)
        vjp!(a.ubar, a.mu, a.ui, m, t + tab.c[i] * h)
        fill!(a.mass_mu, 0.0)
        add_transposed_product!(a.mass_mu, m.mass, a.mu, 1.0)
        each_share(rows -> add_to_earlier!(a, tab, i, h, rows), n, a.system)
        a.lambda .+= a.ubar
        d = h * tab.d[i]
        if low_rank
            @inbounds for q in 1:n, r in 1:n
                a.Z[r, q] += a.ks[r, i] * a.mu[q]
            end
            @inbounds for r in 1:n
                a.mt[r] += d * a.mu[r]
            end
        else
            copyto!(a.direction, view(a.ks, :, i))
            hvp!(a.lambda, a.mu, a.direction, d, a.u0, m, t)
        end
    end
    low_rank || return nothing
    for q in 1:n
        copyto!(a.direction, view(a.Z, :, q))
        a.unit[q] = 1.0
        hvp!(a.lambda, a.unit, a.direction, 0.0, a.u0, m, t)
        a.unit[q] = 0.0
    end
    if m.time_dependent
        fill!(a.direction, 0.0)
        hvp!(a.lambda, a.mt, a.direction, 1.0, a.u0, m, t)
    end
    return nothing
end
