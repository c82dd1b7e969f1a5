"""Features by the million: what a dictionary's latents, or a point's units, do on data that no memory holds.

    features = rmodel.features("sae-name", "acts", "sae.atlas", k=20, sample=200)

From a store of activations, in one pass where the state of all units fits into memory, else in four over data shards and feature shards. What
comes out is an atlas, the same to the last bit for any sharding.

Not here: how an atlas is opened and shown (``atlas``, ``display``), and recorders beside a layer (``recorders``).

``making``    features, begun and gone on with
``asked``     what they are asked for
``passes``    the passes
``planning``  how many shards and passes a memory takes, what they read and write
``jobs``      what an engine runs
``codes``     values that are not 0, in files that are written once
``source``    where values of units come from, and those around a token
``reducing``  pass 1, and the merging of what it kept
``kept``      the best of each group: the strongest, the sampled
``widths``    samples of intervals of equal width
``sums``      sums of powers that are exact in any order
``contexts``  pass 3: the windows of examples
``arrays``    passes 2 and 4: what goes into the arrays of the atlas
``rows``      what passes hand on, as rows of an exchange
"""

from __future__ import annotations

from garcon_jupyter.features.making import features
from garcon_jupyter.features.planning import FeaturesPlan, planned

__all__ = ["FeaturesPlan", "features", "planned"]
