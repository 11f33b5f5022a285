# Rosenbrock methods in one form: with E = I/(γh) - J(u_n, t_n),
#     E k_i = f(u_i, t_n + c_i h) + h d_i f_t + Σ_{j<i} (C_ij/h) k_j,   u_i = u_n + Σ_{j<i} A_ij k_j,
#     u_{n+1} = u_n + Σ b_i k_i,
# and between steps, for θ in [0, 1],
#     y(θ) = (1-θ) u_n + θ u_{n+1} + θ(1-θ) Σ_i (H_1i + θ H_2i + θ² H_3i + ...) k_i,
# or a cubic Hermite polynomial where the method has no H.
# (Hairer & Wanner, Solving Ordinary Differential Equations II, IV.7; Steinebach, BIT 63:27, 2023.)

struct Tableau
    stages::Int
    A::M
    C::M
    gamma::Float64
    c::V
    d::V
    b::V
    H::M                        # no rows: Hermite
end

function padded(C, s)
    out = zeros(s, s)
    out[axes(C)...] .= C
    return out
end

function tableau(cache::RosenbrockCache)
    tab = cache.tab
    s = length(cache.ks)
    H = cache.interp_order == -1 ? zeros(0, s) : Matrix{Float64}(tab.H)
    return Tableau(s, padded(tab.A, s), padded(tab.C, s), tab.gamma, tab.c, tab.d, tab.b, H)
end

# Shampine and Reichelt's method in the form above: k_1 = γh k₁ and k_2 = γh (k₂ - k₁) of theirs.
function tableau(::Rosenbrock23Cache)
    g = 1 / (2 + sqrt(2))
    return Tableau(2, [0.0 0.0; 1/(2g) 0.0], [0.0 0.0; -1/g 0.0], g, [0.0, 0.5], [g, 0.0], [1 / g, 1 / g],
                   [0.0 -1/((1 - 2g)*g)])
end

"Copy the stages of the step just taken into `ks`, n numbers a stage, from `offset` on."
function copy_stages!(ks::V, offset::Int, cache::RosenbrockCache, ::Float64)
    n = length(cache.du)
    for (i, k) in enumerate(cache.ks)
        copyto!(ks, offset + (i - 1) * n + 1, k, 1, n)
    end
    return nothing
end

function copy_stages!(ks::V, offset::Int, cache::Rosenbrock23Cache, h::Float64)
    n = length(cache.k₁)
    gh = h / (2 + sqrt(2))
    @inbounds for i in 1:n
        ks[offset+i] = gh * cache.k₁[i]
        ks[offset+n+i] = gh * (cache.k₂[i] - cache.k₁[i])
    end
    return nothing
end

"Weight of k_i in y(θ), beside the two end points."
@inline function weight(tab::Tableau, i::Int, theta::Float64)
    s = 0.0
    @inbounds for r in size(tab.H, 1):-1:1
        s = s * theta + tab.H[r, i]
    end
    return theta * (1 - theta) * s
end

"Whether the interpolant needs the right-hand side at both ends."
needs_slopes(tab::Tableau) = isempty(tab.H)

# Cubic Hermite polynomial: weights of u_n, u_{n+1}, h f_n and h f_{n+1}.
@inline function hermite(theta::Float64)
    q = theta * (theta - 1)
    return (1 - theta) - q * (1 - 2theta), theta + q * (1 - 2theta), q * (theta - 1), q * theta
end
