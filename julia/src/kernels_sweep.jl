# Sums of products over windows: convolutions and their gradients, straight from strided views.
#
# c[r, o, x] (+)= sum over s of a[r, x, s] b[r, o, x, s]. r stands for three outer axes, s for four summed ones.
# k_sweep_rows! runs vectors along x (a contiguous there, b constant) and keeps 4 o times 8 x sums in registers
# over all of s. k_sweep_dots! runs vectors along the last summed axis. k_sweep_any! takes any strides.

const Lanes{N} = NTuple{N,VecElement{Float64}}

@inline _load(::Val{N}, x::Vector{Float64}, i::Int) where {N} = unsafe_load(Ptr{Lanes{N}}(pointer(x, i)))
@inline _store!(x::Vector{Float64}, i::Int, v::Lanes{N}) where {N} = unsafe_store!(Ptr{Lanes{N}}(pointer(x, i)), v)
@inline _all(::Val{N}, v::Float64) where {N} = ntuple(_ -> VecElement(v), Val(N))

for n in (4, 8)
    @eval @inline _fma(a::Lanes{$n}, b::Lanes{$n}, c::Lanes{$n}) = Base.llvmcall(
        $("""
        %p = fmul contract <$n x double> %0, %1
        %r = fadd contract <$n x double> %p, %2
        ret <$n x double> %r
        """), Lanes{$n}, Tuple{Lanes{$n},Lanes{$n},Lanes{$n}}, a, b, c)
    @eval @inline _plus(a::Lanes{$n}, b::Lanes{$n}) = Base.llvmcall(
        $("""
        %r = fadd <$n x double> %0, %1
        ret <$n x double> %r
        """), Lanes{$n}, Tuple{Lanes{$n},Lanes{$n}}, a, b)
end
@inline _total(v::Lanes{N}) where {N} = sum(ntuple(i -> v[i].value, Val(N)))

# One vector of x for four o: everything stays in registers over s.
@inline function _tile4(w::Val, a, p, b, q, bo, as, bs, ns)
    c0 = c1 = c2 = c3 = _all(w, 0.0)
    @inbounds for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1
        pa = p + i * as[1] + j * as[2] + k * as[3]
        qb = q + i * bs[1] + j * bs[2] + k * bs[3]
        for _ = 1:ns[4]
            v = _load(w, a, pa)
            c0 = _fma(v, _all(w, b[qb]), c0)
            c1 = _fma(v, _all(w, b[qb+bo]), c1)
            c2 = _fma(v, _all(w, b[qb+2bo]), c2)
            c3 = _fma(v, _all(w, b[qb+3bo]), c3)
            pa += as[4]
            qb += bs[4]
        end
    end
    return c0, c1, c2, c3
end

@inline function _tile1(w::Val, a, p, b, q, as, bs, ns)
    c0 = _all(w, 0.0)
    @inbounds for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1
        pa = p + i * as[1] + j * as[2] + k * as[3]
        qb = q + i * bs[1] + j * bs[2] + k * bs[3]
        for _ = 1:ns[4]
            c0 = _fma(_load(w, a, pa), _all(w, b[qb]), c0)
            pa += as[4]
            qb += bs[4]
        end
    end
    return c0
end

@inline _put!(w::Val, c, i, v, add) = _store!(c, i, add ? _plus(_load(w, c, i), v) : v)

@inline function _row!(w::Val{N}, x, c, ci, co, no, a, p, b, q, bo, as, bs, ns, add) where {N}
    o = 0
    while o + 4 <= no
        c0, c1, c2, c3 = _tile4(w, a, p + x, b, q + o * bo, bo, as, bs, ns)
        i = ci + x + o * co
        _put!(w, c, i, c0, add)
        _put!(w, c, i + co, c1, add)
        _put!(w, c, i + 2co, c2, add)
        _put!(w, c, i + 3co, c3, add)
        o += 4
    end
    while o < no
        _put!(w, c, ci + x + o * co, _tile1(w, a, p + x, b, q + o * bo, as, bs, ns), add)
        o += 1
    end
    return nothing
end

