# What holds the linear systems of implicit steps, E = r M - J with r = 1/(γh): types and memory; linear.jl, sparse.jl
# and krylov.jl have what is done with them.

"No matrix: explicit methods."
struct NoSystem end

"The start of the step that a system's Jacobian belongs to, and how often one was evaluated."
mutable struct Evaluated
    t::Float64                  # NaN: none
    count::Int
end
Evaluated() = Evaluated(NaN, 0)

"Dense LU in place, without allocation for small matrices."
struct DenseSystem
    J::M
    E::M
    pivots::Vector{Int}
    seen::Evaluated
end
DenseSystem(n::Int) = DenseSystem(zeros(n, n), zeros(n, n), zeros(Int, n), Evaluated())

"""
A matrix as runs along its diagonals: run q has the entries (rows[q] + t, columns[q] + t) for t = 0, 1, ..., with values
from `start[q]` to before `start[q+1]`. A run stays within the rows of one part and colour, and within the columns of one:
`to_rows[part, colour]` are the runs there; `turned[q]` for q in `to_columns[part, colour]` those of the transpose.
"""
struct Runs
    start::Vector{Int}
    rows::Vector{Int}
    columns::Vector{Int}
    to_rows::Matrix{UnitRange{Int}}
    turned::Vector{Int}
    to_columns::Matrix{UnitRange{Int}}
    source::Vector{Int}         # place of each value in the sparse matrix
end

"Runs of E and of its incomplete LU, whose factors take the places below and above the diagonal."
struct Bands
    matrix::Runs
    lower::Runs
    upper::Runs
end

"""
An order of the unknowns in which those without entries in common, of one colour, stand together: substitution then has
no chain of operations that wait for each other. `places`: E's pattern in that order, by columns, with each nonzero's
place in the pattern by the unknowns' own order. `shares`: a range of each colour for each part of the rows.
"""
struct Ordered
    order::Vector{Int}
    shares::Vector{Vector{UnitRange{Int}}}
    places::SparseMatrixCSC{Int,Int}
    bands::Union{Bands,Nothing}
end

"""
Places of the nonzeros of E = r M - J, by columns; `diagonal[j]` is the place of (j, j), and columns of one group
have no row in common, so that one product with J gives them all (Curtis, Powell & Reid, J. Inst. Math. Appl. 13,
1974).
"""
struct Pattern
    colptr::Vector{Int}
    rowval::Vector{Int}
    diagonal::Vector{Int}
    groups::Vector{Vector{Int}}
    ordered::Union{Ordered,Nothing}     # for Krylov systems
end

"Values of J in the order of the pattern."
mutable struct SparseJacobian
    pattern::Pattern
    values::V
    seed::V
    product::V
    seen::Evaluated
end
SparseJacobian(pattern::Pattern, n::Int) =
    SparseJacobian(pattern, zeros(length(pattern.rowval)), zeros(n), zeros(n), Evaluated())

"Sparse LU (UMFPACK): the ordering is found once, the numbers are factored for every step."
mutable struct SparseSystem
    jacobian::SparseJacobian
    E::Sparse
    factor::Union{UmfpackLU{Float64,Int},Nothing}
    work::V
    x::V
end

function SparseSystem(pattern::Pattern, n::Int)
    E = SparseMatrixCSC(n, n, pattern.colptr, pattern.rowval, zeros(length(pattern.rowval)))
    return SparseSystem(SparseJacobian(pattern, n), E, nothing, zeros(n), zeros(n))
end

Base.getproperty(s::SparseSystem, name::Symbol) =
    name === :seen ? getfield(s, :jacobian).seen : getfield(s, name)

"The values of a sparse matrix once more, row by row."
struct Rows{T}
    start::Vector{Int32}
    columns::Vector{Int32}
    diagonal::Vector{Int32}
    place::Vector{Int}          # of each among the values by columns
    values::Vector{T}
end
Rows{T}() where {T} = Rows{T}(Int32[], Int32[], Int32[], Int[], T[])

