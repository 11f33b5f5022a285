# Linear systems: factored once and solved many times, also transposed. The forward solve and the adjoint use the same code, so both see the same matrices.

forget!(::NoSystem) = nothing
forget!(system) = (system.seen.t = NaN; nothing)

"How many Jacobians were evaluated so far."
jacobians(::NoSystem) = 0
jacobians(system) = system.seen.count

"""
Whether the Jacobian of the step that starts at t has still to be evaluated. A rejected step starts again from the same
point, where OrdinaryDiffEq's `Wfact_t` hands over the failed trial in place of the state: so t alone decides.
"""
function moved!(seen::Evaluated, t::Float64)
    seen.t == t && return false
    seen.t = t
    seen.count += 1
    return true
end

"Evaluate the Jacobian of the step that starts at (u, t), once."
evaluate!(system::DenseSystem, u::V, m::Model, t::Float64) =
    (moved!(system.seen, t) && jacobian!(system.J, u, m, t); nothing)

"Factor E for the Jacobian at hand, r = 1/(γh). False if it is singular."
function factor!(system::DenseSystem, m::Model, r::Float64)
    E, J = system.E, system.J
    @inbounds for i in eachindex(E)
        E[i] = -J[i]
    end
    add_mass!(E, m.mass, r)
    return factor!(E, system.pivots)
end

"Both, for the step that starts at (u, t)."
function assemble!(system, u::V, m::Model, t::Float64, r::Float64)
    evaluate!(system, u, m, t)
    return factor!(system, m, r)
end

"sums += |J(u)| size, row by row."
function absolute_row_sums!(sums::V, system::DenseSystem, size::V, u::V, m::Model, t::Float64)
    evaluate!(system, u, m, t)
    for j in axes(system.J, 2), i in axes(system.J, 1)
        sums[i] += abs(system.J[i, j]) * size[j]
    end
    return nothing
end

function add_mass!(E::M, ::Nothing, r::Float64)
    @inbounds for j in axes(E, 2)
        E[j, j] += r
    end
    return nothing
end

function add_mass!(E::M, mass::Sparse, r::Float64)
    @inbounds for j in axes(E, 2), k in nzrange(mass, j)
        E[mass.rowval[k], j] += r * mass.nzval[k]
    end
    return nothing
end

"y += a M x and y += a Mᵀ x."
add_product!(y, ::Nothing, x, a::Float64) = axpy!(a, x, y)
add_product!(y, mass::Sparse, x, a::Float64) = mul!(y, mass, x, a, 1.0)
add_transposed_product!(y, ::Nothing, x, a::Float64) = axpy!(a, x, y)
add_transposed_product!(y, mass::Sparse, x, a::Float64) = mul!(y, transpose(mass), x, a, 1.0)

solve!(x, system::DenseSystem) = solve!(x, system.E, system.pivots)
solve_transposed!(x, system::DenseSystem) = solve_transposed!(x, system.E, system.pivots)

"""
The linear solver that OrdinaryDiffEq is given: it passes every solve on to the model's own system. So the solver's types
do not depend on the kind of system. For Rosenbrock methods `assemble_step!` has factored it.
"""
struct ModelSystem <: SciMLLinearSolveAlgorithm end

"""
The same for Newton's method, which decides itself when a Jacobian or its factors are too old: its matrix is a token of
one number, -1/(γh), and the Jacobian is evaluated by `newton_jacobian!`.
"""
struct NewtonSystem <: SciMLLinearSolveAlgorithm end

LinearSolve.needs_concrete_A(::Union{ModelSystem,NewtonSystem}) = true

function newton_jacobian!(J::M, u::V, m::Model, t::Float64)
    forget!(m.system)
    evaluate!(m.system, u, m, t)
    fill!(J, 0.0)
    return nothing
end

prepare_factors!(cache::LinearCache, ::ModelSystem, m::Model) = nothing

function prepare_factors!(cache::LinearCache, ::NewtonSystem, m::Model)
    cache.isfresh || return nothing
    factor!(m.system, m, -cache.A[1, 1]) || throw(SingularException(0))
    cache.isfresh = false
    return nothing
end

function SciMLBase.solve!(cache::LinearCache, alg::Union{ModelSystem,NewtonSystem}; kwargs...)
    m = cache.p[3]::Model
    prepare_factors!(cache, alg, m)
    x = cache.u
    # OrdinaryDiffEq's matrix is J - M/(γh).
    @inbounds for i in eachindex(x)
        x[i] = -cache.b[i]
    end
    alg isa NewtonSystem && forget_scale!(m.system)
    solve!(x, m.system)
    return build_linear_solution(alg, x, nothing, cache; retcode = ReturnCode.Success)
end

"OrdinaryDiffEq's hook for a new matrix (`Wfact_t`)."
function assemble_step!(W, u::V, m::Model, dtgamma::Float64, t::Float64)
    assemble!(m.system, u, m, t, 1 / dtgamma) || throw(SingularException(0))
    return nothing
end

function factor!(A::Matrix, pivots::Vector{Int})
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
function solve!(x::AbstractVector, A::Matrix, pivots::Vector{Int})
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
function solve_transposed!(x::AbstractVector, A::Matrix, pivots::Vector{Int})
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
