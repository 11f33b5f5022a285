# Tests of the Julia package by itself; the numbers are checked from Python against published ones.
# Run with the package on the load path: julia --project=ENV -e 'push!(LOAD_PATH, "julia"); include("julia/test/runtests.jl")'

using HybridSAMBridge, LinearAlgebra, Random, Test
const H = HybridSAMBridge

# Van der Pol, a forcing term and a parameter: all derivatives by hand.
const VDP = """
f!(du, u, c, p, t, w, k) = (du[1] += u[2]; du[2] += p[1] * (1 - u[1]^2) * u[2] - u[1] + sin(t); nothing)
jac!(J, u, c, p, t, w, k) = (J[1, 2] += 1.0; J[2, 1] += -2p[1] * u[1] * u[2] - 1; J[2, 2] += p[1] * (1 - u[1]^2); nothing)
tgrad!(dT, u, c, p, t, w, k) = (dT[2] += cos(t); nothing)
vjpu!(gu, v, u, c, p, t, w, k) = (gu[1] += v[2] * (-2p[1] * u[1] * u[2] - 1); gu[2] += v[1] + v[2] * p[1] * (1 - u[1]^2); nothing)
vjp!(gu, gc, gp, gt, v, u, c, p, t, w, k) = (vjpu!(gu, v, u, c, p, t, w, k); gp[1] += v[2] * (1 - u[1]^2) * u[2]; gt[1] += v[2] * cos(t); nothing)
function hvp!(gu, gc, gp, v, d, tau, u, c, p, t, w, k)
    gu[1] += v[2] * p[1] * (-2u[2] * d[1] - 2u[1] * d[2])
    gu[2] += v[2] * p[1] * (-2u[1] * d[1])
    gp[1] += v[2] * (-2u[1] * u[2] * d[1] + (1 - u[1]^2) * d[2])
    nothing
end
"""

function van_der_pol(mu)
    id = H.register_program(VDP, 0, true)
    plan = H.PLANS[H.register_plan(2, 0, 1, ((id, (0, 0), 1, (0, 0)),))]
    H.prepare!(plan, :f, :jac, :tgrad, :vjpu, :vjp, :hvp)
    return plan, H.Model(plan, [mu])
end

const FLAG = zeros(Int32, 1)
controls(; rtol = 1e-4, max_steps = 10^5) =
    H.Controls(rtol, [1e-7, 1e-7], max_steps, pointer(FLAG), true, 10^8, UInt64(0))

function forward(m, method, u0, ts; forced = Float64[], ctl = controls())
    ys = zeros(2, length(ts))
    tape, outcome = H.StepTape(), H.Outcome()
    alg = H.algorithm(method, 2)
    H.solve_steps!((j, u) -> ys[:, j] = u, alg, m, u0, ts, ctl, forced, tape, outcome)
    return ys, tape, outcome, alg
end

