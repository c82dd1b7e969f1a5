"""The requests, one file for each kind: what every rank does with it, and how the answers become one.

Not here: what a pass is (``passes``, ``generation``), and how ranks come to run a request together (``lockstep``).

``handler``        what a handler is: who calls which of its methods, and when
``probed``         what requests have in common that run the model with probes
``forward`` ``backward`` ``generate``  passes
``patch``          cells of activation patching
``train_dictionary`` ``measure_training`` ``keep_training``  dictionaries in training
``snapshot`` ``fetch`` ``clear``       recordings
``checkpoint`` ``restore`` ``conclude`` ``drop``    recordings, as runs and sessions need it
``get_parameter``  a weight by name
``read_weights``   a function of the weights, on every rank
``exchange_weights``  those of another checkpoint in place of all
``keep_certificate``  what is known of the correctness of the model's points
``run_on_ranks``   code on every rank

To add a kind: a dataclass in :mod:`garcon_jupyter.wire.requests`, in its table too; and a file here with a class for
it, which is found by itself.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.wire.requests import Request


def _all() -> dict[type[Request], type[RequestHandler[Any]]]:
    handlers: dict[type[Request], type[RequestHandler[Any]]] = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for thing in vars(module).values():
            if (
                inspect.isclass(thing)
                and issubclass(thing, RequestHandler)
                and "kind" in vars(thing)
            ):
                handlers[thing.kind] = thing
    return handlers


HANDLERS: dict[type[Request], type[RequestHandler[Any]]] = _all()
"""Type of a request → its handler."""
