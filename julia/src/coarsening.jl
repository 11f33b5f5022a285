# Coarse levels of the multigrid cycle by smoothed aggregation (Vaněk, Mandel & Brezina, Computing 56, 1996): unknowns
# that spread into each other are joined into aggregates, and an aggregate's indicator, smoothed once, is a column of
# the prolongation P; the coarse matrix is PᵀEP. What spreads is read from J: two unknowns that exchange (diffusion) have
# positive entries both ways, so species, and unknowns at rest, stay apart by themselves. AlgebraicMultigrid.jl has the
# same set-up, but its cycle allocates, has no transpose, and its coarse matrices cannot be filled anew with each step.

# A connection is strong if it exceeds this share of the strongest that its two ends have.
const STRONG_SHARE = 0.25
# Of damped Jacobi, 4/3 over the spectral radius of D⁻¹F, which rows without sum bound by 2.
const PROLONGATION_DAMPING = 2 / 3

"The strong connections of J, without diagonal: symmetric and positive."
function strong_connections(J::Sparse)
    S = (J + sparse(transpose(J))) ./ 2
    strongest = zeros(size(S, 2))
    for j in axes(S, 2), k in nzrange(S, j)
        S.rowval[k] == j || (strongest[j] = max(strongest[j], S.nzval[k]))
    end
    for j in axes(S, 2), k in nzrange(S, j)
        i = S.rowval[k]
        limit = STRONG_SHARE * sqrt(strongest[i] * strongest[j])
        (i == j || S.nzval[k] <= 0 || S.nzval[k] < limit) && (S.nzval[k] = 0.0)
    end
    return dropzeros!(S)
end

"The aggregate of each unknown of the graph F, 0 where it has no connections; and their number."
function aggregates(F::Sparse)
    n = size(F, 2)
    of, count = zeros(Int, n), 0
    neighbours(j) = view(F.rowval, nzrange(F, j))
    for j in 1:n            # whole neighbourhoods
        if of[j] == 0 && !isempty(nzrange(F, j)) && all(i -> of[i] == 0, neighbours(j))
            of[j] = count += 1
            of[neighbours(j)] .= count
        end
    end
    first = copy(of)
    for j in 1:n            # what is left goes to the strongest neighbour's
        best = 0.0
        for k in nzrange(F, j)
            first[j] == 0 && first[F.rowval[k]] != 0 && F.nzval[k] > best || continue
            best, of[j] = F.nzval[k], first[F.rowval[k]]
        end
    end
    for j in 1:n            # unknowns between others that were left
        (of[j] == 0 && !isempty(nzrange(F, j))) || continue
        of[j] = count += 1
        for i in neighbours(j)
            of[i] == 0 && (of[i] = count)
        end
    end
    return of, count
end

"The prolongation for the matrix with Jacobian J: (1 - ω) T + ω D⁻¹F T, F its strong connections, D their row sums."
function prolongation(J::Sparse)
    F = strong_connections(J)
    of, count = aggregates(F)
    joined = findall(!=(0), of)
    T = sparse(joined, of[joined], 1.0, size(J, 1), count)
    sums = vec(sum(F; dims = 2))
    smooth = spdiagm(0 => [s > 0 ? PROLONGATION_DAMPING / s : 0.0 for s in sums]) * (F * T)
    return (1 - PROLONGATION_DAMPING) * T + smooth
end

"The nonzeros of PᵀEP, with values of zero, and its diagonal among them."
function coarse_pattern(E::Sparse, P::Sparse)
    ones_of(A) = SparseMatrixCSC(size(A)..., A.colptr, A.rowval, ones(length(A.rowval)))
    C = sparse(transpose(ones_of(P))) * ones_of(E) * ones_of(P)
    C += sparse(1.0I, size(C)...)
    return SparseMatrixCSC(size(C)..., C.colptr, C.rowval, zeros(length(C.rowval)))
end

"Where the terms of PᵀEP go in C, in the order in which `galerkin!` meets them."
function galerkin_places(E::Sparse, rows::Sparse, C::Sparse)
    places = Int32[]
    for j in axes(E, 2), k in nzrange(E, j), b in nzrange(rows, j), a in nzrange(rows, E.rowval[k])
        column = rows.rowval[b]
        push!(places, searchsortedfirst(C.rowval, rows.rowval[a], C.colptr[column], C.colptr[column+1] - 1,
                                        Base.Order.Forward))
    end
    return places
end

"values = those of PᵀAP, for values of A in E's places."
function galerkin!(values::V, level::Level, of::V)
    E, rows, places = level.E, level.P_rows, level.places
    fill!(values, 0.0)
    q = 0
    @inbounds for j in axes(E, 2), k in nzrange(E, j)
        e = of[k]
        for b in nzrange(rows, j)
            eb = e * rows.nzval[b]
            for a in nzrange(rows, E.rowval[k])
                values[places[q+=1]] += rows.nzval[a] * eb
            end
        end
    end
    return nothing
end

const NO_PROLONGATION = spzeros(0, 0)

"A last level; d: E is to be factored densely and has d columns, or zero."
function Level(E::Sparse, fast, d::Int)
    n = size(E, 1)
    return Level(E, IncompleteLU(E), fast, zeros(n), zeros(n), zeros(n), NO_PROLONGATION, NO_PROLONGATION, Int32[], zeros(d, d),
                 zeros(Int, d))
end

"The same with a prolongation from a level below it, of which the matrix is returned too, to be filled."
function with_prolongation(level::Level, P::Sparse)
    P = P[:, colour_order(coarse_pattern(level.E, P))[1]]
    C = coarse_pattern(level.E, P)
    rows = sparse(transpose(P))
    places = galerkin_places(level.E, rows, C)
    return Level(level.E, level.smoother, level.fast, level.x, level.b, level.r, P, rows, places, level.dense,
                 level.pivots), C
end

"Levels for the Jacobian `values` in the places of levels[1].E, until they are small or no longer shrink."
function build_levels!(levels::Vector{Level}, values::V)
    resize!(levels, 1)
    while true
        level = levels[end]
        n = size(level.E, 1)
        n <= DENSE_LEVEL && return nothing
        P = prolongation(SparseMatrixCSC(n, n, level.E.colptr, level.E.rowval, values))
        0 < size(P, 2) <= LEAST_SHRINKAGE * n || return nothing
        levels[end], C = with_prolongation(level, P)
        coarse = similar(C.nzval)
        galerkin!(coarse, levels[end], values)
        values = coarse
        push!(levels, Level(C, nothing, size(C, 1) <= DENSE_LEVEL ? size(C, 1) : 0))
    end
end
