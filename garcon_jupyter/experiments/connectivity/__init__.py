"""Connectivity: what a model's parts can tell each other, read from its weights alone.

No text is run. What one part writes into the residual stream another may read there, and how strongly it would is a product of
their weights (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). Whether it does, on some text, is for
patching and attribution to say.

Not here: anything that takes a forward, and what a stored feature is made of (``atlas``).

``weights``          the weights of a model, here or on the server
``folding``          norms, made part of the weights that read or write the stream
``heads``            queries, keys, values and outputs of the heads of a layer
``composition``      how much each head reads of what each earlier head writes
``factored_matrix``  a matrix of low rank as two factors
``circuits``         QK and OV of one head, and what they make of tokens
``ends``             what writes into the stream, and what reads it, by the names of points
``strongest``        of units the k strongest connections, and the sum of squares of all
``connections``      the strongest connections between units
``connectome``       those of all units of a model, on disk
"""
