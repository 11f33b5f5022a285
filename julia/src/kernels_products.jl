# Matrix products with arbitrary strides. The ones that networks need (rows of W times x, columns of W times
# x, rank-one updates) run at close to machine speed; BLAS takes over only where matrices are large.

# y (m, stride ys) = or += A (m, k; strides ar, ac) x (k, stride xs)
@noinline function k_mv!(
    y::Vector{Float64}, y0::Int, ys::Int, A::Vector{Float64}, a0::Int, ar::Int, ac::Int,
    x::Vector{Float64}, x0::Int, xs::Int, m::Int, k::Int, add::Bool,
)
    if k <= 4 && ys == 1
        _mv_few_columns!(y, y0, A, a0, ar, ac, x, x0, xs, m, k, add)
    elseif ac == 1 && xs == 1
        _mv_rows!(y, y0, ys, A, a0, ar, x, x0, m, k, add)
    elseif ar == 1 && ys == 1
        _mv_columns!(y, y0, A, a0, ac, x, x0, xs, m, k, add)
    else
        @inbounds for i = 0:m-1
            s = 0.0
            for j = 0:k-1
                s = muladd(A[a0+1+i*ar+j*ac], x[x0+1+j*xs], s)
            end
            q = y0 + 1 + i * ys
            y[q] = add ? y[q] + s : s
        end
    end
    return nothing
end

# y = b + A x
@noinline function k_mvb!(
    y::Vector{Float64}, y0::Int, A::Vector{Float64}, a0::Int, ar::Int, ac::Int, x::Vector{Float64}, x0::Int, xs::Int,
    b::Vector{Float64}, b0::Int, bs::Int, m::Int, k::Int,
)
    @inbounds @simd ivdep for i = 0:m-1
        y[y0+1+i] = b[b0+1+i*bs]
    end
    k_mv!(y, y0, 1, A, a0, ar, ac, x, x0, xs, m, k, true)
    return nothing
end

# At most four columns, in one pass over y.
@inline function _mv_few_columns!(y, y0, A, a0, ar, ac, x, x0, xs, m, k, add)
    q = x0 + 1
    @inbounds v0 = x[q]
    @inbounds v1 = k > 1 ? x[q+xs] : 0.0
    @inbounds v2 = k > 2 ? x[q+2xs] : 0.0
    @inbounds v3 = k > 3 ? x[q+3xs] : 0.0
    p = a0 + 1
    if !add
        k_fill!(y, y0, m, 0.0)
    end
    if k == 1
        @inbounds @simd ivdep for i = 0:m-1
            y[y0+1+i] = muladd(A[p+i*ar], v0, y[y0+1+i])
        end
    elseif k == 2
        @inbounds @simd ivdep for i = 0:m-1
            r = p + i * ar
            y[y0+1+i] += muladd(A[r], v0, A[r+ac] * v1)
        end
    elseif k == 3
        @inbounds @simd ivdep for i = 0:m-1
            r = p + i * ar
            y[y0+1+i] += muladd(A[r], v0, muladd(A[r+ac], v1, A[r+2ac] * v2))
        end
    else
        @inbounds @simd ivdep for i = 0:m-1
            r = p + i * ar
            y[y0+1+i] += muladd(A[r], v0, muladd(A[r+ac], v1, muladd(A[r+2ac], v2, A[r+3ac] * v3)))
        end
    end
    return nothing
end

# Four rows at a time: each element of x is loaded once for four products.
@inline function _mv_rows!(y, y0, ys, A, a0, ar, x, x0, m, k, add)
    i = 0
    @inbounds while i + 4 <= m
        p0 = a0 + i * ar
        p1, p2, p3 = p0 + ar, p0 + 2ar, p0 + 3ar
        s0 = s1 = s2 = s3 = 0.0
        @simd for j = 1:k
            v = x[x0+j]
            s0 = muladd(A[p0+j], v, s0)
            s1 = muladd(A[p1+j], v, s1)
            s2 = muladd(A[p2+j], v, s2)
            s3 = muladd(A[p3+j], v, s3)
        end
        q = y0 + 1 + i * ys
        if add
            y[q] += s0
            y[q+ys] += s1
            y[q+2ys] += s2
            y[q+3ys] += s3
        else
            y[q] = s0
            y[q+ys] = s1
            y[q+2ys] = s2
            y[q+3ys] = s3
        end
        i += 4
    end
    @inbounds while i < m
        p0 = a0 + i * ar
        s0 = 0.0
        @simd for j = 1:k
            s0 = muladd(A[p0+j], x[x0+j], s0)
        end
        q = y0 + 1 + i * ys
        y[q] = add ? y[q] + s0 : s0
        i += 1
    end
    return nothing
