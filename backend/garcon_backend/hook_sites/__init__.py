"""Where in a module a value is, and how a hook reaches it.

Not here: user code, requests, and where the points of an architecture are (that is its family's).

``sites``            a side of a module, inside a norm, inside attention
``other_sites``      what few need: multiplied, clipped, called twice, elsewhere by kind of layer
``views``            the value of a point inside the tensor of a module (heads, fused slices)
``attention``        the one attention function, fast unless its scores or pattern are probed
``weights``          the weight that a module computes with, while an adapter is on too
``staged_forwards``  forwards in steps, with the values in between in reach
``staged_attention`` attention classes of their own, met at their softmax
``staged_routers``   routers of experts, which choose in ways of their own
``staged_experts``   routers, and blocks that add what shared experts put out
``staged_mixtures``  routers of mixtures whose experts are chosen by groups, or with a bias
``staged_layers``    whole layers, for what is computed between their modules
``staged_llama4``    Llama 4's mixture, where the router's score multiplies what an expert reads
``staged_gemma4``    Gemma 4's router, which reads the stream through a norm and scales of its own
``staged_zamba2``    Zamba2's attention and MLP, whose projections layers share, and add to
``own_forward``      a module's own forward, with visits at the functions that it calls
``state_cache``      the cache of a model that takes none but its own, mended
``recurrences``      what mixes tokens without attending: which functions it calls, and what these are given
"""
