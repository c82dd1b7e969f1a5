"""Whether a pass will fit, asked of every rank before any of them runs.

A rank that runs out of memory in the middle of a pass leaves the others waiting in a collective. The largest
tensors of a pass are known before it: the logits, the activations of a layer (of all, where there is a
backward), the attention scores where they are probed, the key-value cache. A request of which these alone do
not fit is refused, at no cost. The figures are what the pass needs at least. What it needs beyond is met by the
limit that :mod:`garcon_backend.process.memory` sets: on a single rank it is an error at the line that asks. Over several
ranks it would be one on some of them, in the middle of a layer, and the others would have to be started anew to
get out of their collective. So there a pass is refused that might not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.execution.row_chunks import RowChunk
from garcon_backend.process import memory
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.wire import requests as wire

NEGLIGIBLE = 16 << 20
"""Bytes below which nobody asks how many there are."""

BEYOND = 3.0
"""How many times what it needs at least a pass may need, with the copies that are made on the way; up to 2.3 were
measured."""

_SMALLER = 'Take a smaller batch, or logits="last".'


@dataclass(frozen=True)
class Need:
    """Something of a pass that takes memory."""

    what: str
    count: int
    remedy: str = "Take a smaller batch, or cut the texts."


class Admission:
    """Knows what the passes of one rank need.

    Args:
        layers: how many this rank holds.
        sizes: the model's sizes by the letters of the table of points.
    """

    def __init__(self, mesh: Mesh, model: nn.Module, layers: int, sizes: dict[str, int]) -> None:
        self.mesh, self.layers = mesh, layers
        self.sizes = {letter: sizes.get(letter, 0) for letter in (*"VDMHKdP", "r_kv", "d_r")}
        self.alone = mesh.degrees.world == 1
        self.itemsize = next((p.itemsize for p in model.parameters()), 4)

    def check(self, request: Any, chunks: Sequence[RowChunk] = ()) -> None:
        """Refuse a pass that cannot fit on this rank.

        Args:
            chunks: in which it is read one after the other; none where it is read at once.

        Raises:
            DoesNotFit: with the bytes that it needs and those that there are.
        """
        each_needs = [self._needs(request, chunk.shape) for chunk in chunks]
        largest = max(each_needs, key=_least) if chunks else self._needs(request)
        if chunks:
            rows, length = _shape(request)
            largest.append(Need("all logits", self._logits(request, rows, length), _SMALLER))
        needs = [need for need in largest if need.count]
        least = _least(needs)
        if least < NEGLIGIBLE:
            return
        there = memory.left(self.mesh.device)
        needed = least if self.alone else int(least * BEYOND)
        if needed <= there:
            return
        each = ", ".join(f"{need.what} {sized(need.count)}" for need in needs)
        count = f"at least {sized(least)} on a rank ({each})"
        if least <= there:
            count += f", with copies up to {sized(needed)}"
        raise DoesNotFit(
            f"The pass needs {count}; {sized(there)} are there.",
            max(needs, key=lambda need: need.count).remedy + _in_pieces(request),
        )

    def fits(self, request: Any, chunks: Sequence[RowChunk]) -> bool:
        """Whether a pass in these chunks may run on this rank."""
        try:
            self.check(request, chunks)
        except DoesNotFit:
            return False
        return True

    def answered_logits(self, request: wire.Forward) -> int:
        """Bytes of logits that a forward answers with; 0 where a function makes something else of them."""
        rows, length = _shape(request)
        if not isinstance(request.logits, str) or request.logits == "none":
            return 0
        return rows * (length if request.logits == "all" else 1) * self.sizes["V"] * self.itemsize

    def _needs(self, request: Any, shape: tuple[int, int] | None = None) -> list[Need]:
        rows, length = shape or _shape(request)
        mine = -(-rows // self.mesh.degrees.dp)
        if isinstance(request, wire.Generate):
            return self._of_generation(request, rows, mine, length)
        backward = isinstance(request, (wire.Backward, wire.Jacobian))
        tokens = mine * length * self.itemsize
        width = 4 * self.sizes["D"] + 3 * self.sizes["M"] // self.mesh.degrees.tp
        activations = Need("activations", tokens * width * (self.layers if backward else 1))
        logits = self._logits(request, rows, length) * (2 if backward else 1)
        found = [activations, Need("logits", logits, _SMALLER)]
        probes = () if isinstance(request, wire.Jacobian) else request.probes
        if any(spec.point.endswith((".attn.scores", ".attn.pattern")) for spec in probes):
            heads = -(-self.sizes["H"] // self.mesh.degrees.tp)
            scores = 2 * mine * heads * length * length * self.itemsize
            found.append(Need("attention scores", scores))
        return found

    def _logits(self, request: Any, rows: int, length: int) -> int:
        if not self.mesh.last_stage:
            return 0
        some = isinstance(request, (wire.Forward, wire.Backward))
        if isinstance(request, wire.Jacobian):  # those of the last position are made by the way
            return rows * self.sizes["V"] * self.itemsize
        whole = not some or request.logits not in ("last", "none")
        probed = any(spec.point == "logits" for spec in request.probes)
        positions = length if whole or probed else 1
        return rows * positions * self.sizes["V"] * self.itemsize

    def _of_generation(
        self, request: wire.Generate, rows: int, mine: int, length: int
    ) -> list[Need]:
        options = request.options
        copies = max(1, *(_number(options.get(w)) for w in ("num_beams", "num_return_sequences")))
        most = options.get("max_new_tokens")
        if most is None:
            most = _number(options.get("max_length")) - length if "max_length" in options else 20
        new = max(0, _number(most))
        new = min(new, self.sizes["P"] or new)  # that it is too long is told later
        cache = mine * copies * (length + new) * self._kept_of_a_token()
        kept = sum(bool(options.get(word)) for word in ("output_scores", "output_logits"))
        scores = kept * new * rows * copies * self.sizes["V"] * 4
        return [
            Need("the scores of all steps", scores, "Ask for fewer new tokens, or for no scores."),
            Need("the key-value cache", cache, "Ask for fewer new tokens, or a smaller batch."),
            Need("logits", self._logits(request, rows * copies, 1), _SMALLER),
        ]

    def _kept_of_a_token(self) -> int:
        """Bytes that a cache keeps of one token: keys and values of all heads, or what they are made of."""
        heads = -(-self.sizes["K"] // self.mesh.degrees.tp)
        latent = self.sizes["r_kv"] + self.sizes["d_r"]
        return (latent or 2 * heads * self.sizes["d"]) * self.layers * self.itemsize


def _shape(request: Any) -> tuple[int, int]:
    """Rows and length; nothing of what is no batch, which is refused elsewhere."""
    try:
        rows, length = torch.as_tensor(request.batch.ids).shape
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return 0, 0
    return int(rows), int(length)


def _least(needs: Sequence[Need]) -> int:
    return sum(need.count for need in needs)


def _in_pieces(request: Any) -> str:
    """Another remedy, where there is one."""
    if not isinstance(request, wire.Forward) or request.batch_tokens or _shape(request)[0] < 2:
        return ""
    return ' Or run it in pieces: batch_tokens="auto".'


def _number(option: Any) -> int:
    return option if isinstance(option, int) else 0
