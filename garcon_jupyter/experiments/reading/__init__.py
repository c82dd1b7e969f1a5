"""Reading without patching: what parts of a model write to the logits, and what its heads attend to, from plain passes.

Not here: what would happen if a part were another (``attribution``, :mod:`garcon_jupyter.experiments.patching`), and the logit
lens (:mod:`garcon_jupyter.experiments.lenses`).

``direct_logits``  direct logit attribution: a logit difference as the sum of what parts write
``readout``        the final norm and the unembedding as one direction at one place
``stream_parts``   the residual stream as a sum of parts, checked
``within_parts``   what heads, neurons and source positions have of the part that they are in
``head_scores``    how much every head attends to the previous token, to duplicates, and as an induction head
"""