@testset "dense systems" begin
    Random.seed!(1)
    for n in (1, 2, 7, H.DENSE_GENERIC_LIMIT, H.DENSE_GENERIC_LIMIT + 1, 60)
        A, x = randn(n, n) + 3I, randn(n)
        E, pivots = copy(A), zeros(Int, n)
        @test H.factor!(E, pivots)
        @test (y = copy(x); H.solve!(y, E, pivots); A * y ≈ x)
        @test (y = copy(x); H.solve_transposed!(y, E, pivots); A' * y ≈ x)
    end
    @test !H.factor!([1.0 1.0; 1.0 1.0], zeros(Int, 2))
end

@testset "coefficients" begin
    _, m = van_der_pol(1.0)
    for method in keys(H.ROSENBROCK)
        tab = H.tableau_of(H.algorithm(method, 2), m)
        # One step of u' = λu must be the stability function, of order at least two: compare with exp.
        h, lambda = 1e-2, -1.0
        k = zeros(tab.stages)
        for i in 1:tab.stages
            u = 1 + sum(tab.A[i, j] * k[j] for j in 1:i-1; init = 0.0)
            k[i] = (lambda * u + sum(tab.C[i, j] / h * k[j] for j in 1:i-1; init = 0.0)) / (1 / (tab.gamma * h) - lambda)
        end
        @test 1 + dot(tab.b, k) ≈ exp(lambda * h) atol = h^3
    end
end

@testset "the reverse of the steps, $method" for method in ("Rodas5P", "Rodas4", "Rodas3", "Rosenbrock23", "Tsit5")
    plan, m = van_der_pol(5.0)
    u0, ts = [2.0, 0.1], [0.0, 0.11, 0.5, 1.3]
    ys, tape, outcome, alg = forward(m, method, u0, ts)
    @test outcome.status == H.SUCCESS
    forced = copy(tape.t)
    weights = [1.0 -2.0 0.5 3.0; 0.3 1.0 -1.0 2.0]
    loss(u0, mu) = dot(weights, forward(van_der_pol(mu)[2], method, u0, ts; forced)[1] .* [0 1 1 1; 0 1 1 1])
    tab = H.tableau_of(alg, m)
    space = H.AdjointSpace(tab isa H.Tableau ? H.DenseSystem(2) : H.NoSystem(), 2, tab.stages)
    grad = zeros(2)
    g(j) = j == 1 ? zeros(2) : weights[:, j]
    H.clear_accumulators!(m)
    status, _ = H.discrete_adjoint!(grad, m, tab, tape, ts, g, space, controls())
    @test status == H.SUCCESS
    h = 1e-5
    fd(f) = (8 * (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h
    # Fourth-order differences of frozen steps: truncation 1e-16, rounding 1e-11 relative.
    @test grad[1] ≈ fd(e -> loss(u0 + [e, 0], 5.0)) rtol = 1e-8
    @test grad[2] ≈ fd(e -> loss(u0 + [0, e], 5.0)) rtol = 1e-8
    @test m.parts[1].gp[1] ≈ fd(e -> loss(u0, 5.0 + e)) rtol = 1e-8
end

function reverse_all!(grad, m, tab, tape, ts, g::G, space, ctl) where {G}
    H.discrete_adjoint!(grad, m, tab, tape, ts, g, space, ctl)
    return @allocated H.discrete_adjoint!(grad, m, tab, tape, ts, g, space, ctl)
end

const ONES = ones(2)
constant_cotangent(j) = ONES

function step_allocations(m, alg, tape)
    prob = H.ODEProblem{true,H.FullSpecialize}(H.RHS, [2.0, 0.1], (0.0, 100.0), m)
    integrator = H.init(prob, alg; abstol = [1e-7, 1e-7], reltol = 1e-4, save_everystep = false, save_start = false,
                        save_end = false, dense = false, calck = false, verbose = H.QUIET)
    foreach(_ -> H.step!(integrator), 1:20)
    return @allocated foreach(_ -> H.step!(integrator), 1:100)
end

@testset "no allocation after warm-up" begin
    plan, m = van_der_pol(5.0)
    ts = [0.0, 0.5, 1.3]
    _, tape, _, alg = forward(m, "Rodas5P", [2.0, 0.1], ts)
    tab = H.tableau_of(alg, m)
    space = H.AdjointSpace(H.DenseSystem(2), 2, tab.stages)
    @test reverse_all!(zeros(2), m, tab, tape, ts, constant_cotangent, space, controls()) == 0
    # What is left is OrdinaryDiffEq's own: keyword arguments of its linear solve, 80 bytes at each factorization
    # whatever the size of the model (a rejected step counts twice). A model that allocated would add to it.
    @test step_allocations(m, alg, tape) <= 100 * 2 * 80
end

@testset "interruption and limits" begin
    _, m = van_der_pol(5.0)
    FLAG[1] = 6
    @test forward(m, "Rodas5P", [2.0, 0.1], [0.0, 1.0])[3].status == 6
    FLAG[1] = 0
    @test forward(m, "Rodas5P", [2.0, 0.1], [0.0, 1e3]; ctl = controls(max_steps = 7))[3].status == H.MAX_STEPS
end