function Rows(E::SparseMatrixCSC{T,Int32}) where {T}
    turned = sparse(transpose(SparseMatrixCSC(size(E)..., E.colptr, E.rowval, collect(1:nnz(E)))))
    return Rows(turned.colptr, turned.rowval, Int32.(diagonal_places(turned.colptr, turned.rowval)), turned.nzval,
                similar(E.nzval))
end

"""
ILU(0) of E: L (unit diagonal) and U in the places of E's nonzeros (Saad, Iterative Methods, 2003, 10.3). `rows` are empty
where its values are needed as runs only.
"""
struct IncompleteLU{T}
    E::SparseMatrixCSC{T,Int32}
    values::Vector{T}
    diagonal::Vector{Int}
    rows::Rows{T}
end

"Place of the entry (i, j), which must be there, among the nonzeros of a sparse matrix."
function place_of(colptr, rowval, i, j)
    low, high = Int(colptr[j]), Int(colptr[j+1]) - 1
    @inbounds while low < high
        middle = (low + high) >> 1
        rowval[middle] < i ? (low = middle + 1) : (high = middle)
    end
    return low
end
diagonal_places(colptr, rowval) = [place_of(colptr, rowval, j, j) for j in 1:length(colptr)-1]

"The values that belong to `Bands`, with those of the incomplete LU's pivots inverted."
struct BandValues{T}
    bands::Bands
    matrix::Vector{T}
    lower::Vector{T}
    upper::Vector{T}
    inverse::Vector{T}
end
BandValues{T}(b::Bands, n::Int) where {T} =
    BandValues{T}(b, zeros(T, length(b.matrix.source)), zeros(T, length(b.lower.source)),
                  zeros(T, length(b.upper.source)), zeros(T, n))

"A matrix with a few entries a row, as many in all by zeros: entry q of row i is values[i, q], in columns[i, q]."
struct Padded{T}
    values::Matrix{T}
    columns::Matrix{Int32}
end

"The transpose of `A`, padded."
function Padded(A::SparseMatrixCSC{T,Int32}) where {T}
    width = maximum(diff(A.colptr); init = 0)
    P = Padded(zeros(T, size(A, 2), width), ones(Int32, size(A, 2), width))
    for i in axes(A, 2), (q, k) in enumerate(nzrange(A, i))
        P.values[i, q], P.columns[i, q] = A.nzval[k], A.rowval[k]
    end
    return P
end

"""
One level of the multigrid cycle: its matrix, a smoother, vectors of the cycle, and the prolongation from the next
level with the places that the terms of PᵀEP have there. The last level's prolongation has no columns.
"""
struct Level{T}
    split::Split                        # of its rows
    E::SparseMatrixCSC{T,Int32}
    smoother::IncompleteLU{T}
    fast::Union{BandValues{T},Nothing}  # both once more, where their entries lie in long runs
    x::Vector{T}
    b::Vector{T}
    r::Vector{T}
    P::SparseMatrixCSC{T,Int32}
    P_rows::SparseMatrixCSC{T,Int32}    # Pᵀ: P row by row
    P_padded::Padded{T}
    below::Split                        # of the next level's rows
    places::Vector{Int32}
    terms::Matrix{T}                    # sums of the places' terms, a column for each range of E's columns
    before::Vector{Int}                 # how many terms come before those of each range
    dense::Matrix{T}                    # of the smallest level: its LU
    pivots::Vector{Int}
end

const EARLIER_MEMORY = 8        # of one step: the stages of Rodas5P

"Solutions x of the present matrix E (or its transpose), with images E x that are orthonormal."
mutable struct Earlier
    const solutions::Vector{V}
    const images::Vector{V}
    const shares::V             # of the images in a right-hand side
    count::Int
    transposed::Bool
    scale::Float64              # largest norm of a right-hand side so far
end
Earlier(n::Int) = Earlier([zeros(n) for _ in 1:EARLIER_MEMORY], [zeros(n) for _ in 1:EARLIER_MEMORY],
                          zeros(EARLIER_MEMORY), 0, false, 0.0)

"What residuals are multiplied with before their norm is taken, and its inverse."
struct Scaling{T}
    factor::Vector{T}
    inverse::Vector{T}
end
Scaling{T}(n::Int) where {T} = Scaling(ones(T, n), ones(T, n))