@inline function _element(a, p, b, q, as, bs, ns)
    total = 0.0
    @inbounds for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1, l = 0:ns[4]-1
        total = muladd(
            a[p+i*as[1]+j*as[2]+k*as[3]+l*as[4]], b[q+i*bs[1]+j*bs[2]+k*bs[3]+l*bs[4]], total)
    end
    return total
end

const Four = NTuple{4,Int}
const Three = NTuple{3,Int}

@noinline function k_sweep_rows!(
    c::Vector{Float64}, c0::Int, cr::Three, co::Int, a::Vector{Float64}, a0::Int, ar::Three, as::Four,
    b::Vector{Float64}, b0::Int, br::Three, bo::Int, bs::Four, nr::Three, no::Int, nx::Int, ns::Four, add::Bool,
)
    GC.@preserve a b c begin
        @inbounds for i = 0:nr[1]-1, j = 0:nr[2]-1, k = 0:nr[3]-1
            ci = c0 + 1 + i * cr[1] + j * cr[2] + k * cr[3]
            p = a0 + 1 + i * ar[1] + j * ar[2] + k * ar[3]
            q = b0 + 1 + i * br[1] + j * br[2] + k * br[3]
            x = 0
            while x + 8 <= nx
                _row!(Val(8), x, c, ci, co, no, a, p, b, q, bo, as, bs, ns, add)
                x += 8
            end
            if x + 4 <= nx
                _row!(Val(4), x, c, ci, co, no, a, p, b, q, bo, as, bs, ns, add)
                x += 4
            end
            while x < nx
                for o = 0:no-1
                    v = _element(a, p + x, b, q + o * bo, as, bs, ns)
                    at = ci + x + o * co
                    c[at] = add ? c[at] + v : v
                end
                x += 1
            end
        end
    end
    return nothing
end

# Four o at once: sums over s of a (one load) times b at four o; the last summed axis is contiguous in both.
@inline function _dots4(a, p, b, q, bo, as, bs, ns)
    w = Val(4)
    c0 = c1 = c2 = c3 = _all(w, 0.0)
    e0 = e1 = e2 = e3 = 0.0
    @inbounds for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1
        pa = p + i * as[1] + j * as[2] + k * as[3]
        qb = q + i * bs[1] + j * bs[2] + k * bs[3]
        l = 0
        while l + 4 <= ns[4]
            v = _load(w, a, pa + l)
            c0 = _fma(v, _load(w, b, qb + l), c0)
            c1 = _fma(v, _load(w, b, qb + bo + l), c1)
            c2 = _fma(v, _load(w, b, qb + 2bo + l), c2)
            c3 = _fma(v, _load(w, b, qb + 3bo + l), c3)
            l += 4
        end
        while l < ns[4]
            v = a[pa+l]
            e0 = muladd(v, b[qb+l], e0)
            e1 = muladd(v, b[qb+bo+l], e1)
            e2 = muladd(v, b[qb+2bo+l], e2)
            e3 = muladd(v, b[qb+3bo+l], e3)
            l += 1
        end
    end
    return _total(c0) + e0, _total(c1) + e1, _total(c2) + e2, _total(c3) + e3
end

# The same for two a, an offset `ax` apart: six loads for eight products.
@inline function _dots8(a, p, ax, b, q, bo, as, bs, ns)
    w = Val(4)
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = _all(w, 0.0)
    e0 = e1 = e2 = e3 = f0 = f1 = f2 = f3 = 0.0
    @inbounds for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1
        pa = p + i * as[1] + j * as[2] + k * as[3]
        qb = q + i * bs[1] + j * bs[2] + k * bs[3]
        l = 0
        while l + 4 <= ns[4]
            u, v = _load(w, a, pa + l), _load(w, a, pa + ax + l)
            x = _load(w, b, qb + l)
            c0, d0 = _fma(u, x, c0), _fma(v, x, d0)
            x = _load(w, b, qb + bo + l)
            c1, d1 = _fma(u, x, c1), _fma(v, x, d1)
            x = _load(w, b, qb + 2bo + l)
            c2, d2 = _fma(u, x, c2), _fma(v, x, d2)
            x = _load(w, b, qb + 3bo + l)
            c3, d3 = _fma(u, x, c3), _fma(v, x, d3)
            l += 4
        end
        while l < ns[4]
            u, v = a[pa+l], a[pa+ax+l]
            x0, x1, x2, x3 = b[qb+l], b[qb+bo+l], b[qb+2bo+l], b[qb+3bo+l]
            e0, f0 = muladd(u, x0, e0), muladd(v, x0, f0)
            e1, f1 = muladd(u, x1, e1), muladd(v, x1, f1)
            e2, f2 = muladd(u, x2, e2), muladd(v, x2, f2)
            e3, f3 = muladd(u, x3, e3), muladd(v, x3, f3)
            l += 1
        end
    end
    return (_total(c0) + e0, _total(c1) + e1, _total(c2) + e2, _total(c3) + e3),
        (_total(d0) + f0, _total(d1) + f1, _total(d2) + f2, _total(d3) + f3)
