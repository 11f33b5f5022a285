# Gradients of weights are sums of a bᵀ, one a stage. Each alone would read and write the whole matrix for two flops an
# element; so a and b are kept in rows until there are `rows` of them, and then added as one matrix product.
#
# A matrix has a slot in the program's workspace: a count (eight numbers, for alignment), `rows` rows of a (m each),
# and as many of b (n each). The matrix C (m, n) has contiguous rows, cr apart.

@noinline function k_defer!(
    C::Vector{Float64}, c0::Int, cr::Int, a::Vector{Float64}, a0::Int, as::Int, b::Vector{Float64}, b0::Int, bs::Int,
    m::Int, n::Int, w::Vector{Float64}, slot::Int, rows::Int,
)
    k = unsafe_trunc(Int, @inbounds w[slot+1])
    p, q = slot + 8 + k * m, slot + 8 + rows * m + k * n
    @inbounds @simd ivdep for i = 0:m-1
        w[p+1+i] = a[a0+1+i*as]
    end
    @inbounds @simd ivdep for i = 0:n-1
        w[q+1+i] = b[b0+1+i*bs]
    end
    @inbounds w[slot+1] = k + 1
    k + 1 == rows && k_flush!(C, c0, cr, m, n, w, slot, rows)
    return nothing
end

# C += the products that were put off
@noinline function k_flush!(
    C::Vector{Float64}, c0::Int, cr::Int, m::Int, n::Int, w::Vector{Float64}, slot::Int, rows::Int,
)
    k = unsafe_trunc(Int, @inbounds w[slot+1])
    k == 0 && return nothing
    none, one = (0, 0, 0), (1, 1, 1)
    k_sweep_rows!(C, c0, none, cr, w, slot + 8 + rows * m, none, (0, 0, 0, n), w, slot + 8, none, 1, (0, 0, 0, m), one,
        m, n, (1, 1, 1, k), true)
    @inbounds w[slot+1] = 0.0
    return nothing
end
