# A batch: samples over threads. What a sample computes depends on nothing but the sample, and gradients of the
# parameters are summed in a fixed order, so that results do not depend on the number of threads.

"A forward solve that waits for its vjp."
struct Tape
    plan::Plan
    method::String
    adjoint::String
    tab::Union{ReversibleTableau,Nothing}
    p::V
    c::M
    outputs::Array{Float64,3}   # (n, T, B)
    ts::V
    samples::Vector{Any}
    status::Vector{Int}
    rtol::Float64
    atol::V
    max_steps::Int
    time_limit::Float64         # seconds, 0: none
end

bytes(tape::Tape) = sum(s -> s === nothing ? 0 : sizeof(s), tape.samples; init = 0) + sizeof(tape.p) + sizeof(tape.c) + sizeof(tape.outputs)

"Blocks of samples whose parameter gradients are summed apart: never by the number of threads, and few if they are long."
function blocks(samples::Int, parameters::Int)
    count = min(samples, parameters > 100_000 ? 8 : 32)
    return [1+(k-1)*samples÷count:k*samples÷count for k in 1:count]
end

"""
Run `work(slot, k)` for k in 1:count on up to `threads` threads, each with a slot of its own: make_slot(n, spare), where n
threads are there for each, and `spare` is one that was made for the same `key`, or nothing.
"""
function over_threads(work, make_slot, key::Tuple, count::Int, threads::Int)
    next = Threads.Atomic{Int}(1)
    lanes = clamp(threads, 1, count)
    n = threads ÷ lanes
    function run()
        slot = make_slot(n, take_slot((key..., n)))
        while true
            k = Threads.atomic_add!(next, 1)
            k > count && break
            work(slot, k)
        end
        give_slot!((key..., n), slot)   # not after an error
        return nothing
    end
    if lanes == 1
        run()
    else
        tasks = [Threads.@spawn run() for _ in 1:lanes]
        # All of them end before an error goes on: what still ran would write into memory of the next request.
        errors = filter(!isnothing, map(failure, tasks))
        isempty(errors) || throw(first(errors))
    end
    return nothing
end

# The exception that ended a task (not the TaskFailedException around it), or nothing.
function failure(task)
    try
        wait(task)
        return nothing
    catch error
        return error isa TaskFailedException ? error.task.exception : error
    end
end

forced_steps(forced::V, offsets::Vector{Int}, b::Int) = isempty(offsets) ? V() : forced[offsets[b]+1:offsets[b+1]]

"""
    solve_batch!(ys, outcomes, plan, method, adjoint, u0, c, p, ts, ctl, threads, forced, offsets, time_limit) -> Tape or nothing

`ys` (n, T, B) must come filled with NaN; u0 (n, B), c (nc, B).
"""
function solve_batch!(ys, outcomes, plan::Plan, method::String, adjoint::String, u0::M, c::M, p::V, ts::V,
                      ctl::Controls, threads::Int, forced::V, offsets::Vector{Int}, time_limit::Float64)
    prepare!(plan, :f, matrix_functions(plan)...)
    time_dependent(plan) && prepare!(plan, :tgrad)
    alg = algorithm(method, plan.n)
    samples = Vector{Any}(nothing, size(u0, 2))
    tab = Ref{Union{ReversibleTableau,Nothing}}(nothing)
    reserve_spares!(plan)
    function make_model(n, spare)
        spare === nothing && return Model(plan, p, system_for(plan, method, n))
        forget_factor!(spare.system)
        return set_parameters!(spare, plan, p)
    end
    over_threads(make_model, ("forward", method), size(u0, 2), threads) do m, b
        copyto!(m.c, view(c, :, b))
        samples[b] = solve_sample!(ys, outcomes[b], alg, keeps_stages(method), m, u0[:, b], ts, ctl,
                                   forced_steps(forced, offsets, b), b)
    end
    ctl.keep || return nothing
    keeps_stages(method) && (tab[] = tableau_of(alg))
    return Tape(plan, method, adjoint, tab[], p, c, copy(ys), ts, samples, [o.status for o in outcomes], ctl.rtol,
                ctl.atol, ctl.max_steps, time_limit)
