"""LoRA adapters on a loaded model, one at a time, on for the length of a request.

Not here: what a directory of an adapter may ask for (``garcon_jupyter.model_files.adapters``).

``reading``    what an adapter's weights are, by the modules that they change
``low_rank``   one module with such weights beside it, cut as it is
``switching``  the adapters of a rank, and which of them is on
"""

from garcon_backend.models.adapters.switching import Adapters

__all__ = ["Adapters"]
