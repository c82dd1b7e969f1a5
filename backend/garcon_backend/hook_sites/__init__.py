"""Where in a module a value is, and how a hook reaches it.

Not here: user code, requests, and where the points of an architecture are (that is its family's).

``sites``            a side of a module, inside a norm, inside attention
``other_sites``      what few need: multiplied, clipped, called twice, elsewhere by kind of layer
``views``            the value of a point inside the tensor of a module (heads, fused slices)
``staged_forwards``  forwards in steps, with the values in between in reach
``staged_attention`` attention classes of their own, met at their softmax
``staged_routers``   the same of routers of experts, which choose in ways of their own
``weights``          the weight that a module computes with, while an adapter is on too
``attention``        the one attention function, fast unless its scores or pattern are probed
"""
