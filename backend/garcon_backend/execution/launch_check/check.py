"""The check at launch: a short text through the served model, and through the model's own implementation.

Two texts of a few tokens are read before the server says that it is ready. The longer is read alone; both are read in a
batch, padded on the left, through the first layers of each kind (:mod:`garcon_backend.execution.launch_check.early_exit`); and the longer, behind padding,
is continued by a token, with the cache that generations have, and the token is read. The same texts, with that token, are read by
transformers' eager implementation of the same class in the same module (:mod:`garcon_backend.models.own_implementation`): whole,
without a cache and without a mask, as the shorter is followed by tokens that it cannot see. The logits must be equal but for rounding, which is measured of the
model where its routers let it count for much (:mod:`garcon_backend.execution.launch_check.rounding`). Windows that are
longer than a text of some fifty tokens are shortened on both sides while padded texts are read, so that these pass them.

What this shows is that attention as it is served, with its masks, padding, windows, positions and cache, computes
what the model's own code computes from the weights that are in memory. In half precision rounding hides a fault that
moves the logits by less than some per cent. Of a model that is cut, the own implementation runs on the same parts, as the
whole fits nowhere: a fault of the cut itself is on both sides. So where layers are cut by tensor parallelism the first of
each kind are read whole from the files by one rank, and what they put out is held against what the cut ones do
(:mod:`garcon_backend.models.first_layers`). Not shown are the layers after them and the unembedding, should these be cut
otherwise; what crosses from stage to stage of a pipeline; and that the files hold what their author meant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from garcon_backend.execution.launch_check.cut_check import CutCheck
from garcon_backend.execution.launch_check.first_difference import (
    Trace,
    distance,
    first_difference,
    percent,
)
from garcon_backend.execution.launch_check.readings import (
    ALONE,
    CONTINUED,
    PADDED,
    READINGS,
    SESSION,
    Readings,
)
from garcon_backend.execution.launch_check.rounding import rounded_otherwise
from garcon_backend.execution.passes import Passes
from garcon_backend.probing.rank import Rank
from garcon_backend.process.randomness import kept
from garcon_jupyter.errors import GarconError, NotAModel, NotTheReference

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}
"""How far logits may be off, as a part of their length, without anything being wrong but the rounding."""

DRAWS = 4
"""How often rounding is tried otherwise, before a model is refused whose logits are too far off."""


@dataclass(frozen=True)
class Checked:
    """What the check came to.

    Attributes:
        state: "equal"; "unchecked" where it was asked not to; "none" where there is nothing to compare with.
        said: that in a sentence.
        seconds: that it took.
    """

    state: str
    said: str
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """As plain data, for whoever looks at the server."""
        return {"outcome": self.state, "said": self.said, "seconds": round(self.seconds, 3)}

    def notes(self) -> list[str]:
        """What a user must know wherever the model is named."""
        return [self.said] if self.state == UNCHECKED.state else []


UNCHECKED = Checked(
    "unchecked", "unchecked: nothing shows that its numbers are those of the model's own code"
)
ELSEWHERE = Checked("none", "what it came to is told by the first rank")
OWN_MODULE = Checked("none", "a module of the user's own: there is nothing to compare it with")


def checked(
    rank: Rank, directory: Path, unchecked: bool, progress: Callable[[str], None]
) -> Checked:
    """What the check of a loaded model comes to, which is told; every rank calls this.

    Raises:
        NotTheReference, NotAModel: as :func:`check` does.
    """
    found = UNCHECKED if unchecked else check(Passes(rank), directory)
    progress(f"{found.said}" + (f", in {found.seconds:.2f} s" if found.seconds else ""))
    return found


def check(passes: Passes, directory: Path) -> Checked:
    """Compare the served model with its own implementation; every rank calls this.

    Args:
        directory: of the checkpoint, from which layers are read whole where those of the model are cut.

    Raises:
        NotTheReference: they differ; names the first layer and module that does, and by how much.
        NotAModel: not even its own implementation reads a text.
    """
    began = time.monotonic()
    with kept(passes.rank.mesh.device), torch.no_grad():
        found = _Comparison(passes, directory).run()
    passes.rank.contexts.drop(SESSION)
    return replace(found, seconds=time.monotonic() - began)


class _Comparison:
    """One check: what is served, what it is to be, and what is said of it."""

    def __init__(self, passes: Passes, directory: Path) -> None:
        self.readings = Readings(passes)
        self.cut = CutCheck(self.readings, directory)
        self.model, self.everyone = passes.rank.model, passes.rank.mesh.everyone
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        self.tolerance = TOLERANCES.get(dtype, max(TOLERANCES.values()))
        self.more: list[str] = []

    def run(self) -> Checked:
        """What it comes to when nothing is wrong."""
        with self.cut.watching():
            served = {ALONE: self._served(ALONE)}
        served[CONTINUED] = self._served(CONTINUED)
        stream = self.readings.padded_stream()
        try:
            wanted = self.readings.wanted()
        except Exception as error:  # noqa: BLE001 - a class without it, whatever it raises
            return Checked("none", f"not compared: it cannot be run eagerly ({_short(error)})")
        if self._stream_is_off(stream):
            served[PADDED] = self._served(PADDED)
        off = {
            reading: self._off(served[reading], wanted[reading])
            for reading in READINGS
            if reading in served
        }
        for reading, far in off.items():
            if self.everyone.any(far > self.tolerance):
                off[reading] = self._like_for_like(reading, served[reading], wanted[reading])
        if self.readings.mesh.degrees.tp > 1:
            self._compare_cut()
        furthest = max(off.values())
        told = "" if furthest < 0 else f" (furthest {percent(furthest)} of the logits' length)"
        return Checked("equal", "; ".join([f"equal to its own implementation{told}", *self.more]))

    def _served(self, reading: str) -> list[Tensor] | None:
        """What is served; None where it does not answer, or cannot be had by its own implementation either."""
        try:
            return self.readings.served(reading)
        except Exception as error:  # noqa: BLE001 - whatever the model's code raises
            problem = error
        own, name = self._own_failure(reading), type(self.model).__name__
        if reading == CONTINUED and (own is not None or isinstance(problem, GarconError)):
            self.more.append(f"generation was not compared: {_short(problem)}")
            return None
        if own is not None:
            raise NotAModel(
                f"{name} does not {reading} tokens alone: {_short(own)}.",
                "Other modules are loaded with loader='package.module:function'.",
            ) from problem
        if isinstance(problem, GarconError):
            raise problem
        raise NotTheReference(
            f"As it is served, {name} fails to {reading} a short text, which its own implementation does: "
            f"{_short(problem)}.",
            SERVE_ALL_THE_SAME,
        ) from problem

    def _own_failure(self, reading: str) -> Exception | None:
        """Why its own implementation cannot do it either."""
        try:
            self.readings.own(reading)
        except Exception as error:  # noqa: BLE001 - as above
            return error
        return None

    def _stream_is_off(self, stream: list[Tensor] | None) -> bool:
        """Whether a padded batch must be read whole: behind the first layers it is not what it should be, or not known."""
        wanted = self.readings.wanted_stream
        off = float("inf")
        if stream is not None and wanted is not None:
            off = self._furthest(stream, wanted)
        return self.everyone.any(off > self.tolerance)

    def _off(self, found: list[Tensor] | None, wanted: list[Tensor]) -> float:
        """How far the logits of the furthest row are off, on the rank that answers; −1 elsewhere."""
        if found is None:
            return -1.0
        return self._furthest(map(_centred, found), map(_centred, wanted))

    def _furthest(self, found: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
        """How far the furthest row [p, n] is off.

        In half precision a token near the border between two experts may go to the other one, so there most of
        the positions tell, and not the furthest.
        """
        exact = self.tolerance <= TOLERANCES[torch.float32]
        apart = [distance(row, other) for row, other in zip(found, wanted, strict=True)]
        return max(float(row.max() if exact else row.median()) for row in apart)

    def _like_for_like(
        self, reading: str, served: list[Tensor] | None, wanted: list[Tensor]
    ) -> float:
        """A text beside padding, or continued from a cache, is to be what it is alone; but some architectures have
        other numbers there in transformers, too. So compare with what transformers does of the same."""
        own = self.readings.own(reading)
        far, torn = self._off(served, own), -1.0 if served is None else self._off(own, wanted)
        contradicts_itself = self.everyone.any(torn > self.tolerance)
        if self.everyone.any(far > self.tolerance):
            by_rounding = self._moved_by_rounding(reading, served, own)
            if not self.everyone.any(far > 2 * by_rounding):
                by = "" if served is None else f" by {percent(by_rounding)}"
                self.more.append(f"rounding alone moves its logits{by}")
                return far
            if not contradicts_itself:
                raise self._refusal(reading, far)
            self.more.append(NO_REFERENCE[reading])
            return -1.0
        self.more.append(OTHERWISE[reading])
        return far

    def _moved_by_rounding(
        self, reading: str, served: list[Tensor] | None, own: list[Tensor]
    ) -> float:
        """How far the own implementation is from itself when its numbers are rounded otherwise: the furthest of a few."""
        moved = []
        for seed in range(DRAWS):
            with rounded_otherwise(self.model, seed):
                other = self.readings.own(reading)
            moved.append(0.0 if served is None else self._off(other, own))
        return max(moved)

    def _compare_cut(self) -> None:
        """Hold cut layers against whole ones."""
        where, said = self.cut.differing_layer(self.tolerance)
        self.more.append(said)
        if self.everyone.any(where is not None):
            raise NotTheReference(
                f"As {type(self.model).__name__} is cut over ranks, its layers do not compute what they do whole. "
                f"{where or ''}".rstrip(),
                SERVE_ALL_THE_SAME,
            )

    def _refusal(self, reading: str, far: float) -> NotTheReference:
        served, own = Trace(), Trace()
        with served.of(self.model):
            self.readings.served(reading)
        with own.of(self.model):
            self.readings.own(reading)
        where = first_difference(served, own, self.tolerance, self.readings.real(reading))
        by = "" if far < 0 else f": its logits are off by {percent(far)} of their length"
        return NotTheReference(
            f"As it is served, {type(self.model).__name__} does not {reading} a short text as its own implementation "
            f"in transformers does{by}. {where or ''}".rstrip(),
            SERVE_ALL_THE_SAME,
        )


SERVE_ALL_THE_SAME = (
    "Nothing of it could be trusted, so it is not served. "
    "unchecked=True (--unchecked) serves it all the same, and says so."
)

OTHERWISE = {
    ALONE: "beside others a text has other numbers than alone, in transformers too",
    PADDED: "beside padding a text has other numbers than alone, in transformers too",
    CONTINUED: "continued, a text has other numbers than read at once, in transformers too",
}

NO_REFERENCE = {
    ALONE: "a text alone was not compared: in transformers it has other numbers at each time",
    PADDED: "texts beside padding were not compared: in transformers they have other numbers than alone",
    CONTINUED: "generation was not compared: in transformers it has other numbers than a text read at once",
}
"""What is said where transformers contradicts itself, and what is served is neither."""


def _centred(logits: Tensor) -> Tensor:
    """Without what is added to all logits of a position, which changes no probability."""
    logits = logits.double()
    return logits - logits.mean(-1, keepdim=True)


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, GarconError) else f"{type(error).__name__}: "
    return f"{kind}{lines[0].rstrip('.')}"
