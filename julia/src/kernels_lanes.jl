# Vector registers: loads, stores and arithmetic on several numbers at once, for kernels that choose their own widths.
# (Left to itself the compiler stays at four numbers where the processor has eight.)

const LanesOf{T,N} = NTuple{N,VecElement{T}}
const Lanes{N} = LanesOf{Float64,N}

const AVX512 = Sys.ARCH === :x86_64 && let id = Base.BinaryPlatforms.CPUID
    id.test_cpu_feature(id.JL_X86_avx512f)
end
const WIDE = AVX512 ? 8 : 4     # numbers in a vector register, of twice as many in single precision
const SUMS = AVX512 ? 16 : 8    # sums that a tile may hold: half of the registers

@inline _load(::Val{N}, x::Vector{T}, i::Int) where {N,T} = unsafe_load(Ptr{LanesOf{T,N}}(pointer(x, i)))
@inline _store!(x::Vector{T}, i::Int, v::LanesOf{T,N}) where {N,T} = unsafe_store!(Ptr{LanesOf{T,N}}(pointer(x, i)), v)
@inline _all(::Val{N}, v::T) where {N,T} = ntuple(_ -> VecElement(v), Val(N))
wide(::Type{T}) where {T} = WIDE * 8 ÷ sizeof(T)

for (T, name, n) in ((Float64, "double", 1), (Float64, "double", 4), (Float64, "double", 8), (Float32, "float", 8),
                     (Float32, "float", 16))
    @eval @inline _fma(a::LanesOf{$T,$n}, b::LanesOf{$T,$n}, c::LanesOf{$T,$n}) = Base.llvmcall(
        $("""
        %p = fmul contract <$n x $name> %0, %1
        %r = fadd contract <$n x $name> %p, %2
        ret <$n x $name> %r
        """), LanesOf{$T,$n}, NTuple{3,LanesOf{$T,$n}}, a, b, c)
end
for n in (1, 4, 8)
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
