# The methods by name. Each is built with the analytic Jacobian in mind: no automatic differentiation inside.

# Failures come back as statuses; Julia's own warnings would only repeat them.
const QUIET = DEVerbosity(None())

const DENSE_GENERIC_LIMIT = 24  # below it an unblocked LU beats a LAPACK call

linear_solver(n::Int) = n <= DENSE_GENERIC_LIMIT ? GenericLUFactorization() : LUFactorization()

const ROSENBROCK = Dict{String,Any}(
    "Rodas5P" => Rodas5P, "Rodas5Pe" => Rodas5Pe, "Rodas5" => Rodas5, "Rodas4P" => Rodas4P,
    "Rodas4P2" => Rodas4P2, "Rodas4" => Rodas4, "Rodas42" => Rodas42, "Rodas3" => Rodas3, "Rodas3P" => Rodas3P,
    "Rosenbrock23" => Rosenbrock23)

"""
Methods by name, each a function of the number of unknowns. HybridSAMBridgeImplicit adds its own when it is loaded.
Verner's lazy interpolants would evaluate the model after the solve, when its context is another sample's.
"""
const METHODS = Dict{String,Any}(
    (name => (n -> method(; linsolve = ModelSystem())) for (name, method) in ROSENBROCK)...,
    "Tsit5" => n -> Tsit5(), "Vern7" => n -> Vern7(; lazy = false), "Vern9" => n -> Vern9(; lazy = false))

"Singly diagonally implicit methods, of which HybridSAMBridgeImplicit has the algorithms."
const ESDIRK = ("TRBDF2", "KenCarp3", "KenCarp4", "KenCarp5", "Kvaerno5")

"Whether the tape can keep the method's own stages, so that its steps can be reversed."
keeps_stages(method::String) = haskey(ROSENBROCK, method) || method in ESDIRK || method == "Tsit5"

is_explicit(method::String) = method in ("Tsit5", "Vern7", "Vern9")

"What solves λ' = -Jᵀλ backwards after a solve with `method`."
backward_algorithm(method::String, n::Int) = is_explicit(method) ? Tsit5() : Rodas5P(; linsolve = linear_solver(n))

"What holds the matrices of `method`'s steps; `threads` may work on them together."
function system_for(plan::Plan, method::String, threads::Int)
    is_explicit(method) && return NoSystem()
    plan.linear == "sparse" && return SparseSystem(plan.pattern, plan.n)
    plan.linear == "krylov" && return KrylovSystem(plan.pattern, plan.n, threads)
    return DenseSystem(plan.n)
end

function algorithm(method::String, n::Int)
    haskey(METHODS, method) || throw(ArgumentError("the Julia backend has no method $method"))
    return METHODS[method](n)
end
