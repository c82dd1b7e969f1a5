"""Generating tokens, with probes on every step.

transformers' own ``generate`` runs on every rank in unison, over the whole batch: all see the last stage's logits of
all rows, so all choose the same next tokens, and edits reach the key-value cache through which later steps see them.
Only the forwards are divided: each replica reads its own rows. So whatever is asked of ``generate`` (beams, criteria,
sampling) means on many ranks what it means in one process.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from garcon_backend.execution.generation_options import REFUSALS, Settled, refusal, settled
from garcon_backend.execution.inputs import Inputs, positions_of
from garcon_backend.execution.passes import Passes
from garcon_backend.execution.token_choice import TokenChoice
from garcon_backend.hook_sites.attention import VisitedCache, fresh_cache
from garcon_backend.libraries.transformers_internals import CACHE, positions_kept
from garcon_backend.models.rotary import read_again_when_a_row_passes
from garcon_backend.models.sharding import shared_logits
from garcon_backend.probing.probed_pass import ProbedPass
from garcon_backend.probing.user_calls import LoadedProbe
from garcon_jupyter.errors import BadRequest, BadTokens, GarconError
from garcon_jupyter.wire import requests as wire


def generate(
    passes: Passes, request: wire.Generate, inputs: Inputs, probes: Sequence[LoadedProbe]
) -> wire.GeneratedTokens | None:
    """Prompts and continuations on the rank that answers; rows padded on the left, as generation needs it."""
    model: Any = passes.rank.model
    if not hasattr(model, "generate"):
        raise BadRequest("This model cannot generate.", "Only transformers' causal models can.")
    inputs = left_padded(inputs)
    assert inputs.mask is not None
    asked = settled(model, request.options, passes.rank.tokenizer, passes.rank.mesh)
    _check_length(passes, inputs.ids.shape[1], asked)
    every_logit = any(probe.address.name == "logits" for probe in probes)
    if every_logit:
        asked.options["logits_to_keep"] = 0  # all positions of the prompt, not only its last
    with (
        passes.open(request, inputs, probes, caching=True) as probed,
        torch.no_grad(),
        shared_logits(model),
        _each_forward(passes, probed, every_logit),
        read_again_when_a_row_passes(model, inputs.mask),
    ):
        torch.manual_seed(request.seed)
        choice = TokenChoice(passes, probed, asked, len(inputs.ids) * asked.copies)
        fresh = fresh_cache(model) if asked.cached else None
        cache = {} if fresh is None else {CACHE: fresh}
        try:
            output = model.generate(
                inputs.ids,
                attention_mask=inputs.mask.long(),
                **asked.options,
                **choice.options(),
                **cache,
            )
        except REFUSALS as error:
            if probed.tokens is not None or isinstance(error, GarconError):
                raise
            raise refusal(model, request.options, error) from None  # on every rank: nothing ran
    return _answer(inputs.mask, output, choice) if passes.answers else None


def _check_length(passes: Passes, prompt: int, asked: Settled) -> None:
    longest, new = passes.rank.bound.catalog.sizes.get("P", 1 << 62), asked.new_tokens(prompt)
    if prompt + new > longest:
        raise BadTokens(
            f"{prompt} tokens and {new} new ones are too long: the model reads at most {longest}.",
            f"Ask for at most {max(0, longest - prompt)} new tokens, or cut the prompt.",
        )


def _answer(prompts: Tensor, output: Any, choice: TokenChoice) -> wire.GeneratedTokens:
    """What is answered of transformers' output: a row's text ends where it ended, whatever follows there."""
    ids = output.sequences
    mask = prompts.repeat_interleave(len(ids) // len(prompts), 0)
    new = ids.shape[1] - mask.shape[1]
    beams = output.get("beam_indices")  # of each new token, the beam that it is from; else -1
    real = choice.real(mask.shape[1], new) if beams is None else beams != -1
    return wire.GeneratedTokens(
        ids,
        torch.cat([mask, real], 1),
        _by_step(output.get("scores")),
        _by_step(output.get("logits")),
        output.get("sequences_scores"),
        beams if output.get("scores") is not None else None,
    )


def _by_step(values: Sequence[Tensor] | None) -> Tensor | None:
    """What transformers keeps of each step, as one tensor."""
    return torch.stack(tuple(values)) if values else None


def left_padded(inputs: Inputs) -> Inputs:
    """The batch with its padding moved to the left."""
    ids, mask = inputs.ids, inputs.mask
    if mask is None:
        return Inputs(ids, torch.ones_like(ids, dtype=torch.bool), inputs.positions)
    order = mask.long().argsort(dim=1, stable=True)
    moved = mask.gather(1, order)
    return Inputs(ids.gather(1, order), moved, inputs.positions.gather(1, order))


# -- the forwards of a generation ----------------------------------------------------------------


@contextmanager
def _each_forward(passes: Passes, probed: ProbedPass, every_logit: bool) -> Iterator[None]:
    """Tell the run what each forward of a generation reads, and stop when asked to.

    With `every_logit` all positions of a prompt have theirs, though some models say by their configuration how many to keep.

    What a forward reads is what it is given: a text may be read again, several candidates may be read at once and
    those that were wrong be taken back, and guidance reads a text of its own beside.
    """
    model: Any = passes.rank.model
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    step = -1
    read: Tensor | None = None  # which positions a state has in it that does not count them

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal step, read
        step += 1
        passes.agree_to_go_on(probed)
        passes.rank.interrupts.phase = "generating"
        if args:
            kwargs = {"input_ids": args[0], **kwargs}
        if every_logit and "logits_to_keep" in kwargs:
            kwargs = {**kwargs, "logits_to_keep": 0}
        cache = kwargs.get(CACHE)
        if cache is None and kwargs.get("use_cache") is True:
            # The model would make one itself, which edits of keys do not reach.
            cache = fresh_cache(model)
            kwargs = kwargs if cache is None else {**kwargs, CACHE: cache}
        _reorder_mine(probed, cache)
        probed.caching = isinstance(cache, VisitedCache)
        ids = kwargs.get("input_ids")
        if ids is None:
            raise BadRequest("This model's generate reads no tokens.", "Probe forwards instead.")
        mask = _mask_of(kwargs)
        if _keeps_no_count(kwargs) and read is not None:
            mask = torch.cat([read, mask[:, -ids.shape[1] :]], 1)
        read = mask
        positions = _positions_of(kwargs, mask, takes_positions)
        kwargs = _scattered(probed, kwargs)
        probed.begin(ids, mask, positions, step, tuple(kwargs["input_ids"].shape))
        return (), kwargs

    def after(module: Any, args: Any, output: Any) -> None:
        output.logits = probed.gather_group.all_gather_rows(output.logits)

    handles = [model.register_forward_pre_hook(before, with_kwargs=True, prepend=True)]
    if probed.gather_group.replicas.size > 1:
        handles.append(model.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _past(kwargs: dict[str, Any]) -> int:
    """How many positions the cache of a forward holds; 0 of one that does not count them."""
    cache = kwargs.get(CACHE)
    return 0 if cache is None else positions_kept(cache) or 0


def _keeps_no_count(kwargs: dict[str, Any]) -> bool:
    """Whether a forward is given a state that does not count which positions it has read."""
    cache = kwargs.get(CACHE)
    beside = kwargs.get("cache_params") is not None
    return beside or (cache is not None and positions_kept(cache) is None)


def _mask_of(kwargs: dict[str, Any]) -> Tensor:
    """Which of the positions that a forward attends to are no padding, [b, past + p]."""
    ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask.bool()
    return torch.ones(len(ids), _past(kwargs) + ids.shape[1], dtype=torch.bool, device=ids.device)


def _positions_of(kwargs: dict[str, Any], mask: Tensor, takes_positions: bool) -> Tensor:
    """The position of each token that a forward reads, [b, p]: what it is given, or what it counts itself."""
    ids, given = kwargs["input_ids"], kwargs.get("position_ids")
    if given is None and takes_positions:
        given = torch.arange(ids.shape[1], device=ids.device)[None] + _past(kwargs)
    if given is None:  # a model that knows of positions by the mask alone, or of none
        given = positions_of(mask)
    if given.dim() == 3:  # of several kinds, the first of which counts texts
        given = given[0]
    return given[:, -ids.shape[1] :].expand(ids.shape)


# -- replicas ------------------------------------------------------------------------------------


def _scattered(probed: ProbedPass, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a forward of the whole batch is given, cut to the rows of this replica."""
    if probed.gather_group.replicas.size == 1:
        return kwargs
    rows = len(kwargs["input_ids"])
    if rows % probed.gather_group.rows:
        raise BadRequest(
            f"{rows} texts are to be read for {probed.gather_group.rows} prompts, which cannot be divided over replicas.",
            "Give as many of them as there are prompts, or launch with dp=1.",
        )

    def mine(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() < 2:
            return value
        dim = 1 if name == "position_ids" and value.dim() == 3 else 0
        if value.shape[dim] != rows:
            return value
        return probed.gather_group.scatter_rows(value.transpose(0, dim)).transpose(0, dim)

    return {name: mine(name, value) for name, value in kwargs.items()}


def _reorder_mine(probed: ProbedPass, cache: Any) -> None:
    """Let a cache take beams as they are numbered over the whole batch; those of a prompt are all on one replica."""
    if probed.gather_group.replicas.size == 1 or cache is None or "reorder_cache" in vars(cache):
        return
    reorder = cache.reorder_cache

    def reorder_mine(beams: Tensor) -> None:
        copies = len(beams) // probed.gather_group.rows
        within = probed.gather_group.scatter_rows(beams) % copies
        first = torch.arange(probed.gather_group.local, device=beams.device).repeat_interleave(
            copies
        )
        reorder(first * copies + within)

    cache.reorder_cache = reorder_mine
