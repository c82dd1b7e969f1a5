"""Values that one pipeline stage has and the others need: between the leaders of the stages.

They may be anything that somebody recorded, so they travel as pickles. The connections between ranks know no keys, and
unpickling runs code: so each pickle is sealed with a key that only the ranks have, and nothing is unpickled without it.
"""

from __future__ import annotations

import hashlib
import hmac
import io
from typing import Any

import torch

from garcon_backend.distributed.mesh import Mesh
from garcon_jupyter.errors import CannotTravel
from garcon_jupyter.user_code import pickling

_SEAL = hashlib.sha256().digest_size


class NotSealed(Exception):
    """What came was not sealed by a rank of this server."""


def over_stages(mesh: Mesh, value: Any) -> Any:
    """The value of the first stage that has one (is not None), on the leader of every stage.

    Collective over the leaders of all stages; other ranks get None, as they have nothing to run.

    Args:
        mesh: the ranks.
        value: anything that pickles, tensors included, or None.

    Raises:
        CannotTravel: it does not pickle; on all of them.
        NotSealed: somebody else has a hand in the connection.
    """
    if mesh.degrees.pp == 1 or not mesh.leads:
        return value
    ranks = mesh.pipeline
    has = torch.zeros(ranks.size, dtype=torch.long, device=mesh.device)
    has[ranks.rank] = value is not None
    owner = next((rank for rank, one in enumerate(ranks.sum(has).tolist()) if one), None)
    if owner is None:
        return None
    mine = sealed(mesh.seal, value) if ranks.rank == owner else b""
    length = torch.tensor([len(mine)], device=mesh.device)
    size = int(ranks.broadcast(length, owner).item())
    if not size:
        raise CannotTravel(
            "What was asked for does not pickle, so it cannot go from one rank to another.",
            "Save tensors, arrays and plain objects.",
        )
    sent = bytearray(mine) if mine else bytearray(size)
    came = ranks.broadcast(torch.frombuffer(sent, dtype=torch.uint8).to(mesh.device), owner)
    return value if mine else opened(mesh.seal, came.cpu().numpy().tobytes(), mesh.device)


def sealed(key: bytes, value: Any) -> bytes:
    """The pickle of a value with the seal before it; nothing where it does not pickle."""
    stream = io.BytesIO()
    try:
        torch.save(value, stream, pickle_module=pickling)
    except Exception:  # noqa: BLE001 - objects may raise anything when they are asked for that
        return b""
    return hmac.digest(key, stream.getbuffer(), "sha256") + stream.getbuffer()


def opened(key: bytes, data: bytes, device: torch.device) -> Any:
    """The value of a sealed pickle, its tensors on a device.

    Raises:
        NotSealed: it was not sealed with this key. Nothing of it was unpickled.
    """
    seal, payload = data[:_SEAL], data[_SEAL:]
    if not hmac.compare_digest(seal, hmac.digest(key, payload, "sha256")):
        raise NotSealed("a value that came from another rank was not sealed by it")
    return torch.load(io.BytesIO(payload), map_location=device, weights_only=False)
