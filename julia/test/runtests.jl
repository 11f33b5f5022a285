# Tests of the Julia package by itself; the numbers are checked from Python against published ones.
# Run by tests/test_julia_package.py, with julia/ and julia/implicit/ on the load path.

using HybridSAMBridge, HybridSAMBridgeImplicit, LinearAlgebra, Random, SparseArrays, Test
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

function van_der_pol(mu, code = VDP)
    id = H.register_program(code, 0, true)
    none = (0, 0)
    plan = H.PLANS[H.register_plan(2, 0, 1, ((id, none, 1, none),), "dense", (none, none), (none, none, none), none)]
    H.prepare!(plan, :f, :jac, :tgrad, :vjpu, :vjp, :hvp)
    return plan, H.Model(plan, [mu], H.DenseSystem(2))
end

const ONES = ones(2)
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

# Diffusion on a line with a reaction; E = 3 M - J against LinearAlgebra's own.
@testset "sparse systems, $name" for (name, System) in (("lu", H.SparseSystem), ("krylov", H.KrylovSystem))
    Random.seed!(1)
    n = 40
    rows, columns = [1:n-1; 2:n], [2:n; 1:n-1]
    J = SparseArrays.spdiagm(-1 => randn(n - 1), 0 => randn(n) .- 4, 1 => randn(n - 1))
    pattern = H.Pattern(n, rows, columns)
    @test length(pattern.groups) == 3       # the fewest that a tridiagonal matrix allows
    jvp!(jd, d, u, c, p, t, w, k) = (mul!(jd, J, d, 1.0, 1.0); nothing)
    functions = H.Functions(Dict{Symbol,Any}(:jvp => jvp!), 0, false)
    for mass in (nothing, SparseArrays.spdiagm(0 => [ones(n - 2); 0.0; 2.0], 1 => fill(0.1, n - 1)))
        plan = H.Plan(n, 0, 0, [H.Part(functions, Float64[], 1:0, Float64[])], pattern, "sparse", mass, Float64[])
        H.prepare!(plan, :jvp)
        system = System(pattern, n)
        m = H.Model(plan, Float64[], system)
        H.begin_solve!(system, 1e-6, fill(1e-9, n))
        @test H.assemble!(system, ones(n), m, 0.0, 3.0)
        E = 3 * Matrix(mass === nothing ? I(n) : mass) - J
        x = randn(n)
        # GMRES stops at a relative residual of 1e-10; E's condition is below 100.
        @test (y = copy(x); H.solve!(y, system); isapprox(E * y, x; rtol = 1e-8))
        @test (y = copy(x); H.solve_transposed!(y, system); isapprox(E' * y, x; rtol = 1e-8))
    end
end

@testset "coefficients" begin
    for method in keys(H.ROSENBROCK)
        tab = H.tableau_of(H.algorithm(method, 2))
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
    tab = H.tableau_of(alg)
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

@testset "a slope that two steps share is pulled back once" begin
    counting = "const CALLS = Ref(0)\n" * replace(VDP, "\nvjp!" => "\nproduct!") *
               "vjp!(arguments...) = (CALLS[] += 1; product!(arguments...))\n"
    _, m = van_der_pol(5.0, counting)
    ts = [0.0, 0.11, 0.5, 1.3]
    _, tape, _, alg = forward(m, "Tsit5", [2.0, 0.1], ts)
    tab = H.tableau_of(alg)
    space = H.AdjointSpace(H.NoSystem(), 2, tab.stages)
    H.discrete_adjoint!(zeros(2), m, tab, tape, ts, _ -> ONES, space, controls())
    # Seven stages a step less the shared ones; the last stage of all counts for nothing where no output lies inside.
    n = H.steps(tape)
    @test n > 5
    @test 6n <= H.MODULES[end].CALLS[] <= 6n + 1
end

@testset "the reverse of the steps, $method" for method in ("KenCarp4", "Kvaerno5")
    plan, m = van_der_pol(5.0)
    u0, ts = [2.0, 0.1], [0.0, 0.11, 0.5, 1.3]
    forced = forward(m, method, u0, ts)[2].t
    # Stages are solved to rounding, as the reverse takes them to be.
    tight = controls(rtol = 1e-13)
    ys, tape, outcome, alg = forward(m, method, u0, ts; forced, ctl = tight)
    @test outcome.status == H.SUCCESS
    tab = H.tableau_of(alg)
    space = H.AdjointSpace(H.DenseSystem(2), 2, tab.stages)
    grad = zeros(2)
    weights = [0.0 -2.0 0.5 3.0; 0.0 1.0 -1.0 2.0]
    loss(u0, mu) = dot(weights, forward(van_der_pol(mu)[2], method, u0, ts; forced, ctl = tight)[1])
    H.clear_accumulators!(m)
    @test H.discrete_adjoint!(grad, m, tab, tape, ts, j -> weights[:, j], space, controls())[1] == H.SUCCESS
    h = 1e-3
    fd(f) = (8 * (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h
    # Fourth-order differences: truncation 1e-10, the rounding of Newton's method 1e-12 / h.
    @test grad[1] ≈ fd(e -> loss(u0 + [e, 0], 5.0)) rtol = 1e-7
    @test grad[2] ≈ fd(e -> loss(u0 + [0, e], 5.0)) rtol = 1e-7
    @test m.parts[1].gp[1] ≈ fd(e -> loss(u0, 5.0 + e)) rtol = 1e-7
end

@testset "a tape within its limit, $method" for method in ("Rodas5P", "Tsit5", "Kvaerno5")
    _, m = van_der_pol(5.0)
    u0, ts = [2.0, 0.1], [0.0, 0.5, 20.0]
    gradients = map((10^8, 4000, 600)) do limit
        ctl = H.Controls(1e-6, [1e-9, 1e-9], 10^5, pointer(FLAG), true, limit, UInt64(0))
        _, tape, _, alg = forward(m, method, u0, ts; ctl)
        @test 8 * (length(tape.u) + length(tape.ks)) <= limit
        tab = H.tableau_of(alg)
        grad = zeros(2)
        space = H.AdjointSpace(method == "Tsit5" ? H.NoSystem() : H.DenseSystem(2), 2, tab.stages)
        H.clear_accumulators!(m)
        @test H.discrete_adjoint!(grad, m, tab, tape, ts, _ -> ONES, space, ctl)[1] == H.SUCCESS
        (tape.stride, grad, m.parts[1].gp[1])
    end
    @test gradients[1][1] == 1 && gradients[3][1] > 1
    for (_, grad, gp) in gradients[2:3]
        # The same steps, computed again: for Newton's method up to the tolerance of the stages.
        rtol = method == "Kvaerno5" ? 1e-5 : 1e-9
        @test grad ≈ gradients[1][2] rtol = rtol
        @test gp ≈ gradients[1][3] rtol = rtol
    end
end

function reverse_all!(grad, m, tab, tape, ts, g::G, space, ctl) where {G}
    H.discrete_adjoint!(grad, m, tab, tape, ts, g, space, ctl)
    return @allocated H.discrete_adjoint!(grad, m, tab, tape, ts, g, space, ctl)
end

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
    tab = H.tableau_of(alg)
    space = H.AdjointSpace(H.DenseSystem(2), 2, tab.stages)
    @test reverse_all!(zeros(2), m, tab, tape, ts, constant_cotangent, space, controls()) == 0
    @test step_allocations(m, alg, tape) == 0
end

include("kernels.jl")
include("krylov.jl")

@testset "interruption and limits" begin
    _, m = van_der_pol(5.0)
    FLAG[1] = 6
    @test forward(m, "Rodas5P", [2.0, 0.1], [0.0, 1.0])[3].status == 6
    FLAG[1] = 0
    @test forward(m, "Rodas5P", [2.0, 0.1], [0.0, 1e3]; ctl = controls(max_steps = 7))[3].status == H.MAX_STEPS
end
