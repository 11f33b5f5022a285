# Systems too large for a factorisation: restarted GMRES with an incomplete LU of the same pattern.

# GMRES stops at this share of the right-hand side's norm. Rosenbrock methods keep their order, and the adjoint its
# agreement with differences, only while the stages are solved well beyond the tolerance of the step.
const KRYLOV_RTOL = 1e-10
"Factor E's present values. False where a pivot vanishes."
function factor!(P::IncompleteLU)
    colptr, rowval, values, place = P.E.colptr, P.E.rowval, P.values, P.place
    copyto!(values, P.E.nzval)
    @inbounds for j in axes(P.E, 2)
        range = colptr[j]:colptr[j+1]-1
        for k in range
            place[rowval[k]] = k
        end
        for k in range
            i = rowval[k]
            i < j || break
            a = values[k]
            for q in P.diagonal[i]+1:colptr[i+1]-1
                at = place[rowval[q]]
                at == 0 || (values[at] -= values[q] * a)
            end
        end
        for k in range
            place[rowval[k]] = 0
        end
        pivot = values[P.diagonal[j]]
        (pivot != 0 && isfinite(pivot)) || return false
        for k in P.diagonal[j]+1:colptr[j+1]-1
            values[k] /= pivot
        end
    end
    return true
end

function LinearAlgebra.ldiv!(y::V, P::IncompleteLU, x::V)
    colptr, rowval, values = P.E.colptr, P.E.rowval, P.values
    y === x || copyto!(y, x)
    n = length(y)
    @inbounds for j in 1:n, k in P.diagonal[j]+1:colptr[j+1]-1
        y[rowval[k]] -= values[k] * y[j]
    end
    @inbounds for j in n:-1:1
        y[j] /= values[P.diagonal[j]]
        for k in colptr[j]:P.diagonal[j]-1
            y[rowval[k]] -= values[k] * y[j]
        end
    end
    return y
end

function LinearAlgebra.ldiv!(y::V, T::TransposedLU, x::V)
    P = T.parent
    colptr, rowval, values = P.E.colptr, P.E.rowval, P.values
    y === x || copyto!(y, x)
    n = length(y)
    @inbounds for j in 1:n
        s = y[j]
        for k in colptr[j]:P.diagonal[j]-1
            s -= values[k] * y[rowval[k]]
        end
        y[j] = s / values[P.diagonal[j]]
    end
    @inbounds for j in n:-1:1
        s = y[j]
        for k in P.diagonal[j]+1:colptr[j+1]-1
            s -= values[k] * y[rowval[k]]
        end
        y[j] = s
    end
    return y
end

function factor!(s::KrylovSystem, m::Model, r::Float64)
    fill_matrix!(s.E, s.jacobian, m.mass, r)
    return all(isfinite, s.E.nzval) && factor!(s.P)
end

solve!(x, s::KrylovSystem) = iterate!(x, s, s.E, s.P)
solve_transposed!(x, s::KrylovSystem) = iterate!(x, s, transpose(s.E), TransposedLU(s.P))

function iterate!(x, s::KrylovSystem, A, P)
    copyto!(s.rhs, x)
    # The preconditioner on the right: the residual that is tested is that of the system itself.
    gmres!(s.workspace, A, s.rhs; N = P, ldiv = true, atol = 0.0, rtol = KRYLOV_RTOL, restart = true,
           itmax = 20 * KRYLOV_MEMORY)
    s.workspace.stats.solved || throw(SingularException(0))
    copyto!(x, s.workspace.x)
    return nothing
end
