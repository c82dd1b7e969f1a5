"""Activation patching: texts in which some places are given the values of others, many of them in one forward.

Not here: which cells a sweep has, and what their numbers mean (the notebook's ``experiments``).

``cells``         the cells of a request, checked
``patched_pass``  a pass in which some rows are given what others have
``climbing``      a batch that cells join at the layer where they begin
``cell_runs``     the forwards of a request, and the metric of their logits
"""
