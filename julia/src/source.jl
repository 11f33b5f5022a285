# Parts that the user wrote in Julia: f!(du, u, p, t) or f!(du, u, p, t, c). Derivatives by ForwardDiff, or by
# the user's own functions, behind the same signatures as a program traced from torch.

"An error in the user's code, with Julia's message and the place in the user's file."
struct SourceError <: Exception
    message::String
end
Base.showerror(io::IO, error::SourceError) = print(io, error.message)

"Julia's message for `error`, with the frames that lie in the user's file."
function user_message(error, trace, filename::String)
    io = IOBuffer()
    showerror(io, error)
    frames = [frame for frame in stacktrace(trace) if endswith(String(frame.file), filename)]
    for frame in unique(f -> (f.file, f.line), frames)
        print(io, "\n  at ", frame.file, ":", frame.line, " in ", frame.func)
    end
    return String(take!(io))
end

guarded(run, filename) =
    try
        run()
    catch error
        error isa SourceError && rethrow()
        throw(SourceError(user_message(error, catch_backtrace(), filename)))
    end

"How a part's flat parameter vector looks to the user: a NamedTuple of scalars and arrays, or the vector."
struct Layout{Names,Shapes}
    named::Bool
end
Layout(names, shapes, named) = Layout{Tuple(Symbol.(names)),Tuple(Tuple.(shapes))}(named)

@inline field(p, offset, ::Val{()}) = p[offset+1]
@inline field(p, offset, ::Val{shape}) where {shape} =
    length(shape) == 1 ? view(p, offset+1:offset+shape[1]) :
    permutedims_view(reshape(view(p, offset+1:offset+prod(shape)), reverse(shape)))
# torch is row-major: entry [i, j] there must be entry [i, j] here.
@inline permutedims_view(x) = PermutedDimsArray(x, ntuple(i -> ndims(x) + 1 - i, ndims(x)))

function present(layout::Layout{Names,Shapes}, p::AbstractVector) where {Names,Shapes}
    layout.named || return p
    offsets = (0, cumsum(prod.(Shapes; init = 1))...)
    return NamedTuple{Names}(ntuple(i -> field(p, offsets[i], Val(Shapes[i])), length(Names)))
end

struct UserRhs{F,L}
    f::F
    layout::L
    takes_context::Bool
    filename::String
end

@inline function (r::UserRhs)(du, u, c, p, t)
    q = present(r.layout, p)
    r.takes_context ? r.f(du, u, q, t, c) : r.f(du, u, q, t)
    return du
end

const CHUNK = 8

struct UTag end
struct ETag end
# ETag is outermost where both meet (ForwardDiff asks for the order of tags that are not its own).
ForwardDiff.:≺(::Type{UTag}, ::Type{ETag}) = true
ForwardDiff.:≺(::Type{ETag}, ::Type{UTag}) = false

"""
    source_functions(code, filename, name, ...) -> Functions

Evaluate the user's source in a module of its own. Throws `SourceError` where it does not parse or run, or
lacks the function.
"""
function source_functions(code, filename, name, layout, takes_context, n, nc, np, jacobian, paramjac)
    mod = lasting_module(gensym(:UserModel))
    Core.eval(mod, :(using Base, LinearAlgebra))
    guarded(() -> include_string(mod, code, filename), filename)
    pick(symbol) = isdefined(mod, Symbol(symbol)) ? getfield(mod, Symbol(symbol)) :
        throw(SourceError("$filename defines no function $symbol. Define $symbol, or name the entry point with function=..."))
    rhs = UserRhs(pick(name), layout, takes_context, filename)
    jac = jacobian === nothing ? nothing : pick(jacobian)
    pjac = paramjac === nothing ? nothing : pick(paramjac)
    return Functions(Base.invokelatest(derivatives, rhs, n, nc, np, jac, pjac), n, true)
end

function derivatives(rhs::UserRhs, n, nc, np, jac, pjac)
    file = rhs.filename
    guard(f) = (args...) -> guarded(() -> (f(args...); nothing), file)
    return Dict{Symbol,Any}(
        :f => guard((out, u, c, p, t, w, k) -> user_f!(out, rhs, u, c, p, t, w)),
        :jac => guard(jac === nothing ? (J, u, c, p, t, w, k) -> user_jac!(J, rhs, u, c, p, t) :
                      (J, u, c, p, t, w, k) -> supplied_jac!(J, jac, rhs, u, c, p, t)),
        :tgrad => guard((out, u, c, p, t, w, k) -> user_tgrad!(out, rhs, u, c, p, t)),
        :jvp => guard((jd, d, u, c, p, t, w, k) -> user_jvp!(jd, d, rhs, u, c, p, t)),
        :vjpu => guard(jac === nothing ? (gu, v, u, c, p, t, w, k) -> user_vjpu!(gu, v, rhs, u, c, p, t) :
                       (gu, v, u, c, p, t, w, k) -> supplied_vjpu!(gu, v, jac, rhs, u, c, p, t)),
        :vjp => guard(jac === nothing || pjac === nothing || nc > 0 ?
                      (gu, gc, gp, gt, v, u, c, p, t, w, k) -> user_vjp!(gu, gc, gp, v, rhs, u, c, p, t) :
                      (gu, gc, gp, gt, v, u, c, p, t, w, k) -> supplied_vjp!(gu, gp, v, jac, pjac, rhs, u, c, p, t)),
        :hvp => guard((gu, gc, gp, v, d, tau, u, c, p, t, w, k) -> user_hvp!(gu, gc, gp, v, d, tau, rhs, u, c, p, t)),
    )
