"""Dictionaries of activations: sparse autoencoders and transcoders of every format, read into one form, and computed.

Not here: where a point is in a model, requests, and what user code does with a latent.

``formats``           each library's layout, one file a format
``files``             what is in the files, unread until it is asked for
``contents``          what a format asks of the files, and what contradicts itself
``plan``              where each tensor of the form is stored
``reading``           the format of files, their description, and the dictionary that they hold
``dictionary``        the form, computed: latents, reconstruction, error
``selection``         which pre-activations pass, whole or in tiles
``sparse``            latents that are not 0
``tiles``             latents of rows on disk, the same bits for any sharding
``norms``             activations scaled, and scaled back
``several_points``    crosscoders and cross-layer transcoders
``one_by_one``        matching pursuit
``training``          dictionaries trained
``in_context``        a dictionary that predicts a token's latents from earlier tokens
"""

from garcon_backend.dictionaries.dictionary import Candidates, Dictionary
from garcon_backend.dictionaries.plan import ReadingPlan
from garcon_backend.dictionaries.reading import cuts_into, describe, load, made, plan_of
from garcon_backend.dictionaries.several_points import Crosscoder, CrossLayer
from garcon_backend.dictionaries.sparse import SparseLatents

__all__ = [
    "Candidates",
    "CrossLayer",
    "Crosscoder",
    "Dictionary",
    "ReadingPlan",
    "SparseLatents",
    "cuts_into",
    "describe",
    "load",
    "made",
    "plan_of",
]
