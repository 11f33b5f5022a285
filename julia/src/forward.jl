# The forward solve of one sample, step by step, and what it leaves behind for the adjoint.

# Numbers of hybridsam_bridge.problem.Status.
const SUCCESS = 0
const MAX_STEPS = 1
const STEP_TOO_SMALL = 2
const NON_FINITE = 3
const NONLINEAR_SOLVER = 4
const TIME_LIMIT = 5
const NOT_RUN = 7
const INCONSISTENT = 8

"Numerical options of one call; `cancel` points at a flag that the caller may set to a status to stop with."
struct Controls
    rtol::Float64
    atol::V
    max_steps::Int
    cancel::Ptr{Int32}
    keep::Bool                  # leave a tape
    tape_limit::Int             # bytes of stages that one sample may keep
    deadline::UInt64            # of time_ns(); 0: none
end

"SUCCESS, or the status to stop with: the caller's wish, or the time limit."
function cancelled(ctl::Controls)
    flag = Int(unsafe_load(ctl.cancel))
    flag == SUCCESS && ctl.deadline != 0 && time_ns() > ctl.deadline && return TIME_LIMIT
    return flag
end

deadline(seconds) = seconds > 0 ? time_ns() + round(UInt64, 1e9 * seconds) : UInt64(0)

"What happened to one sample."
mutable struct Outcome
    status::Int
    reached::Float64
    steps::Int
    rejected::Int
    f::Int
    jac::Int
    gave_up::Bool               # a sparse LU took over from GMRES
end
Outcome() = Outcome(NOT_RUN, NaN, 0, 0, 0, 0, false)

"""
Accepted steps of a one-step method: times, states, and the stages. Beyond the memory limit stages are left out, and
then states: only every `stride`-th is kept, and the reverse pass computes the others again from the one before.
"""
mutable struct StepTape
    t::V                        # N + 1 times
    u::V                        # n numbers for each state kept
    ks::V                       # n s N, or empty
    full::Bool                  # ks is complete
    stride::Int
end
StepTape() = StepTape(Float64[], Float64[], Float64[], true, 1)

Base.sizeof(tape::StepTape) = 8 * (length(tape.t) + length(tape.u) + length(tape.ks))
steps(tape::StepTape) = length(tape.t) - 1

"The solution object of any other method, evaluated through its own dense output."
struct DenseTape{S}
    sol::S
end
Base.sizeof(tape::DenseTape) = 8 * sum(length, tape.sol.u; init = 0) * 8

# `RHS` (Rosenbrock and explicit methods) and `NEWTON_RHS` (ESDIRK) leave every matrix to the model's system, and
# OrdinaryDiffEq's own stays a token. The others take the dense Jacobian.
const TOKEN = zeros(1, 1)
const RHS = ODEFunction{true,FullSpecialize}(rhs!; Wfact_t = assemble_step!, tgrad = tgrad!, jac_prototype = TOKEN)
const NEWTON_RHS = ODEFunction{true,FullSpecialize}(rhs!; jac = newton_jacobian!, tgrad = tgrad!, jac_prototype = TOKEN)
const DENSE_RHS = ODEFunction{true,FullSpecialize}(rhs!; jac = jacobian!, tgrad = tgrad!)

right_hand_side(alg, m::Model) = m.mass === nothing ? RHS : with_mass(m.mass)
with_mass(mass::Sparse) = ODEFunction{true,FullSpecialize}(
    rhs!; Wfact_t = assemble_step!, tgrad = tgrad!, jac_prototype = TOKEN, mass_matrix = mass)

function status_of(code)
    code in (ReturnCode.Success, ReturnCode.Default) && return SUCCESS
    code == ReturnCode.MaxIters && return MAX_STEPS
    code == ReturnCode.DtLessThanMin && return STEP_TOO_SMALL
    code in (ReturnCode.Unstable, ReturnCode.DtNaN) && return NON_FINITE
    return NONLINEAR_SOLVER
end

# A step below the floating-point spacing is often how a NaN right-hand side ends: say so.
function refine(status::Int, u::V, m::Model, t::Float64, du::V)
    status in (STEP_TOO_SMALL, NONLINEAR_SOLVER) || return status
    rhs!(du, u, m, t)
    return all(isfinite, u) && all(isfinite, du) ? status : NON_FINITE
end

