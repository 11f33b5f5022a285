# Kernels that emitted programs call. Compiled once, with the package: every array is a Vector{Float64}
# (the dense Jacobian a Matrix{Float64}), offsets are zero-based, strides are in elements.
# Numbered names f... are functions of numbers, k_... work on arrays in place. None allocates or throws,
# except on an index outside its axis.

import LinearAlgebra

include("kernels_math.jl")
include("kernels_products.jl")
include("kernels_sweep.jl")
include("kernels_deferred.jl")

const Vec = Vector{Float64}

# ---- vector functions ----
for (name, f) in ((:k_exp!, :fexp), (:k_tanh!, :ftanh), (:k_sigmoid!, :fsigmoid))
    @eval @noinline function $name(y::Vec, y0::Int, x::Vec, x0::Int, n::Int)
        @inbounds @simd ivdep for i = 1:n
            y[y0+i] = $f(x[x0+i])
        end
        return nothing
    end
end

# ---- filling, copying, adding ----
@noinline function k_fill!(y::Vec, y0::Int, n::Int, value::Float64)
    @inbounds @simd ivdep for i = 1:n
        y[y0+i] = value
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

for (name, A, op) in ((:k_copy!, :Vec, :(=)), (:k_add!, :Vec, :(+=)), (:k_addmatrix!, :(Matrix{Float64}), :(+=)))
    unit = Expr(op, :(y[p+l]), :(x[q+l]))
    strided = Expr(op, :(y[p+l*t3]), :(x[q+l*s3]))
    @eval @noinline function $name(
        y::$A, y0::Int, t0::Int, t1::Int, t2::Int, t3::Int,
        x::Vec, x0::Int, s0::Int, s1::Int, s2::Int, s3::Int,
        n0::Int, n1::Int, n2::Int, n3::Int,
    )
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
