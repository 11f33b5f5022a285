"""
The methods that solve nonlinear systems (BDF, SDIRK and Radau families) for HybridSAMBridge. A package of its own
because loading them takes longer than all the rest: it is loaded when such a method is first asked for.
"""
module HybridSAMBridgeImplicit

using HybridSAMBridge: HybridSAMBridge, Controls, ESDIRKTableau, METHODS, Model, NEWTON_RHS, NewtonSystem, linear_solver,
    workload_functions, workload
using OrdinaryDiffEqBDF: FBDF, QNDF
using OrdinaryDiffEqFIRK: RadauIIA5, RadauIIA9
using OrdinaryDiffEqSDIRK: ESDIRKIMEXCache, KenCarp3, KenCarp4, KenCarp5, Kvaerno5, TRBDF2
using PrecompileTools: @compile_workload, @setup_workload

const BDF = Dict{String,Any}("FBDF" => FBDF, "QNDF" => QNDF)
const SDIRK = Dict{String,Any}("KenCarp3" => KenCarp3, "KenCarp4" => KenCarp4, "KenCarp5" => KenCarp5,
                               "Kvaerno5" => Kvaerno5, "TRBDF2" => TRBDF2)

function register()
    for (name, method) in BDF
        METHODS[name] = n -> method(; linsolve = linear_solver(n))
    end
    for (name, method) in SDIRK
        METHODS[name] = n -> method(; linsolve = NewtonSystem())
    end
    METHODS["RadauIIA5"] = n -> RadauIIA5()
    METHODS["RadauIIA9"] = n -> RadauIIA9()
    return nothing
end

# The Radau methods take one number: the strictest.
HybridSAMBridge.absolute_tolerance(::Union{RadauIIA5,RadauIIA9}, ctl::Controls) = minimum(ctl.atol)

function HybridSAMBridge.tableau(cache::ESDIRKIMEXCache)
    tab = cache.tab
    s = tab.s
    A = zeros(s, s)
    A[axes(tab.Ai)...] .= tab.Ai
    return ESDIRKTableau(s, A, Vector{Float64}(tab.bi), Vector{Float64}(tab.c), A[s, s])
end

function HybridSAMBridge.copy_stages!(zs::Vector{Float64}, offset::Int, cache::ESDIRKIMEXCache, ::Float64)
    n = length(cache.u)
    for i in 1:cache.tab.s
        copyto!(zs, offset + (i - 1) * n + 1, cache.zs[i], 1, n)
    end
    return nothing
end

HybridSAMBridge.right_hand_side(::Union{KenCarp3,KenCarp4,KenCarp5,Kvaerno5,TRBDF2}, ::Model) = NEWTON_RHS

__init__() = register()

@setup_workload begin
    register()
    @compile_workload begin
        id = workload_functions()
        for (method, adjoint) in (("KenCarp4", "discrete"), ("Kvaerno5", "discrete"), ("FBDF", "gauss"),
                                  ("QNDF", "gauss"), ("RadauIIA5", "gauss"))
            workload(id, method, adjoint, 2)
        end
    end
    HybridSAMBridge.clear_registries!()
end

end
