"""Files of torch, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadRequest


def read_pt(path: Path) -> dict[Any, Any]:
    """What torch's reader that runs no code finds in a file.

    Raises:
        BadRequest: it cannot be read so, or is no dictionary.
    """
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror or error}.", _A_FILE) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise BadRequest(f"{path} cannot be read without running code: {said}.", _A_FILE) from None
    if not isinstance(content, dict):
        raise BadRequest(f"{path} holds a {type(content).__name__}, no dictionary.", _A_FILE)
    return content


_A_FILE = "Give a file that torch.save wrote of tensors and plain values."
