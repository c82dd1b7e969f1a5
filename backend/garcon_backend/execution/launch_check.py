"""The check at launch: a short text through the served model, and through the model's own implementation.

Two texts of a few tokens are read before the server says that it is ready. The first is read alone; then both go
into a batch, the shorter one padded on the left, which is continued by a token with the cache that generations have, and
that token is read. The same two texts, with that token, are read by transformers' eager implementation of the same
class in the same module (:mod:`garcon_backend.models.own_implementation`), whole, without a cache and without a mask: the
shorter one is followed by tokens that it cannot see. Logits of all positions must be equal but for rounding. Where windows are long, they are shortened on both sides while the batch is
read, so that the text passes them.

What this proves: that attention as it is served, its masks, padding, windows, positions and cache, and the stages of a
pipeline that hands on, compute what the model's own code computes from the weights that are in memory. Where the model is
cut by tensor parallelism the own implementation runs on the same shards, as the whole model fits nowhere; so a fault of the cut
itself would be on both sides. Therefore the first layers, one of each kind, are then read whole from the files by one rank, and their
outputs are held against those of the cut ones (:mod:`garcon_backend.models.first_layers`). What it does not
prove: that the files hold what their author meant, and layers beyond the first of their kind where they are cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from garcon_backend.execution.first_difference import (
    Difference,
    Trace,
    distance,
    first_difference,
    percent,
)
from garcon_backend.execution.generation import generate, left_padded
from garcon_backend.execution.passes import Passes
from garcon_backend.models.own_implementation import (
    by_own_implementation,
    short_windows,
    window_of,
)
from garcon_backend.models.sharding import shared_logits
from garcon_backend.probing.rank import Rank
from garcon_backend.process.randomness import kept
from garcon_jupyter.errors import GarconError, NotAModel, NotTheReference
from garcon_jupyter.wire import requests as wire

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.15}
"""How far logits may be off, as a part of their length, without anything being wrong but the rounding."""

LENGTH = 8
"""Tokens of the longer text, where no window asks for more."""

LONGEST = 48
"""Tokens of the longest window that a text is made long enough for."""

SESSION = "the check at launch"


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
        return {"state": self.state, "said": self.said, "seconds": round(self.seconds, 3)}

    def notes(self) -> list[str]:
        """What a user must know wherever the model is named."""
        return [self.said] if self.state == UNCHECKED.state else []


UNCHECKED = Checked(
    "unchecked", "unchecked: nothing shows that its numbers are those of the model's own code"
)
OWN_MODULE = Checked("none", "a module of the user's own: there is nothing to compare it with")


def checked(
    rank: Rank, directory: Path, unchecked: bool, progress: Callable[[str], None]
) -> Checked:
    """What the check of a loaded model comes to, which is told; every rank calls this.

    Raises:
        NotTheReference, NotAModel: as :func:`check` does.
    """
    found = UNCHECKED if unchecked else check(Passes(rank))
    progress(f"{found.said}" + (f", in {found.seconds:.2f} s" if found.seconds else ""))
    return found


def check(passes: Passes) -> Checked:
    """Compare the served model with its own implementation; every rank calls this.

    Raises:
        NotTheReference: they differ; names the first layer and module that does, and by how much.
        NotAModel: not even its own implementation reads a text.
    """
    began = time.monotonic()
    with kept(passes.rank.mesh.device), torch.no_grad():
        said = _Comparison(passes).run()
    passes.rank.contexts.drop(SESSION)
    return Checked("equal" if "equal" in said else "none", said, time.monotonic() - began)


@dataclass(frozen=True)
class _Texts:
    """Two texts of the check: tokens [b, p], the shorter padded on the right, and which are real."""

    ids: Tensor
    mask: Tensor

    @property
    def lengths(self) -> list[int]:
        return [int(count) for count in self.mask.sum(1)]

    @classmethod
    def of(cls, model: Any, sizes: Any, length: int) -> _Texts:
        """Texts of a model's usual tokens: none that has a meaning of its own."""
        vocabulary = sizes.get("V") or model.get_input_embeddings().num_embeddings
        special = _special(model.config)
        usual = [n for n in range(min(vocabulary, 4096)) if n not in special]
        places = torch.arange(2 * length) * 37 + 11
        ids = torch.tensor(usual)[places % len(usual)].view(2, length)
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[1, length - max(1, length // 3) :] = False
        return cls(ids, mask)


def _special(config: Any) -> set[int]:
    """Numbers of the tokens that a configuration names: ends, padding, places of pictures."""
    found: set[int] = set()
    for one in (config, config.get_text_config()):
        for name, value in vars(one).items():
            if name.endswith(("_token_id", "_token_index")) and value is not None:
                found |= set(value) if isinstance(value, (list, tuple)) else {value}
    return found


class _Comparison:
    """One check: what is served, what it is to be, and what is said of it."""

    def __init__(self, passes: Passes) -> None:
        self.passes, self.mesh = passes, passes.rank.mesh
        self.model: Any = passes.rank.model
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        self.tolerance = TOLERANCES.get(dtype, max(TOLERANCES.values()))
        window = window_of(self.model)
        sizes = passes.rank.bound.catalog.sizes
        length = window + 4 if 0 < window <= LONGEST else LENGTH
        length = max(2, min(length, sizes.get("P", 1 << 62) - 2))
        self.texts = _Texts.of(self.model, sizes, length)
        self.shortened = window > length
        self.more: list[str] = []

    def run(self) -> str:
        """What is said when nothing is wrong."""
        served = self._served("read", self._read)
        continued = self._served("continue", self._continued)
        generates = self.mesh.everyone.any(continued is not None)
        padded = None if generates else self._served("read", self._read_padded)
        tokens = self._shared(None if continued is None else continued.ids[:, -2])
        try:
            wanted, rows = self._wanted(tokens)
        except Exception as error:  # noqa: BLE001 - a class without it, whatever it raises
            return f"not compared: its class cannot be run by its eager implementation ({_short(error)})"
        found = [] if continued is None else list(continued.logits.unbind(1))
        found = found if padded is None else self._real(padded)
        far = self._far(served, wanted, found, rows)
        if self.mesh.everyone.any(far > self.tolerance):
            far = self._like_for_like(served, found, tokens)
        told = "" if far < 0 else f" (furthest {percent(far)} of the logits' length)"
        return "; ".join([f"equal to its own implementation{told}", *self.more])

    # -- what is served --------------------------------------------------------------------------

    def _served(self, what: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever the model's code raises
            problem = error
        own = self._own_failure(what)
        name = type(self.model).__name__
        if what == "continue" and (own is not None or isinstance(problem, GarconError)):
            self.more.append(f"generation was not compared: {_short(problem)}")
            return None
        if own is not None:
            raise NotAModel(
                f"{name} does not read tokens alone: {_short(own)}.",
                "Other modules are loaded with loader='package.module:function'.",
            ) from problem
        if isinstance(problem, GarconError):
            raise problem
        raise NotTheReference(
            f"As it is served, {name} fails to {what} a short text, which its own implementation does: {_short(problem)}.",
            SERVE_ALL_THE_SAME,
        ) from problem

    def _own_failure(self, what: str) -> Exception | None:
        """Why its own implementation cannot do it either."""
        ids = self.texts.ids[:1].to(self.mesh.device)
        try:
            self._own(ids) if what == "read" else self._own_continuation(None)
        except Exception as error:  # noqa: BLE001 - as above
            return error
        return None

    def _read(self) -> Tensor | None:
        """The logits of the first text, read alone, on the rank that answers, [p, V]."""
        batch = self.passes.batch(wire.Batch(self.texts.ids[:1]))
        logits = self.passes.forward(wire.Forward(SESSION), batch, (), None)
        return None if logits is None else logits[0]

    def _continued(self) -> wire.GeneratedTokens | None:
        """Both texts continued by two tokens, with the logits of both steps."""
        batch = self.passes.batch(wire.Batch(self.texts.ids, self.texts.mask))
        request = wire.Generate(SESSION, options=_OPTIONS)
        with self._windows():
            return generate(self.passes, request, batch, ())

    def _read_padded(self) -> Tensor | None:
        """The logits of both texts, padded on the right: of a model that cannot generate, [b, p, V]."""
        batch = self.passes.batch(wire.Batch(self.texts.ids, self.texts.mask))
        with self._windows():
            logits: Tensor | None = self.passes.forward(wire.Forward(SESSION), batch, (), None)
        return logits

    def _real(self, logits: Tensor) -> list[Tensor]:
        """Those of real tokens, text by text."""
        return [logits[row, :end] for row, end in enumerate(self.texts.lengths)]

    def _windows(self) -> Any:
        return short_windows(self.model) if self.shortened else nullcontext()

    def _shared(self, tokens: Tensor | None) -> Tensor | None:
        """What the rank that answers has, on every rank; None where it has none."""
        everyone, answers = self.mesh.everyone, self.mesh.world - self.mesh.degrees.tp
        answers -= self.mesh.degrees.tp * (self.mesh.degrees.dp - 1)
        if not everyone.any(tokens is not None):
            return None
        told = torch.zeros(2, dtype=torch.long, device=self.mesh.device)
        return everyone.broadcast(told if tokens is None else tokens, answers)

    # -- what it is to be ------------------------------------------------------------------------

    def _wanted(self, tokens: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """By the model's own implementation, without a cache: the logits of the first text; and of both the two after
        which a token is generated, or all, where none is."""
        ids, ends = self.texts.ids.to(self.mesh.device), self.texts.lengths
        if tokens is None:
            with self._windows():
                return self._own(ids[:1])[0], self._real(self._own(ids))
        longer = torch.cat([ids, ids[:, :1]], 1)
        longer[torch.arange(2), ends] = tokens
        with self._windows():
            both = self._own(longer)
        rows = [both[row, end - 1 : end + 1] for row, end in enumerate(ends)]
        first = self._own(ids[:1])[0] if self.shortened else both[0, :-1]
        return first, rows

    def _own(self, ids: Tensor, **more: Any) -> Tensor:
        """The logits of texts by the model's own implementation, without a cache, [b, p, V]."""
        with by_own_implementation(self.model):
            logits: Tensor = self.model(input_ids=ids, use_cache=False, **more).logits
        return logits

    def _own_padded(self) -> Tensor:
        """The logits of both texts by the model's own implementation, padded on the right, [b, p, V]."""
        mask = self.texts.mask.long().to(self.mesh.device)
        with self._windows():
            return self._own(self.texts.ids.to(self.mesh.device), attention_mask=mask)

    def _own_continuation(self, tokens: Tensor | None) -> Any:
        """Both texts continued as transformers does it by itself, over these tokens."""
        inputs = left_padded(self.passes.batch(wire.Batch(self.texts.ids, self.texts.mask)))
        assert inputs.mask is not None
        only = None if tokens is None else (lambda row, sent: [int(tokens[row])])
        with by_own_implementation(self.model), self._windows(), shared_logits(self.model):
            return GenerationMixin.generate(
                self.model,
                inputs.ids,
                attention_mask=inputs.mask.long(),
                prefix_allowed_tokens_fn=only,
                return_dict_in_generate=True,
                **_OPTIONS,
            )

    # -- whether it is that ----------------------------------------------------------------------

    def _far(
        self,
        served: Tensor | None,
        wanted: Tensor,
        found: list[Tensor],
        rows: list[Tensor],
    ) -> float:
        """How far the furthest part is off, on the rank that answers; −1 elsewhere."""
        if served is None:
            return -1.0
        return max(map(self._off, [served, *found], [wanted, *rows]))

    def _off(self, found: Tensor, wanted: Tensor) -> float:
        """How far the logits of several positions are off, [p, V].

        In half precision a token near the border between two experts may go to the other one, so there most of
        the positions tell, and not the furthest.
        """
        apart = distance(_centred(found), _centred(wanted))
        exact = self.tolerance <= TOLERANCES[torch.float32]
        return float(apart.max() if exact else apart.median())

    def _like_for_like(
        self, served: Tensor | None, found: list[Tensor], tokens: Tensor | None
    ) -> float:
        """A text in a batch or continued from a cache is to be what it is alone, but some architectures have
        other numbers there in transformers, too. So compare with what transformers does of the same."""
        ids = self.texts.ids[:1].to(self.mesh.device)
        wanted = self._own(ids)[0]
        if tokens is None:
            rows = self._real(self._own_padded())
        else:
            rows = list(torch.stack(self._own_continuation(tokens).logits).unbind(1))
        far = self._far(served, wanted, found, rows)
        alone = -1.0 if served is None else self._off(served, wanted)
        if self.mesh.everyone.any(far > self.tolerance):
            read = self.mesh.everyone.any(alone > self.tolerance)
            raise self._refusal(far, self._where(read, tokens))
        self.more.append(
            "padded or continued, a text has other numbers than alone, in transformers too"
        )
        return far

    def _where(self, read: bool, tokens: Tensor | None) -> Difference | None:
        """The first module at which the served pass parts from the own one."""
        served, own = Trace(), Trace()
        ids = self.texts.ids[:1].to(self.mesh.device)
        generated = tokens is not None
        with served.of(self.model):
            self._read() if read else (self._continued() if generated else self._read_padded())
        with own.of(self.model):
            if read:
                self._own(ids)
            else:
                self._own_continuation(tokens) if generated else self._own_padded()
        return first_difference(served, own, self.tolerance)

    def _refusal(self, far: float, where: Difference | None) -> NotTheReference:
        name = type(self.model).__name__
        by = "" if far < 0 else f": its logits are off by {percent(far)} of their length"
        return NotTheReference(
            f"As it is served, {name} does not compute what its own implementation in transformers computes{by}. "
            f"{where or ''}".rstrip(),
            SERVE_ALL_THE_SAME,
        )


SERVE_ALL_THE_SAME = "Nothing of it could be trusted, so it is not served. unchecked=True (--unchecked) serves it all the same."

_OPTIONS: dict[str, Any] = {
    "max_new_tokens": 2,
    "min_new_tokens": 2,
    "do_sample": False,
    "num_beams": 1,
    "output_logits": True,
}


def _centred(logits: Tensor) -> Tensor:
    """Without what is added to all logits of a position, which changes no probability."""
    logits = logits.double()
    return logits - logits.mean(-1, keepdim=True)


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, GarconError) else f"{type(error).__name__}: "
    return f"{kind}{lines[0].rstrip('.')}"
