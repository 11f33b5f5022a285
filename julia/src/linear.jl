# The linear systems of a Rosenbrock step: E = I/(γh) - J, factored once and solved many times, also transposed.

abstract type System end

"No matrix: explicit methods."
struct NoSystem <: System end

"Dense LU in place, without allocation for small matrices."
struct DenseSystem <: System
    J::M
    E::M
    pivots::Vector{Int}
end
DenseSystem(n::Int) = DenseSystem(zeros(n, n), zeros(n, n), zeros(Int, n))

"Factor E of the step that starts at (u, t), r = 1/(γh). False if it is singular."
function assemble!(system::DenseSystem, u::V, m::Model, t::Float64, r::Float64)
    jacobian!(system.J, u, m, t)
    @inbounds for j in axes(system.J, 2)
        for i in axes(system.J, 1)
            system.E[i, j] = -system.J[i, j]
        end
        system.E[j, j] += r
    end
    return factor!(system.E, system.pivots)
end

solve!(x, system::DenseSystem) = solve!(x, system.E, system.pivots)
solve_transposed!(x, system::DenseSystem) = solve_transposed!(x, system.E, system.pivots)

function factor!(A::M, pivots::Vector{Int})
    n = size(A, 1)
    if n > DENSE_GENERIC_LIMIT
        F = lu!(A; check = false)
        copyto!(pivots, F.ipiv)
        return issuccess(F)
    end
    @inbounds for k in 1:n
        p, best = k, abs(A[k, k])
        for i in k+1:n
            a = abs(A[i, k])
            a > best && ((p, best) = (i, a))
        end
        pivots[k] = p
        (best > 0 && isfinite(best)) || return false
        if p != k
            for j in 1:n
                A[k, j], A[p, j] = A[p, j], A[k, j]
            end
        end
        r = inv(A[k, k])
        for i in k+1:n
            A[i, k] *= r
        end
        for j in k+1:n
            a = A[k, j]
            @simd for i in k+1:n
                A[i, j] -= A[i, k] * a
            end
        end
    end
    return true
end

"x = A⁻¹ x from `factor!`."
function solve!(x::AbstractVector{Float64}, A::M, pivots::Vector{Int})
    n = size(A, 1)
    n > DENSE_GENERIC_LIMIT && (LAPACK.getrs!('N', A, pivots, x); return nothing)
    @inbounds for k in 1:n
        p = pivots[k]
        p != k && ((x[k], x[p]) = (x[p], x[k]))
    end
    @inbounds for k in 1:n-1, i in k+1:n
        x[i] -= A[i, k] * x[k]
    end
    @inbounds for k in n:-1:1
        x[k] /= A[k, k]
        for i in 1:k-1
            x[i] -= A[i, k] * x[k]
        end
    end
    return nothing
end

"x = A⁻ᵀ x from `factor!`."
function solve_transposed!(x::AbstractVector{Float64}, A::M, pivots::Vector{Int})
    n = size(A, 1)
    n > DENSE_GENERIC_LIMIT && (LAPACK.getrs!('T', A, pivots, x); return nothing)
    @inbounds for k in 1:n
        s = x[k]
        for i in 1:k-1
            s -= A[i, k] * x[i]
        end
        x[k] = s / A[k, k]
    end
    @inbounds for k in n-1:-1:1
        s = x[k]
        for i in k+1:n
            s -= A[i, k] * x[i]
        end
        x[k] = s
    end
    @inbounds for k in n:-1:1
        p = pivots[k]
        p != k && ((x[k], x[p]) = (x[p], x[k]))
    end
    return nothing
end
