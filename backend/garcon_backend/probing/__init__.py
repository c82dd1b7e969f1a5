"""Reading and editing a point of the forward pass.

``views``      the value of a point inside the tensor of a module (heads, fused slices)
``places``     where a point is: a side of a module, inside a norm, inside attention
``attention``  the one attention function, fast unless its scores or pattern are probed
``contexts``   save contexts: what probes keep, per session and point, and snapshots of it
``calls``      user code: its random stream, its save context, its errors
``sites``      what a visit leaves in the autograd graph
``visits``     a probe runs once: gather, run, scatter, forward and backward
"""
