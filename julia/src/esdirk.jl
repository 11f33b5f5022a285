# Discrete adjoint of singly diagonally implicit methods with an explicit first stage (KenCarp4, Kvaerno5 and their kin),
# in implicit form: z_i = h f(u_i, t_n + c_i h), u_i = u_n + Σ_{j<=i} A_ij z_j, u_{n+1} = u_n + Σ b_i z_i, and between
# steps a cubic Hermite polynomial with h f_n = z_1, h f_{n+1} = z_s (Kennedy & Carpenter, NASA/TM-2016-219173).
#
# The reverse takes every stage as solved exactly: with E_i = I/(γh) - J(u_i),
#     μ_i = E_i⁻ᵀ z̄_i / γ,  ū_i = J(u_i)ᵀ μ_i,  p̄ += f_p(u_i)ᵀ μ_i,  z̄_j += A_ij ū_i  for j < i.
# A factorisation a stage, and no second derivatives.

struct ESDIRKTableau
    stages::Int
    A::M
    b::V
    c::V
    gamma::Float64
end

needs_slopes(::ESDIRKTableau) = false

function interpolate!(y::V, theta::Float64, tab::ESDIRKTableau, u0, u1, zs, h::Float64, f0, f1)
    n = length(y)
    a0, a1, b0, b1 = hermite(theta)
    last = (tab.stages - 1) * n
    @inbounds for i in 1:n
        y[i] = a0 * u0[i] + a1 * u1[i] + b0 * zs[i] + b1 * zs[last+i]
    end
    return nothing
end

function stage_state!(ui::V, a::AdjointSpace, tab::ESDIRKTableau, i::Int, ::Float64)
    copyto!(ui, a.u0)
    for j in 1:i
        tab.A[i, j] == 0 || axpy!(tab.A[i, j], view(a.ks, :, j), ui)
    end
    return nothing
end

start_step!(::AdjointSpace, ::ESDIRKTableau, ::Model, ::Float64, ::Float64) = true

# Newton's method to rounding, with a Jacobian of every stage: what the reverse takes as solved exactly.
const NEWTON_STEPS = 20
const NEWTON_RTOL = 1e-13

function compute_stages!(a::AdjointSpace, tab::ESDIRKTableau, m::Model, t::Float64, h::Float64)
    rhs!(a.mu, a.u0, m, t)
    a.ks[:, 1] .= h .* a.mu
    for i in 2:tab.stages
        z = view(a.ks, :, i)
        copyto!(z, view(a.ks, :, i - 1))
        solved = false
        for _ in 1:NEWTON_STEPS
            stage_state!(a.ui, a, tab, i, h)
            factor_stage!(a, tab, m, t + tab.c[i] * h, h) || return false
            rhs!(a.mu, a.ui, m, t + tab.c[i] * h)
            a.mu .= (a.mu .- z ./ h) ./ tab.gamma
            solve!(a.mu, a.system)
            z .+= a.mu
            solved = maximum(abs, a.mu) <= NEWTON_RTOL * (maximum(abs, z) + maximum(abs, a.u0))
            solved && break
        end
        solved || return false
    end
    return true
end

"Factor E at the stage's own state a.ui."
function factor_stage!(a::AdjointSpace, tab::ESDIRKTableau, m::Model, t::Float64, h::Float64)
    forget!(a.system)           # stages may share a time
    return assemble!(a.system, a.ui, m, t, 1 / (tab.gamma * h))
end

end_weight(tab::ESDIRKTableau, i::Int, ::Float64) = tab.b[i]

function gather_outputs!(a::AdjointSpace, m::Model, tab::ESDIRKTableau, t0::Float64, t1::Float64, ts::V, j::Int, g)
    h = t1 - t0
    fill!(a.lambda0, 0.0)
    fill!(a.kbar, 0.0)
    while j > 1 && ts[j] > t0
        gj = g(j)
        a0, a1, b0, b1 = hermite(ts[j] == t1 ? 1.0 : (ts[j] - t0) / h)
        axpy!(a1, gj, a.lambda)
        axpy!(a0, gj, a.lambda0)
        axpy!(b0, gj, view(a.kbar, :, 1))
        axpy!(b1, gj, view(a.kbar, :, tab.stages))
        j -= 1
    end
    for i in 1:tab.stages
        axpy!(tab.b[i], a.lambda, view(a.kbar, :, i))
    end
    return j
end

function reverse_step!(a::AdjointSpace, m::Model, tab::ESDIRKTableau, t::Float64, h::Float64)
    a.lambda .+= a.lambda0
    for i in tab.stages:-1:2
        copyto!(a.mu, view(a.kbar, :, i))
        stage_state!(a.ui, a, tab, i, h)
        factor_stage!(a, tab, m, t + tab.c[i] * h, h) || throw(SingularException(i))
        solve_transposed!(a.mu, a.system)
        a.mu ./= tab.gamma
        fill!(a.ubar, 0.0)
        vjp!(a.ubar, a.mu, a.ui, m, t + tab.c[i] * h)
        a.lambda .+= a.ubar
        for j in 1:i-1
            tab.A[i, j] == 0 || axpy!(tab.A[i, j], a.ubar, view(a.kbar, :, j))
        end
    end
    a.mu .= h .* view(a.kbar, :, 1)
    fill!(a.ubar, 0.0)
    vjp!(a.ubar, a.mu, a.u0, m, t)
    a.lambda .+= a.ubar
    return nothing
end

"Any method whose steps can be reversed."
const ReversibleTableau = Union{Tableau,ExplicitTableau,ESDIRKTableau}
