# Kernels against plain loops, to rounding, and without allocation.

const K = HybridSAMBridge.Kernels

"Largest difference, relative to the largest value."
apart(a, b) = maximum(abs, a - b) / maximum(abs, b)

used(f::F, args::A) where {F,A<:Tuple} = (f(args...); @allocated f(args...))

# c[o, x] = sum over channels and windows of a[channel, x + window] b[o, channel, window], rows of nx numbers
function rows_case(nx, no, add)
    channels, window, rows = 3, 3, 5
    wide = nx + window - 1
    a, b, start = randn(channels * rows * wide), randn(no * channels * window), randn(no * rows * nx)
    ar, as = (0, 0, wide), (0, 0, rows * wide, 1)
    bs, cr, nr, ns = (0, 0, window, 1), (0, 0, nx), (1, 1, rows), (1, 1, channels, window)
    o_in_b, o_in_c, none = channels * window, rows * nx, (0, 0, 0)
    got, want = copy(start), copy(start)
    K.k_sweep_any!(want, 0, cr, o_in_c, 1, a, 0, ar, 0, 1, as, b, 0, none, o_in_b, 0, bs, nr, no, nx, ns, add)
    bytes = used(K.k_sweep_rows!, (got, 0, cr, o_in_c, a, 0, ar, as, b, 0, none, o_in_b, bs, nr, no, nx, ns, false))
    copyto!(got, start)
    K.k_sweep_rows!(got, 0, cr, o_in_c, a, 0, ar, as, b, 0, none, o_in_b, bs, nr, no, nx, ns, add)
    return apart(got, want), bytes
end

# c[o, x] = sum over rows of a[x, row, :] b[o, row, :], the last axis of length nl contiguous
function dots_case(nx, no, nl, add)
    rows = 4
    a, b, start = randn(nx * rows * nl), randn(no * rows * nl), randn(no * nx)
    s, none, one, ns = (0, 0, nl, 1), (0, 0, 0), (1, 1, 1), (1, 1, rows, nl)
    got, want = copy(start), copy(start)
    K.k_sweep_any!(want, 0, none, nx, 1, a, 0, none, 0, rows * nl, s, b, 0, none, rows * nl, 0, s, one, no, nx, ns, add)
    call = (none, nx, 1, a, 0, none, rows * nl, s, b, 0, none, rows * nl, 0, s, one, no, nx, ns)
    bytes = used(K.k_sweep_dots!, (got, 0, call..., false))
    copyto!(got, start)
    K.k_sweep_dots!(got, 0, call..., add)
    return apart(got, want), bytes
end

@testset "sweeps" begin
    Random.seed!(2)
    # Every width of tile and every rest: sums of at most 1,200 products in another order.
    for nx in (1, 3, 4, 7, 8, 13, 16, 30, 32, 71), no in (1, 2, 3, 4, 7, 8, 16), add in (false, true)
        error, bytes = rows_case(nx, no, add)
        @test error < 1e-13
        @test bytes == 0
    end
    for nx in (1, 2, 3, 4, 9), no in (1, 2, 3, 4, 9), nl in (3, 8, 33, 250, 300), add in (false, true)
        error, bytes = dots_case(nx, no, nl, add)
        @test error < 1e-13
        @test bytes == 0
    end
end

@testset "maps" begin
    Random.seed!(4)
    maps = ((K.k_exp!, K.k_exp_at!, exp), (K.k_tanh!, K.k_tanh_at!, tanh), (K.k_sigmoid!, K.k_sigmoid_at!, x -> 1 / (1 + exp(-x))))
    edges = [0.0, -0.0, 1e-300, -1e-9, 0.3466, 20.5, -36.8, 200.0, -745.0, Inf, -Inf, NaN]
    for (whole, strided, f) in maps, n in (1, 7, 8, 29)
        x, y = [edges; 3 .* randn(n)], fill(7.0, n + 14)
        # A few units in the last place, which is what the functions of numbers keep.
        @test used(whole, (y, 1, x, 0, n + 12)) == 0
        @test all(isequal.(y[2:n+13], f.(x)) .| (abs.(y[2:n+13] .- f.(x)) .<= 4eps() .* abs.(f.(x)) .+ 1e-323))
        @test y[1] == y[n+14] == 7.0
        # Rows of n numbers of x (channels, 3, n) plus a bias a channel, into the middle of wider rows; then rows of columns.
        channels, wide = 2, n + 3
        x, b, y = randn(channels * 3 * n), randn(channels), zeros(channels * 3 * wide)
        call = (y, 1, (0, 3wide, wide, 1), x, 0, (0, 3n, n, 1), b, 0, (0, 1, 0, 0), (1, channels, 3, n))
        @test used(strided, (call..., true)) == 0
        for c in 0:channels-1, r in 0:2, l in 0:n-1
            @test y[2+3wide*c+wide*r+l] ≈ f(x[1+3n*c+n*r+l] + b[c+1]) rtol = 4eps()
        end
        @test count(iszero, y) == length(y) - length(x)
        strided(y, 0, (0, 0, n, 1), x, 0, (0, 0, 1, 3), x, 0, (0, 0, 0, 0), (1, 1, 3, n), false)
        @test [y[1+n*r+l] for r in 0:2 for l in 0:n-1] ≈ [f(x[1+r+3l]) for r in 0:2 for l in 0:n-1] rtol = 4eps()
    end
    x = [edges; 5 .* randn(100)]
    y = similar(x)
    K.k_tanh!(y, 0, x, 0, length(x))
    @test all(isequal.(y, K.ftanh.(x)))     # eight at a time or one: the same operations, the same bits
