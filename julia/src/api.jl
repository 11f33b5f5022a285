# What Python calls: registers and integers, strings and raw pointers to float64 arrays, nothing else.
# Arrays are row-major on the Python side, so that (B, T, n) there is (n, T, B) here without a copy.

const REGISTRY = Dict{Int,Functions}()
const PLANS = Dict{Int,Plan}()
const TAPES = Dict{Int,Tape}()
const COUNTER = Ref(0)

next_id() = COUNTER[] += 1

pointer_to(address::Integer) = Ptr{Float64}(UInt(address))
wrap(address::Integer, dims...) = unsafe_wrap(Array, pointer_to(address), dims)
wrap_ints(address::Integer, dims...) = unsafe_wrap(Array, Ptr{Int64}(UInt(address)), dims)
cancel_flag(address::Integer) = Ptr{Int32}(UInt(address))

"""
    register_program(code, workspace, time_dependent) -> id

Evaluate emitted code in a module that sees the kernels. Nothing is compiled before it is needed.
"""
function register_program(code::String, workspace::Integer, time_dependent::Bool)
    mod = lasting_module(gensym(:Program))
    Core.eval(mod, :(const Kernels = $Kernels))
    Core.eval(mod, :(using .Kernels))
    include_string(mod, code, "program")
    source = Dict{Symbol,Any}()
    for name in keys(WRAPPERS)
        symbol = Symbol(name, "!")
        isdefined(mod, symbol) && (source[name] = getfield(mod, symbol))
    end
    id = next_id()
    REGISTRY[id] = Functions(source, workspace, time_dependent)
    return id
end

"""
    register_source(code, filename, name, names, shapes, named, takes_context, n, nc, np, jacobian, paramjac) -> id

The user's own Julia; `shapes` is one string a parameter, sizes joined by commas.
"""
function register_source(code, filename, name, names, shapes, named, takes_context, n, nc, np, jacobian, paramjac)
    sizes = [isempty(text) ? () : Tuple(parse.(Int, split(text, ","))) for text in shapes]
    layout = Layout(collect(String, names), sizes, named)
    id = next_id()
    REGISTRY[id] = source_functions(code, filename, name, layout, takes_context, n, nc, np,
                                    isempty(jacobian) ? nothing : jacobian, isempty(paramjac) ? nothing : paramjac)
    return id
end

"Register a plan of parts given as columns: function ids, constants, ends of the slices of p, gains."
function register_plan(n, nc, np, ids, constants, sizes, gains)
    parts = Part[]
    start = 0
    for (id, values, size, gain) in zip(ids, constants, sizes, gains)
        push!(parts, Part(REGISTRY[id], collect(Float64, values), start+1:start+size, collect(Float64, gain)))
        start += size
    end
    key = next_id()
    PLANS[key] = Plan(n, nc, np, parts)
    prepare!(PLANS[key], :f, :jac)
    return key
end

forget_plan(key::Integer) = (delete!(PLANS, key); nothing)

"""
    solve(plan, method, adjoint, sizes, addresses, rtol, max_steps, tape_limit, time_limit, cancel, threads) -> (tape id, bytes)

`sizes` = (B, T, forced steps in all or -1); `addresses` = y0, ts, c, p, atol, forced, offsets, ys, counters;
counters (B, 6) int64: status, steps, rejected, f, jac, and the bits of the time reached.
"""
function solve(plan_key, method, adjoint, sizes, addresses, rtol, max_steps, tape_limit, time_limit, cancel, threads)
    plan = PLANS[plan_key]
    B, T, nforced = sizes
    y0, ts, c, p, atol, forced, offsets, ys, counters = addresses
    outputs = wrap(ys, plan.n, T, B)
    fill!(outputs, NaN)
    outcomes = [Outcome() for _ in 1:B]
    keep = adjoint != "none"
    ctl = Controls(rtol, copy(wrap(atol, plan.n)), max_steps, cancel_flag(cancel), keep, tape_limit ÷ B,
                   deadline(time_limit))
    steps = nforced < 0 ? V() : copy(wrap(forced, nforced))
    starts = nforced < 0 ? Int[] : copy(wrap_ints(offsets, B + 1))
    tape = solve_batch!(outputs, outcomes, plan, method, adjoint, copy(wrap(y0, plan.n, B)),
                        copy(wrap(c, plan.nc, B)), copy(wrap(p, plan.np)), copy(wrap(ts, T)), ctl, threads, steps,
                        starts, Float64(time_limit))
    table = wrap_ints(counters, 6, B)
    for (b, o) in enumerate(outcomes)
        table[:, b] .= (o.status, o.steps, o.rejected, o.f, o.jac, reinterpret(Int64, o.reached))
    end
    tape === nothing && return 0, 0
    id = next_id()
    TAPES[id] = tape
    return id, bytes(tape)
end

"""
    vjp(tape, addresses, cancel, threads)

`addresses` = g, gy0, gts, gc, gp, report; report (B, 2) int64: status, bits of the time reached.
"""
function vjp(id, addresses, cancel, threads)
    tape = TAPES[id]
    plan, B, T = tape.plan, length(tape.samples), length(tape.ts)
    g, gy0, gts, gc, gp, report = addresses
    status, reached = zeros(Int, B), zeros(B)
    vjp_batch!(wrap(gy0, plan.n, B), wrap(gts, T), wrap(gc, plan.nc, B), wrap(gp, plan.np), status, reached, tape,
               wrap(g, plan.n, T, B), cancel_flag(cancel), threads)
    table = wrap_ints(report, 2, B)
    table[1, :] .= status
    table[2, :] .= reinterpret.(Int64, reached)
    return nothing
end

has_tape(id) = haskey(TAPES, id)

function release(ids)
    for id in ids
        delete!(TAPES, id)
    end
    return nothing
end

"Times of the accepted steps of every sample of a Rosenbrock tape."
step_times(id) = [sample isa StepTape ? sample.t : sample === nothing ? V() : copy(sample.sol.t)
                  for sample in TAPES[id].samples]

"Evaluate one function of a plan's first part, for tests: accumulated outputs into zeroed arrays."
function evaluate(plan_key, name, outputs, inputs)
    plan = PLANS[plan_key]
    part = plan.parts[1]
    prepare!(part.functions, Symbol(name))
    w = zeros(part.functions.workspace)
    array(item) = copy(wrap(item[1], item[2]...))
    arrays = map(item -> item isa Tuple ? array(item) : Float64(item), inputs)
    results = [zeros(dims...) for (_, dims) in outputs]
    f = getfield(part.functions, Symbol(name))
    f(results..., arrays..., w, part.constants)
    for (result, (address, dims)) in zip(results, outputs)
        copyto!(wrap(address, dims...), result)
    end
    fill!.(results, 0.0)
    return measured(f, results, arrays, w, part.constants)
end

# Bytes that a second call allocates, measured behind a function barrier.
function measured(f::F, results, arrays, w, k) where {F}
    args = (results..., arrays..., w, k)
    return allocated(f, args)
end
allocated(f::F, args::A) where {F,A<:Tuple} = (f(args...); @allocated f(args...))
