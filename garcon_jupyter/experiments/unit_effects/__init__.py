"""Effects: what latents, heads and neurons do to an answer, one by one, at each position of a prompt.

Five numbers of each: how active it is, how much it writes, what it does by its gradient, what it does directly, and, of the
strongest, what is lost when it is set to zero.

Not here: what patching from another text restores (``activation_patching``, ``attribution``), and sums of whole parts (``reading``).

``table``             the table of a prompt
``writers``           what has effects: the points of latents, heads and neurons, and where they enter the stream
``answer_direction``  what a vector in the stream adds to the answer by its direct way
``gradient_pass``     one forward and one backward, of which the strongest travel
``ablations``         each of the strongest set to zero, in rows of a batch
"""
