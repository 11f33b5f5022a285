# One large system on several threads. The caller keeps the thread of control: a loop over the rows of a vector is shared
# out over a crew, whose helpers wait for the next one in a spin, since such a loop takes microseconds and waking a
# thread as many. Rows are split the same way, and sums are taken part by part, whatever the number of threads: so are
# results.

"""
The caller's thread and its helpers, `size` in all; with none, work is done at once. Work is split into as many parts as
`sums` has places.
"""
mutable struct Crew
    const size::Int
    const sums::V
    job::Any                    # what helpers do next; nothing: they leave
    error::Any                  # what went wrong in a helper
    const helpers::Vector{Task}
    busy::UInt64                # nanoseconds of the jobs since the last look at them,
    waited::UInt64              # and those that the caller waited for helpers
    alone::Int                  # jobs that the caller still does without them,
    pause::Int                  # and how many after the next look, if they are late again
    @atomic posted::Int         # jobs so far
    @atomic finished::Int       # by helpers
end
Crew(size::Int, parts::Int) =
    Crew(clamp(size, 1, parts), zeros(parts), nothing, nothing, Task[], 0, 0, 0, LOOK_AFTER, 0, 0)

# Who waits for longer lets others have the core: another process may need it for what all wait for.
const SPINS = 500
# A helper without work for so many nanoseconds sleeps, seconds at a time.
const IDLE = 2_000_000
const NAP = 5e-5
# Where other processes have the cores, a helper does its share when its turn comes. Every so many jobs the caller looks
# how much of their time it waited, and from this share on does the next ones alone, each time more of them.
const LOOK_AFTER = 256
const CROWDED_SHARE = 0.6
const LONGEST_PAUSE = 2^16

function spin(spins::Int)
    ccall(:jl_cpu_pause, Cvoid, ())
    GC.safepoint()
    if spins % SPINS == 0
        yield()                             # to other tasks: helpers may be more than threads are free
        ccall(:sched_yield, Cint, ())       # to other processes
    end
    return spins + 1
end

"Run `work` with helpers at hand."
function with_helpers(work::F, crew::Crew) where {F}
    (crew.size == 1 || !isempty(crew.helpers)) && return work()
    crew.error, crew.alone, crew.pause = nothing, 0, LOOK_AFTER
    @atomic crew.posted = 0
    @atomic crew.finished = 0
    for rank in 2:crew.size
        push!(crew.helpers, Threads.@spawn help(crew, rank))
    end
    try
        return work()
    finally
        post!(crew, nothing)
        foreach(wait, crew.helpers)
        empty!(crew.helpers)
    end
end

function post!(crew::Crew, job)
    crew.job = job
    @atomic crew.posted += 1
    return nothing
end

function help(crew::Crew, rank::Int)
    jobs, spins, since = 0, 1, time_ns()
    while true
        if (@atomic crew.posted) == jobs
            spins = spin(spins)
            spins % SPINS == 0 && time_ns() - since > IDLE && Libc.systemsleep(NAP)
            continue
        end
        jobs += 1
        job = crew.job
        job === nothing && return nothing
        try
            job(rank)
        catch error
            crew.error = error
        end
        @atomic crew.finished += 1
        spins, since = 1, time_ns()
    end
end

"The parts of the crew's member `rank`."
share(crew::Crew, rank::Int) = portion(length(crew.sums), rank, crew.size)

"work(rank) for every member."
function each_member(work::F, crew::Crew) where {F}
    isempty(crew.helpers) || crew.alone > 0 || return share_out(work, crew)
    crew.alone = max(0, crew.alone - 1)
    foreach(work, 1:crew.size)
    return nothing
end

@noinline function share_out(work::F, crew::Crew) where {F}
    began = time_ns()
    post!(crew, work)
    work(1)
    done = time_ns()
    expected, spins = (@atomic crew.posted) * (crew.size - 1), 1
    while (@atomic crew.finished) < expected
        spins = spin(spins)
    end
    now = time_ns()
    crew.busy += now - began
    crew.waited += now - done
    crew.error === nothing || throw(crew.error)
    expected % LOOK_AFTER == 0 && look!(crew)
    return nothing
