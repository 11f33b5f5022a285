# The right-hand side of one plan: a sum of parts, each a set of compiled functions with their own data.
#
# Every function is reached through a FunctionWrapper, so that the solver's types do not depend on the model
# and the solver is compiled once per installation. All arrays are plain vectors for the same reason.

# Signatures of a part's functions; each adds to its outputs (see lowering/program.py).
const RhsFn = FunctionWrapper{Nothing,Tuple{V,V,V,V,Float64,V,V}}             # f!, tgrad!: (out, u, c, p, t, w, k)
const JacFn = FunctionWrapper{Nothing,Tuple{M,V,V,V,Float64,V,V}}             # jac!: (J, u, c, p, t, w, k)
const VjpuFn = FunctionWrapper{Nothing,Tuple{V,V,V,V,V,Float64,V,V}}          # (gu, v, u, c, p, t, w, k)
const VjpFn = FunctionWrapper{Nothing,Tuple{V,V,V,V,V,V,V,V,Float64,V,V}}     # (gu, gc, gp, gt, v, u, c, p, t, w, k)
const HvpFn = FunctionWrapper{Nothing,Tuple{V,V,V,V,V,Float64,V,V,V,Float64,V,V}} # (gu, gc, gp, v, d, tau, u, c, p, t, w, k)
const JvpFn = FunctionWrapper{Nothing,Tuple{V,V,V,V,V,Float64,V,V}}           # (jd, d, u, c, p, t, w, k)

const FlushFn = FunctionWrapper{Nothing,Tuple{V,V}}                           # (gp, w)

# The garbage collector may free a module that nothing names, and with it the types of functions that live on.
const MODULES = Module[]

"A new module that stays."
function lasting_module(name::Symbol)
    mod = Module(name)
    push!(MODULES, mod)
    return mod
end

"""
    Functions

The compiled functions of one program, shared by all threads and by all plans of the same structure.
A wrapper is made, and its function compiled, when it is first needed (`prepare!`).
"""
mutable struct Functions
    source::Dict{Symbol,Any}    # name => callable
    workspace::Int
    time_dependent::Bool
    flush::FlushFn              # left undefined where the program puts nothing off
    f::RhsFn
    jac::JacFn
    tgrad::RhsFn
    vjpu::VjpuFn
    vjp::VjpFn
    hvp::HvpFn
    jvp::JvpFn
    Functions(source, workspace, time_dependent) = new(source, workspace, time_dependent)
end

const WRAPPERS = (; f = RhsFn, jac = JacFn, tgrad = RhsFn, vjpu = VjpuFn, vjp = VjpFn, hvp = HvpFn, jvp = JvpFn)

function prepare!(functions::Functions, names::Symbol...)
    for name in names
        isdefined(functions, name) && continue
        wrapper = WRAPPERS[name](functions.source[name])
        setfield!(functions, name, wrapper)
    end
    if haskey(functions.source, :flush) && !isdefined(functions, :flush) && (:vjp in names || :hvp in names)
        functions.flush = FlushFn(functions.source[:flush])
    end
end

"A part of a plan: functions, their constants, the part's place in p, and a factor for every component."
struct Part
    functions::Functions
    constants::V
    range::UnitRange{Int}
    gain::V                     # empty: one
end

"""
A plan as Python registered it. `pattern` is there when its linear systems are sparse, `mass` when M y' = f;
`stops` are times at which f may jump.
"""
struct Plan
    n::Int
    nc::Int
    np::Int
    parts::Vector{Part}
    pattern::Union{Pattern,Nothing}
    linear::String              # dense, sparse, krylov, or none for explicit methods
    mass::Union{Sparse,Nothing}
    stops::V
end

time_dependent(plan::Plan) = any(part.functions.time_dependent for part in plan.parts)
prepare!(plan::Plan, names::Symbol...) = foreach(part -> prepare!(part.functions, names...), plan.parts)

"What the plan's matrices are made of."
matrix_functions(plan::Plan) = plan.linear == "none" ? () : plan.linear == "dense" ? (:jac,) : (:jvp,)

"A part with the memory that one thread needs to evaluate it."
struct LivePart
    functions::Functions
    constants::V
    gain::V
    p::V                        # the part's parameters
    gp::V                       # their cotangents, accumulated
    w::V                        # scratch
end

"""
The latest time at which the right-hand side may be evaluated: just before the next jump of an input, so that a step
that ends there sees the input's value from the left.
"""
mutable struct Clock
    limit::Float64
end

"""
    Model

One thread's right-hand side: the plan's parts with scratch memory, and the context of the sample at hand.
It is the `p` of the ODEProblem. `system` solves the linear systems of implicit methods.
"""
struct Model
    n::Int
    parts::Vector{LivePart}
    time_dependent::Bool
    system::System
    mass::Union{Sparse,Nothing}
    stops::V
    clock::Clock
    c::V
    gc::V
    gt::V
    tmp::V
    scaled::V
    tmpJ::M
end

function Model(plan::Plan, p::V, system::System = NoSystem())
    parts = map(plan.parts) do part
        LivePart(part.functions, part.constants, part.gain, p[part.range], zeros(length(part.range)),
                 zeros(part.functions.workspace))
    end
    n = plan.n
    any_gain = any(!isempty(part.gain) for part in plan.parts)
    return Model(n, parts, time_dependent(plan), system, plan.mass, plan.stops, Clock(Inf), zeros(plan.nc), zeros(plan.nc), zeros(1), zeros(n), zeros(n),
                 any_gain ? zeros(n, n) : zeros(0, 0))
