"""
The methods that solve nonlinear systems (BDF, SDIRK and Radau families) for HybridSAMBridge. A package of its own
because loading them takes longer than all the rest: it is loaded when such a method is first asked for.
"""
module HybridSAMBridgeImplicit

using HybridSAMBridge: HybridSAMBridge, Controls, METHODS, linear_solver, workload_functions, workload
using OrdinaryDiffEqBDF: FBDF, QNDF
using OrdinaryDiffEqFIRK: RadauIIA5, RadauIIA9
using OrdinaryDiffEqSDIRK: KenCarp3, KenCarp4, KenCarp5, Kvaerno5, TRBDF2
using PrecompileTools: @compile_workload, @setup_workload

const NEWTON = Dict{String,Any}(
    "FBDF" => FBDF, "QNDF" => QNDF, "KenCarp3" => KenCarp3, "KenCarp4" => KenCarp4, "KenCarp5" => KenCarp5,
    "Kvaerno5" => Kvaerno5, "TRBDF2" => TRBDF2)

function register()
    for (name, method) in NEWTON
        METHODS[name] = n -> method(; linsolve = linear_solver(n))
    end
    METHODS["RadauIIA5"] = n -> RadauIIA5()
    METHODS["RadauIIA9"] = n -> RadauIIA9()
    return nothing
end

# The Radau methods take one number: the strictest.
HybridSAMBridge.absolute_tolerance(::Union{RadauIIA5,RadauIIA9}, ctl::Controls) = minimum(ctl.atol)

__init__() = register()

@setup_workload begin
    register()
    @compile_workload begin
        id = workload_functions()
        for method in ("KenCarp4", "TRBDF2", "FBDF", "QNDF", "RadauIIA5")
            workload(id, method, "gauss", 2)
        end
    end
    HybridSAMBridge.clear_registries!()
end

end
