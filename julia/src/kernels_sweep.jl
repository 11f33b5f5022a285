# Sums of products over windows: convolutions and their gradients, straight from strided views.
#
# c[r, o, x] (+)= sum over s of a[r, x, s] b[r, o, x, s]. r stands for three outer axes, s for four summed ones.
# k_sweep_rows! runs vectors along x (a contiguous there, b constant), k_sweep_dots! along the last summed axis. Both
# keep a tile of sums in registers over all of s: enough of them to hide the latency of a multiplication and to use
# every load several times. k_sweep_any! takes any strides.

# All products of X vectors u and O vectors v, added to X O sums.
@inline _products(c, u::NTuple{X,L}, v::NTuple{O,L}) where {X,O,L} =
    ntuple(n -> _fma(u[(n-1)%X+1], v[(n-1)÷X+1], c[n]), Val(X * O))

# ---- vectors along x ----
@inline function _rows_tile(w::Val{N}, xs::Val{X}, os::Val{O}, a, p, b, q, bo, as, bs, ns) where {N,X,O}
    c = _zeros(w, Val(X * O))
    @inbounds for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1
        pa = p + i * as[1] + j * as[2] + k * as[3]
        qb = q + i * bs[1] + j * bs[2] + k * bs[3]
        for _ = 1:ns[4]
            c = _products(c, _vectors(w, xs, a, pa, N), _spread(w, os, b, qb, bo))
            pa += as[4]
            qb += bs[4]
        end
    end
    return c
end

@inline function _rows_block!(
    w::Val{N}, xs::Val{X}, os::Val{O}, c, at, co, a, p, b, q, bo, as, bs, ns, add,
) where {N,X,O}
    sums = _rows_tile(w, xs, os, a, p, b, q, bo, as, bs, ns)
    for o = 0:O-1, x = 0:X-1
        i = at + o * co + x * N
        v = sums[o*X+x+1]
        _store!(c, i, add ? _plus(_load(w, c, i), v) : v)
    end
    return nothing
end

# X vectors of x for all o.
@inline function _rows!(w::Val, xs::Val{X}, c, at, co, no, a, p, b, q, bo, as, bs, ns, add) where {X}
    o = 0
    if 8X <= SUMS
        while o + 8 <= no
            _rows_block!(w, xs, Val(8), c, at + o * co, co, a, p, b, q + o * bo, bo, as, bs, ns, add)
            o += 8
        end
    end
    while o + 4 <= no
        _rows_block!(w, xs, Val(4), c, at + o * co, co, a, p, b, q + o * bo, bo, as, bs, ns, add)
        o += 4
    end
    at, q, rest = at + o * co, q + o * bo, no - o
    rest == 3 && _rows_block!(w, xs, Val(3), c, at, co, a, p, b, q, bo, as, bs, ns, add)
    rest == 2 && _rows_block!(w, xs, Val(2), c, at, co, a, p, b, q, bo, as, bs, ns, add)
    rest == 1 && _rows_block!(w, xs, Val(1), c, at, co, a, p, b, q, bo, as, bs, ns, add)
    return nothing
end

@noinline function k_sweep_rows!(
    c::Vector{Float64}, c0::Int, cr::Three, co::Int, a::Vector{Float64}, a0::Int, ar::Three, as::Four,
    b::Vector{Float64}, b0::Int, br::Three, bo::Int, bs::Four, nr::Three, no::Int, nx::Int, ns::Four, add::Bool,
)
    GC.@preserve a b c begin
        for i = 0:nr[1]-1, j = 0:nr[2]-1, k = 0:nr[3]-1
            ci = c0 + 1 + i * cr[1] + j * cr[2] + k * cr[3]
            p = a0 + 1 + i * ar[1] + j * ar[2] + k * ar[3]
            q = b0 + 1 + i * br[1] + j * br[2] + k * br[3]
            x = 0
            if AVX512
                while x + 4WIDE <= nx
                    _rows!(Val(WIDE), Val(4), c, ci + x, co, no, a, p + x, b, q, bo, as, bs, ns, add)
                    x += 4WIDE
                end
            end
            while x + 2WIDE <= nx
                _rows!(Val(WIDE), Val(2), c, ci + x, co, no, a, p + x, b, q, bo, as, bs, ns, add)
                x += 2WIDE
            end
            while x + 4 <= nx
                _rows!(Val(4), Val(1), c, ci + x, co, no, a, p + x, b, q, bo, as, bs, ns, add)
                x += 4
            end
            if x < nx && nx >= 4 && !add   # once more over some of the last vector: what is written twice is equal
                x = nx - 4
                _rows!(Val(4), Val(1), c, ci + x, co, no, a, p + x, b, q, bo, as, bs, ns, add)
                x = nx
            end
            while x < nx
                _rows!(Val(1), Val(1), c, ci + x, co, no, a, p + x, b, q, bo, as, bs, ns, add)
                x += 1
            end
        end
    end
    return nothing
end

