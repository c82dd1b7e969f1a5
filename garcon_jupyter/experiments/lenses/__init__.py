"""Lenses: what every layer would predict, read by a map from its residual stream to the last one.

The logit lens reads the stream as it is, a tuned lens by an affine map trained for each layer, a Jacobian lens by the mean
derivative of the last stream. All go on through the model's own final norm and unembedding, and are read by the same functions.

Not here: pictures (``widgets.lens``, filled by ``display.lens``), and what parts of a stream write (``reading``).

``lens``            what a lens is: a map for each layer
``unembedding``     the final norm and the unembedding, on the server
``readouts``        a text read layer by layer, as arrays that fill
``read_lens``       the same as a result of an experiment
``files``           files of torch, read without running code
``texts``           texts as rows of tokens, and how far a fit is
``tuned_lens``      tuned lenses, and their files
``tuned_training``  how they are trained on the server
``jacobian_lens``   Jacobian lenses, their files and their merging
``jacobian_fit``    how they are fitted on the server
``load_lens``       a lens from a file of any kind
"""
