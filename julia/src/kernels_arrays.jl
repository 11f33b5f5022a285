# Kernels that emitted programs call. Compiled once, with the package: every array is a Vector{Float64}
# (the dense Jacobian a Matrix{Float64}), offsets are zero-based, strides are in elements.
# Numbered names f... are functions of numbers, k_... work on arrays in place. None allocates or throws,
# except on an index outside its axis.

import LinearAlgebra

const Vec = Vector{Float64}
const Four = NTuple{4,Int}
const Three = NTuple{3,Int}

include("kernels_lanes.jl")
include("kernels_math.jl")
include("kernels_maps.jl")
include("kernels_products.jl")
include("kernels_sweep.jl")
include("kernels_deferred.jl")

# ---- filling, copying, adding ----
@noinline function k_fill!(y::Vec, y0::Int, n::Int, value::Float64)
    @inbounds @simd ivdep for i = 1:n
        y[y0+i] = value
    end
    return nothing
end

# y (n, dense) = value everywhere but in the box of m numbers from b
@noinline function k_frame!(y::Vec, y0::Int, value::Float64, n::Four, b::Four, m::Four)
    inside(i, axis) = b[axis] <= i < b[axis] + m[axis]
    q = y0
    @inbounds for i = 0:n[1]-1, j = 0:n[2]-1, k = 0:n[3]-1
        if inside(i, 1) && inside(j, 2) && inside(k, 3)
            for l = 1:b[4]
                y[q+l] = value
            end
            for l = b[4]+m[4]+1:n[4]
                y[q+l] = value
            end
        else
            @simd ivdep for l = 1:n[4]
                y[q+l] = value
            end
        end
        q += n[4]
    end
    return nothing
end

@noinline function k_eye!(y::Vec, y0::Int, n::Int)
    k_fill!(y, y0, n * n, 0.0)
    @inbounds for i = 0:n-1
        y[y0+1+i*(n+1)] = 1.0
    end
    return nothing
end

