# Restarted GMRES, flexible: the preconditioned directions are kept, and so the cycle is applied once less (Saad, SIAM J.
# Sci. Comput. 14, 1993). Krylov.jl has the same iteration; this one costs no time beyond its products: it works in
# single precision on right-hand sides in double, and clears no memory that it will overwrite.

"""
k.correction = an approximation of the solution of A x = b, with A the scaled matrix or its transpose, whose residual is
expected to be `share` of b; more where the memory or `limit` iterations end first. Returns the share expected and the
number of iterations.
"""
function gmres!(k::Inner{T}, b::V, share::Float64, limit::Int, transposed::Bool) where {T}
    H, g = k.hessenberg, k.projected
    norm_b = norm(b)
    fill_scaled!(k.basis[1], b, 1 / norm_b)
    g[1] = 1.0
    j, expected = 0, 1.0
    while j < min(limit, size(H, 2))
        j += 1
        z, w = k.preconditioned[j], k.basis[j+1]
        precondition!(z, k, k.basis[j], transposed)
        image!(w, k, z, transposed)
        for i in 1:j
            h = dot(k.basis[i], w)
            H[i, j] = h
            axpy!(-h, k.basis[i], w)
        end
        length = norm(w)
        rotate!(k, j, Float64(length))
        expected = abs(g[j+1])
        # Nothing is left where the space holds the solution.
        (expected <= share || length <= eps(T)) && break
        rmul!(w, 1 / length)
    end
    combine!(k, j, norm_b)
    return expected, j
end

function fill_scaled!(y::Vector{T}, x::V, a::Float64) where {T}
    @inbounds @simd ivdep for i in eachindex(y)
        y[i] = a * x[i]
    end
    return nothing
end

"Make column j of the Hessenberg matrix, with `below` under its diagonal, triangular."
function rotate!(k::Inner, j::Int, below::Float64)
    H, c, s, g = k.hessenberg, k.cosines, k.sines, k.projected
    for i in 1:j-1
        H[i, j], H[i+1, j] = c[i] * H[i, j] + s[i] * H[i+1, j], c[i] * H[i+1, j] - s[i] * H[i, j]
    end
    length = hypot(H[j, j], below)
    c[j], s[j] = length > 0 ? (H[j, j] / length, below / length) : (1.0, 0.0)
    H[j, j] = length
    g[j], g[j+1] = c[j] * g[j], -s[j] * g[j]
    return nothing
end

"k.correction = the combination of j directions with the least residual."
function combine!(k::Inner{T}, j::Int, norm_b::Float64) where {T}
    H, g = k.hessenberg, k.projected
    fill!(k.correction, 0)
    for i in j:-1:1
        for q in i+1:j
            g[i] -= H[i, q] * g[q]
        end
        g[i] = H[i, i] == 0 ? 0.0 : g[i] / H[i, i]
        axpy!(T(norm_b * g[i]), k.preconditioned[i], k.correction)
    end
    return nothing
end