# ---- vectors along the last summed axis ----
# Products of X rows of a, ax apart, and O rows of b, bo apart; `from` to `to` along the last summed axis.
@inline function _dots_tile(w::Val{N}, xs::Val{X}, os::Val{O}, a, p, ax, b, q, bo, as, bs, ns, from, to) where {N,X,O}
    c = _zeros(w, Val(X * O))
    for i = 0:ns[1]-1, j = 0:ns[2]-1, k = 0:ns[3]-1
        pa = p + i * as[1] + j * as[2] + k * as[3]
        qb = q + i * bs[1] + j * bs[2] + k * bs[3]
        l = from
        while l < to
            c = _products(c, _vectors(w, xs, a, pa + l, ax), _vectors(w, os, b, qb + l, bo))
            l += N
        end
    end
    return map(_total, c)
end

@inline function _dots_block!(xs::Val{X}, os::Val{O}, c, at, cx, co, a, p, ax, b, q, bo, as, bs, ns, add) where {X,O}
    n = ns[4]
    whole = n - n % WIDE
    sums = _dots_tile(Val(WIDE), xs, os, a, p, ax, b, q, bo, as, bs, ns, 0, whole)
    if whole < n
        sums = map(+, sums, _dots_tile(Val(1), xs, os, a, p, ax, b, q, bo, as, bs, ns, whole, n))
    end
    @inbounds for o = 0:O-1, x = 0:X-1
        i = at + o * co + x * cx
        v = sums[o*X+x+1]
        c[i] = add ? c[i] + v : v
    end
    return nothing
end

# O rows of b for all x.
@inline function _dots!(os::Val, c, at, cx, co, nx, a, p, ax, b, q, bo, bx, as, bs, ns, add)
    x = 0
    if bx == 0  # rows of b serve several x
        while AVX512 && x + 4 <= nx
            _dots_block!(Val(4), os, c, at + x * cx, cx, co, a, p + x * ax, ax, b, q, bo, as, bs, ns, add)
            x += 4
        end
        while x + 2 <= nx
            _dots_block!(Val(2), os, c, at + x * cx, cx, co, a, p + x * ax, ax, b, q, bo, as, bs, ns, add)
            x += 2
        end
    end
    while x < nx
        _dots_block!(Val(1), os, c, at + x * cx, cx, co, a, p + x * ax, ax, b, q + x * bx, bo, as, bs, ns, add)
        x += 1
    end
    return nothing
end

const CACHED = 3072  # numbers of b that stay in the first cache beside rows of a

# Rows of b are followed over all outer axes, among which are the windows of a convolution. Where few x share a row, its
# way from memory is what takes time: then only as many rows as stay in the cache meanwhile.
@noinline function k_sweep_dots!(
    c::Vector{Float64}, c0::Int, cr::Three, co::Int, cx::Int, a::Vector{Float64}, a0::Int, ar::Three, ax::Int, as::Four,
    b::Vector{Float64}, b0::Int, br::Three, bo::Int, bx::Int, bs::Four, nr::Three, no::Int, nx::Int, ns::Four,
    add::Bool,
)
    rows = nx < 4 ? clamp(CACHED ÷ prod(ns), 2, 4) : 4
    o = 0
    while o < no
        count = min(rows, no - o)
        GC.@preserve a b c for i = 0:nr[1]-1, j = 0:nr[2]-1, k = 0:nr[3]-1
            at = c0 + 1 + i * cr[1] + j * cr[2] + k * cr[3] + o * co
            p = a0 + 1 + i * ar[1] + j * ar[2] + k * ar[3]
            q = b0 + 1 + i * br[1] + j * br[2] + k * br[3] + o * bo
            count == 4 && _dots!(Val(4), c, at, cx, co, nx, a, p, ax, b, q, bo, bx, as, bs, ns, add)
            count == 3 && _dots!(Val(3), c, at, cx, co, nx, a, p, ax, b, q, bo, bx, as, bs, ns, add)
            count == 2 && _dots!(Val(2), c, at, cx, co, nx, a, p, ax, b, q, bo, bx, as, bs, ns, add)
            count == 1 && _dots!(Val(1), c, at, cx, co, nx, a, p, ax, b, q, bo, bx, as, bs, ns, add)
        end
        o += count
    end
    return nothing
end

# ---- any strides ----
@noinline function k_sweep_any!(
    c::Vector{Float64}, c0::Int, cr::Three, co::Int, cx::Int, a::Vector{Float64}, a0::Int, ar::Three, ao::Int, ax::Int,
    as::Four, b::Vector{Float64}, b0::Int, br::Three, bo::Int, bx::Int, bs::Four, nr::Three, no::Int, nx::Int,
    ns::Four, add::Bool,
)
    @inbounds for i = 0:nr[1]-1, j = 0:nr[2]-1, k = 0:nr[3]-1, o = 0:no-1, x = 0:nx-1
        p = a0 + 1 + i * ar[1] + j * ar[2] + k * ar[3] + o * ao + x * ax
        q = b0 + 1 + i * br[1] + j * br[2] + k * br[3] + o * bo + x * bx
        v = 0.0
        for d = 0:ns[1]-1, e = 0:ns[2]-1, f = 0:ns[3]-1, g = 0:ns[4]-1
            v = muladd(
                a[p+d*as[1]+e*as[2]+f*as[3]+g*as[4]], b[q+d*bs[1]+e*bs[2]+f*bs[3]+g*bs[4]], v)
        end
        at = c0 + 1 + i * cr[1] + j * cr[2] + k * cr[3] + o * co + x * cx
        c[at] = add ? c[at] + v : v
    end
    return nothing
end
