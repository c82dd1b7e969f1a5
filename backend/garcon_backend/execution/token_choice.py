"""What comes next in a generation, where code of the caller's has a say in it; and where a row has ended.

Every rank must choose the same token, whatever a logits processor draws, counts or looks up. So the caller's code
runs once, on rank 0, as a probe does: with a random stream of its own, its prints shown and its errors kept; the other
ranks are told what came out. The library's own processors and criteria are functions of the tokens, and run
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from garcon_backend.execution.generation_options import Settled
from garcon_backend.execution.passes import Passes
from garcon_backend.probing.probed_pass import ProbedPass
from garcon_backend.process.interrupts import Cancelled
from garcon_backend.process.user_code import UserFailure
from garcon_jupyter.errors import WrongValue


class TokenChoice:
    """The caller's part in one generation, and what became of its rows.

    Args:
        rows: that are read at once.
    """

    def __init__(self, passes: Passes, probed: ProbedPass, asked: Settled, rows: int) -> None:
        self.passes, self.probed, self.asked = passes, probed, asked
        self.everyone, self.alone = passes.rank.mesh.everyone, passes.rank.mesh.world == 1
        self.ended = torch.zeros(rows, dtype=torch.long, device=passes.rank.mesh.device)
        """Of each row, its length when it ended; 0 while it goes on."""
        self._calls = 0

    def options(self) -> dict[str, Any]:
        """For transformers' ``generate``."""
        asked = self.asked
        processors = [p if _is_librarys(p) else _Processor(self, p) for p in asked.processors]
        found: dict[str, Any] = {
            "logits_processor": LogitsProcessorList(processors),
            # The library's own stay, as it asks for some by their type.
            "stopping_criteria": StoppingCriteriaList([*asked.ends, _Ending(self)]),
        }
        if asked.allowed is not None:
            found["prefix_allowed_tokens_fn"] = self._allowed
        return found

    @property
    def told(self) -> bool:
        """Whether ranks are told what became of rows: they do not know it by themselves."""
        asked = self.asked
        theirs = asked.stopping or asked.clocks or asked.processors or asked.allowed is not None
        return bool(theirs) and not self.alone

    def real(self, prompt: int, new: int) -> Tensor:
        """Which of the new tokens are text, [rows, new]: those up to where the row ended."""
        ends = torch.where(self.ended > 0, self.ended - prompt, new)
        return torch.arange(new, device=ends.device)[None] < ends[:, None]

    def once(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call code of the caller's on rank 0; None elsewhere, and where it fails, which is kept."""
        if self.probed.failure or self.passes.rank.mesh.rank:
            return None
        self._calls += 1
        try:
            return self.passes.user(self.probed.seed + self._calls, function, what, *args)
        except (UserFailure, Cancelled) as error:
            if self.alone:
                raise
            self.probed.failure = (
                error if isinstance(error, UserFailure) else UserFailure(error, "")
            )
            return None

    def _allowed(self, batch: int, ids: Tensor) -> list[int]:
        """The tokens that may come next, by the caller's function."""
        found = self.once("the function of allowed tokens", self.asked.allowed, batch, ids)
        mine = [0] if found is None else [int(token) for token in found]
        count = self.everyone.broadcast_integers([len(mine)])[0]
        return self.everyone.broadcast_integers((mine + [0] * count)[:count])


class _Processor(LogitsProcessor):
    """A logits processor of the caller's."""

    def __init__(self, choice: TokenChoice, theirs: Callable[..., Any]) -> None:
        self.choice, self.theirs = choice, theirs

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        new = self.choice.once("a logits processor", self._checked, input_ids, scores)
        new = scores if new is None else new
        return new if self.choice.alone else self.choice.everyone.broadcast(new)

    def _checked(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        new = self.theirs(input_ids, scores)
        if not isinstance(new, Tensor) or new.shape != scores.shape:
            shape = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise WrongValue(
                f"A logits processor returned {shape}, not scores {list(scores.shape)}.",
                "Return a tensor like the scores that it is given.",
            )
        return new.to(scores.dtype)


class _Ending(StoppingCriteria):
    """Ends rows, alike on all ranks, and notes where each of them ended."""

    def __init__(self, choice: TokenChoice) -> None:
        self.choice = choice

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        choice, asked = self.choice, self.choice.asked
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for criterion in [*asked.ends, *asked.clocks]:
            done = done | criterion(input_ids, scores)
        for criterion in asked.stopping:
            found = choice.once("a stopping criterion", _flags, criterion, input_ids, scores)
            done = done if found is None else done | found
        if choice.told:
            done = done | (choice.probed.failure is not None)
            done = choice.everyone.broadcast(done.int()).bool()
        if len(done) == len(
            choice.ended
        ):  # else they are candidates of beams, which tell it themselves
            choice.ended[done & (choice.ended == 0)] = input_ids.shape[1]
        return done


def _flags(criterion: Callable[..., Any], input_ids: Tensor, scores: Any) -> Tensor:
    """What a criterion says of each row; of all of them where it says one word."""
    said = torch.as_tensor(criterion(input_ids, scores), device=input_ids.device).bool()
    return said.expand(len(input_ids))


def _is_librarys(thing: Any) -> bool:
    return type(thing).__module__.partition(".")[0] == "transformers"