function Base.copyto!(to::Scaling, from::Scaling)
    copyto!(to.factor, from.factor)
    copyto!(to.inverse, from.inverse)
    return to
end

const GMRES_MEMORY = 20

"The multigrid cycle and GMRES around it, in numbers of T."
mutable struct Inner{T}
    const levels::Vector{Level{T}}
    depth::Int                          # levels in use; 1: the incomplete LU alone
    const rows::Scaling{T}              # of E x = b
    const columns::Scaling{T}           # of Eᵀ x = b
    const basis::Vector{Vector{T}}      # of the Krylov space
    const preconditioned::Vector{Vector{T}}
    const correction::Vector{T}
    const hessenberg::M                 # made triangular by rotations
    const cosines::V
    const sines::V
    const projected::V                  # the right-hand side in the basis, rotated alike
    slow::Bool                          # whether the levels should be made anew
    built::Int                          # number of the Jacobian that they were made from
end

function Inner{T}(ordered::Ordered, split::Split, diagonal::Vector{Int}, n::Int) where {T}
    pattern, k = ordered.places, min(n, GMRES_MEMORY)
    E = SparseMatrixCSC(n, n, Int32.(pattern.colptr), Int32.(pattern.rowval), zeros(T, nnz(pattern)))
    fast = ordered.bands === nothing ? nothing : BandValues{T}(ordered.bands, n)
    return Inner{T}([Level(E, split, fast, 0; diagonal)], 1, Scaling{T}(n), Scaling{T}(n), [zeros(T, n) for _ in 0:k],
                    [zeros(T, n) for _ in 1:k], zeros(T, n), zeros(k + 1, k), zeros(k), zeros(k), zeros(k + 1),
                    false, 0)
end

"""
GMRES with a preconditioner, both in single precision, within iterative refinement. Unknowns are in the pattern's
`ordered` order.
"""
mutable struct KrylovSystem
    const split::Split          # of the unknowns
    const probes::Vector{Any}   # the helpers' memory for J
    const direct::SparseSystem  # J, E in its own order, and the LU that takes over where GMRES does not converge
    const ordered::Ordered
    const E::Sparse
    const diagonal::Vector{Int} # its entries' places in E
    const matrix::V             # E as the runs of `ordered.bands`, if it has them
    const single::Inner{Float32}
    double::Union{Inner{Float64},Nothing}   # takes over where single precision is not enough
    precise::Bool               # whether it did
    const rhs::V
    const x::V
    const correction::V
    const image::V
    const earlier::Earlier
    const size::V               # of the unknowns where J was evaluated, in the system's order
    const rows::Scaling{Float64}
    const columns::Scaling{Float64}
    step_rtol::Float64          # tolerances of the steps
    step_atol::V
    given::Bool                 # whether the steps are
    iterations::Int             # of the last solve
    gave_up::Bool
end

"`threads`: those that may work on this system."
function KrylovSystem(pattern::Pattern, n::Int, threads::Int = 1)
    ordered = pattern.ordered::Ordered
    split = Split(Crew(threads, length(ordered.shares)), ordered.shares)
    places = ordered.places
    E = SparseMatrixCSC(n, n, places.colptr, places.rowval, zeros(nnz(places)))
    diagonal = diagonal_places(E.colptr, E.rowval)
    matrix = zeros(ordered.bands === nothing ? 0 : length(ordered.bands.matrix.source))
    return KrylovSystem(split, Any[], SparseSystem(pattern, n), ordered, E, diagonal, matrix,
                        Inner{Float32}(ordered, split, diagonal, n), nothing, false, zeros(n), zeros(n), zeros(n), zeros(n), Earlier(n),
                        zeros(n), Scaling{Float64}(n), Scaling{Float64}(n), 1.0, ones(n), false, 0, false)
end

Base.getproperty(s::KrylovSystem, name::Symbol) =
    name === :seen ? getfield(s, :direct).seen :
    name === :jacobian ? getfield(getfield(s, :direct), :jacobian) : getfield(s, name)

"Any of the systems, chosen when a plan is registered; few enough for calls without dispatch at run time."
const System = Union{NoSystem,DenseSystem,SparseSystem,KrylovSystem}
