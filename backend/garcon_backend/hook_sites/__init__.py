"""Where in a module a value is, and how a hook reaches it.

Not here: user code, requests, and where the points of an architecture are (that is its family's).

``sites``        a side of a module, inside a norm, inside attention
``other_sites``  what few need: multiplied, clipped, called twice, elsewhere by kind of layer
``views``        the value of a point inside the tensor of a module (heads, fused slices)
``attention``    the one attention function, fast unless its scores or pattern are probed
``weights``      the weight that a module computes with, while an adapter is on too
``staged``       forwards in steps, with the values in between in reach
``own_forward``  a module's own forward, with visits at the functions that it calls
``state_cache``  the cache of a model that takes none but its own, mended
``recurrences``  what mixes tokens without attending: which functions it calls, and what these are given
"""
