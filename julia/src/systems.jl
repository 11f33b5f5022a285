# What holds the linear systems of implicit steps, E = r M - J with r = 1/(γh): types and memory; linear.jl, sparse.jl
# and krylov.jl have what is done with them. All arrays are plain vectors, so that the solver is compiled once.

const V = Vector{Float64}
const M = Matrix{Float64}
const Sparse = SparseMatrixCSC{Float64,Int}

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
from `start[q]` to before `start[q+1]`.
"""
struct Runs
    start::Vector{Int}
    rows::Vector{Int}
    columns::Vector{Int}
    of::Vector{UnitRange{Int}}  # the runs of each colour's rows
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
place in the pattern by the unknowns' own order.
"""
struct Ordered
    order::Vector{Int}
    colours::Vector{UnitRange{Int}}
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

const KRYLOV_MEMORY = 20

"ILU(0) of E: L (unit diagonal) and U in the places of E's nonzeros (Saad, Iterative Methods, 2003, 10.3)."
struct IncompleteLU
    E::Sparse
    values::V
    diagonal::Vector{Int}
    place::Vector{Int}          # row => place in the column at hand, 0: none
end

function IncompleteLU(E::Sparse)
    diagonal = [searchsortedfirst(E.rowval, j, E.colptr[j], E.colptr[j+1] - 1, Base.Order.Forward) for j in axes(E, 2)]
    return IncompleteLU(E, similar(E.nzval), diagonal, zeros(Int, size(E, 1)))
end

struct TransposedLU
    parent::IncompleteLU
end

"The values that belong to `Bands`, with those of the incomplete LU's pivots inverted."
struct BandValues
    bands::Bands
    colours::Vector{UnitRange{Int}}
    matrix::V
    lower::V
    upper::V
    inverse::V
end
BandValues(b::Bands, colours, n::Int) =
    BandValues(b, colours, zeros(length(b.matrix.source)), zeros(length(b.lower.source)),
               zeros(length(b.upper.source)), zeros(n))

"""
One level of the multigrid cycle: its matrix, a smoother, vectors of the cycle, and the prolongation from the next
level with the places that the terms of PᵀEP have there. The last level's prolongation has no columns.
"""
struct Level
    E::Sparse
    smoother::IncompleteLU
    fast::Union{BandValues,Nothing}     # both once more, where their entries lie in long runs
    x::V
    b::V
    r::V
    P::Sparse
    P_rows::Sparse              # Pᵀ: P row by row
    places::Vector{Int32}
    dense::M                    # of the smallest level: its LU
    pivots::Vector{Int}
end

const EARLIER_MEMORY = 8        # of one step: the stages of Rodas5P

"Solutions x of the present matrix E (or its transpose), with images E x that are orthonormal."
mutable struct Earlier
    const solutions::Vector{V}
    const images::Vector{V}
    count::Int
    transposed::Bool
    scale::Float64              # largest norm of a right-hand side so far
end
Earlier(n::Int) = Earlier([zeros(n) for _ in 1:EARLIER_MEMORY], [zeros(n) for _ in 1:EARLIER_MEMORY], 0, false, 0.0)

"What residuals are multiplied with before their norm is taken, and its inverse."
struct Scaling
    factor::V
    inverse::V
end
Scaling(n::Int) = Scaling(ones(n), ones(n))

"""
GMRES (flexible: Saad, SIAM J. Sci. Comput. 14, 1993), preconditioned by an incomplete LU and, where that is not
enough, a multigrid cycle over it. Unknowns are in the pattern's `ordered` order.
"""
mutable struct KrylovSystem
    const direct::SparseSystem  # J, E in its own order, and the LU that takes over where GMRES does not converge
    const ordered::Ordered
    const levels::Vector{Level}
    depth::Int                  # levels in use; 1: the incomplete LU alone
    const workspace::FgmresWorkspace{Float64,Float64,V}
    const rhs::V
    const x::V
    const earlier::Earlier
    const size::V               # of the unknowns where J was evaluated, in the system's order
    const rows::Scaling         # of E x = b
    const columns::Scaling      # of Eᵀ x = b
    step_rtol::Float64          # tolerances of the steps
    step_atol::V
    rtol::Float64
    slow::Bool                  # whether the levels should be made anew
    built::Int                  # number of the Jacobian that they were made from
    gave_up::Bool
end

function KrylovSystem(pattern::Pattern, n::Int)
    direct = SparseSystem(pattern, n)
    ordered = pattern.ordered::Ordered
    E = SparseMatrixCSC(n, n, ordered.places.colptr, ordered.places.rowval, zeros(nnz(ordered.places)))
    fast = ordered.bands === nothing ? nothing : BandValues(ordered.bands, ordered.colours, n)
    finest = Level(E, fast, 0)
    workspace = FgmresWorkspace(n, n, V; memory = min(n, KRYLOV_MEMORY))
    return KrylovSystem(direct, ordered, [finest], 1, workspace, zeros(n), zeros(n), Earlier(n),
                        zeros(n), Scaling(n), Scaling(n), 1.0, ones(n), KRYLOV_RTOL[2], false, 0, false)
end

Base.getproperty(s::KrylovSystem, name::Symbol) =
    name === :seen ? getfield(s, :direct).seen :
    name === :jacobian ? getfield(getfield(s, :direct), :jacobian) : getfield(s, name)

"Any of the systems, chosen when a plan is registered; few enough for calls without dispatch at run time."
const System = Union{NoSystem,DenseSystem,SparseSystem,KrylovSystem}