end

# Four columns at a time: each element of y is loaded and stored once for four products.
@inline function _mv_columns!(y, y0, A, a0, ac, x, x0, xs, m, k, add)
    if !add
        @inbounds @simd ivdep for i = 1:m
            y[y0+i] = 0.0
        end
    end
    j = 0
    @inbounds while j + 4 <= k
        p0 = a0 + j * ac
        p1, p2, p3 = p0 + ac, p0 + 2ac, p0 + 3ac
        q = x0 + 1 + j * xs
        v0, v1, v2, v3 = x[q], x[q+xs], x[q+2xs], x[q+3xs]
        @simd ivdep for i = 1:m
            y[y0+i] = muladd(A[p0+i], v0, muladd(A[p1+i], v1, muladd(A[p2+i], v2, muladd(A[p3+i], v3, y[y0+i]))))
        end
        j += 4
    end
    @inbounds while j < k
        p0 = a0 + j * ac
        v0 = x[x0+1+j*xs]
        @simd ivdep for i = 1:m
            y[y0+i] = muladd(A[p0+i], v0, y[y0+i])
        end
        j += 1
    end
    return nothing
end

# C (m, n) = or += A (m, k) B (k, n), all strided
@noinline function k_mm!(
    C::Vector{Float64}, c0::Int, cr::Int, cc::Int, A::Vector{Float64}, a0::Int, ar::Int, ac::Int,
    B::Vector{Float64}, b0::Int, br::Int, bc::Int, m::Int, n::Int, k::Int, add::Bool,
)
    if cr == 1 && cc != 1  # columns of C are contiguous: the transposed product has rows of it
        _mm!(C, c0, cc, cr, B, b0, bc, br, A, a0, ac, ar, n, m, k, add)
    else
        _mm!(C, c0, cr, cc, A, a0, ar, ac, B, b0, br, bc, m, n, k, add)
    end
    return nothing
end

@inline function _mm!(C, c0, cr, cc, A, a0, ar, ac, B, b0, br, bc, m, n, k, add)
    blas = cc == 1 && (ac == 1 || ar == 1) && (bc == 1 || br == 1)
    slow = bc != 1 && (ac != 1 || br != 1)  # no good loop below
    if blas && (m * n * k > 64_000 && min(m, n) >= 8 || slow && m * n * k > 2_000)
        _gemm!(C, c0, cr, A, a0, ar, ac, B, b0, br, bc, m, n, k, add)
    elseif k == 1 && add && n <= 4
        _narrow_update!(C, c0, cr, cc, A, a0, ar, B, b0, bc, m, n)
    elseif cc == 1 && bc == 1 && k == 1 && add
        _update!(C, c0, cr, A, a0, ar, B, b0, m, n)
    elseif cc == 1 && bc == 1
        _mm_rows!(C, c0, cr, A, a0, ar, ac, B, b0, br, m, n, k, add)
    elseif ac == 1 && br == 1
        for i = 0:m-1  # a row of C is B' times a row of A
            _mv_rows!(C, c0 + i * cr, cc, B, b0, bc, A, a0 + i * ar, n, k, add)
        end
    else
        @inbounds for i = 0:m-1, j = 0:n-1
            s = 0.0
            for l = 0:k-1
                s = muladd(A[a0+1+i*ar+l*ac], B[b0+1+l*br+j*bc], s)
            end
            q = c0 + 1 + i * cr + j * cc
            C[q] = add ? C[q] + s : s
        end
    end
    return nothing
end

