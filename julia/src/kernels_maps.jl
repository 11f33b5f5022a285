# exp, tanh and sigmoid of arrays; tanh, the activation of most networks here, eight numbers at a time.

# The steps of ftanh (kernels_math.jl) that are no plain arithmetic; the others are in the same order, for equal bits.
_literals(kind, value) = "<" * join(fill("$kind $value", 8), ", ") * ">"

# 2|x|, at most 40
@eval @inline _twice_abs(x::Lanes{8}) = Base.llvmcall(
    $("""
    %i = bitcast <8 x double> %0 to <8 x i64>
    %m = and <8 x i64> %i, $(_literals("i64", typemax(Int64)))
    %a = bitcast <8 x i64> %m to <8 x double>
    %d = fadd <8 x double> %a, %a
    %c = fcmp olt <8 x double> %d, $(_literals("double", "40.0"))
    %r = select <8 x i1> %c, <8 x double> %d, <8 x double> $(_literals("double", "40.0"))
    ret <8 x double> %r
    """), Lanes{8}, Tuple{Lanes{8}}, x)

@eval @inline _power(shifted::Lanes{8}) = Base.llvmcall(
    $("""
    %i = bitcast <8 x double> %0 to <8 x i64>
    %a = add <8 x i64> %i, $(_literals("i64", 1023))
    %s = shl <8 x i64> %a, $(_literals("i64", 52))
    %r = bitcast <8 x i64> %s to <8 x double>
    ret <8 x double> %r
    """), Lanes{8}, Tuple{Lanes{8}}, shifted)

# y >= 0 with the sign of x; x where that is NaN
@eval @inline _signed(y::Lanes{8}, x::Lanes{8}) = Base.llvmcall(
    $("""
    %i = bitcast <8 x double> %0 to <8 x i64>
    %j = bitcast <8 x double> %1 to <8 x i64>
    %s = and <8 x i64> %j, $(_literals("i64", typemin(Int64)))
    %o = or <8 x i64> %i, %s
    %y = bitcast <8 x i64> %o to <8 x double>
    %n = fcmp uno <8 x double> %1, %1
    %r = select <8 x i1> %n, <8 x double> %1, <8 x double> %y
    ret <8 x double> %r
    """), Lanes{8}, Tuple{Lanes{8},Lanes{8}}, y, x)

@inline function ftanh(x::Lanes{8})
    all(v) = _all(Val(8), v)
    a = _twice_abs(x)
    shifted = _fma(a, all(INV_LN2), all(ROUND))
    k = _minus(shifted, all(ROUND))
    r = _fma(k, all(-LN2_LOW), _fma(k, all(-LN2_HIGH), a))
    q = all(EXPM1_TAIL[12])
    Base.Cartesian.@nexprs 11 i -> q = _fma(q, r, all(EXPM1_TAIL[12-i]))
    s = _power(shifted)
    em = _fma(s, _plus(r, _times(_times(r, r), q)), _minus(s, all(1.0)))
    return _signed(_over(em, _plus(em, all(2.0))), x)
end

wide(::typeof(ftanh)) = AVX512
wide(::Any) = false

# y[p+1:p+n] = f(x[q+1:q+n] + v). Adding -0.0 changes nothing.
@inline function _map!(f::F, y, p, x, q, n, v) where {F}
    i = 0
    if wide(f)
        while i + 8 <= n
            _store!(y, p + i + 1, f(_plus(_load(Val(8), x, q + i + 1), _all(Val(8), v))))
            i += 8
        end
    end
    @inbounds @simd ivdep for l = i+1:n
        y[p+l] = f(x[q+l] + v)
    end
    return nothing
end

for (name, f) in (("exp", :fexp), ("tanh", :ftanh), ("sigmoid", :fsigmoid))
    @eval @noinline function $(Symbol("k_", name, "!"))(y::Vec, y0::Int, x::Vec, x0::Int, n::Int)
        GC.@preserve x y _map!($f, y, y0, x, x0, n, -0.0)
        return nothing
    end
    # y = f(x), or f(x + b), over four strided axes
    @eval @noinline function $(Symbol("k_", name, "_at!"))(
        y::Vec, y0::Int, t::Four, x::Vec, x0::Int, s::Four, b::Vec, b0::Int, r::Four, n::Four, biased::Bool,
    )
        rows = t[4] == 1 && s[4] == 1 && (r[4] == 0 || !biased)
        GC.@preserve x y for i = 0:n[1]-1, j = 0:n[2]-1, k = 0:n[3]-1
            p, q = y0 + i * t[1] + j * t[2] + k * t[3], x0 + i * s[1] + j * s[2] + k * s[3]
            o = b0 + 1 + i * r[1] + j * r[2] + k * r[3]
            if rows
                _map!($f, y, p, x, q, n[4], biased ? (@inbounds b[o]) : -0.0)
            else
                @inbounds for l = 0:n[4]-1
                    y[p+1+l*t[4]] = $f(x[q+1+l*s[4]] + (biased ? b[o+l*r[4]] : -0.0))
                end
            end
        end
        return nothing
    end
end
