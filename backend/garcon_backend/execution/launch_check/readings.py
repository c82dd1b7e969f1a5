"""The readings of the check at launch: each as it is served, and by the model's own implementation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, logging

from garcon_backend.execution.generation import generate, left_padded
from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.launch_check.early_exit import EarlyExit
from garcon_backend.execution.launch_check.idle_cores import threads_of_idle_cores
from garcon_backend.execution.passes import Passes
from garcon_backend.models.own_implementation import by_own_implementation, short_windows, window_of
from garcon_backend.models.sharding import shared_logits
from garcon_jupyter.wire import requests as wire

LENGTH, LENGTH_IN_HALF_PRECISION = 6, 8
"""Tokens of the longer text, where no window asks for more. In half precision what few tokens show is lost in rounding."""

LONGEST = 48
"""Tokens of the longest window that a text is made long enough for."""

SESSION = "the check at launch"

BEHIND = 2
"""Places of padding that the text which is continued stands behind."""

ALONE, PADDED, CONTINUED = READINGS = ("read", "read beside padding", "continue")
"""What is done with the texts: the longer is read alone; both are read in a batch, padded on the left; the longer, behind padding, is
continued by a token, which is read with what was kept of the text."""

_OPTIONS: dict[str, Any] = {
    "max_new_tokens": 2,
    "min_new_tokens": 2,
    "do_sample": False,
    "num_beams": 1,
    "output_logits": True,
}


@dataclass(frozen=True)
class Texts:
    """Two texts: tokens [b, p], the shorter padded on the right, and which are real."""

    ids: Tensor
    mask: Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of each."""
        return [int(count) for count in self.mask.sum(1)]

    @classmethod
    def of(cls, model: Any, sizes: Mapping[str, int]) -> Texts:
        """Texts that a model reads, of its usual tokens: none that has a meaning of its own."""
        window = window_of(model)
        length = window + 4 if 0 < window <= LONGEST else _length(model)
        length = max(2, min(length, sizes.get("P", 1 << 62) - BEHIND - 2))
        vocabulary = sizes.get("V") or model.get_input_embeddings().num_embeddings
        special = _special(model.config)
        usual = [number for number in range(min(vocabulary, 4096)) if number not in special]
        places = torch.arange(2 * length) * 37 + 11
        ids = torch.tensor(usual)[places % len(usual)].view(2, length)
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[1, length - max(1, length // 3) :] = False
        return cls(ids, mask)


def _length(model: Any) -> int:
    wide = next(p.dtype for p in model.parameters() if p.is_floating_point()).itemsize >= 4
    return LENGTH if wide else LENGTH_IN_HALF_PRECISION


def _special(config: Any) -> set[int]:
    """Numbers of the tokens that a configuration names: ends, padding, places of pictures."""
    found: set[int] = set()
    for one in (config, config.get_text_config()):
        for name, value in vars(one).items():
            if name.endswith(("_token_id", "_token_index")) and value is not None:
                found |= set(value) if isinstance(value, (list, tuple)) else {value}
    return found


class Readings:
    """The same texts read in all ways, on this rank; every rank calls the same.

    A reading is a list of logits: of each row those of its real tokens, [p, V], or, of one that is continued,
    those that its two new tokens are chosen by, [2, V].

    Attributes:
        tokens: that the text was continued by, [1].
        early: where a padded batch need not be read further; None where it must be read whole.
        wanted_stream: what its own implementation has there, of each row, [p, D]; once it has read.
    """

    def __init__(self, passes: Passes) -> None:
        self.passes, self.mesh, self.model = passes, passes.rank.mesh, passes.rank.model
        self.texts = Texts.of(self.model, passes.rank.bound.catalog.sizes)
        self.shortened = window_of(self.model) > self.texts.ids.shape[1]
        self.tokens: Tensor | None = None
        degrees = self.mesh.degrees
        self.early = EarlyExit.of(self.model) if degrees.pp == degrees.dp == 1 else None
        self.wanted_stream: list[Tensor] | None = None

    def windows(self) -> AbstractContextManager[None]:
        """While this lasts windows are passed by the texts."""
        return short_windows(self.model) if self.shortened else nullcontext()

    def _left(self, reading: str) -> Inputs:
        """The texts of a reading, padded on the left."""
        ids, mask = self.texts.ids, self.texts.mask
        if reading == CONTINUED:
            behind = torch.zeros(1, BEHIND, dtype=torch.bool)
            ids, mask = torch.cat([ids[:1], ids[1:, :BEHIND]], 1), torch.cat([mask[:1], behind], 1)
        moved = left_padded(self.passes.batch(wire.Batch(ids, mask)))
        assert moved.mask is not None
        return self.passes.batch(wire.Batch(moved.ids, moved.mask))  # as it comes from a user

    def real(self, reading: str) -> Tensor:
        """Which places of a reading's texts are no padding, [b, p]."""
        if reading == ALONE:
            return self.texts.mask[:1]
        mask = self._left(reading).mask
        assert mask is not None
        return mask.cpu()

    # -- as it is served -------------------------------------------------------------------------

    def served(self, reading: str) -> list[Tensor] | None:
        """What the model is served as; None on ranks that do not answer."""
        if reading == ALONE:
            with threads_of_idle_cores():
                return self._forward(self.passes.batch(wire.Batch(self.texts.ids[:1])))
        with self.windows(), threads_of_idle_cores():
            if reading == PADDED:
                return self._forward(self._left(PADDED))
            return self._continued()

    def _forward(self, inputs: Inputs) -> list[Tensor] | None:
        """The logits of texts, without their padding."""
        logits = self.passes.forward(wire.Forward(SESSION), inputs, (), None)
        return None if logits is None else _without_padding(logits, inputs)

    def padded_stream(self) -> list[Tensor] | None:
        """The stream of a padded batch behind the first layers of each kind, as it is served: of each row, [p, D].

        None where it is to be read whole: there is no such place, the model is cut, the pass fails, or the stream
        has other places than the tokens.
        """
        if self.early is None:
            return None
        inputs = self._left(PADDED)
        try:
            with self.windows(), threads_of_idle_cores(), self.early.entering(stop=True) as seen:
                self.passes.forward(wire.Forward(SESSION, logits="none"), inputs, (), None)
        except Exception:  # noqa: BLE001 - whatever it is, it is told where the batch is read whole
            return None
        told = seen and seen[0].shape[:2] == inputs.ids.shape
        return _without_padding(seen[0], inputs) if told else None

    def _continued(self) -> list[Tensor] | None:
        request = wire.Generate(SESSION, options=_OPTIONS)
        with _silently():
            found = generate(self.passes, request, self._left(CONTINUED), ())
        self.tokens = self._shared(None if found is None else found.ids[:, -2])
        return None if found is None else list(found.logits.unbind(1))

    def _shared(self, tokens: Tensor | None) -> Tensor:
        """What the rank that answers has, on every rank."""
        degrees = self.mesh.degrees
        answers = (degrees.pp - 1) * degrees.dp * degrees.tp
        like = torch.zeros(1, dtype=torch.long, device=self.mesh.device)
        return self.mesh.everyone.broadcast(like if tokens is None else tokens, answers)

    # -- by its own implementation ---------------------------------------------------------------

    def wanted(self) -> dict[str, list[Tensor]]:
        """What all readings are to be, from a single one: whole, without a cache and without a mask. The shorter
        text is followed by tokens that it cannot see."""
        ids, ends = self.texts.ids.to(self.mesh.device), self.texts.lengths
        longer = torch.cat([ids, ids[:, :1]], 1)
        if self.tokens is not None:
            longer[0, -1] = self.tokens[0]
        with self.windows(), self._noting_stream() as seen:
            both = self._own(input_ids=longer)
        told = seen and seen[0].shape[:2] == longer.shape  # some have the positions first
        self.wanted_stream = (
            [row[:end] for row, end in zip(seen[0], ends, strict=True)] if told else None
        )
        first = self._own(input_ids=ids[:1])[0] if self.shortened else both[0, :-1]
        return {
            ALONE: [first],
            PADDED: [row[:end] for row, end in zip(both, ends, strict=True)],
            CONTINUED: [both[0, -2:]],
        }

    def _noting_stream(self) -> AbstractContextManager[list[Tensor]]:
        return nullcontext([]) if self.early is None else self.early.entering(stop=False)

    def own(self, reading: str) -> list[Tensor]:
        """One reading just as transformers does it: with padding where there is some, and with its own cache."""
        if reading == ALONE:
            return list(self._own(input_ids=self.texts.ids[:1].to(self.mesh.device)))
        with self.windows():
            return self._own_padded() if reading == PADDED else self._own_continued()

    def _own(self, **told: Any) -> Tensor:
        with by_own_implementation(self.model), threads_of_idle_cores():
            logits: Tensor = self.model(use_cache=False, **told).logits
        return logits

    def _own_padded(self) -> list[Tensor]:
        inputs = self._left(PADDED)
        assert inputs.mask is not None
        told = {"input_ids": inputs.ids, "attention_mask": inputs.mask.long()}
        if self.passes.takes_positions:  # else it counts them by itself
            told["position_ids"] = (inputs.mask.cumsum(1) - 1).clamp(min=0)
        return _without_padding(self._own(**told), inputs)

    def _own_continued(self) -> list[Tensor]:
        """Over the same tokens, where some were chosen already."""
        inputs, tokens = self._left(CONTINUED), self.tokens
        assert inputs.mask is not None
        only = None if tokens is None else (lambda row, sent: [int(tokens[row])])
        with by_own_implementation(self.model), shared_logits(self.model), _silently():
            found: Any = GenerationMixin.generate(
                self.model,  # type: ignore[arg-type]
                inputs.ids,
                attention_mask=inputs.mask.long(),
                prefix_allowed_tokens_fn=only,
                return_dict_in_generate=True,
                **_OPTIONS,
            )
        return list(torch.stack(found.logits).unbind(1))


@contextmanager
def _silently() -> Iterator[None]:
    """While this lasts, transformers warns of nothing: what it would say is about options of the check, not of the user's."""
    former = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(former)


def _without_padding(values: Tensor, inputs: Inputs) -> list[Tensor]:
    """Those of the real tokens of each text, [p, V] or [p, D]."""
    if inputs.mask is None:
        return list(values)
    return [row[real] for row, real in zip(values, inputs.mask, strict=True)]
