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
function strong_connections(J::SparseMatrixCSC{T}) where {T}
    S = (J + sparse(transpose(J))) ./ 2
    strongest = zeros(T, size(S, 2))
    for j in axes(S, 2), k in nzrange(S, j)
        S.rowval[k] == j || (strongest[j] = max(strongest[j], S.nzval[k]))
    end
    for j in axes(S, 2), k in nzrange(S, j)
        i = S.rowval[k]
        limit = T(STRONG_SHARE) * sqrt(strongest[i] * strongest[j])
        (i == j || S.nzval[k] <= 0 || S.nzval[k] < limit) && (S.nzval[k] = 0)
    end
    return dropzeros!(S)
end

"The aggregate of each unknown of the graph F, 0 where it has no connections; and their number."
function aggregates(F::SparseMatrixCSC)
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
function prolongation(J::SparseMatrixCSC{T}) where {T}
    F = strong_connections(J)
    of, count = aggregates(F)
    joined = findall(!=(0), of)
    A = sparse(Int32.(joined), Int32.(of[joined]), T(1), size(J, 1), count)
    damping = T(PROLONGATION_DAMPING)
    sums = vec(sum(F; dims = 2))
    smooth = Diagonal([s > 0 ? damping / s : T(0) for s in sums]) * (F * A)
    return (1 - damping) * A + smooth
end

"The nonzeros of PᵀEP, with values of zero, and its diagonal among them."
function coarse_pattern(E::SparseMatrixCSC{T}, P::SparseMatrixCSC) where {T}
    ones_of(A) = SparseMatrixCSC(size(A)..., A.colptr, A.rowval, ones(T, length(A.rowval)))
    C = sparse(transpose(ones_of(P))) * (ones_of(E) * ones_of(P))
    C += SparseMatrixCSC{T,Int32}(I, size(C)...)
    return SparseMatrixCSC(size(C)..., C.colptr, C.rowval, zeros(T, length(C.rowval)))
end

"Where the terms of PᵀEP go in C, in the order in which `galerkin!` meets them; `before`: how many before each part's."
function galerkin_places(E::SparseMatrixCSC, rows::SparseMatrixCSC, C::SparseMatrixCSC, before::Vector{Int},
                         crew::Crew)
    places = Vector{Int32}(undef, before[end])
    each_part(crew) do part
        q = before[part]
        for j in portion(size(E, 2), part, length(crew.sums)), k in nzrange(E, j)
            for b in nzrange(rows, j), a in nzrange(rows, E.rowval[k])
                places[q+=1] = place_of(C.colptr, C.rowval, rows.rowval[a], rows.rowval[b])
            end
        end
    end
    return places
end

"""
values = those of PᵀAP, for values of A in E's places. Terms are summed by ranges of A's columns, each into memory of its
own.
"""
function galerkin!(values::Vector{T}, level::Level{T}, of::Vector{T}) where {T}
    terms = level.terms
    if size(terms, 2) == 1
        fill!(values, 0)
        return add_galerkin!(values, 0, level, of, axes(level.E, 2), 0)
    end
    crew = level.split.crew
    each_part(crew) do part
        fill!(view(terms, :, part), 0)
        add_galerkin!(terms, (part - 1) * length(values), level, of, portion(size(level.E, 2), part, size(terms, 2)),
                      level.before[part])
    end
    each_share(length(values), crew) do range
        @inbounds for k in range
            s = T(0)
            for part in axes(terms, 2)
                s += terms[k, part]
            end
            values[k] = s
        end
    end
    return nothing
end

"Add what `columns` of A give to the values that start behind `from`; the first of their places is behind q."
function add_galerkin!(values, from::Int, level::Level{T}, of::Vector{T}, columns, q::Int) where {T}
    E, rows, places = level.E, level.P_rows, level.places
    @inbounds for j in columns, k in nzrange(E, j)
        e = of[k]
        for b in nzrange(rows, j)
            eb = e * rows.nzval[b]
            for a in nzrange(rows, E.rowval[k])
                values[from+places[q+=1]] += rows.nzval[a] * eb
            end
        end
    end
    return nothing
end

"How many terms of PᵀEP stand before those of each of `parts` ranges of E's columns, and all of them."
function terms_before(E::SparseMatrixCSC, rows::SparseMatrixCSC, parts::Int)
    terms(j) = length(nzrange(rows, j)) * sum(k -> length(nzrange(rows, E.rowval[k])), nzrange(E, j); init = 0)
    counts = [sum(terms, portion(size(E, 2), part, parts); init = 0) for part in 1:parts]
    return cumsum([0; counts])
end

"A last level; d: E is to be factored densely and has d columns, or zero."
function Level(E::SparseMatrixCSC{T,Int32}, split::Split, fast, d::Int;
               diagonal = diagonal_places(E.colptr, E.rowval)) where {T}
    n, none = size(E, 1), SparseMatrixCSC{T,Int32}(spzeros(0, 0))
    smoother = IncompleteLU(E, similar(E.nzval), diagonal, fast === nothing ? Rows(E) : Rows{T}())
    return Level{T}(split, E, smoother, fast, zeros(T, n), zeros(T, n), zeros(T, n), none, none,
                    Padded(none), Split(0), Int32[], zeros(T, 0, 1), Int[], zeros(T, d, d), zeros(Int, d))
end

"The part that most of each column of P belongs to."
function coarse_parts(P::SparseMatrixCSC, split::Split)
    home = homes(split.rows, size(P, 1))
    return map(axes(P, 2)) do j
        counts = zeros(Int, length(split.rows))
        foreach(i -> counts[home[i][2]] += 1, view(P.rowval, nzrange(P, j)))
        argmax(counts)
    end
end

"The same with a prolongation from a level below it, of which the matrix is returned too, to be filled."
function with_prolongation(level::Level{T}, P::SparseMatrixCSC{T,Int32}) where {T}
    C = coarse_pattern(level.E, P)
    crew = level.split.crew
    parts = length(crew.sums)
    home = coarse_parts(P, level.split)
    order, colours = colour_order(C, home)
    below = Split(crew, [[colour[searchsorted(view(home, order[colour]), part)] for colour in colours] for part in 1:parts])
    P, C = P[:, order], permute(C, order, order)
    rows = sparse(transpose(P))
    before = terms_before(level.E, rows, parts)
    places = galerkin_places(level.E, rows, C, before, crew)
    terms = zeros(T, parts == 1 ? 0 : nnz(C), parts)
    return Level{T}(level.split, level.E, level.smoother, level.fast, level.x, level.b, level.r, P, rows, Padded(rows),
                    below, places, terms, before, level.dense, level.pivots), C
end

"Levels for the Jacobian `values` in the places of levels[1].E, until they are small or no longer shrink."
function build_levels!(levels::Vector{Level{T}}, values::Vector{T}) where {T}
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
        m = size(C, 1)
        split = m >= 2PART_ROWS ? levels[end].below : Split(m)
        push!(levels, Level(C, split, nothing, m <= DENSE_LEVEL ? m : 0))
    end
end
