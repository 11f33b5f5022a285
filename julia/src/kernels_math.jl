# Functions of one or two numbers. They never throw (NaN outside the domain, as torch) and exp, tanh and
# sigmoid are free of branches, so that loops over them vectorise.

# Cody and Waite's reduction x = k log 2 + r, |r| <= log(2)/2, with log 2 in two parts.
const LN2_HIGH = 6.93147180369123816490e-01
const LN2_LOW = 1.90821492927058770002e-10
const INV_LN2 = 1.44269504088896338700e+00
const ROUND = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to an integer that stands in the low bits

# exp(r) - 1 - r = r^2 * q(r): Taylor to r^13, whose first left-out term is below 1e-17 on the interval.
const EXPM1_TAIL = (
    0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320, 1 / 362880, 1 / 3628800, 1 / 39916800, 1 / 479001600,
    1 / 6227020800,
)
@inline _expm1_tail(r::Float64) = r * r * evalpoly(r, EXPM1_TAIL)

# k as a float, 2^k for |k| < 1023, and r
@inline function _reduce(x::Float64)
    shifted = muladd(x, INV_LN2, ROUND)
    k = shifted - ROUND
    r = muladd(-k, LN2_LOW, muladd(-k, LN2_HIGH, x))
    return shifted, k, r
end

@inline _power(shifted::Float64) = reinterpret(Float64, (reinterpret(UInt64, shifted) + 0x00000000000003ff) << 52)

"exp, to one unit in the last place; subnormal results lose relative, not absolute precision."
@inline function fexp(x::Float64)
    # 2^k in two factors, so that results near overflow and in the subnormal range come out right
    xc = ifelse(x > 710.0, 710.0, ifelse(x < -746.0, -746.0, x))
    shifted, k, r = _reduce(xc)
    half = muladd(k, 0.5, ROUND)  # round(k / 2), an integer again
    h = half - ROUND
    rest = (k - h) + ROUND
    e = 1.0 + (r + _expm1_tail(r))
    y = (e * _power(half)) * _power(rest)
    return ifelse(isnan(x), x, y)
end

"tanh as em / (em + 2) with em = expm1(2|x|): no cancellation near zero, 1 beyond 20."
@inline function ftanh(x::Float64)
    a = 2.0 * abs(x)
    a = ifelse(a > 40.0, 40.0, a)
    shifted, _, r = _reduce(a)
    s = _power(shifted)
    em = muladd(s, r + _expm1_tail(r), s - 1.0)
    y = copysign(em / (em + 2.0), x)
    return ifelse(isnan(x), x, y)
end

"1 / (1 + exp(-x)), with full relative precision in both tails."
@inline function fsigmoid(x::Float64)
    xc = ifelse(x > 40.0, 40.0, ifelse(x < -709.0, -709.0, x))
    shifted, _, r = _reduce(-abs(xc))
    e = _power(shifted) * (1.0 + (r + _expm1_tail(r)))  # exp(-|x|)
    y = ifelse(xc >= 0.0, 1.0, e) / (1.0 + e)
    # below -709 the plain exponential is the limit, subnormal and then zero
    return ifelse(isnan(x), x, ifelse(x < -709.0, fexp(x), y))
end

@inline fsqrt(x::Float64) = x < 0.0 ? NaN : sqrt(x)
@inline flog(x::Float64) = x < 0.0 ? NaN : log(x)
@inline flog2(x::Float64) = x < 0.0 ? NaN : log2(x)
@inline flog10(x::Float64) = x < 0.0 ? NaN : log10(x)
@inline flog1p(x::Float64) = x < -1.0 ? NaN : log1p(x)
@inline fsin(x::Float64) = isinf(x) ? NaN : sin(x)
@inline fcos(x::Float64) = isinf(x) ? NaN : cos(x)
@inline ftan(x::Float64) = isinf(x) ? NaN : tan(x)
@inline fasin(x::Float64) = abs(x) > 1.0 ? NaN : asin(x)
@inline facos(x::Float64) = abs(x) > 1.0 ? NaN : acos(x)
@inline facosh(x::Float64) = x < 1.0 ? NaN : acosh(x)
@inline fatanh(x::Float64) = abs(x) > 1.0 ? NaN : atanh(x)
@inline fsign(x::Float64) = Float64(x > 0.0) - Float64(x < 0.0)  # torch: sign(NaN) = 0
@inline fmax(a::Float64, b::Float64) = ifelse((a > b) | isnan(a), a, b)
@inline fmin(a::Float64, b::Float64) = ifelse((a < b) | isnan(a), a, b)
@inline fpow(x::Float64, y::Float64) = x < 0.0 && !isinteger(y) && isfinite(y) && isfinite(x) ? NaN : x^y
@inline frem(a::Float64, b::Float64) = b == 0.0 || isinf(a) ? NaN : rem(a, b)

