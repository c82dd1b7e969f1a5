"""The format of files, their description, and the dictionary that they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from garcon_backend.dictionaries.dictionary import Dictionary
from garcon_backend.dictionaries.files import SUFFIXES, Files
from garcon_backend.dictionaries.formats import FORMATS, Format
from garcon_backend.dictionaries.in_context import InContext
from garcon_backend.dictionaries.one_by_one import Pursuit
from garcon_backend.dictionaries.plan import ReadingPlan, StoredWeight
from garcon_backend.dictionaries.several_points import Crosscoder, CrossLayer
from garcon_jupyter.dictionaries import Description
from garcon_jupyter.errors import BadRequest, NotADictionary

_CLASSES: dict[str, type[Dictionary]] = {
    kind.kind: kind for kind in (Dictionary, Crosscoder, CrossLayer, InContext, Pursuit)
}


_BY_SOURCE = frozenset({"encoder", "encoder_bias", "threshold"})
"""What each layer of a cross-layer transcoder has for its own latents."""


def describe(path: str | os.PathLike[str]) -> Description:
    """What a path holds, from headers and configurations: no weight is read.

    Raises:
        NotADictionary: no format has such files, or they lack or contradict something, which is named.
    """
    return plan_of(path).description


def plan_of(path: str | os.PathLike[str]) -> ReadingPlan:
    """As :func:`describe`, with where each tensor is."""
    files = Files(_existing(Path(path).expanduser()))
    return format_of(files).read(files)


def format_of(files: Files) -> Format:
    """The format that recognises files by their names and keys.

    Raises:
        NotADictionary: none does.
    """
    for each in FORMATS:
        if each.recognises(files):
            return each
    raise _unknown(files)


def load(
    path: str | os.PathLike[str],
    latents: range | None = None,
    dtype: torch.dtype = torch.float32,
) -> Dictionary:
    """The dictionary that a path holds, on the CPU.

    Args:
        path: the directory or file.
        latents: the part of its latents to hold, as one rank does; all of them, if nothing is said.
        dtype: to compute in. A model's bfloat16 is too coarse: thresholds are compared in it.

    Raises:
        NotADictionary: no format has such files; or something in them is missing, contradicts itself, or is no number.
        BadRequest: it cannot be held in parts, or not in these.
    """
    return made(plan_of(path), latents, dtype)


def made(
    of: ReadingPlan,
    latents: range | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    sources: range | None = None,
) -> Dictionary:
    """The dictionary of a plan; the rest as for :func:`load`.

    Args:
        sources: of a cross-layer transcoder the layers whose latents are held, as a stage of a pipeline holds its own; all, if nothing
            is said.
    """
    description = of.description
    latents = range(description.latents) if latents is None else latents
    _check_part(description, latents)
    part = slice(latents.start, latents.stop)
    tensors = {name: weight.read(part, dtype) for name, weight in of.weights.items()}
    for name, value in of.constants.items():
        tensors[name] = torch.full((len(latents),), value, dtype=dtype)
    across = description.form.kind == CrossLayer.kind
    held = range(description.inputs) if sources is None else sources
    if across:
        tensors |= {
            name: tensors[name][_slice(held)].clone() for name in _BY_SOURCE & tensors.keys()
        }
    for name, each in of.lists.items():
        if name.startswith("decoder_"):
            tensors |= _by_target(name, each, part, dtype, held)
        else:
            chosen = each[_slice(held)] if across and name in _BY_SOURCE else each
            found = [weight.read(part, dtype) for weight in chosen]
            like = (0, *each[0].shape)  # of no layer
            tensors[name] = torch.stack(found) if found else torch.empty(like, dtype=dtype)
    if (threshold := tensors.get("threshold")) is not None and threshold.dim() == 0:
        tensors["threshold"] = threshold.expand(len(latents)).clone()
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    if across:
        return CrossLayer(description, tensors, latents, held)
    return _CLASSES[description.form.kind](description, tensors, latents)


def cuts_into(description: Description, parts: int) -> bool:
    """Whether a dictionary can be held in so many equal parts, each by a rank."""
    form = description.form
    whole_units = description.latents
    if form.activation.kind == "groupmax":
        whole_units = form.activation.k
    return (
        parts > 1
        and whole_units % parts == 0
        and form.kind in ("token", "crosscoder", "cross-layer")
        and not (form.kind != "token" and form.competes)
        and not (form.competes and form.decoder_norms == "gate")
    )


def _slice(layers: range) -> slice:
    return slice(layers.start, layers.stop)


def _by_target(
    name: str, each: Sequence[StoredWeight], part: slice, dtype: torch.dtype, held: range
) -> dict[str, Tensor]:
    """Decoders by the layer that they write to, of the layers that are held, [n, F, O]: ``decoder_0`` and so on."""
    found: dict[str, Tensor] = {}
    if name == "decoder_to":
        for j, weight in enumerate(each):
            if j >= held.start:
                found[f"decoder_{j}"] = weight.read(part, dtype)[_slice(held)].clone()
    else:
        own = {i: each[i].read(part, dtype) for i in held}
        for j in range(held.start, len(each)):
            # Counted from the layer that is read, or from the first.
            parts = [own[i][:, j - (i if name == "decoder_from" else 0)] for i in held if i <= j]
            if parts:
                found[f"decoder_{j}"] = torch.stack(parts)
    return {"decoder": next(iter(found.values()), torch.empty(0, dtype=dtype)), **found}


def _check_part(description: Description, latents: range) -> None:
    if latents == range(description.latents):
        return
    if latents.step != 1 or not 0 <= latents.start < latents.stop <= description.latents:
        raise BadRequest(
            f"Latents {latents.start} to {latents.stop - 1} are no part of {description.latents}.",
            "Give a part of them.",
        )
    form = description.form
    if (
        form.kind in ("context", "pursuit")
        or form.activation.joint
        or (form.kind != "token" and form.competes)
    ):
        raise BadRequest(
            f"A {description.kind} of {description.format} cannot be held in parts: all latents decide about each.",
            "Load it whole.",
        )
    if form.activation.kind == "groupmax":
        size = description.latents // form.activation.k
        if latents.start % size or latents.stop % size:
            raise BadRequest(
                f"Latents {latents.start} to {latents.stop - 1} cut a group of {size}.",
                "Cut between groups.",
            )


def _existing(path: Path) -> Path:
    if path.exists():
        return path.resolve()
    raise NotADictionary(f"There is no {path}.", "Give the directory or file of a dictionary.")


def _unknown(files: Files) -> NotADictionary:
    """The error for files of no format, by what they hold."""
    if not files.single:
        below = sorted(
            {file.parent for suffix in SUFFIXES for file in files.directory.glob(f"*/*{suffix}")}
            | {
                file.parent
                for suffix in SUFFIXES
                for file in files.directory.glob(f"*/*/*{suffix}")
            }
        )
        if below:
            shown = ", ".join(map(str, below[:4]))
            return NotADictionary(
                f"{files.path} is no dictionary but holds {len(below)} folders with one.",
                f"Give one: {shown}.",
            )
    keys = [key for name in files.names if name.endswith(SUFFIXES) for key in files.tensors(name)]
    holds = (
        f"tensors {', '.join(keys[:6])}"
        if keys
        else f"files {', '.join(files.names[:6]) or 'none'}"
    )
    known = "; ".join(f"{each.name}: {each.files}" for each in FORMATS)
    return NotADictionary(
        f"{files.path} has the layout of no format that is known; it holds {holds}.",
        f"Known are {known}.",
    )
