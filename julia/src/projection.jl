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

"Keep x for later guesses, E x in `image`; both are overwritten. A full memory starts anew."
function keep!(e::Earlier, x::V, image::V)
    e.count == EARLIER_MEMORY && (e.count = 0)
    before = norm(image)
    for q in 1:e.count
        share = dot(e.images[q], image)
        axpy!(-share, e.images[q], image)
        axpy!(-share, e.solutions[q], x)
    end
    length = norm(image)
    # What is left of a combination of the others is rounding.
    length > sqrt(eps()) * before || return nothing
    e.count += 1
    e.images[e.count] .= image ./ length
    e.solutions[e.count] .= x ./ length
    return nothing
end
