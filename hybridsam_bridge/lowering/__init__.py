"""From a torch right-hand side to Julia source, as plain data.

trace (symbols, registry, operators_*) -> graph (ir, algebra, strides) -> derive (rewrite, fuse): which values go
to which output of which function -> schedule -> emit (scalars, calls, sweeps) -> program. ``sparsity`` reads the
pattern of the Jacobian off the same graph. The kernels that emitted code calls are in julia/src/kernels_*.jl.
"""
