"""Making a connectome: the strongest connections of all units, one block of layers after the other, to disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.amounts import sized
from garcon_jupyter.array_files import prepare
from garcon_jupyter.connection import progress
from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.experiments.connectivity.connectome.blocks import Block, blocks
from garcon_jupyter.experiments.connectivity.connectome.files import (
    FORMAT,
    INDEX,
    VOCABULARY,
    Connectome,
    open_connectome,
)
from garcon_jupyter.experiments.connectivity.connectome.pieces import Pieces, room_of
from garcon_jupyter.experiments.connectivity.connectome.tables import WRITES, Extent, extent_of
from garcon_jupyter.experiments.connectivity.ends import limits_of_neurons
from garcon_jupyter.experiments.connectivity.heads import limits
from garcon_jupyter.experiments.connectivity.weights import at_the_weights
from garcon_jupyter.wire.tokenizer_messages import Strings

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

BEGUN = "begun.json"
"""What a connectome that is not finished is of."""

LAYERS_AT_ONCE = 4
"""Layers that write, and layers that read, in one request."""


def connectome(
    rmodel: Client,
    path: str | Path,
    k: int = 8,
    layers: Iterable[int] | None = None,
    tokens: bool = True,
) -> Connectome:
    """Of every neuron and head the k strongest connections of each kind, from the weights alone, on disk.

    A neuron reads the stream by its gate, ``(W_gate·diag(g)·C)·x``, and by its linear part, and writes a column of ``W_down``; the norm's
    gain g is folded in, and C, which takes a LayerNorm's mean away (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). So
    from neuron to neuron there are two numbers, ``w_gate·diag(g)·w_down`` and ``w_up·diag(g)·w_down``. A head writes in many directions:
    the number is the length of all that it can write along what is read, ``‖r·W_O·W_V‖``, and has no sign; likewise of what it reads. With
    tokens it is the product with the embedding, and with the unembedding less its mean. All up to what norms divide by.

    What is connected: ``gate_from_neurons``, ``…_from_heads``, ``…_from_tokens``, and so for ``linear``, ``q``, ``k`` and ``v``;
    ``neurons_to_gate``, ``neurons_to_q``, …, ``neurons_to_logits``, and so for heads. Heads are not connected with tokens here.

    It is computed on the server, each rank a share of the units that read, with two layers of weights at a time. A request is a block of a
    few layers; between two others take their turn. What a block found is on disk at once: called again after it was interrupted, it goes on.
    What is told first, and refused where the disk has less: 8 bytes a connection and 8 a unit in each table, once in the end and
    some times over until then.

    Args:
        path: the directory to write.
        k: connections of each unit in each table.
        layers: only these, and what is between them; None for all.
        tokens: whether neurons are connected with tokens, which takes most of the time.

    Returns:
        The connectome; ``garcon.open_connectome(path)`` opens it again, without a server. An atlas beside it shows it on a unit's page.

    Raises:
        BadRequest: k is less than 1, or there is no such layer.
        PointUnavailable: neither heads nor neurons can be read from the weights; says why.
        BadData: the directory holds something else, or the disk has no room.

    Examples:
        >>> from tempfile import mkdtemp
        >>> found = experiments.connectome(rmodel, mkdtemp(), k=4, layers=[0, 1, 2], tokens=False)
        >>> found.unit("layers.1.mlp.post_activation", 17).strongest("gate_from_neurons")[0].partner
        'layers.0.mlp.post_activation 1146'
    """
    target = Path(path).expanduser()
    extent = extent_of(rmodel, k, layers, tokens)
    todo = [*blocks(extent, LAYERS_AT_ONCE)]
    pieces = Pieces(target)
    _begin(target, _settings(rmodel, extent, tokens))
    missing = [block for block in todo if not pieces.has(block)]
    _check_room(target, extent.bytes + room_of(missing, extent))
    try:
        _run(rmodel, missing, pieces, extent)
        made = pieces.put_together(todo, extent)
        _finish(rmodel, target, extent, made)
    except OSError as error:
        raise BadData(
            f"The connectome in {target} could not be written: {error.strerror or error}.",
            "Make room and call it again; it goes on with what is there.",
        ) from None
    pieces.remove()
    (target / BEGUN).unlink(missing_ok=True)
    return open_connectome(target)


def _run(rmodel: Client, missing: Sequence[Block], pieces: Pieces, extent: Extent) -> None:
    """Ask for one block after the other."""
    heads, neurons = extent.count("heads"), extent.count("neurons")
    what = f"connectome of {heads:,} heads and {neurons:,} neurons, {sized(extent.bytes)}"
    line, since = progress.Line(), time.monotonic()
    line.show(f"{what} of {sized(extent.bytes_in_full)} in full")
    for done, block in enumerate(missing):
        pieces.put(block, at_the_weights(rmodel, block))
        line.show(f"{what} {progress.bar((done + 1) / len(missing))}")
    line.end(f"{what}, in {progress.duration(time.monotonic() - since)}")


def _settings(rmodel: Client, extent: Extent, tokens: bool) -> dict[str, Any]:
    """What two calls must have in common to go on with each other."""
    return {
        "format": FORMAT,
        "model": rmodel.facts["path"],
        "adapter": rmodel.adapter,
        "k": extent.k,
        "layers": list(extent.layers),
        "tokens": tokens,
        "block": LAYERS_AT_ONCE,
        "weights": _fingerprint(rmodel, extent),
    }


def _fingerprint(rmodel: Client, extent: Extent) -> str:
    """By which other weights under the same path are known: of the final norm, and a few rows of the last layer."""
    last = extent.layers[-1]
    names = ("final_norm.weight", f"layers.{last}.mlp.down_proj", f"layers.{last}.attn.o_proj")
    digest = hashlib.sha256()
    for name in names:
        if name in rmodel.catalog.parameters:
            digest.update(rmodel.get_parameter(name, slice(0, 4)).float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _begin(path: Path, settings: dict[str, Any]) -> None:
    """See that the directory is new, or has the beginning of this connectome.

    Raises:
        BadData: it holds something else.
    """
    begun = path / BEGUN
    if not begun.exists():
        prepare(path, INDEX)
        begun.write_text(json.dumps(settings))
        return
    try:
        former = json.loads(begun.read_text())
    except ValueError:
        former = {}
    if other := [name for name in settings if former.get(name) != settings[name]]:
        raise BadData(
            f"{path} holds the beginning of another connectome: of other {', '.join(other)}.",
            "Give a new directory, or remove that one.",
        )


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if needed > free:
        raise BadData(
            f"The connectome takes {sized(needed)} until it is finished, and {path} has {sized(free)}.",
            "Make room, or give a smaller k, fewer layers or tokens=False.",
        )


def _finish(rmodel: Client, path: Path, extent: Extent, made: dict[str, Any]) -> None:
    """Write the texts of the tokens, and last the index, which says that all is there."""
    for array in made.values():
        array.flush()
    (path / VOCABULARY).write_text(json.dumps(_vocabulary(rmodel, extent.tokens)))
    points = {
        kind: {WRITES[kind].format(i=layer): units for layer, units in of.items()}
        for kind, of in extent.units.items()
    }
    index = {
        "format": FORMAT,
        "model": rmodel.facts["path"],
        "adapter": rmodel.adapter,
        "k": extent.k,
        "points": points,
        "tokens": extent.tokens,
        "tables": list(extent.tables),
        "limits": [*extent.left_out, *_limits(rmodel, extent)],
        "arrays": {name: [str(array.dtype), list(array.shape)] for name, array in made.items()},
    }
    beside = path / f".{INDEX}"
    beside.write_text(json.dumps(index, indent=1))
    beside.replace(path / INDEX)


def _limits(rmodel: Client, extent: Extent) -> list[str]:
    """What the weights of these units do not say."""
    heads = limits(rmodel.catalog, extent.units["heads"])
    return [*dict.fromkeys([*heads, *limits_of_neurons(rmodel.catalog, extent.units["neurons"])])]


def _vocabulary(rmodel: Client, tokens: int) -> list[str]:
    """The texts of all tokens; none where the model came without a tokenizer."""
    if not tokens:
        return []
    try:
        found: list[str] = rmodel._ask_tokenizer(Strings([list(range(tokens))], halves=True))[0]
    except BadRequest:
        return []
    return found