end

function user_f!(out::V, rhs, u::V, c::V, p::V, t, w::V)
    du = fill!(view(w, 1:length(u)), 0.0)
    rhs(du, u, c, p, t)
    out .+= du
end

seeds(::Type{T}, x, first, count, ::Val{N}) where {T,N} =
    [ForwardDiff.Dual{T}(x[i], ntuple(k -> first <= i < first + count && k == i - first + 1 ? 1.0 : 0.0, Val(N)))
     for i in eachindex(x)]

function user_jac!(J::M, rhs, u::V, c::V, p::V, t)
    n = length(u)
    N = Val(CHUNK)
    for first in 1:CHUNK:n
        count = min(CHUNK, n - first + 1)
        x = seeds(UTag, u, first, count, N)
        du = zero(x)
        rhs(du, x, c, p, t)
        for k in 1:count, i in 1:n
            J[i, first+k-1] += ForwardDiff.partials(du[i], k)
        end
    end
end

function user_tgrad!(out::V, rhs, u::V, c::V, p::V, t)
    du = zeros(ForwardDiff.Dual{UTag,Float64,1}, length(u))
    rhs(du, u, c, p, ForwardDiff.Dual{UTag}(t, 1.0))
    for i in eachindex(out)
        out[i] += ForwardDiff.partials(du[i], 1)
    end
end

function user_jvp!(jd::V, d::V, rhs, u::V, c::V, p::V, t)
    x = [ForwardDiff.Dual{UTag}(u[i], d[i]) for i in eachindex(u)]
    du = zero(x)
    rhs(du, x, c, p, t)
    for i in eachindex(jd)
        jd[i] += ForwardDiff.partials(du[i], 1)
    end
end

function user_vjpu!(gu::V, v::V, rhs, u::V, c::V, p::V, t)
    J = zeros(length(u), length(u))
    user_jac!(J, rhs, u, c, p, t)
    mul!(gu, J', v, 1.0, 1.0)
end

# Gradient of a scalar of the joined vector z = (u, c, p), chunk by chunk, added to its three places.
function add_gradient!(scalar, gu::V, gc::V, gp::V, u::V, c::V, p::V)
    z = vcat(u, c, p)
    n, nc = length(u), length(c)
    for first in 1:CHUNK:length(z)
        count = min(CHUNK, length(z) - first + 1)
        x = seeds(UTag, z, first, count, Val(CHUNK))
        s = scalar(view(x, 1:n), view(x, n+1:n+nc), view(x, n+nc+1:length(z)))
        for k in 1:count
            i, g = first + k - 1, ForwardDiff.partials(s, k)
            i <= n ? (gu[i] += g) : i <= n + nc ? (gc[i-n] += g) : (gp[i-n-nc] += g)
        end
    end
end

function user_vjp!(gu::V, gc::V, gp::V, v::V, rhs, u::V, c::V, p::V, t)
    add_gradient!(gu, gc, gp, u, c, p) do x, y, q
        du = similar(x)
        fill!(du, zero(eltype(x)))
        rhs(du, x, y, q, t)
        return sum(v[i] * du[i] for i in eachindex(v))
    end
end

function user_hvp!(gu::V, gc::V, gp::V, v::V, d::V, tau, rhs, u::V, c::V, p::V, t)
    add_gradient!(gu, gc, gp, u, c, p) do x, y, q
        z = [ForwardDiff.Dual{ETag}(x[i], convert(eltype(x), d[i])) for i in eachindex(x)]
        du = zero(z)
        rhs(du, z, y, q, ForwardDiff.Dual{ETag}(convert(eltype(x), t), convert(eltype(x), tau)))
        return sum(v[i] * ForwardDiff.partials(du[i], 1) for i in eachindex(v))
    end
end

# The user's own derivatives, of SciML's signatures jac(J, u, p, t) and paramjac(Jp, u, p, t).
call_derivative(f, out, rhs, u, c, p, t) =
    rhs.takes_context ? f(out, u, present(rhs.layout, p), t, c) : f(out, u, present(rhs.layout, p), t)

function supplied_jac!(J::M, jac, rhs, u::V, c::V, p::V, t)
    out = zeros(length(u), length(u))
    call_derivative(jac, out, rhs, u, c, p, t)
    J .+= out
end

function supplied_vjpu!(gu::V, v::V, jac, rhs, u::V, c::V, p::V, t)
    out = zeros(length(u), length(u))
    call_derivative(jac, out, rhs, u, c, p, t)
    mul!(gu, out', v, 1.0, 1.0)
end

function supplied_vjp!(gu::V, gp::V, v::V, jac, pjac, rhs, u::V, c::V, p::V, t)
    supplied_vjpu!(gu, v, jac, rhs, u, c, p, t)
    out = zeros(length(u), length(p))
    call_derivative(pjac, out, rhs, u, c, p, t)
    mul!(gp, out', v, 1.0, 1.0)
end