end

function solve_sample!(ys, outcome::Outcome, alg, steps_kept::Bool, m::Model, u0::V, ts::V, ctl::Controls, forced::V,
                       b::Int)
    store = (j, u) -> copyto!(view(ys, :, j, b), u)
    store(1, u0)
    outcome.reached = ts[1]
    status = cancelled(ctl)
    status == SUCCESS || (outcome.status = status; return nothing)
    try
        if steps_kept
            tape = take_tape()
            with_helpers(() -> solve_steps!(store, alg, m, u0, ts, ctl, forced, tape, outcome), m.system)
            ctl.keep && return tape
            give_tape!(tape)
            return nothing
        end
        return solve_dense!(store, alg, m, u0, ts, ctl, outcome)
    catch error
        is_linear_failure(error) || rethrow()
        outcome.status = refine(NONLINEAR_SOLVER, u0, m, ts[1], zeros(m.n))
        return nothing
    end
end

"The coefficients of `alg` as OrdinaryDiffEq holds them in its cache, whatever the size of the problem."
function tableau_of(alg)
    prob = ODEProblem{true,FullSpecialize}(TABLEAU_RHS, zeros(1), (0.0, 1.0), nothing)
    integrator = init(prob, alg; abstol = ones(1), reltol = 1.0, dt = 1.0, adaptive = false, dense = false,
                      save_everystep = false, calck = false, verbose = QUIET)
    return tableau(integrator.cache)
end

const TABLEAU_RHS = ODEFunction{true,FullSpecialize}((du, u, p, t) -> (fill!(du, 0.0); nothing);
    jac = (J, u, p, t) -> (fill!(J, 0.0); nothing), tgrad = (dT, u, p, t) -> (fill!(dT, 0.0); nothing))

"One thread's memory in a backward pass."
struct Lane
    m::Model
    scratch::Model
    space::AdjointSpace
    grad::V
    slope::V
    total::V
end

function Lane(tape::Tape, threads::Int)
    plan, stages = tape.plan, tape.tab === nothing ? 1 : tape.tab.stages
    system = tape.tab === nothing ? NoSystem() : system_for(plan, tape.method, threads)
    m = Model(plan, tape.p)
    scratch = tape.adjoint == "discrete" ? m : Model(plan, tape.p)  # its accumulators are overwritten
    return Lane(m, scratch, AdjointSpace(system, plan.n, stages), zeros(plan.n), zeros(plan.n),
                zeros(plan.n + plan.nc + plan.np))
end

function set_parameters!(lane::Lane, tape::Tape)
    set_parameters!(lane.m, tape.plan, tape.p)
    forget_factor!(lane.space.system)
    lane.scratch === lane.m || set_parameters!(lane.scratch, tape.plan, tape.p)
    return lane
end

"""
    vjp_batch!(gu0, gts, gc, gp, status, reached, tape, g, cancel, threads)

`g` (n, T, B); outputs gu0 (n, B), gts (T, or empty where it is not wanted), gc (nc, B), gp (np), all overwritten.
"""
function vjp_batch!(gu0, gts, gc, gp, status, reached, tape::Tape, g, cancel::Ptr{Int32}, threads::Int)
    prepare!(tape.plan, :f, matrix_functions(tape.plan)..., :vjp, :hvp)
    tape.adjoint == "gauss" && prepare!(tape.plan, :vjpu)
    time_dependent(tape.plan) && prepare!(tape.plan, :tgrad)
    ctl = Controls(tape.rtol, tape.atol, tape.max_steps, cancel, false, 0, deadline(tape.time_limit))
    parts = blocks(length(tape.samples), tape.plan.np)
    block_gp = [zeros(tape.plan.np) for _ in parts]
    block_gts = [zeros(length(gts)) for _ in parts]
    reserve_spares!(tape.plan)
    make_lane(n, spare) = spare === nothing ? Lane(tape, n) : set_parameters!(spare, tape)
    over_threads(make_lane, ("backward", tape.method, tape.adjoint), length(parts), threads) do lane, k
        clear_accumulators!(lane.m)
        for b in parts[k]
            backward_sample!(gu0, gc, block_gts[k], block_gp[k], status, reached, lane, tape, g, ctl, b)
        end
        collect_parameters!(block_gp[k], lane.m, tape.plan)
    end
    fill!(gp, 0.0)
    fill!(gts, 0.0)
    for k in eachindex(parts)
        gp .+= block_gp[k]
        gts .+= block_gts[k]
    end
    return nothing
