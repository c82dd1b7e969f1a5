"""Attribution: how much each part of a model would restore, told by gradients and not by a run for each.

Patching asks what the answer would be were one value the clean run's (:mod:`garcon_jupyter.experiments.patching`): a run
for each cell. A gradient answers for all of them at once, to first order, so its error belongs beside it: each attribution
can patch a sample of its cells.

Not here: exact patching as an experiment of its own, and what parts write to the logits without any run (``reading``).

``nodes``      attribution of values: heads, positions, neurons
``edges``      attribution of what travels from writers to readers of the residual stream
``text_pair``  a clean and a corrupted text, and the metric between them
``cells``      what of a point is one cell: axes, and sums over what is left
``gradients``  passes that leave value differences times gradients
``paths``      where between the two runs gradients are taken
``exact``      cells patched, one run each, beside an attribution
"""
