# Memory of earlier calls, for the next ones of the same plan: new memory is a page fault for every 4 kB, and makes the
# collector go through all that Julia has loaded more often. No number in it is read again, so results stay the same.

mutable struct Spares
    plan::Union{Plan,Nothing}
    const lock::ReentrantLock
    const slots::Dict{Tuple,Vector{Any}}    # by what they were made for
    const tapes::Vector{StepTape}
end
const SPARES = Spares(nothing, ReentrantLock(), Dict{Tuple,Vector{Any}}(), StepTape[])

"Keep spares of this plan from now on, and let go of another's."
function reserve_spares!(plan::Union{Plan,Nothing})
    SPARES.plan === plan && return nothing
    SPARES.plan = plan
    empty!(SPARES.slots)
    empty!(SPARES.tapes)
    return nothing
end

"A spare slot that was made for `key`, or nothing."
take_slot(key::Tuple) = @lock SPARES.lock begin
    found = get(SPARES.slots, key, nothing)
    found === nothing || isempty(found) ? nothing : pop!(found)
end
give_slot!(key::Tuple, slot) = @lock SPARES.lock push!(get!(Vector{Any}, SPARES.slots, key), slot)

"An empty tape."
function take_tape()
    tape = @lock SPARES.lock isempty(SPARES.tapes) ? StepTape() : pop!(SPARES.tapes)
    foreach(empty!, (tape.t, tape.u, tape.ks))
    tape.full, tape.stride = true, 1
    return tape
end
give_tape!(tape::StepTape) = @lock SPARES.lock push!(SPARES.tapes, tape)

"Keep the memory of a tape that is no longer needed."
function give_tapes!(tape)
    SPARES.plan === tape.plan && foreach(sample -> sample isa StepTape && give_tape!(sample), tape.samples)
    return nothing
end