end

function collect_parameters!(gp::V, m::Model, plan::Plan)
    flush!(m)
    for (part, q) in zip(plan.parts, m.parts)
        view(gp, part.range) .+= q.gp
    end
    return nothing
end

function backward_sample!(gu0, gc, gts::V, gp::V, status, reached, lane::Lane, tape::Tape, g, ctl::Controls, b::Int)
    m, ts = lane.m, tape.ts
    status[b], reached[b] = SUCCESS, ts[1]
    gu0[:, b] .= 0.0
    gc[:, b] .= 0.0
    tape.status[b] == SUCCESS || return nothing     # NaN outputs give zero gradient
    copyto!(m.c, view(tape.c, :, b))
    copyto!(lane.scratch.c, m.c)
    fill!(m.gc, 0.0)
    gb = j -> view(g, :, j, b)
    sample = tape.samples[b]
    enter_step!(m, ts[1])
    begin_solve!(lane.space.system, ctl.rtol, ctl.atol)
    lane.space.block.start = -1
    try
        status[b], reached[b] = with_helpers(() -> pull_back!(lane, tape, sample, gp, gb, ctl), lane.space.system)
    catch error
        is_linear_failure(error) || rethrow()
        status[b] = NONLINEAR_SOLVER
    end
    status[b] == SUCCESS || return nothing
    gu0[:, b] .= lane.grad
    gc[:, b] .= m.gc
    add_time_gradients!(gts, lane, tape, gb, b)
    return nothing
end

"The adjoint of one sample, as the tape asks for. Returns its status and the time reached."
function pull_back!(lane::Lane, tape::Tape, sample, gp::V, gb, ctl::Controls)
    m, ts = lane.m, tape.ts
    if tape.adjoint == "forward"
        fill!(lane.total, 0.0)
        status, reached = forward_adjoint!(lane.total, lane.scratch, tape.plan, tape.tab, sample, ts, gb, lane.space, ctl)
        n, nc = tape.plan.n, tape.plan.nc
        lane.grad .= view(lane.total, 1:n)
        m.gc .= view(lane.total, n+1:n+nc)
        gp .+= view(lane.total, n+nc+1:length(lane.total))
        return status, reached
    elseif tape.adjoint == "gauss"
        state = sample isa StepTape ? step_state(sample, tape.tab, lane.scratch, lane.space) : dense_state(sample)
        status, reached, _ = gauss_adjoint!(lane.grad, backward_algorithm(tape.method, m.n), m, lane.scratch, state, ts, gb, ctl)
        return status, reached
    end
    return discrete_adjoint!(lane.grad, m, tape.tab, sample, ts, gb, lane.space, ctl)
end

# dy(ts_j)/dts_j = f(y_j, ts_j) at outputs; a later start shifts the initial state by -f(y0, ts_1).
function add_time_gradients!(gts::V, lane::Lane, tape::Tape, gb, b::Int)
    ys = tape.outputs
    isempty(gts) && return nothing
    lane.m.mass === nothing || return nothing       # Python refuses to differentiate a DAE for its output times
    for j in eachindex(tape.ts)
        enter_step!(lane.m, j == 1 ? tape.ts[1] : prevfloat(tape.ts[j]))
        u = copyto!(lane.space.ui, view(ys, :, j, b))
        rhs!(lane.slope, u, lane.m, tape.ts[j])
        gts[j] += j == 1 ? -(dot(lane.grad, lane.slope) - dot(gb(1), lane.slope)) : dot(gb(j), lane.slope)
    end
    return nothing
end
