"""Generating tokens, with probes on every step.

transformers' own ``generate`` runs on every rank in unison: all see the last stage's logits, so all choose
the same next token, and edits reach the key-value cache through which later steps see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from garcon_backend.engine.collectives import Layout
from garcon_backend.models.rotary import read_again_when_a_row_passes
from garcon_backend.models.sharding import shared_logits
from garcon_backend.passes import Inputs, Passes, positions_of
from garcon_backend.probing.attention import fresh_cache
from garcon_backend.probing.calls import Probe
from garcon_backend.probing.visits import PassRun
from garcon_jupyter.errors import BadRequest, BadTokens
from garcon_jupyter.wire import requests as wire


def generate(
    passes: Passes, request: wire.Generate, inputs: Inputs, probes: Sequence[Probe]
) -> Tensor | None:
    """Ids [b, p + new] on the rank that answers; rows padded on the left, as generation needs it."""
    model: Any = passes.model
    if not hasattr(model, "generate"):
        raise BadRequest("This model cannot generate.", "Only transformers' causal models can.")
    inputs = left_padded(inputs)
    assert inputs.mask is not None
    with (
        passes.open(request, inputs, probes, caching=True) as run,
        torch.no_grad(),
        shared_logits(model),
        _each_step(passes, run, inputs),
        read_again_when_a_row_passes(model, inputs.mask),
    ):
        torch.manual_seed(request.seed)
        mine = inputs.dealt(run.team)
        assert mine.mask is not None
        options = _options(model, request.options, probes)
        if passes.mesh.degrees.dp > 1:
            options |= _together(run, options, mine.ids.shape[1])
        _check_length(run, mine.ids.shape[1], options)
        try:
            ids = model.generate(
                mine.ids,
                attention_mask=mine.mask.long(),
                past_key_values=fresh_cache(model),
                **options,
            )
        except (ValueError, TypeError) as error:
            if run.tokens is not None:
                raise
            raise BadRequest(  # on every rank: no forward has begun
                f"generate cannot work with these options: {error}.",
                "They are those of transformers' generate.",
            ) from None
    whole = run.team.gather(ids, Layout())
    return whole if passes.answers else None


def _options(model: Any, asked: dict[str, Any], probes: Sequence[Probe]) -> dict[str, Any]:
    options = {"max_new_tokens": 20, "do_sample": False, **asked}
    config = model.generation_config
    ends = options.get("eos_token_id", config.eos_token_id)
    if config.pad_token_id is None:
        options.setdefault("pad_token_id", ends[0] if isinstance(ends, list) else ends or 0)
    if any(probe.address.name == "logits" for probe in probes):
        options["logits_to_keep"] = 0  # all positions of the prompt, not only its last
    return options


def _check_length(run: PassRun, prompt: int, options: dict[str, Any]) -> None:
    longest, new = run.sizes.get("P", 1 << 62), options["max_new_tokens"]
    if prompt + new > longest:
        raise BadTokens(
            f"{prompt} tokens and {new} new ones are too long: the model reads at most {longest}.",
            f"Ask for at most {max(0, longest - prompt)} new tokens, or cut the prompt.",
        )


@contextmanager
def _each_step(passes: Passes, run: PassRun, inputs: Inputs) -> Iterator[None]:
    """Tell the run what each step of a generation reads, and stop when asked to."""
    step, seen = -1, 0

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal step, seen
        step += 1
        passes.agree_to_go_on(run)
        passes.interrupts.phase = "generating"
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        seen += ids.shape[1]
        mask = _mask_so_far(inputs, seen)
        read = run.team.gather(ids, Layout())
        run.begin(
            ids if read is None else read,
            mask,
            positions_of(mask)[:, -ids.shape[1] :],
            step,
            (ids.shape[0], ids.shape[1]),
        )

    handle = passes.model.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _mask_so_far(inputs: Inputs, seen: int) -> Tensor:
    """The mask of prompt and new tokens, [b, seen]."""
    mask = inputs.mask
    assert mask is not None
    return torch.nn.functional.pad(mask, (0, seen - mask.shape[1]), value=True)


def left_padded(inputs: Inputs) -> Inputs:
    """The batch with its padding moved to the left."""
    ids, mask = inputs.ids, inputs.mask
    if mask is None:
        return Inputs(ids, torch.ones_like(ids, dtype=torch.bool), inputs.positions)
    order = mask.long().argsort(dim=1, stable=True)
    moved = mask.gather(1, order)
    return Inputs(ids.gather(1, order), moved, inputs.positions.gather(1, order))


# -- replicas ------------------------------------------------------------------------------------


def _together(run: PassRun, options: dict[str, Any], prompt: int) -> dict[str, Any]:
    """Options that make all replicas stop at the same step, as one process with all rows would."""
    ends = options.get("eos_token_id", run.bound.model.generation_config.eos_token_id)  # type: ignore[union-attr]
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    pad = options.get("pad_token_id", run.bound.model.generation_config.pad_token_id)  # type: ignore[union-attr]
    finished = _Finished(ends, prompt)
    return {
        "eos_token_id": None,
        "logits_processor": LogitsProcessorList([_PadFinished(finished, pad)]),
        "stopping_criteria": StoppingCriteriaList([_AllFinished(finished, run)]),
    }


class _Finished:
    """Which rows have ended."""

    def __init__(self, ends: list[int], prompt: int) -> None:
        self.ends, self.prompt = ends, prompt

    def __call__(self, ids: Tensor) -> Tensor:
        new = ids[:, self.prompt :]
        ended = torch.zeros_like(new, dtype=torch.bool)
        for end in self.ends:
            ended |= new == end
        return ended.any(1)


class _PadFinished(LogitsProcessor):
    """Rows that have ended go on with padding."""

    def __init__(self, finished: _Finished, pad: int) -> None:
        self.finished, self.pad = finished, pad

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        done = self.finished(input_ids)
        scores = scores.clone()
        scores[done] = -torch.inf
        scores[done, self.pad] = 0.0
        return scores


class _AllFinished(StoppingCriteria):
    """Ends when every row of every replica has ended."""

    def __init__(self, finished: _Finished, run: PassRun) -> None:
        self.finished, self.run = finished, run

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        going = bool((~self.finished(input_ids)).any())
        over = not self.run.mesh.everyone.any(going)
        return torch.full((len(input_ids),), over, device=input_ids.device, dtype=torch.bool)
