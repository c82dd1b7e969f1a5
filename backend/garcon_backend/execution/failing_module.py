"""Where in a pass an error happened: in which module of the model, and after which edits.

An error in the model's own forward says what torch could not do, and nothing of what led there. Here it is noted
on the error itself, which goes its way unchanged: whether ranks must leave their groups is told by its type.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from types import TracebackType

from torch import nn

from garcon_backend.libraries.torch_internals import CALLED
from garcon_jupyter.errors import GarconError
from garcon_jupyter.wire.failures import Happened

HAPPENED = "_garcon_happened"
"""Name of the attribute of an error that says where it happened."""


@contextlib.contextmanager
def noted(model: nn.Module, edited: Sequence[str]) -> Iterator[None]:
    """While a model runs.

    Args:
        edited: what probes have edited so far, as the list grows.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, GarconError):
            happened = Happened(
                type(model).__name__, module_of(error.__traceback__, model), tuple(edited)
            )
            with contextlib.suppress(AttributeError):  # an exception with slots
                setattr(error, HAPPENED, happened)
        raise


def module_of(trace: TracebackType | None, model: nn.Module) -> str:
    """Path of the innermost module of a model that ran; "" where none did, or only the model itself."""
    names = {id(module): name for name, module in model.named_modules()}
    found = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_name == CALLED:
            # Not by f_locals: that would keep all locals, large tensors among them, when frames are cleared.
            held = gc.get_referents(trace.tb_frame)
            called = (names.get(id(one), "") for one in held if isinstance(one, nn.Module))
            found = next(filter(None, called), found)
        trace = trace.tb_next
    return found
