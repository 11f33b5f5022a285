# What Python calls. Models are registered by evaluated calls; the hot path (solve, vjp, release) is one C entry point
# that takes integers and raw pointers: the first call through PythonCall's own protocol would compile for two seconds.
# Arrays are row-major on the Python side, so that (B, T, n) there is (n, T, B) here without a copy.

const REGISTRY = Dict{Int,Functions}()
const PLANS = Dict{Int,Plan}()
const TAPES = Dict{Int,Tape}()
const COUNTER = Ref(0)

next_id() = COUNTER[] += 1

wrap(address::Integer, dims...) = any(iszero, dims) ? zeros(dims) : unsafe_wrap(Array, Ptr{Float64}(UInt(address)), dims)
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
    for name in (keys(WRAPPERS)..., :flush)
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

"""
    register_plan(n, nc, np, columns, linear, pattern, mass, stops) -> id

A plan of parts: for each (functions, constants, size of its slice of p, gain), vectors as (address, length).
`pattern` = (rows, columns) of the Jacobian, `mass` = (rows, columns, values), zero-based; of no length where unused.
"""
function register_plan(n, nc, np, columns, linear, pattern, mass, stops)
    parts = Part[]
    start = 0
    for (id, constants, size, gain) in columns
        push!(parts, Part(REGISTRY[id], copy(wrap(constants...)), start+1:start+size, copy(wrap(gain...))))
        start += size
    end
    places(x) = x[2] == 0 ? Int[] : wrap_ints(x...) .+ 1
    M_rows, M_columns, M_values = places(mass[1]), places(mass[2]), copy(wrap(mass[3]...))
    M = isempty(M_values) ? nothing : sparse(M_rows, M_columns, M_values, n, n)
    entries = linear in ("sparse", "krylov") ?
              Pattern(n, [places(pattern[1]); M_rows], [places(pattern[2]); M_columns]; krylov = linear == "krylov") : nothing
    key = next_id()
    plan = PLANS[key] = Plan(n, nc, np, parts, entries, linear, M, copy(wrap(stops...)))
    prepare!(plan, :f, matrix_functions(plan)...)
    return key
end

forget_plan(key::Integer) = (delete!(PLANS, key); nothing)

"""
    solve(plan, method, adjoint, sizes, addresses, rtol, max_steps, tape_limit, time_limit, cancel, threads) -> (tape id, bytes)

`sizes` = (B, T, forced steps in all or -1); `addresses` = y0, ts, c, p, atol, forced, offsets, ys, counters;
counters (B, 7) int64: status, steps, rejected, f, jac, the bits of the time reached, and whether GMRES gave up.
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
    table = wrap_ints(counters, 7, B)
    for (b, o) in enumerate(outcomes)
        table[:, b] .= (o.status, o.steps, o.rejected, o.f, o.jac, reinterpret(Int64, o.reached), o.gave_up)
    end
    tape === nothing && return 0, 0
    id = next_id()
    TAPES[id] = tape
    return id, bytes(tape)
end

"""
    vjp(tape, addresses, cancel, threads)

`addresses` = g, gy0, gts (0: not wanted), gc, gp, report; report (B, 2) int64: status, bits of the time reached.
"""
function vjp(id, addresses, cancel, threads)
    tape = TAPES[id]
    plan, B, T = tape.plan, length(tape.samples), length(tape.ts)
    g, gy0, gts, gc, gp, report = addresses
    status, reached = zeros(Int, B), zeros(B)
    vjp_batch!(wrap(gy0, plan.n, B), wrap(gts, gts == 0 ? 0 : T), wrap(gc, plan.nc, B), wrap(gp, plan.np), status,
               reached, tape, wrap(g, plan.n, T, B), cancel_flag(cancel), threads)
    table = wrap_ints(report, 2, B)
    table[1, :] .= status
    table[2, :] .= reinterpret.(Int64, reached)
    return nothing
end

number(bits::Int64) = reinterpret(Float64, bits)
lanes(wanted::Int64) = wanted == 0 ? Threads.nthreads() : clamp(wanted, 1, Threads.nthreads())

const LAST_ERROR = Ref("")

"""
    entry(request, base) -> Int64

Run a request of the hot path: int64 words at the address `request`. They are: what to do (1 solve, 2 vjp), how
many tapes to free and which, and the arguments, as runtime.py packs them: arrays as offsets from `base` (negative:
none), method and adjoint as 16 bytes of text. Results replace the first words. Returns 0, 1 for an error of
the user's source, 2 for any other; `LAST_ERROR` has the message.
"""
function entry(request::Int64, base::Int64)::Int64
    words = Ptr{Int64}(UInt(request))
    freed = unsafe_load(words, 2)
    x(i) = unsafe_load(words, 2 + freed + i)
    text(i) = unsafe_string(Ptr{UInt8}(words + 8 * (1 + freed + i)))
    at(i) = x(i) < 0 ? 0 : base + x(i)
    try
        for i in 1:freed
            tape = pop!(TAPES, unsafe_load(words, 2 + i), nothing)
            tape === nothing || give_tapes!(tape)
        end
        key, size = 0, 0
        if unsafe_load(words, 1) == 1
            key, size = solve(x(1), text(2), text(4), (x(6), x(7), x(8)), ntuple(i -> at(8 + i), 9), number(x(18)),
                              x(19), x(20), number(x(21)), base, lanes(x(22)))
        else
            vjp(x(1), ntuple(i -> at(1 + i), 6), base, lanes(x(8)))
        end
        unsafe_store!(words, key, 1)
        unsafe_store!(words, size, 2)
        return 0
    catch error
        LAST_ERROR[] = error isa SourceError ? error.message : sprint(showerror, error, catch_backtrace())
        return error isa SourceError ? 1 : 2
    end
end

"Address of `entry` as a C function, for ctypes."
entry_pointer() = Int(UInt(@cfunction(entry, Int64, (Int64, Int64))))

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
    name in ("vjp", "hvp") && isdefined(part.functions, :flush) && part.functions.flush(results[3], w)
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
