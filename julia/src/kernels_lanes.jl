# Vector registers: loads, stores and arithmetic on several numbers at once, for kernels that choose their own widths.
# (Left to itself the compiler stays at four numbers where the processor has eight.)

const Lanes{N} = NTuple{N,VecElement{Float64}}

const AVX512 = Sys.ARCH === :x86_64 && let id = Base.BinaryPlatforms.CPUID
    id.test_cpu_feature(id.JL_X86_avx512f)
end
const WIDE = AVX512 ? 8 : 4     # numbers in a vector register
const SUMS = AVX512 ? 16 : 8    # sums that a tile may hold: half of the registers

@inline _load(::Val{N}, x::Vector{Float64}, i::Int) where {N} = unsafe_load(Ptr{Lanes{N}}(pointer(x, i)))
@inline _store!(x::Vector{Float64}, i::Int, v::Lanes{N}) where {N} = unsafe_store!(Ptr{Lanes{N}}(pointer(x, i)), v)
@inline _all(::Val{N}, v::Float64) where {N} = ntuple(_ -> VecElement(v), Val(N))

for n in (1, 4, 8)
    @eval @inline _fma(a::Lanes{$n}, b::Lanes{$n}, c::Lanes{$n}) = Base.llvmcall(
        $("""
        %p = fmul contract <$n x double> %0, %1
        %r = fadd contract <$n x double> %p, %2
        ret <$n x double> %r
        """), Lanes{$n}, Tuple{Lanes{$n},Lanes{$n},Lanes{$n}}, a, b, c)
    for (name, op) in ((:_plus, "fadd"), (:_minus, "fsub"), (:_times, "fmul"), (:_over, "fdiv"))
        @eval @inline $name(a::Lanes{$n}, b::Lanes{$n}) = Base.llvmcall(
            $("""
            %r = $op <$n x double> %0, %1
            ret <$n x double> %r
            """), Lanes{$n}, Tuple{Lanes{$n},Lanes{$n}}, a, b)
    end
end
@inline _total(v::Lanes{N}) where {N} = sum(ntuple(i -> v[i].value, Val(N)))
@inline _zeros(w::Val, ::Val{K}) where {K} = ntuple(_ -> _all(w, 0.0), Val(K))

# K vectors that start a stride apart, and K numbers each spread over a vector.
@inline _vectors(w::Val, ::Val{K}, x, i, stride) where {K} = ntuple(k -> _load(w, x, i + (k - 1) * stride), Val(K))
@inline _spread(w::Val, ::Val{K}, x, i, stride) where {K} = ntuple(k -> _all(w, @inbounds x[i+(k-1)*stride]), Val(K))
