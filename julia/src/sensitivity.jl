# Forward sensitivities of a Rosenbrock solve: the tangent of the steps that it accepted, for all columns of
# (u0, context, parameters) at once. Exact for the computed solution like the discrete adjoint; its cost grows
# with the number of columns, so it pays only where these are few. With E as in tableau.jl,
#     E k̇_i = J(u_i) u̇_i + f_θ(u_i) + Σ_{j<i} (C_ij/h) k̇_j + d[J(u_n) k_i + h d_i f_t(u_n)].

"Rows of the derivative of a part-wise right-hand side for u, context and p, read from the accumulators."
function read_row!(row::AbstractVector{Float64}, m::Model, plan::Plan, gu::V)
    flush!(m)
    n, nc = plan.n, plan.nc
    @inbounds for r in 1:n
        row[r] = gu[r]
    end
    @inbounds for r in 1:nc
        row[n+r] = m.gc[r]
    end
    for (part, q) in zip(plan.parts, m.parts), (to, from) in zip(part.range, eachindex(q.gp))
        row[n+nc+to] = q.gp[from]
    end
    return nothing
end

function clear_all!(m::Model, gu::V)
    clear_accumulators!(m)
    fill!(m.gc, 0.0)
    fill!(gu, 0.0)
    return nothing
end

"D[r, :] = gradient of f_r at (u, t); with a direction, of (J d + tau f_t)_r."
function derivative_rows!(D::M, u::V, m::Model, plan::Plan, t::Float64, a::AdjointSpace, direction, tau::Float64)
    for r in 1:m.n
        clear_all!(m, a.ubar)
        a.unit[r] = 1.0
        if direction === nothing
            vjp!(a.ubar, a.unit, u, m, t)
        else
            hvp!(a.ubar, a.unit, direction, tau, u, m, t)
        end
        a.unit[r] = 0.0
        read_row!(view(D, r, :), m, plan, a.ubar)
    end
    return nothing
end

# Chain rule: D's columns for u act on S, its other columns stand for the parameters themselves.
function push_forward!(out::AbstractMatrix{Float64}, D::M, S::AbstractMatrix{Float64}, n::Int)
    mul!(out, view(D, :, 1:n), S, 1.0, 1.0)
    columns = n+1:size(D, 2)
    @views out[:, columns] .+= D[:, columns]
    return nothing
end

"""
    forward_adjoint!(total, m, plan, tab, tape, ts, g, a, ctl) -> (status, time)

total += Σ_j S(ts_j)ᵀ g(j) over all outputs, in the order u0, context, p.
"""
function forward_adjoint!(total::V, m::Model, plan::Plan, tab::Tableau, tape::StepTape, ts::V, g, a::AdjointSpace,
                          ctl::Controls)
    n, s = plan.n, tab.stages
    columns = n + plan.nc + plan.np
    S0, S1, Si, D = (zeros(n, columns) for _ in 1:4)
    K = [zeros(n, columns) for _ in 1:s]
    F0, F1 = zeros(n, columns), zeros(n, columns)
    for r in 1:n
        S0[r, r] = 1.0
    end
    mul!(total, S0', g(1), 1.0, 1.0)
    j = 2
    for step in 1:steps(tape)
        status = cancelled(ctl)
        status == SUCCESS || return status, tape.t[step]
        t0, t1 = tape.t[step], tape.t[step+1]
        h = t1 - t0
        load_step!(a, tape, tab, step, m) || return NONLINEAR_SOLVER, t0
        for i in 1:s
            copyto!(Si, S0)
            for q in 1:i-1
                tab.A[i, q] == 0 || (Si .+= tab.A[i, q] .* K[q])
            end
            fill!(K[i], 0.0)
            stage_state!(a.ui, a, tab, i, h)
            derivative_rows!(D, a.ui, m, plan, t0 + tab.c[i] * h, a, nothing, 0.0)
            push_forward!(K[i], D, Si, n)
            copyto!(a.direction, view(a.ks, :, i))
            derivative_rows!(D, a.u0, m, plan, t0, a, a.direction, h * tab.d[i])
            push_forward!(K[i], D, S0, n)
            for q in 1:i-1
                K[i] .+= (tab.C[i, q] / h) .* K[q]
            end
            for column in eachcol(K[i])
                solve!(column, a.system)
            end
        end
        copyto!(S1, S0)
        for i in 1:s
            S1 .+= tab.b[i] .* K[i]
        end
        if isempty(tab.H) && j <= length(ts) && ts[j] < t1
            for (F, u, t, S) in ((F0, a.u0, t0, S0), (F1, a.u1, t1, S1))
                fill!(F, 0.0)
                derivative_rows!(D, u, m, plan, t, a, nothing, 0.0)
                push_forward!(F, D, S, n)
            end
        end
        while j <= length(ts) && ts[j] <= t1
            interpolate_sensitivity!(Si, ts[j] == t1 ? 1.0 : (ts[j] - t0) / h, tab, S0, S1, K, h, F0, F1)
            mul!(total, Si', g(j), 1.0, 1.0)
            j += 1
        end
        S0, S1 = S1, S0
    end
    return SUCCESS, ts[end]
end

function interpolate_sensitivity!(out::M, theta::Float64, tab::Tableau, S0::M, S1::M, K, h::Float64, F0::M, F1::M)
    if theta == 1
        copyto!(out, S1)
    elseif isempty(tab.H)
        a0, a1, b0, b1 = hermite(theta)
        out .= a0 .* S0 .+ a1 .* S1 .+ h .* (b0 .* F0 .+ b1 .* F1)
    else
        out .= (1 - theta) .* S0 .+ theta .* S1
        for i in eachindex(K)
            out .+= weight(tab, i, theta) .* K[i]
        end
    end
    return nothing
end
