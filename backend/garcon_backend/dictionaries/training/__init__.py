"""Dictionaries trained: rows of activations in, latents that explain them out.

A trainer takes any stream of rows. Nothing here knows where they come from.

Not here: the model and its points, requests, and runs over data.

``trainer``      steps over rows, what they came to, and the state from which they go on
``shuffling``    a buffer in memory that gives rows in another order
``weights``      the numbers that are trained, those of one rank's latents
``choosing``     which latents pass, over all ranks
``chosen``       sums over the latents that pass, and no others
``gradients``    losses and their gradients, without a graph
``gated``        the same of dictionaries with gates
``dead``         the loss by which dead latents learn
``optimizing``   Adam, its learning rate, and rows of length 1
``layers``       which numbers a latent of a cross-layer transcoder has
``curves``       what is told of a training
``writing``      the files of a trained dictionary, as SAELens has them
``writing_several``  of several points, as Llama Scope's library has them
"""

from garcon_backend.dictionaries.training.trainer import Trainer
from garcon_backend.dictionaries.training.writing import write

__all__ = ["Trainer", "write"]
