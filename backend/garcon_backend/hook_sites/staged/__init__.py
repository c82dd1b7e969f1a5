"""Forwards in steps: the same numbers as the module's own, with the values in between in reach.

Each function has the type :data:`~garcon_backend.hook_sites.sites.StagedForward`, and is used only while one of its parts is
probed; otherwise the module runs as transformers wrote it. Not here: which module of an architecture each is for.

``norms``            the denominator, and what is normalised before its gain
``head_outputs``     what each head writes
``at_softmax``       attention classes of their own, met at their softmax
``routers``          which experts a token goes to, and what these weigh
``grouped_routers``  the same where experts are chosen by groups, or with a bias
``experts``          the neurons of each expert, and what a shared one adds
``layers``           whole layers, for what is computed between their modules
``llama4``           a mixture where the router's score multiplies what an expert reads
``zamba2``           attention and an MLP whose projections layers share, and add to
"""