"Remainder with the sign of the divisor, as torch.remainder."
@inline function fmod(a::Float64, b::Float64)
    r = frem(a, b)
    return (r != 0.0) & ((r < 0.0) != (b < 0.0)) ? r + b : r
end

# erf and erfc after FreeBSD's msun s_erf.c:
#   Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved.
#   Developed at SunPro, a Sun Microsystems, Inc. business.
#   Permission to use, copy, modify, and distribute this software is freely granted, provided that this
#   notice is preserved.
const ERX = 8.45062911510467529297e-01
const EFX = 1.28379167095512586316e-01

@inline _erf_small(z) =
    evalpoly(z, (1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
        -5.77027029648944159157e-03, -2.37630166566501626084e-05)) /
    evalpoly(z, (1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03,
        1.32494738004321644526e-04, -3.96022827877536812320e-06))

@inline _erf_one(s) =
    evalpoly(s, (-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01,
        3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02,
        -2.16637559486879084300e-03)) /
    evalpoly(s, (1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02,
        1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02))

@inline _erfc_middle(s) =
    evalpoly(s, (-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e+01,
        -6.23753324503260060396e+01, -1.62396669462573470355e+02, -1.84605092906711035994e+02,
        -8.12874355063065934246e+01, -9.81432934416914548592e+00)) /
    evalpoly(s, (1.0, 1.96512716674392571292e+01, 1.37657754143519042600e+02, 4.34565877475229228821e+02,
        6.45387271733267880336e+02, 4.29008140027567833386e+02, 1.08635005541779435134e+02,
        6.57024977031928170135e+00, -6.04244152148580987438e-02))

@inline _erfc_far(s) =
    evalpoly(s, (-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e+01,
        -1.60636384855821916062e+02, -6.37566443368389627722e+02, -1.02509513161107724954e+03,
        -4.83519191608651397019e+02)) /
    evalpoly(s, (1.0, 3.03380607434824582924e+01, 3.25792512996573918826e+02, 1.53672958608443695994e+03,
        3.19985821950859553908e+03, 2.55305040643316442583e+03, 4.74528541206955367215e+02,
        -2.24409524465858183362e+01))

# erfc(a) for a >= 1.25
@inline function _erfc_tail(a::Float64)
    a > 28.0 && return 0.0
    s = 1.0 / (a * a)
    ratio = a < 1 / 0.35 ? _erfc_middle(s) : _erfc_far(s)
    z = reinterpret(Float64, reinterpret(UInt64, a) & 0xffffffff00000000)
    return exp(-z * z - 0.5625) * exp((z - a) * (z + a) + ratio) / a
end

@noinline function ferf(x::Float64)
    isnan(x) && return x
    a = abs(x)
    a < 0.84375 && return a < 2.0^-28 ? x + EFX * x : x + x * _erf_small(x * x)
    y = a < 1.25 ? ERX + _erf_one(a - 1.0) : 1.0 - _erfc_tail(a)
    return copysign(y, x)
end

@noinline function ferfc(x::Float64)
    isnan(x) && return x
    a = abs(x)
    if a < 0.84375
        y = _erf_small(x * x)
        return x < 0.25 ? 1.0 - (x + x * y) : 0.5 - ((x - 0.5) + x * y)
    elseif a < 1.25
        y = _erf_one(a - 1.0)
        return x >= 0.0 ? (1.0 - ERX) - y : 1.0 + (ERX + y)
    end
    return x >= 0.0 ? _erfc_tail(a) : 2.0 - _erfc_tail(a)
end
