# Compile the solver and the adjoints once per installation, on a model small enough to take no time itself.

module Workload
f!(du, u, c, p, t, w, k) = (du[1] += -p[1] * u[1] + u[2]; du[2] += p[1] * u[1] - u[2]; nothing)
jac!(J, u, c, p, t, w, k) = (J[1, 1] += -p[1]; J[2, 1] += p[1]; J[1, 2] += 1.0; J[2, 2] += -1.0; nothing)
tgrad!(dT, u, c, p, t, w, k) = nothing
vjpu!(gu, v, u, c, p, t, w, k) = (gu[1] += p[1] * (v[2] - v[1]); gu[2] += v[1] - v[2]; nothing)
vjp!(gu, gc, gp, gt, v, u, c, p, t, w, k) = (vjpu!(gu, v, u, c, p, t, w, k); gp[1] += u[1] * (v[2] - v[1]); nothing)
jvp!(jd, d, u, c, p, t, w, k) = (jd[1] += -p[1] * d[1] + d[2]; jd[2] += p[1] * d[1] - d[2]; nothing)
hvp!(gu, gc, gp, v, d, tau, u, c, p, t, w, k) = (gp[1] += d[1] * (v[2] - v[1]); nothing)
end

const WORKLOAD_METHODS = ["Rodas5P", "Rodas4P", "Rosenbrock23", "Tsit5", "Vern7"]

"Register the workload's functions; not by register_program, since no module may be made while a package is compiled."
function workload_functions()
    id = next_id()
    source = Dict{Symbol,Any}(name => getfield(Workload, Symbol(name, "!")) for name in keys(WRAPPERS))
    REGISTRY[id] = Functions(source, 0, true)
    return id
end

"Compiled code of a precompiling session must not be found in the image."
clear_registries!() = (empty!(REGISTRY); empty!(PLANS); empty!(TAPES); reserve_spares!(nothing))

function workload(id::Int, method::String, adjoint::String, n::Int; linear = "dense", mass = Float64[])
    places = collect(0:length(mass)-1)
    at(x) = (Int(UInt(pointer(x))), length(x))
    everywhere = [0, 1, 0, 1], [0, 0, 1, 1]
    plan = GC.@preserve mass places everywhere register_plan(
        n, 0, 1, ((id, (0, 0), 1, (0, 0)),), linear, map(at, everywhere), map(at, (places, places, mass)), (0, 0))
    B, T = 2, 3
    y0, ts, c, p, atol = repeat([1.0, 0.0], outer = (n ÷ 2, B)), [0.0, 0.5, 1.0], zeros(0, B), [2.0], fill(1e-6, n)
    ys, counters = zeros(n, T, B), zeros(7, B)
    g, gy0, gts, gc, gp, report = ones(n, T, B), zeros(n, B), zeros(T), zeros(0, B), zeros(1), zeros(2, B)
    arena, used = zeros(50 * n + 100), 8                    # the first word is the cancel flag
    function place(x)
        copyto!(arena, used + 1, x)
        used += length(x)
        return 8 * (used - length(x))
    end
    words(name) = reinterpret(Int64, [codeunits(name); zeros(UInt8, 16 - ncodeunits(name))])
    run(request) = GC.@preserve request arena entry(Int(UInt(pointer(request))), Int(UInt(pointer(arena))))
    request = [1, 0, plan, words(method)..., words(adjoint)..., B, T, -1, map(place, (y0, ts, c, p, atol))..., -1, -1,
               place(ys), place(counters), reinterpret(Int64, 1e-4), 1000, 10^6, 0, 2]
    run(request) == 0 || error(LAST_ERROR[])
    tape = request[1]
    if tape != 0
        run([2, 0, tape, map(place, (g, gy0, gts, gc, gp, report))..., 2]) == 0 || error(LAST_ERROR[])
        run([3, 1, tape])
    end
    forget_plan(plan)
    return nothing
end

@setup_workload begin
    @compile_workload begin
        id = workload_functions()
        for method in WORKLOAD_METHODS
            workload(id, method, keeps_stages(method) ? "discrete" : "gauss", 2)
        end
        workload(id, "Rodas5P", "gauss", 2)
        workload(id, "Tsit5", "gauss", 2)
        workload(id, "Rodas5P", "forward", 2)
        workload(id, "Rodas5P", "discrete", 2 * DENSE_GENERIC_LIMIT)  # another LU
        workload(id, "Rodas5P", "none", 2)
        workload(id, "Rodas5P", "discrete", 2; linear = "sparse")
        workload(id, "Rodas5P", "discrete", 2; linear = "krylov")
        workload(id, "Rodas5P", "discrete", 2; mass = ones(2))
    end
    clear_registries!()
end