end

@testset "frames and transposed copies" begin
    Random.seed!(5)
    for (n, b, m) in (((1, 2, 5, 6), (0, 0, 1, 1), (1, 2, 3, 4)), ((2, 3, 4, 5), (1, 0, 2, 0), (1, 3, 2, 2)))
        y = randn(prod(n))
        want = reshape(copy(y), reverse(n))
        kept = ntuple(axis -> b[5-axis]+1:b[5-axis]+m[5-axis], 4)
        box = want[kept...]
        want .= 0.5
        want[kept...] = box
        @test used(K.k_frame!, (y, 0, 0.5, n, b, m)) == 0
        @test y == vec(want)
    end
    for m in (1, 5, 8, 16, 19), n in (2, 8, 11, 16)
        x, y = randn(2 * m * n), zeros(2 * m * n)
        @test used(K.k_copy!, (y, 0, 0, m * n, n, 1, x, 0, 0, m * n, 1, m, 1, 2, m, n)) == 0
        @test reshape(y, n, m, 2) == permutedims(reshape(x, m, n, 2), (2, 1, 3))
    end
end

@testset "updates that are put off" begin
    Random.seed!(3)
    for (m, n) in ((64, 3), (3, 64), (20, 37)), count in (1, 16, 37)
        C, w = randn(m * n), zeros(8 + 16 * (m + n) + 8)
        A, B = randn(m, count), randn(n, count)
        want = C + vec(B * A')      # rows of C are contiguous
        for k in 1:count
            K.k_defer!(C, 0, n, A[:, k], 0, 1, B[:, k], 0, 1, m, n, w, 8, 16)
        end
        K.k_flush!(C, 0, n, m, n, w, 8, 16)
        @test apart(C, want) < 1e-14 * count     # up to 37 sums in another order
        @test w[9] == 0
        C, a, b = zeros(m * n), randn(m), randn(n)
        @test used(K.k_defer!, (C, 0, n, a, 0, 1, b, 0, 1, m, n, w, 8, 16)) == 0
        @test used(K.k_flush!, (C, 0, n, m, n, w, 8, 16)) == 0
    end
end

# u' = W u for 8 unknowns, all of W parameters (row-major), with and without putting the updates of W's gradient off.
const LINEAR = """
f!(du, u, c, p, t, w, k) = (k_mv!(du, 0, 1, p, 0, 8, 1, u, 0, 1, 8, 8, true); nothing)
jac!(J, u, c, p, t, w, k) = (for i in 1:8, j in 1:8; J[i, j] += p[8*(i-1)+j]; end; nothing)
tgrad!(dT, u, c, p, t, w, k) = nothing
vjpu!(gu, v, u, c, p, t, w, k) = (k_mv!(gu, 0, 1, p, 0, 1, 8, v, 0, 1, 8, 8, true); nothing)
vjp!(gu, gc, gp, gt, v, u, c, p, t, w, k) = (vjpu!(gu, v, u, c, p, t, w, k); update!(gp, v, u, w); nothing)
hvp!(gu, gc, gp, v, d, tau, u, c, p, t, w, k) = (update!(gp, v, d, w); nothing)
"""
const AT_ONCE = "update!(gp, a, b, w) = k_mm!(gp, 0, 8, 1, a, 0, 1, 0, b, 0, 0, 1, 8, 8, 1, true)\n"
const PUT_OFF = """
update!(gp, a, b, w) = k_defer!(gp, 0, 8, a, 0, 1, b, 0, 1, 8, 8, w, 0, 16)
flush!(gp, w) = k_flush!(gp, 0, 8, 8, 8, w, 0, 16)
"""

function linear_gradient(update)
    id = H.register_program(update * LINEAR, 8 + 16 * 16, false)
    none = (0, 0)
    plan = H.PLANS[H.register_plan(8, 0, 64, ((id, none, 64, none),), "dense", (none, none), (none, none, none), none)]
    H.prepare!(plan, :f, :jac, :vjpu, :vjp, :hvp)
    m = H.Model(plan, [sin(i) - 2.0 * (i % 9 == 1) for i in 1:64], H.DenseSystem(8))
    ys, ts, tape, outcome = zeros(8, 3), [0.0, 0.5, 1.0], H.StepTape(), H.Outcome()
    ctl = H.Controls(1e-6, fill(1e-8, 8), 10^4, pointer(FLAG), true, 10^8, UInt64(0))
    alg = H.algorithm("Rodas5P", 8)
    H.solve_steps!((j, u) -> ys[:, j] = u, alg, m, ones(8), ts, ctl, Float64[], tape, outcome)
    tab = H.tableau_of(alg)
    space = H.AdjointSpace(H.DenseSystem(8), 8, tab.stages)
    weights = ones(8)
    cotangent(j) = weights
    grad = zeros(8)
    H.clear_accumulators!(m)
    H.discrete_adjoint!(grad, m, tab, tape, ts, cotangent, space, ctl)
    H.flush!(m)
    gradient = copy(m.parts[1].gp)
    return gradient, reverse_all!(grad, m, tab, tape, ts, cotangent, space, ctl)
end

@testset "putting updates off changes nothing" begin
    at_once, _ = linear_gradient(AT_ONCE)
    put_off, bytes = linear_gradient(PUT_OFF)
    @test apart(put_off, at_once) < 1e-12   # some hundred updates, summed in another order
    @test bytes == 0
end
