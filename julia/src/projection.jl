# A first guess from what the same matrix was solved for before (Fischer, Comput. Methods Appl. Mech. Eng. 163, 1998).
# The stages of a step share their matrix, and their right-hand sides are combinations of a few vectors up to the
# nonlinearity of f: the projection on earlier solutions leaves 1e-2 to 1e-5 of them to be iterated for.

forget!(e::Earlier) = (e.count = 0; e.scale = 0.0; nothing)

"x = the guess for the right-hand side b, of which the residual is left in b."
function guess!(x::V, b::V, e::Earlier, split::Split)
    for q in 1:e.count
        e.shares[q] = product(e.images[q], b, split)
    end
    each_rows(split) do rows
        fill_rows!(x, 0.0, rows)
        for q in 1:e.count
            add!(b, -e.shares[q], e.images[q], rows)
            add!(x, e.shares[q], e.solutions[q], rows)
        end
    end
    return nothing
end

"Where the next solution is gathered: a vector of zeros, while the right-hand side b waits in its image's place."
function begin_next!(e::Earlier, b::V, split::Split)
    e.count == EARLIER_MEMORY && (e.count = 0)      # a full memory starts anew
    image, x = e.images[e.count+1], e.solutions[e.count+1]
    each_rows(split) do rows
        copy_rows!(image, b, rows)
        fill_rows!(x, 0.0, rows)
    end
    return x
end

"""
Keep the solution gathered since, which left this residual of b. The right-hand side was orthogonal to the other images,
and so the new one is up to the residual: one projection is enough.
"""
function keep_next!(e::Earlier, residual::V, split::Split)
    image, x = e.images[e.count+1], e.solutions[e.count+1]
    add!(image, -1.0, residual, split)
    before = length_of(image, split)
    for q in 1:e.count
        e.shares[q] = product(e.images[q], image, split)
    end
    each_rows(split) do rows
        for q in 1:e.count
            add!(image, -e.shares[q], e.images[q], rows)
            add!(x, -e.shares[q], e.solutions[q], rows)
        end
    end
    length = length_of(image, split)
    # What is left of a combination of the others is rounding.
    length > sqrt(eps()) * before || return nothing
    scale!(image, 1 / length, image, split)
    scale!(x, 1 / length, x, split)
    e.count += 1
    return nothing
end