function record!(outcome::Outcome, status::Int, integrator)
    outcome.status = status
    outcome.reached = integrator.t
    stats = integrator.stats
    outcome.steps, outcome.rejected, outcome.f, outcome.jac = stats.naccept, stats.nreject, stats.nf, stats.njacs
    return nothing
end

"Singular matrices end a solve with a status; every other exception is the model's own and goes on."
is_linear_failure(error) = error isa Union{SingularException,LAPACKException,ZeroPivotException}

"""
    solve_steps!(store, alg, m, u0, ts, ctl, forced, tape, outcome) -> Outcome

Solve of one sample by a method whose stages the tape can keep. `store(j, u)` takes output j; `forced` (empty: adaptive) the step ends.
"""
function solve_steps!(store, alg, m::Model, u0::V, ts::V, ctl::Controls, forced::V, tape::StepTape, outcome::Outcome)
    begin_solve!(m.system, ctl.rtol, ctl.atol; given = !isempty(forced))
    enter_step!(m, ts[1])
    m.mass === nothing || is_consistent(m, u0, ts[1], ctl) || return refuse!(outcome)
    # A function barrier: the problem's type depends on whether there is a mass matrix.
    return integrate!(store, alg, right_hand_side(alg, m), m, u0, ts, ctl, forced, tape, outcome)
end

function integrate!(store, alg, f, m::Model, u0::V, ts::V, ctl::Controls, forced::V, tape::StepTape, outcome::Outcome)
    prob = ODEProblem{true,FullSpecialize}(f, u0, (ts[1], ts[end]), m)
    common = (; abstol = ctl.atol, reltol = ctl.rtol, maxiters = ctl.max_steps, save_everystep = false,
              save_start = false, save_end = false, dense = false, calck = false, verbose = QUIET,
              initializealg = NoInit())
    integrator = isempty(forced) ? init(prob, alg; common..., tstops = inside(m.stops, ts)) :
                 init(prob, alg; common..., adaptive = false, dt = ts[end] - ts[1], tstops = forced)
    return advance!(store, integrator, m, ts, ctl, tape, outcome)
end

inside(stops::V, ts::V) = isempty(stops) ? stops : filter(t -> ts[1] < t < ts[end], stops)

# How far the algebraic equations may be from zero at the start, as a multiple of what the tolerances allow.
const CONSISTENT = 100.0

"Whether u0 satisfies the equations without a derivative (M's rows of zeros)."
function is_consistent(m::Model, u0::V, t::Float64, ctl::Controls)
    f, allowed = zeros(m.n), zeros(m.n)
    rhs!(f, u0, m, t)
    algebraic = trues(m.n)
    algebraic[m.mass.rowval[m.mass.nzval .!= 0]] .= false
    # What a change of every unknown within its tolerance does to f.
    absolute_row_sums!(allowed, m.system, ctl.atol .+ ctl.rtol .* abs.(u0), u0, m, t)
    return all(i -> !algebraic[i] || abs(f[i]) <= CONSISTENT * allowed[i] + eps(), 1:m.n)
end

function refuse!(outcome::Outcome)
    outcome.status = INCONSISTENT
    return outcome
end

function advance!(store, integrator, m::Model, ts::V, ctl::Controls, tape::StepTape, outcome::Outcome)
    tab = tableau(integrator.cache)
    before = jacobians(m.system)
    n, s = m.n, tab.stages
    y, f1 = zeros(n), zeros(n)
    stages = zeros(n * s)
    ctl.keep && (push!(tape.t, integrator.t); append!(tape.u, integrator.u))
    j = 2
    status = cancelled(ctl)
    while status == SUCCESS
        status = status_of(step!(integrator))
        status == SUCCESS || break
        all(isfinite, integrator.u) || (status = NON_FINITE; break)
        t0, t1 = integrator.tprev, integrator.t
        h = t1 - t0
        ctl.keep && keep_step!(tape, integrator, t1, h, n * s, ctl.tape_limit)
        if j <= length(ts) && ts[j] < t1
            copy_stages!(stages, 0, integrator.cache, h)
            needs_slopes(tab) && rhs!(f1, integrator.u, m, t1)
            while j <= length(ts) && ts[j] < t1
                theta = (ts[j] - t0) / h
                interpolate!(y, theta, tab, integrator.uprev, integrator.u, stages, h, first_slope(integrator.cache), f1)
                store(j, y)
                j += 1
            end
        end
        while j <= length(ts) && ts[j] == t1
            store(j, integrator.u)
            j += 1
        end
        j > length(ts) && break
        pass_stop!(integrator, m, t1)
        status = cancelled(ctl)
    end
    status = refine(status, integrator.u, m, integrator.t, f1)
    record!(outcome, status, integrator)
    outcome.jac = jacobians(m.system) - before
    outcome.gave_up = gave_up(m.system)
    return outcome