end

"The model with other parameters of its plan."
function set_parameters!(m::Model, plan::Plan, p::V)
    for (part, q) in zip(plan.parts, m.parts)
        copyto!(q.p, view(p, part.range))
    end
    return m
end

"The same right-hand side at the same context and time, with memory of its own: for another thread."
function twin(m::Model)
    parts = map(q -> LivePart(q.functions, q.constants, q.gain, q.p, zero(q.gp), zero(q.w)), m.parts)
    return Model(m.n, parts, m.time_dependent, NoSystem(), m.mass, m.stops, m.clock, m.c, zero(m.gc), zeros(1),
                 zeros(m.n), zeros(m.n), m.tmpJ)
end

"out += gain * f for one part."
function add_part!(out::V, f::RhsFn, q::LivePart, u::V, m::Model, t::Float64)
    if isempty(q.gain)
        f(out, u, m.c, q.p, t, q.w, q.constants)
        return nothing
    end
    fill!(m.tmp, 0.0)
    f(m.tmp, u, m.c, q.p, t, q.w, q.constants)
    @inbounds for i in eachindex(out)
        out[i] += q.gain[i] * m.tmp[i]
    end
    return nothing
end

"Evaluate from now on as in a step that starts at t."
function enter_step!(m::Model, t::Float64)
    isempty(m.stops) && return nothing
    k = searchsortedlast(m.stops, t) + 1
    m.clock.limit = k > length(m.stops) ? Inf : prevfloat(m.stops[k])
    return nothing
end

# Evaluations allocate nothing, and a thread that allocates nothing never stops for the garbage collector by itself: the
# others would wait for the rest of its sample. Hence the safepoints in what every solve and adjoint calls.

function rhs!(du::V, u::V, m::Model, time::Float64)
    GC.safepoint()
    t = min(time, m.clock.limit)
    fill!(du, 0.0)
    for q in m.parts
        add_part!(du, q.functions.f, q, u, m, t)
    end
    return nothing
end

function jacobian!(J::M, u::V, m::Model, time::Float64)
    t = min(time, m.clock.limit)
    fill!(J, 0.0)
    for q in m.parts
        if isempty(q.gain)
            q.functions.jac(J, u, m.c, q.p, t, q.w, q.constants)
        else
            fill!(m.tmpJ, 0.0)
            q.functions.jac(m.tmpJ, u, m.c, q.p, t, q.w, q.constants)
            @inbounds for j in axes(J, 2), i in axes(J, 1)
                J[i, j] += q.gain[i] * m.tmpJ[i, j]
            end
        end
    end
    return nothing
end

"jd += J(u) d."
function jvp!(jd::V, d::V, u::V, m::Model, time::Float64)
    t = min(time, m.clock.limit)
    for q in m.parts
        if isempty(q.gain)
            q.functions.jvp(jd, d, u, m.c, q.p, t, q.w, q.constants)
        else
            fill!(m.tmp, 0.0)
            q.functions.jvp(m.tmp, d, u, m.c, q.p, t, q.w, q.constants)
            @inbounds for i in eachindex(jd)
                jd[i] += q.gain[i] * m.tmp[i]
            end
        end
    end
    return nothing
end

function tgrad!(dT::V, u::V, m::Model, time::Float64)
    t = min(time, m.clock.limit)
    fill!(dT, 0.0)
    for q in m.parts
        q.functions.time_dependent && add_part!(dT, q.functions.tgrad, q, u, m, t)
    end
    return nothing
end

"The cotangent that a part sees: v times its gain."
function scaled(m::Model, q::LivePart, v::V)
    isempty(q.gain) && return v
    @inbounds for i in eachindex(v)
        m.scaled[i] = q.gain[i] * v[i]
    end
    return m.scaled
end

"gu += J(u)' v, nothing else."
function vjpu!(gu::V, v::V, u::V, m::Model, time::Float64)
    t = min(time, m.clock.limit)
    for q in m.parts
        q.functions.vjpu(gu, scaled(m, q, v), u, m.c, q.p, t, q.w, q.constants)
    end
    return nothing
end

"gu += J(u)' v, and the cotangents of context and parameters into the model's accumulators."
function vjp!(gu::V, v::V, u::V, m::Model, time::Float64)
    GC.safepoint()
    t = min(time, m.clock.limit)
    for q in m.parts
        q.functions.vjp(gu, m.gc, q.gp, m.gt, scaled(m, q, v), u, m.c, q.p, t, q.w, q.constants)
    end
    return nothing
end

"gu += gradient of v' (f_u d + f_t tau) for u, likewise context and parameters into the accumulators."
function hvp!(gu::V, v::V, d::V, tau::Float64, u::V, m::Model, time::Float64)
    t = min(time, m.clock.limit)
    for q in m.parts
        q.functions.hvp(gu, m.gc, q.gp, scaled(m, q, v), d, tau, u, m.c, q.p, t, q.w, q.constants)
    end
    return nothing
end

"Bring the parameters' cotangents up to date: programs put some of their products off (kernels_deferred.jl)."
function flush!(m::Model)
    for q in m.parts
        isdefined(q.functions, :flush) && q.functions.flush(q.gp, q.w)
    end
    return nothing
end

function clear_accumulators!(m::Model)
    flush!(m)
    for q in m.parts
        fill!(q.gp, 0.0)
    end
    return nothing
end