end

function look!(crew::Crew)
    crowded = crew.waited > CROWDED_SHARE * crew.busy
    crowded && (crew.alone = crew.pause)
    crew.pause = crowded ? min(2crew.pause, LONGEST_PAUSE) : LOOK_AFTER
    crew.busy = crew.waited = 0
    return nothing
end

"work(part) for every part."
each_part(work::F, crew::Crew) where {F} = each_member(rank -> foreach(work, share(crew, rank)), crew)

"Part `part` of `parts` of 1:count."
portion(count::Int, part::Int, parts::Int) = 1+(part-1)*count÷parts:part*count÷parts

"work(range) for ranges that make up 1:count, one for each part."
each_share(work::F, count::Int, crew::Crew) where {F} =
    each_part(part -> work(portion(count, part, length(crew.sums))), crew)

"How the rows of vectors are shared out: some ranges for each part."
struct Split
    crew::Crew
    rows::Vector{Vector{UnitRange{Int}}}
end

"All rows in the hands of the caller."
Split(n::Int) = Split(Crew(1, 1), [[1:n]])

"work(rows) for every range of rows."
each_rows(work::F, split::Split) where {F} = each_part(part -> foreach(work, split.rows[part]), split.crew)

"The sum of what work(rows) returns."
function total(work::F, split::Split) where {F}
    sums = split.crew.sums
    each_part(split.crew) do part
        share = 0.0
        for rows in split.rows[part]
            share += work(rows)
        end
        sums[part] = share
    end
    return sum(sums)
end

# What is done with vectors, on a range of rows and on all of them.

"y = x times a vector of factors; y may be x."
function multiply!(y::Vector, x::Vector, factors::Vector, rows::UnitRange{Int})
    @inbounds @simd ivdep for i in rows
        y[i] = x[i] * factors[i]
    end
    return nothing
end
multiply!(y::Vector, x::Vector, factors::Vector, split::Split) =
    each_rows(rows -> multiply!(y, x, factors, rows), split)

"y = x + factors y."
function multiply_add!(y::V, factors::V, x::V, rows::UnitRange{Int})
    @inbounds @simd ivdep for i in rows
        y[i] = muladd(factors[i], y[i], x[i])
    end
    return nothing
end

"y += a x."
function add!(y::Vector{T}, a::T, x::Vector, rows::UnitRange{Int}) where {T}
    @inbounds @simd ivdep for i in rows
        y[i] = muladd(a, T(x[i]), y[i])
    end
    return nothing
end
add!(y::Vector{T}, a::T, x::Vector, split::Split) where {T} = each_rows(rows -> add!(y, a, x, rows), split)

"y = a x, in y's precision."
function scale!(y::Vector, a::Float64, x::Vector, rows::UnitRange{Int})
    @inbounds @simd ivdep for i in rows
        y[i] = a * x[i]
    end
    return nothing
end
scale!(y::Vector, a::Float64, x::Vector, split::Split) = each_rows(rows -> scale!(y, a, x, rows), split)

"y = x, in y's precision."
function copy_rows!(y::Vector, x::Vector, rows::UnitRange{Int})
    @inbounds @simd ivdep for i in rows
        y[i] = x[i]
    end
    return nothing
end
copy_rows!(y::Vector, x::Vector, split::Split) = each_rows(rows -> copy_rows!(y, x, rows), split)

function fill_rows!(y::Vector{T}, a::T, rows::UnitRange{Int}) where {T}
    @inbounds @simd ivdep for i in rows
        y[i] = a
    end
    return nothing
end

function product(x::Vector{T}, y::Vector{T}, rows::UnitRange{Int}) where {T}
    s = T(0)
    @inbounds @simd for i in rows
        s += x[i] * y[i]
    end
    return Float64(s)
end
product(x::Vector{T}, y::Vector{T}, split::Split) where {T} = total(rows -> product(x, y, rows), split)

"The Euclidean norm, also where squares leave the range of numbers."
function length_of(x::Vector, split::Split)
    square = product(x, x, split)
    return floatmin() < square < Inf ? sqrt(square) : Float64(norm(x))
end