# The update of a weight gradient, C += a b', four rows of C for each load of b.
@inline function _update!(C, c0, cr, a, a0, as, b, b0, m, n)
    i = 0
    @inbounds while i + 4 <= m
        q0, p = c0 + i * cr, a0 + 1 + i * as
        q1, q2, q3 = q0 + cr, q0 + 2cr, q0 + 3cr
        v0, v1, v2, v3 = a[p], a[p+as], a[p+2as], a[p+3as]
        @simd ivdep for j = 1:n
            x = b[b0+j]
            C[q0+j] = muladd(v0, x, C[q0+j])
            C[q1+j] = muladd(v1, x, C[q1+j])
            C[q2+j] = muladd(v2, x, C[q2+j])
            C[q3+j] = muladd(v3, x, C[q3+j])
        end
        i += 4
    end
    @inbounds while i < m
        q, v = c0 + i * cr, a[a0+1+i*as]
        @simd ivdep for j = 1:n
            C[q+j] = muladd(v, b[b0+j], C[q+j])
        end
        i += 1
    end
    return nothing
end

# The same for a matrix of at most four columns: run down the columns.
@inline function _narrow_update!(C, c0, cr, cc, a, a0, as, b, b0, bs, m, n)
    @inbounds for j = 0:n-1
        q, v = c0 + 1 + j * cc, b[b0+1+j*bs]
        @simd ivdep for i = 0:m-1
            C[q+i*cr] = muladd(a[a0+1+i*as], v, C[q+i*cr])
        end
    end
    return nothing
end

# Row i of C gathers rows of B, four at a time.
@inline function _mm_rows!(C, c0, cr, A, a0, ar, ac, B, b0, br, m, n, k, add)
    @inbounds for i = 0:m-1
        q, p = c0 + i * cr, a0 + 1 + i * ar
        l = 0
        if !add
            v = A[p]
            @simd ivdep for j = 1:n
                C[q+j] = v * B[b0+j]
            end
            l = 1
        end
        while l + 4 <= k
            r0 = b0 + l * br
            r1, r2, r3 = r0 + br, r0 + 2br, r0 + 3br
            v0, v1, v2, v3 = A[p+l*ac], A[p+(l+1)*ac], A[p+(l+2)*ac], A[p+(l+3)*ac]
            @simd ivdep for j = 1:n
                C[q+j] = muladd(v0, B[r0+j], muladd(v1, B[r1+j], muladd(v2, B[r2+j], muladd(v3, B[r3+j], C[q+j]))))
            end
            l += 4
        end
        while l < k
            r0, v0 = b0 + l * br, A[p+l*ac]
            @simd ivdep for j = 1:n
                C[q+j] = muladd(v0, B[r0+j], C[q+j])
            end
            l += 1
        end
    end
    return nothing
end

# Row-major C = A B is column-major C' = B' A'.
@inline function _gemm!(C, c0, cr, A, a0, ar, ac, B, b0, br, bc, m, n, k, add)
    transb, ldb = bc == 1 ? ('N', max(br, 1)) : ('T', max(bc, 1))
    transa, lda = ac == 1 ? ('N', max(ar, 1)) : ('T', max(ac, 1))
    GC.@preserve A B C begin
        ccall(
            (LinearAlgebra.BLAS.@blasfunc(dgemm_), LinearAlgebra.BLAS.libblastrampoline), Cvoid,
            (Ref{UInt8}, Ref{UInt8}, Ref{LinearAlgebra.BlasInt}, Ref{LinearAlgebra.BlasInt},
                Ref{LinearAlgebra.BlasInt}, Ref{Float64}, Ptr{Float64}, Ref{LinearAlgebra.BlasInt}, Ptr{Float64},
                Ref{LinearAlgebra.BlasInt}, Ref{Float64}, Ptr{Float64}, Ref{LinearAlgebra.BlasInt}, Clong, Clong),
            transb, transa, n, m, k, 1.0, pointer(B, b0 + 1), ldb, pointer(A, a0 + 1), lda,
            add ? 1.0 : 0.0, pointer(C, c0 + 1), max(cr, n), 1, 1,
        )
    end
    return nothing
end