end

@noinline function k_sweep_dots!(
    c::Vector{Float64}, c0::Int, cr::Three, co::Int, cx::Int, a::Vector{Float64}, a0::Int, ar::Three, ax::Int, as::Four,
    b::Vector{Float64}, b0::Int, br::Three, bo::Int, bx::Int, bs::Four, nr::Three, no::Int, nx::Int, ns::Four,
    add::Bool,
)
    GC.@preserve a b c begin
        @inbounds for i = 0:nr[1]-1, j = 0:nr[2]-1, k = 0:nr[3]-1
            ci = c0 + 1 + i * cr[1] + j * cr[2] + k * cr[3]
            p = a0 + 1 + i * ar[1] + j * ar[2] + k * ar[3]
            q = b0 + 1 + i * br[1] + j * br[2] + k * br[3]
            x = 0
            while x < nx
                two = x + 2 <= nx && bx == 0
                pa, qb, cx0 = p + x * ax, q + x * bx, ci + x * cx
                o = 0
                while o + 4 <= no
                    if two
                        v, u = _dots8(a, pa, ax, b, qb + o * bo, bo, as, bs, ns)
                        _put_four!(c, cx0 + o * co, co, v, add)
                        _put_four!(c, cx0 + cx + o * co, co, u, add)
                    else
                        _put_four!(c, cx0 + o * co, co, _dots4(a, pa, b, qb + o * bo, bo, as, bs, ns), add)
                    end
                    o += 4
                end
                while o < no
                    for e = 0:Int(two)
                        v = _dot(a, pa + e * ax, b, qb + o * bo, as, bs, ns)
                        at = cx0 + e * cx + o * co
                        c[at] = add ? c[at] + v : v
                    end
                    o += 1
                end
                x += 1 + two
            end
        end
    end
    return nothing
end

@inline function _put_four!(c, at, step, v, add)
    @inbounds for e = 1:4
        i = at + (e - 1) * step
        c[i] = add ? c[i] + v[e] : v[e]
    end
    return nothing
end

@inline function _dot(a, p, b, q, as, bs, ns)
    total = 0.0
    @inbounds for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1
        pa = p + i * as[1] + j * as[2] + k * as[3]
        qb = q + i * bs[1] + j * bs[2] + k * bs[3]
        @simd for l = 0:ns[4]-1
            total = muladd(a[pa+l], b[qb+l], total)
        end
    end
    return total
end

@noinline function k_sweep_any!(
    c::Vector{Float64}, c0::Int, cr::Three, co::Int, cx::Int, a::Vector{Float64}, a0::Int, ar::Three, ao::Int, ax::Int,
    as::Four, b::Vector{Float64}, b0::Int, br::Three, bo::Int, bx::Int, bs::Four, nr::Three, no::Int, nx::Int,
    ns::Four, add::Bool,
)
    @inbounds for i = 0:nr[1]-1, j = 0:nr[2]-1, k = 0:nr[3]-1, o = 0:no-1, x = 0:nx-1
        v = _element(
            a, a0 + 1 + i * ar[1] + j * ar[2] + k * ar[3] + o * ao + x * ax,
            b, b0 + 1 + i * br[1] + j * br[2] + k * br[3] + o * bo + x * bx, as, bs, ns)
        at = c0 + 1 + i * cr[1] + j * cr[2] + k * cr[3] + o * co + x * cx
        c[at] = add ? c[at] + v : v
    end
    return nothing
end
