# The functions that emitted programs call, in a module of their own whose names they all see.
module Kernels

include("kernels_arrays.jl")

for name in names(@__MODULE__; all = true)
    startswith(String(name), "#") || name in (:eval, :include, :Kernels) || @eval export $name
end

end