end

"At a jump of the right-hand side: on with the values to its right, and with slopes evaluated anew."
function pass_stop!(integrator, m::Model, t::Float64)
    isempty(m.stops) && return nothing
    enter_step!(m, t)
    insorted(t, m.stops) && derivative_discontinuity!(integrator, true)
    return nothing
end

first_slope(cache) = cache.fsalfirst
first_slope(cache::Tsit5Cache) = cache.k1

function keep_step!(tape::StepTape, integrator, t1::Float64, h::Float64, stage_size::Int, limit::Int)
    push!(tape.t, t1)
    if steps(tape) % tape.stride == 0
        append!(tape.u, integrator.u)
        8 * length(tape.u) > limit && length(tape.u) > 4 * length(integrator.u) && thin!(tape, length(integrator.u))
    end
    tape.full || return nothing
    if 8 * (length(tape.u) + length(tape.ks) + stage_size) > limit
        tape.full = false
        tape.ks = V()
        return nothing
    end
    offset = length(tape.ks)
    resize!(tape.ks, offset + stage_size)
    copy_stages!(tape.ks, offset, integrator.cache, h)
    return nothing
end

"Keep every second of the states that are there."
function thin!(tape::StepTape, n::Int)
    tape.full, tape.ks = false, V()
    kept = length(tape.u) ÷ n
    for k in 1:(kept-1)÷2
        copyto!(tape.u, k * n + 1, tape.u, 2k * n + 1, n)
    end
    resize!(tape.u, n * ((kept - 1) ÷ 2 + 1))
    tape.stride *= 2
    return nothing
end

"y(θ) within a step; f0 and f1 are used by methods without an interpolant of their own."
function interpolate!(y::V, theta::Float64, tab::Tableau, u0, u1, ks, h::Float64, f0::V, f1::V)
    n = length(y)
    if isempty(tab.H)
        a0, a1, b0, b1 = hermite(theta)
        @inbounds for i in 1:n
            y[i] = a0 * u0[i] + a1 * u1[i] + h * (b0 * f0[i] + b1 * f1[i])
        end
        return nothing
    end
    @inbounds for i in 1:n
        y[i] = (1 - theta) * u0[i] + theta * u1[i]
    end
    @inbounds for k in 1:tab.stages
        w = weight(tab, k, theta)
        for i in 1:n
            y[i] += w * ks[(k-1)*n+i]
        end
    end
    return nothing
end

absolute_tolerance(alg, ctl::Controls) = ctl.atol

"""
    solve_dense!(store, alg, m, u0, ts, ctl, outcome) -> DenseTape or nothing

Any other method; outputs and the tape through the method's own dense output.
"""
function solve_dense!(store, alg, m::Model, u0::V, ts::V, ctl::Controls, outcome::Outcome)
    enter_step!(m, ts[1])
    prob = ODEProblem{true,FullSpecialize}(DENSE_RHS, u0, (ts[1], ts[end]), m)
    integrator = init(prob, alg; abstol = absolute_tolerance(alg, ctl), reltol = ctl.rtol, maxiters = ctl.max_steps,
                      save_everystep = ctl.keep, save_start = ctl.keep, save_end = ctl.keep, dense = ctl.keep,
                      calck = true, verbose = QUIET, tstops = inside(m.stops, ts))
    y = zeros(m.n)
    j = 2
    status = cancelled(ctl)
    while status == SUCCESS
        status = status_of(step!(integrator))
        status == SUCCESS || break
        all(isfinite, integrator.u) || (status = NON_FINITE; break)
        while j <= length(ts) && ts[j] <= integrator.t
            if ts[j] == integrator.t
                store(j, integrator.u)
            else
                integrator(y, ts[j])
                store(j, y)
            end
            j += 1
        end
        j > length(ts) && break
        pass_stop!(integrator, m, integrator.t)
        status = cancelled(ctl)
    end
    status = refine(status, integrator.u, m, integrator.t, y)
    record!(outcome, status, integrator)
    return ctl.keep && status == SUCCESS ? DenseTape(integrator.sol) : nothing
end
