# Discrete adjoint of an explicit Runge-Kutta method, Tsit5 (Tsitouras, Comput. Math. Appl. 62, 2011), in the same
# frame as the Rosenbrock methods: u_i = u_n + h Σ A_ij k_j, k_i = f(u_i), y(θ) = u_n + h Σ b_i(θ) k_i, u_{n+1} = y(1).

struct ExplicitTableau
    stages::Int
    A::M
    c::V
    D::M                        # b_i(θ) = θ Σ_r D[r, i] θ^(r-1)
end

needs_slopes(::ExplicitTableau) = false

function tableau(::Tsit5Cache)
    t = Tsit5ConstantCacheActual(Float64, Float64)
    A = [j < i ? getfield(t, Symbol(:a, i, j)) : 0.0 for i in 1:7, j in 1:7]
    r11, r12, r13, r14, r22, r23, r24, r32, r33, r34, r42, r43, r44, r52, r53, r54, r62, r63, r64, r72, r73, r74 =
        Tsit5Interp(Float64)
    D = [r11 0 0 0 0 0 0; r12 r22 r32 r42 r52 r62 r72; r13 r23 r33 r43 r53 r63 r73; r14 r24 r34 r44 r54 r64 r74]
    return ExplicitTableau(7, A, [0.0, t.c1, t.c2, t.c3, t.c4, 1.0, 1.0], D)
end

function copy_stages!(ks::V, offset::Int, cache::Tsit5Cache, ::Float64)
    n = length(cache.k1)
    for (i, k) in enumerate((cache.k1, cache.k2, cache.k3, cache.k4, cache.k5, cache.k6, cache.k7))
        copyto!(ks, offset + (i - 1) * n + 1, k, 1, n)
    end
    return nothing
end

@inline function weight(tab::ExplicitTableau, i::Int, theta::Float64)
    s = 0.0
    @inbounds for r in size(tab.D, 1):-1:1
        s = s * theta + tab.D[r, i]
    end
    return theta * s
end

function interpolate!(y::V, theta::Float64, tab::ExplicitTableau, u0, u1, ks, h::Float64, f0, f1)
    n = length(y)
    copyto!(y, u0)
    @inbounds for k in 1:tab.stages
        w = h * weight(tab, k, theta)
        for i in 1:n
            y[i] += w * ks[(k-1)*n+i]
        end
    end
    return nothing
end

function stage_state!(ui::V, a::AdjointSpace, tab::ExplicitTableau, i::Int, h::Float64)
    copyto!(ui, a.u0)
    @inbounds for j in 1:i-1
        w = h * tab.A[i, j]
        w == 0 && continue
        for r in eachindex(ui)
            ui[r] += w * a.ks[r, j]
        end
    end
    return nothing
end

start_step!(::AdjointSpace, ::ExplicitTableau, ::Model, ::Float64, ::Float64) = true

function compute_stages!(a::AdjointSpace, tab::ExplicitTableau, m::Model, t::Float64, h::Float64)
    for i in 1:tab.stages
        stage_state!(a.ui, a, tab, i, h)
        rhs!(a.mu, a.ui, m, t + tab.c[i] * h)
        copyto!(view(a.ks, :, i), a.mu)
    end
    return true
end

end_weight(tab::ExplicitTableau, i::Int, h::Float64) = h * tab.A[tab.stages, i]

function gather_outputs!(a::AdjointSpace, m::Model, tab::ExplicitTableau, t0::Float64, t1::Float64, ts::V, j::Int, g)
    h = t1 - t0
    fill!(a.lambda0, 0.0)
    fill!(a.kbar, 0.0)
    while j > 1 && ts[j] > t0
        gj = g(j)
        if ts[j] == t1
            a.lambda .+= gj
        else
            a.lambda0 .+= gj
            theta = (ts[j] - t0) / h
            @inbounds for i in 1:tab.stages
                w = h * weight(tab, i, theta)
                for r in eachindex(gj)
                    a.kbar[r, i] += w * gj[r]
                end
            end
        end
        j -= 1
    end
    # The step itself ends in stage 7: u_{n+1} = u_7.
    @inbounds for i in 1:tab.stages
        w = h * tab.A[tab.stages, i]
        for r in eachindex(a.lambda)
            a.kbar[r, i] += w * a.lambda[r]
        end
    end
    return j
end

# First same as last: k_1 of this step is k_7 of the step before, so its cotangent is left to that one, and a step costs
# six products, not seven. Only where the right-hand side jumps in between are the two different values.
function reverse_step!(a::AdjointSpace, m::Model, tab::ExplicitTableau, t::Float64, h::Float64)
    a.lambda .+= a.lambda0
    @inbounds for r in eachindex(a.carried)
        a.kbar[r, tab.stages] += a.carried[r]
    end
    for i in tab.stages:-1:2
        copyto!(a.mu, view(a.kbar, :, i))
        any(!iszero, a.mu) || continue
        stage_state!(a.ui, a, tab, i, h)
        fill!(a.ubar, 0.0)
        vjp!(a.ubar, a.mu, a.ui, m, t + tab.c[i] * h)
        a.lambda .+= a.ubar
        @inbounds for j in 1:i-1
            w = h * tab.A[i, j]
            for r in eachindex(a.ubar)
                a.kbar[r, j] += w * a.ubar[r]
            end
        end
    end
    copyto!(a.carried, view(a.kbar, :, 1))
    insorted(t, m.stops) && reverse_start!(a, m, tab, t)
    return nothing
end

"The slope at the start of a step, which no step before it shares."
function reverse_start!(a::AdjointSpace, m::Model, ::ExplicitTableau, t::Float64)
    any(!iszero, a.carried) || return nothing
    vjp!(a.lambda, a.carried, a.u0, m, t)
    fill!(a.carried, 0.0)
    return nothing
end
