# GMRES with the multigrid cycle: levels, their transpose, iterations, and what happens where they fail.

"Diffusion on a periodic square (or cube) of `size` points a side, `species` times, with a drift and local coupling."
function diffusion(size::Int; dimensions = 2, species = 1, strength = 0.1, drift = 0.0, coupling = 0.0)
    step = sparse([1:size;], [2:size; 1], 1.0, size, size)     # the periodic shift
    line = strength * size^2 * (step + step' - 2I) + drift * size * (step - I)
    eye(k) = sparse(1.0I, k, k)
    space = sum(kron(eye(size^(dimensions - d)), line, eye(size^(d - 1))) for d in 1:dimensions)
    Random.seed!(2)
    local_terms = coupling * sprandn(species, species, 1.0)
    return kron(eye(species), space) + kron(local_terms, eye(size^dimensions))
end

"A Krylov system for the Jacobian J, and a model whose product is J's."
function krylov_system(J; threads = 1)
    n = size(J, 1)
    rows, columns, _ = findnz(J)
    pattern = H.Pattern(n, rows, columns)
    jvp!(jd, d, u, c, p, t, w, k) = (mul!(jd, J, d, 1.0, 1.0); nothing)
    functions = H.Functions(Dict{Symbol,Any}(:jvp => jvp!), 0, false)
    plan = H.Plan(n, 0, 0, [H.Part(functions, Float64[], 1:0, Float64[])], pattern, "krylov", nothing, Float64[])
    H.prepare!(plan, :jvp)
    system = H.KrylovSystem(pattern, n, threads)
    return system, H.Model(plan, Float64[], system)
end

begin_solve!(system, rtol) = H.begin_solve!(system, rtol, fill(1e-3 * rtol, length(system.x)))

function factored(J, r; rtol = 1e-7, threads = 1)
    system, m = krylov_system(J; threads)
    begin_solve!(system, rtol)
    @test H.assemble!(system, ones(size(J, 1)), m, 0.0, r)
    return system, m
end

function solved(system, b; transposed = false)
    x = copy(b)
    transposed ? H.solve_transposed!(x, system) : H.solve!(x, system)
    return x
end

const MIXED = diffusion(24; species = 2, drift = 3.0, coupling = 10.0)

# Rounding of a product, of substitution and of sums over a thousand products, in the precision of the cycle.
const ROUNDING = (Float32 => (2f-6, 2f-5, 2f-5), Float64 => (1e-13, 1e-12, 1e-11))

"A Krylov system whose solves are in numbers of T, and its multigrid cycle."
function inner_of(T, J, r)
    system, m = factored(J, r)
    T === Float64 && H.take_double!(system)
    return T === Float64 ? system.double : system.single
end

@testset "the transposed cycle is the transpose of the cycle, $T" for (T, (_, _, sums)) in ROUNDING
    k = inner_of(T, MIXED, 5.0)
    @test k.depth >= 2
    n = size(MIXED, 1)
    x, y, Cx, Cy = randn(T, n), randn(T, n), zeros(T, n), zeros(T, n)
    H.cycle!(Cx, x, k, 1)
    H.transposed_cycle!(Cy, y, k, 1)
    # The sums cancel in part: in single precision what is left of them is no measure of their rounding.
    T === Float64 ? (@test dot(Cx, y) ≈ dot(x, Cy) rtol = sums) :
    (@test dot(Cx, y) ≈ dot(x, Cy) atol = sums * norm(Cx) * norm(y))
end

@testset "runs along diagonals do what the sparse matrix and its factors do, $T" for (T, (product, substitution, _)) in ROUNDING
    level, n = inner_of(T, MIXED, 5.0).levels[1], size(MIXED, 1)
    @test level.fast !== nothing
    plain = H.Level(level.E, H.Split(n), nothing, 0)
    copyto!(plain.smoother.values, level.smoother.values)
    H.gather!(plain.smoother.rows.values, plain.smoother.values, plain.smoother.rows.place, plain.split.crew)
    x = randn(T, n)
    for transposed in (false, true)
        y, z = copy(x), copy(x)
        H.add_product!(y, level, x, T(-0.5), transposed)
        H.add_product!(z, plain, x, T(-0.5), transposed)
        @test y ≈ z rtol = product
        H.solve_last!(y, x, level, transposed)
        H.solve_last!(z, x, plain, transposed)
        @test y ≈ z rtol = substitution
    end
    # Neighbours at random: no runs.
    Random.seed!(4)
    J = sprandn(200, 200, 0.02)
    @test krylov_system(J + J')[1].single.levels[1].fast === nothing
end

@testset "coarse matrices are PᵀEP, $T" for (T, (_, substitution, _)) in ROUNDING
    k = inner_of(T, MIXED, 5.0)
    for l in 1:k.depth-1
        level = k.levels[l]
        @test k.levels[l+1].E ≈ level.P' * level.E * level.P rtol = substitution
    end
end

# Drift, coupling of three species, three dimensions, and no diffusion at all, where there is nothing to aggregate.
@testset "Krylov solves, $name" for (name, J) in (
    "drift" => diffusion(40; strength = 0.01, drift = 20.0), "mixed" => MIXED,
    "reactions" => diffusion(16; species = 3, coupling = 200.0) - 800I,
    "cube" => diffusion(12; dimensions = 3, strength = 1.0), "no diffusion" => diffusion(8; strength = 0.0, drift = 9.0))
    system, m = factored(J, 5.0)
    E = 5I - J
    for transposed in (false, true), k in 1:3
        b = randn(size(J, 1))
        x = solved(system, b; transposed)
        # At rtol 1e-7 of the steps GMRES goes to 1e-10 of the largest right-hand side; these are of one size.
        @test norm((transposed ? E' : E) * x - b) <= 3e-10 * norm(b)
    end
    @test !system.gave_up
end

@testset "given steps are solved more exactly" begin
    system, m = factored(MIXED, 5.0)
    H.begin_solve!(system, 1e-3, fill(1e-6, length(system.x)); given = true)
    H.assemble!(system, ones(length(system.x)), m, 0.0, 5.0)
    b = randn(length(system.x))
    x = solved(system, b)
    @test norm(5x - MIXED * x - b) <= 3e-11 * norm(b)
end

@testset "iterations do not grow with the grid" begin
    counts = map((32, 128)) do size
        # A condition number of 80 and 1300: an incomplete LU alone takes 3 and 15 times as many.
        system, _ = factored(diffusion(size), 10.0; rtol = 1e-5)
        solved(system, randn(size^2))
        system.iterations
    end
    @test counts[1] <= 14
    @test counts[2] <= counts[1] + 4
end

@testset "earlier right-hand sides make the next one cheap" begin
    system, _ = factored(MIXED, 5.0)
    a, b = randn(size(MIXED, 1)), randn(size(MIXED, 1))
    solved(system, a), solved(system, b)
    before = copy(system.iterations)
    x = solved(system, 2a - 3b)
    @test norm(5x - MIXED * x - (2a - 3b)) <= 3e-10 * norm(2a - 3b)
    solved(system, 2a - 3b + 1e-4 * randn(length(a)))
    @test system.iterations < before
end

@testset "unknowns of any unit are solved alike" begin
    n = size(MIXED, 1)
    units = repeat([300.0, 1e-6]; inner = n ÷ 2)
    D = Diagonal(units)
    J = D * MIXED / D
    system, m = krylov_system(J)
    H.begin_solve!(system, 1e-7, 1e-10 * units)
    @test H.assemble!(system, units, m, 0.0, 5.0)
    E = 5I - J
    b = randn(n)
    x = solved(system, units .* b)
    @test norm((E * x) ./ units - b, Inf) <= 1e-8      # of either species: 1e-10 in the mean
    y = solved(system, b ./ units; transposed = true)
    @test norm((E' * y) .* units - b, Inf) <= 1e-8
end

# Next to a steady state E is nearly singular: rounding in single precision (6e-8) is as large as what it should correct.
@testset "double precision where single is not enough" begin
    J = diffusion(48; strength = 1.0)
    system, m = factored(J, 1e-6)
    E = 1e-6 * I - J
    for transposed in (false, true)
        b = randn(size(J, 1))
        x = solved(system, b; transposed)
        # Backward stable: rounding of E times a solution that is 1e6 times the right-hand side.
        @test norm(E * x - b) <= 3e-10 * norm(b) + 1e-14 * opnorm(E, 1) * norm(x)
    end
    @test system.precise && !system.gave_up
    begin_solve!(system, 1e-6)
    @test !system.precise
end

@testset "double precision where numbers are too large for single" begin
    system, _ = factored(1e39 * MIXED, 5e39)
    b = randn(size(MIXED, 1))
    x = solved(system, 1e39 * b)
    @test norm(5x - MIXED * x - b) <= 3e-10 * norm(b)
    @test system.precise && !system.gave_up
end

@testset "results do not depend on what was solved before" begin
    b = randn(size(MIXED, 1))
    system, m = factored(MIXED, 5.0)
    first = solved(system, b)
    H.assemble!(system, ones(length(b)), m, 1.0, 0.1)
    solved(system, randn(length(b)); transposed = true)
    begin_solve!(system, 1e-7)
    H.assemble!(system, ones(length(b)), m, 0.0, 5.0)
    @test solved(system, b) == first
end

@testset "a sparse LU takes over where GMRES does not converge" begin
    Random.seed!(3)
    n = 400
    J = sprandn(n, n, 0.02) * 100      # eigenvalues all around zero
    system, m = factored(J, 1.0)
    for transposed in (false, true)
        b = randn(n)
        x = solved(system, b; transposed)
        E = I - J
        @test norm((transposed ? E' : E) * x - b) <= 1e-9 * norm(b)
    end
    @test H.gave_up(system)
    begin_solve!(system, 1e-6)
    @test !H.gave_up(system)
end

# Ten parts, of which a crew of two or three takes several each.
@testset "a large system on several threads: the same numbers" begin
    J = diffusion(144; species = 2, drift = 3.0, coupling = 10.0)
    b = randn(size(J, 1))
    E = 5I - J
    for transposed in (false, true)
        alone, _ = factored(J, 5.0)
        @test length(alone.split.rows) == 10
        x = solved(alone, b; transposed)
        @test norm((transposed ? E' : E) * x - b) <= 3e-10 * norm(b)
        for threads in (2, 3)
            together, m = krylov_system(J; threads)
            begin_solve!(together, 1e-7)
            H.with_helpers(together) do
                @test length(together.split.crew.helpers) == threads - 1
                @test H.assemble!(together, ones(length(b)), m, 0.0, 5.0)
                @test together.jacobian.values == alone.jacobian.values
                @test solved(together, b; transposed) == x
            end
            @test isempty(together.split.crew.helpers)
        end
    end
end

@testset "what goes wrong in a helper is the caller's to know" begin
    crew = H.Crew(2, 2)
    @test_throws DomainError H.with_helpers(() -> H.each_part(part -> part == 2 && sqrt(-1.0), crew), crew)
    sums = zeros(2)
    H.with_helpers(() -> H.each_part(part -> sums[part] = part, crew), crew)
    @test sums == [1, 2] && isempty(crew.helpers)
end

@testset "a caller that waits for its helpers goes on alone" begin
    crew = H.Crew(2, 2)
    thread = zeros(Int, 2)
    late(part) = (part == 2 && Libc.systemsleep(1e-3); thread[part] = Threads.threadid())
    H.with_helpers(crew) do
        foreach(_ -> H.each_part(late, crew), 1:H.LOOK_AFTER)
        @test crew.alone == H.LOOK_AFTER && crew.pause == 2 * H.LOOK_AFTER
        H.each_part(part -> thread[part] = Threads.threadid(), crew)
        @test thread == fill(Threads.threadid(), 2) && crew.alone == H.LOOK_AFTER - 1
    end
end

function krylov_allocations(system, m, x)
    work() = (H.factor!(system, m, 5.0); H.solve!(x, system); H.solve_transposed!(x, system))
    work()
    return @allocated work()
end

@testset "no allocation in a step's linear algebra" begin
    system, m = factored(MIXED, 5.0)
    @test krylov_allocations(system, m, randn(size(MIXED, 1))) == 0
end
