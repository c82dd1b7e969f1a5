"""Attribution: how much each part of a model would restore, told by gradients and not by a run for each.

Patching asks what the answer would be were one value the clean run's (:mod:`garcon_jupyter.experiments.activation_patching`): a run
for each cell. A gradient answers for all of them at once, to first order, so its error belongs beside it: each attribution
can patch a sample of its cells.

Not here: exact patching as an experiment of its own, and what parts write to the logits without any run (``reading``).

``nodes``         attribution of values: heads, positions, neurons
``edges``         attribution of what travels from writers to readers of the residual stream
``pair_batches``  prompt pairs of one length as rows of a batch
``cells``         what of a point is one cell: axes, and sums over what is left
``gradients``     passes that leave value differences times gradients
``edge_passes``   passes that keep what writers change, and the gradients at readers
``stream_ends``   writers and readers, and the norms between them and the stream
``paths``         where between the two runs gradients are taken
``exact``         a sample patched exactly beside an attribution
"""
