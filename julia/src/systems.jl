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
Places of the nonzeros of E = r M - J, by columns; `diagonal[j]` is the place of (j, j), and columns of one group
have no row in common, so that one product with J gives them all (Curtis, Powell & Reid, J. Inst. Math. Appl. 13,
1974).
"""
struct Pattern
    colptr::Vector{Int}
    rowval::Vector{Int}
    diagonal::Vector{Int}
    groups::Vector{Vector{Int}}
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

const KRYLOV_MEMORY = 40

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

"""
One level of the multigrid cycle: its matrix, a smoother, vectors of the cycle, and the prolongation from the next
level with the places that the terms of PᵀEP have there. The last level's prolongation has no columns.
"""
struct Level
    E::Sparse
    smoother::IncompleteLU
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

"""
GMRES (Saad & Schultz, SIAM J. Sci. Stat. Comput. 7, 1986), preconditioned by an incomplete LU and, where that is not
enough, a multigrid cycle over it. Unknowns are in an order of their own, `order`, in which those without entries in
common stand together: substitution then has no chain of operations that wait for each other.
"""
mutable struct KrylovSystem
    const direct::SparseSystem  # J, E in its own order, and the LU that takes over where GMRES does not converge
    const order::Vector{Int}
    const source::Vector{Int}   # place in direct.E of each nonzero of levels[1].E
    const levels::Vector{Level}
    depth::Int                  # levels in use; 1: the incomplete LU alone
    const workspace::GmresWorkspace{Float64,Float64,V}
    const rhs::V
    const x::V
    const earlier::Earlier
    rtol::Float64
    slow::Bool                  # whether the levels should be made anew
    built::Int                  # number of the Jacobian that they were made from
    gave_up::Bool
end

function KrylovSystem(pattern::Pattern, n::Int)
    direct = SparseSystem(pattern, n)
    order = colour_order(direct.E)
    places = SparseMatrixCSC(n, n, pattern.colptr, pattern.rowval, collect(1:length(pattern.rowval)))[order, order]
    finest = Level(SparseMatrixCSC(n, n, places.colptr, places.rowval, zeros(length(places.rowval))), 0)
    workspace = GmresWorkspace(n, n, V; memory = min(n, KRYLOV_MEMORY))
    return KrylovSystem(direct, order, places.nzval, [finest], 1, workspace, zeros(n), zeros(n), Earlier(n),
                        KRYLOV_RTOL[2], false, 0, false)
end

Base.getproperty(s::KrylovSystem, name::Symbol) =
    name === :seen ? getfield(s, :direct).seen :
    name === :jacobian ? getfield(getfield(s, :direct), :jacobian) : getfield(s, name)

"Any of the systems, chosen when a plan is registered; few enough for calls without dispatch at run time."
const System = Union{NoSystem,DenseSystem,SparseSystem,KrylovSystem}
