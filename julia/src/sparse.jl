# Systems of plans whose Jacobian is sparse: its pattern comes from the traced graph, its values from a few
# Jacobian-vector products, one for each group of columns that share no row.

"The pattern with the entries (rows, columns), one-based; the diagonal is added. `krylov`: for a Krylov system."
function Pattern(n::Int, rows::Vector{Int}, columns::Vector{Int}; krylov::Bool = true)
    S = sparse([rows; 1:n], [columns; 1:n], true, n, n, |)
    problem = ColoringProblem(; structure = :nonsymmetric, partition = :column)
    groups = column_groups(coloring(S, problem, GreedyColoringAlgorithm()))
    return Pattern(S.colptr, S.rowval, diagonal_places(S.colptr, S.rowval), map(collect, groups), krylov ? Ordered(S) : nothing)
end

function evaluate!(J::SparseJacobian, u::V, m::Model, t::Float64)
    moved!(J.seen, t) && evaluate_groups!(J, J.seed, J.product, eachindex(J.pattern.groups), u, m, t)
    return nothing
end

"The columns of some groups, in memory for a seed, of zeros, and a product."
function evaluate_groups!(J::SparseJacobian, seed::V, product::V, groups, u::V, m::Model, t::Float64)
    pattern = J.pattern
    for g in groups
        @inbounds for j in pattern.groups[g]
            seed[j] = 1.0
        end
        fill!(product, 0.0)
        jvp!(product, seed, u, m, t)
        @inbounds for j in pattern.groups[g]
            seed[j] = 0.0
            for k in pattern.colptr[j]:pattern.colptr[j+1]-1
                J.values[k] = product[pattern.rowval[k]]
            end
        end
    end
    return nothing
end

function absolute_row_sums!(sums::V, system::Union{SparseSystem,KrylovSystem}, size::V, u::V, m::Model, t::Float64)
    J = system.jacobian
    evaluate!(system, u, m, t)
    for j in eachindex(u), k in J.pattern.colptr[j]:J.pattern.colptr[j+1]-1
        sums[J.pattern.rowval[k]] += abs(J.values[k]) * size[j]
    end
    return nothing
end

"E = r M - J in the pattern's order; the pattern holds that of M."
function fill_matrix!(E::Sparse, J::SparseJacobian, mass, r::Float64)
    @inbounds for k in eachindex(E.nzval)
        E.nzval[k] = -J.values[k]
    end
    if mass === nothing
        @inbounds for k in J.pattern.diagonal
            E.nzval[k] += r
        end
        return nothing
    end
    @inbounds for j in axes(mass, 2)
        k = E.colptr[j]
        for q in nzrange(mass, j)
            while E.rowval[k] < mass.rowval[q]
                k += 1
            end
            E.nzval[k] += r * mass.nzval[q]
        end
    end
    return nothing
end

evaluate!(s::SparseSystem, u::V, m::Model, t::Float64) = evaluate!(s.jacobian, u, m, t)

function factor!(s::SparseSystem, m::Model, r::Float64)
    fill_matrix!(s.E, s.jacobian, m.mass, r)
    return all(isfinite, s.E.nzval) && refactor!(s)
end

"Factor E as it is."
function refactor!(s::SparseSystem)
    if s.factor === nothing
        s.factor = lu(s.E; check = false)
        # One pass of substitution, as for a dense matrix: refinement would triple the cost of a solve.
        s.factor.control[UMFPACK.JL_UMFPACK_IRSTEP] = 0.0
    else
        release!(s.factor)
        lu!(s.factor, s.E; check = false)
    end
    return issuccess(s.factor)
end

"Free the numbers of a factorisation: the collector does not see this memory, and would let many pile up."
release!(::Nothing) = nothing
release!(factor::UmfpackLU) = finalize(factor.numeric)

"Before another call: the ordering is found from its own numbers."
forget_factor!(system) = nothing
forget_factor!(s::SparseSystem) = (release!(s.factor); s.factor = nothing; nothing)

function solve!(x, s::SparseSystem)
    copyto!(s.work, x)
    ldiv!(s.x, s.factor, s.work)
    copyto!(x, s.x)
    return nothing
end

function solve_transposed!(x, s::SparseSystem)
    copyto!(s.work, x)
    ldiv!(s.x, transpose(s.factor), s.work)
    copyto!(x, s.x)
    return nothing
end
