"""
Stiff solves and their adjoints for the Python package of the same project: programs traced from torch, or
Julia source, are integrated by OrdinaryDiffEq and differentiated here. Python calls the functions of api.jl.
"""
module HybridSAMBridge

using DiffEqBase: DEVerbosity
using ForwardDiff: ForwardDiff
using FunctionWrappers: FunctionWrapper
using LinearAlgebra
using LinearAlgebra: BLAS, LAPACK, LAPACKException, SingularException, ZeroPivotException
using LinearSolve: LinearSolve, GenericLUFactorization, LUFactorization, LinearCache, SciMLLinearSolveAlgorithm
using OrdinaryDiffEqCore: init, step!
using OrdinaryDiffEqRosenbrock: Rodas3, Rodas3P, Rodas4, Rodas42, Rodas4P, Rodas4P2, Rodas5, Rodas5P, Rodas5Pe,
    Rosenbrock23, Rosenbrock23Cache, RosenbrockCache
using OrdinaryDiffEqTsit5: Tsit5, Tsit5Cache, Tsit5ConstantCacheActual, Tsit5Interp
using OrdinaryDiffEqVerner: Vern7, Vern9
using PrecompileTools: @compile_workload, @setup_workload
using SciMLBase: SciMLBase, FullSpecialize, NoInit, ODEFunction, ODEProblem, ReturnCode, build_linear_solution,
    derivative_discontinuity!
using SciMLLogging: None
using SparseArrays: SparseArrays, SparseMatrixCSC, dropzeros!, nnz, nzrange, permute, sparse, spzeros
using SparseArrays.UMFPACK: UMFPACK, UmfpackLU
using SparseMatrixColorings: ColoringProblem, GreedyColoringAlgorithm, coloring, column_groups

include("Kernels.jl")
using .Kernels: _all, _fma, _load, _store!, wide
# All arrays are plain ones, so that the solver is compiled once.
const V = Vector{Float64}
const M = Matrix{Float64}
const Sparse = SparseMatrixCSC{Float64,Int}

include("crew.jl")
include("systems.jl")
include("model.jl")
include("linear.jl")
include("sparse.jl")
include("bands.jl")
include("incomplete.jl")
include("coarsening.jl")
include("multigrid.jl")
include("gmres.jl")
include("projection.jl")
include("krylov.jl")
include("tableau.jl")
include("algorithms.jl")
include("forward.jl")
include("spares.jl")
include("discrete.jl")
include("explicit.jl")
include("esdirk.jl")
include("gauss.jl")
include("sensitivity.jl")
include("source.jl")
include("batch.jl")
include("api.jl")
include("precompile.jl")

# Samples run in parallel; a BLAS with threads of its own would only get in the way.
__init__() = BLAS.set_num_threads(1)

end
