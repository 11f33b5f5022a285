# Restarted GMRES, flexible: the preconditioned directions are kept, and so the cycle is applied once less (Saad, SIAM J.
# Sci. Comput. 14, 1993). Krylov.jl has the same iteration; this one costs no time beyond its products: it works in
# single precision on right-hand sides in double, and clears no memory that it will overwrite.

"""
k.correction = an approximation of the solution of A x = b, with A the scaled matrix or its transpose, whose residual is
expected to be `share` of b; more where the memory or `limit` iterations end first. Returns the share expected and the
number of iterations.
"""
function gmres!(k::Inner{T}, b::V, share::Float64, limit::Int, transposed::Bool) where {T}
    H, g, split = k.hessenberg, k.projected, k.levels[1].split
    norm_b = length_of(b, split)
    scale!(k.basis[1], 1 / norm_b, b, split)
    g[1] = 1.0
    j, expected = 0, 1.0
    while j < min(limit, size(H, 2))
        j += 1
        z, w = k.preconditioned[j], k.basis[j+1]
        precondition!(z, k, k.basis[j], transposed)
        h = image!(w, k, z, k.basis[1], transposed)
        for i in 1:j
            H[i, j] = h
            h = subtract!(w, T(h), k.basis[i], i < j ? k.basis[i+1] : w, split)
        end
        length = sqrt(h)
        rotate!(k, j, length)
        expected = abs(g[j+1])
        # Nothing is left where the space holds the solution.
        (expected <= share || length <= eps(T)) && break
        scale!(w, 1 / length, w, split)
    end
    combine!(k, j, norm_b)
    return expected, j
end

"w -= h x; the product of w with y."
subtract!(w::Vector{T}, h::T, x::Vector{T}, y::Vector{T}, split::Split) where {T} = total(split) do rows
    add!(w, -h, x, rows)
    product(w, y, rows)
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
    for i in j:-1:1
        for q in i+1:j
            g[i] -= H[i, q] * g[q]
        end
        g[i] = H[i, i] == 0 ? 0.0 : g[i] / H[i, i]
    end
    each_rows(k.levels[1].split) do rows
        fill_rows!(k.correction, T(0), rows)
        for i in 1:j
            add!(k.correction, T(norm_b * g[i]), k.preconditioned[i], rows)
        end
    end
    return nothing
end
