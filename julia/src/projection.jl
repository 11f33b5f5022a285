# A first guess from what the same matrix was solved for before (Fischer, Comput. Methods Appl. Mech. Eng. 163, 1998).
# The stages of a step share their matrix, and their right-hand sides are combinations of a few vectors up to the
# nonlinearity of f: the projection on earlier solutions leaves 1e-2 to 1e-5 of them to be iterated for.

forget!(e::Earlier) = (e.count = 0; e.scale = 0.0; nothing)

"x = the guess for the right-hand side b, of which the residual is left in b."
function guess!(x::V, b::V, e::Earlier)
    fill!(x, 0.0)
    for q in 1:e.count
        share = dot(e.images[q], b)
        axpy!(-share, e.images[q], b)
        axpy!(share, e.solutions[q], x)
    end
    return nothing
end

"Where the next solution is gathered: a vector of zeros, while the right-hand side b waits in its image's place."
function begin_next!(e::Earlier, b::V)
    e.count == EARLIER_MEMORY && (e.count = 0)      # a full memory starts anew
    copyto!(e.images[e.count+1], b)
    return fill!(e.solutions[e.count+1], 0.0)
end

"Keep the solution gathered since, which left this residual of b."
function keep_next!(e::Earlier, residual::V)
    image, x = e.images[e.count+1], e.solutions[e.count+1]
    axpy!(-1.0, residual, image)
    before = norm(image)
    for q in 1:e.count
        share = dot(e.images[q], image)
        axpy!(-share, e.images[q], image)
        axpy!(-share, e.solutions[q], x)
    end
    length = norm(image)
    # What is left of a combination of the others is rounding.
    length > sqrt(eps()) * before || return nothing
    rmul!(image, 1 / length)
    rmul!(x, 1 / length)
    e.count += 1
    return nothing
end