# Rows and columns exchanged, 8 x 8 numbers at a time in registers: pairs of rows swap every other number, then every
# other pair, then halves.
const EXCHANGES = (
    (1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)),
    (2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    (4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
)
for (apart, first, second) in EXCHANGES, (name, picks) in (("_first", first), ("_second", second))
    mask = "<" * join(("i32 $i" for i in picks), ", ") * ">"
    @eval @inline $(Symbol(name, apart))(a::Lanes{8}, b::Lanes{8}) = Base.llvmcall(
        $("""
        %r = shufflevector <8 x double> %0, <8 x double> %1, <8 x i32> $mask
        ret <8 x double> %r
        """), Lanes{8}, Tuple{Lanes{8},Lanes{8}}, a, b)
end

@inline function _transposed(r::NTuple{8,Lanes{8}})
    a = (_first1(r[1], r[2]), _second1(r[1], r[2]), _first1(r[3], r[4]), _second1(r[3], r[4]),
         _first1(r[5], r[6]), _second1(r[5], r[6]), _first1(r[7], r[8]), _second1(r[7], r[8]))
    b = (_first2(a[1], a[3]), _first2(a[2], a[4]), _second2(a[1], a[3]), _second2(a[2], a[4]),
         _first2(a[5], a[7]), _first2(a[6], a[8]), _second2(a[5], a[7]), _second2(a[6], a[8]))
    return (_first4(b[1], b[5]), _first4(b[2], b[6]), _first4(b[3], b[7]), _first4(b[4], b[8]),
            _second4(b[1], b[5]), _second4(b[2], b[6]), _second4(b[3], b[7]), _second4(b[4], b[8]))
end

# y[i t + j] = x[i + j s] for i < m, j < n
@inline function _transpose!(y::Vec, p::Int, t::Int, x::Vec, q::Int, s::Int, m::Int, n::Int)
    wide_m, wide_n = AVX512 ? (m - m % 8, n - n % 8) : (0, 0)
    GC.@preserve x y for i = 0:8:wide_m-1, j = 0:8:wide_n-1
        rows = _transposed(_vectors(Val(8), Val(8), x, q + i + j * s, s))
        for l = 1:8
            _store!(y, p + (i + l - 1) * t + j, rows[l])
        end
    end
    @inbounds for i = 0:m-1, j = (i < wide_m ? wide_n : 0):n-1
        y[p+i*t+j] = x[q+i+j*s]
    end
    return nothing
end

for (name, A, op) in ((:k_copy!, :Vec, :(=)), (:k_add!, :Vec, :(+=)), (:k_addmatrix!, :(Matrix{Float64}), :(+=)))
    unit = Expr(op, :(y[p+l]), :(x[q+l]))
    strided = Expr(op, :(y[p+l*t3]), :(x[q+l*s3]))
    @eval @noinline function $name(
        y::$A, y0::Int, t0::Int, t1::Int, t2::Int, t3::Int,
        x::Vec, x0::Int, s0::Int, s1::Int, s2::Int, s3::Int,
        n0::Int, n1::Int, n2::Int, n3::Int,
    )
        if $(name === :k_copy!) && t3 == 1 && s2 == 1 && s3 != 1
            for a = 0:n0-1, b = 0:n1-1
                _transpose!(y, y0 + 1 + a * t0 + b * t1, t2, x, x0 + 1 + a * s0 + b * s1, s3, n2, n3)
            end
            return nothing
        end
        @inbounds for a = 0:n0-1, b = 0:n1-1, c = 0:n2-1
            p = y0 + 1 + a * t0 + b * t1 + c * t2
            q = x0 + 1 + a * s0 + b * s1 + c * s2
            if t3 == 1 && s3 == 1
                @simd ivdep for l = 0:n3-1
                    $unit
                end
            else
                @simd ivdep for l = 0:n3-1
                    $strided
                end
            end
        end
        return nothing
    end
end

# ---- along the second axis of (outer, inner) ----
for (name, start, step) in (
    (:k_sum!, 0.0, :(a + v)),
    (:k_prod!, 1.0, :(a * v)),
    (:k_max!, -Inf, :(fmax(a, v))),
    (:k_min!, Inf, :(fmin(a, v))),
)
    @eval @noinline function $name(y::Vec, y0::Int, x::Vec, x0::Int, so::Int, si::Int, outer::Int, inner::Int)
        if so == 1 && outer > 4  # neighbours are in different results: run along those
            @inbounds @simd ivdep for o = 1:outer
                y[y0+o] = $start
            end
            @inbounds for i = 0:inner-1
                q = x0 + i * si
                @simd ivdep for o = 1:outer
                    a = y[y0+o]
                    v = x[q+o]
                    y[y0+o] = $step
                end
            end
            return nothing
        end
        @inbounds for o = 0:outer-1
            q = x0 + 1 + o * so
            a = $start
            if si == 1
                @simd for i = 0:inner-1
                    v = x[q+i]
                    a = $step
                end
            else
                for i = 0:inner-1
                    v = x[q+i*si]
                    a = $step
                end
            end
            y[y0+1+o] = a
        end
        return nothing
    end
end

# torch's rule: the first of equal values; a NaN beats every number.
for (name, better) in ((:k_argmax!, :(v > best)), (:k_argmin!, :(v < best)))
    @eval @noinline function $name(y::Vec, y0::Int, x::Vec, x0::Int, so::Int, si::Int, outer::Int, inner::Int)
        @inbounds for o = 0:outer-1
            q = x0 + 1 + o * so
            best, at = x[q], 0
            for i = 1:inner-1
                v = x[q+i*si]
                if $better || (isnan(v) && !isnan(best))
                    best, at = v, i
                end
            end
            y[y0+1+o] = Float64(at)
        end
        return nothing
    end
end

for (name, start, op) in ((:k_cumsum!, 0.0, :+), (:k_cumprod!, 1.0, :*))
    @eval @noinline function $name(y::Vec, y0::Int, x::Vec, x0::Int, so::Int, si::Int, outer::Int, inner::Int)
        @inbounds for o = 0:outer-1
            a = $start
            for i = 0:inner-1
                a = $op(a, x[x0+1+o*so+i*si])
                y[y0+1+o*inner+i] = a
            end
        end
        return nothing
    end
end

# ---- positions known when the program runs ----
@inline function _position(i::Vec, at::Int, size::Int)
    v = @inbounds i[at]
    (v >= 0.0 && v < size) || throw(DomainError(v, "index outside an axis of that size"))
    return unsafe_trunc(Int, v)
end

# y (rows, count) = x (rows, size) at i
@noinline function k_gather!(
    y::Vec, y0::Int, x::Vec, x0::Int, s0::Int, s1::Int, i::Vec, i0::Int, t0::Int, t1::Int,
    rows::Int, count::Int, size::Int,
)
    @inbounds for r = 0:rows-1, j = 0:count-1
        at = _position(i, i0 + 1 + r * t0 + j * t1, size)
        y[y0+1+r*count+j] = x[x0+1+r*s0+at*s1]
    end
    return nothing
end

# y (rows, size) = 0, then y at i += x (rows, count)
@noinline function k_scatter!(
    y::Vec, y0::Int, x::Vec, x0::Int, s0::Int, s1::Int, i::Vec, i0::Int, t0::Int, t1::Int,
    rows::Int, count::Int, size::Int,
)
    k_fill!(y, y0, rows * size, 0.0)
    @inbounds for r = 0:rows-1, j = 0:count-1
        at = _position(i, i0 + 1 + r * t0 + j * t1, size)
        y[y0+1+r*size+at] += x[x0+1+r*s0+j*s1]
    end
    return nothing
end

# Every kernel has one method with concrete types, so that all of them can be compiled with the package.
if ccall(:jl_generating_output, Cint, ()) == 1
    for name in names(@__MODULE__; all = true)
        startswith(String(name), "k_") || continue
        kernel = getfield(@__MODULE__, name)
        signature = only(methods(kernel)).sig
        precompile(Tuple{typeof(kernel),signature.parameters[2:end]...})
    end
end
