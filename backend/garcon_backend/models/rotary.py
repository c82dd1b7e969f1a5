"""Rotary positions whose frequencies depend on how long a text is, and contexts that they extend.

Two ways to read texts longer than a model was trained on choose frequencies by the text's length: longrope (Ding et
al. 2024; Phi-3) has two sets, dynamic NTK computes them. transformers takes the longest row of a batch for the length of all,
and dynamic NTK remembers the longest text of before: what a short text is read as would depend on its neighbours.
Here a row is turned by its own length, whatever else is in the batch and whatever was read before: the module is
called once for the rows of each set of frequencies.

Some models with longrope read their text again when a generation passes the switch between the two sets, as the
keys that are kept were turned by the other. transformers goes by the width of the batch; here it is done when a row
passes, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin

from garcon_backend.hook_sites.attention import fresh_cache
from garcon_backend.libraries.transformers_internals import CACHE
from garcon_jupyter.model_files.multimodal import text_config

EXTENDING = frozenset({"linear", "dynamic", "yarn", "longrope", "llama3"})
"""Kinds of rotary positions that read more than what ``max_position_embeddings`` may say."""


def extends_context(config: Any) -> bool:
    """Whether rotary positions of a configuration are made for longer texts, in some layers at least."""
    return any(kind in EXTENDING for kind in _kinds(getattr(config, "rope_parameters", None)))


def _kinds(parameters: Any) -> Iterator[str]:
    """Kinds of rotary positions: of all layers, or by the type of layer."""
    if isinstance(parameters, dict):
        yield str(parameters.get("rope_type", ""))
        for inner in parameters.values():
            yield from _kinds(inner)


def by_length(kind: Any) -> bool:
    """Whether a kind of rotary positions chooses frequencies by length, as transformers' own test is."""
    return isinstance(kind, str) and ("dynamic" in kind or kind == "longrope")


def turn_each_row_by_its_length(model: nn.Module) -> None:
    """Let the rotary embeddings of a model that go by length go by that of each row."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        found = kinds.values() if isinstance(kinds, dict) else [kinds]
        if any(map(by_length, found)):
            module.forward = _row_by_row(module, module.forward)


def _row_by_row(module: Any, inner: Callable[..., Any]) -> Callable[..., Any]:
    def forward(x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        layer_type = kwargs.get("layer_type", args[0] if args else None)
        kinds = module.rope_type
        kind = kinds[layer_type] if isinstance(kinds, dict) else kinds
        if not by_length(kind) or position_ids.dim() != 2:
            return inner(x, position_ids, *args, **kwargs)
        sets = _sets(module, kind, position_ids, layer_type)
        turned = []
        for which in sets.unique().tolist():
            if kind != "longrope":
                _forget_longer(module, layer_type)
            rows = (sets == which).nonzero()[:, 0]
            turned.append((rows, inner(x, position_ids[rows], *args, **kwargs)))
        return turned[0][1] if len(turned) == 1 else _together(turned)

    return forward


def _sets(module: Any, kind: str, positions: Tensor, layer_type: str | None) -> Tensor:
    """A number for each row; rows of one number share their frequencies."""
    lengths = positions.max(1).values + 1
    if kind != "longrope":
        return lengths.clamp(min=module.original_max_seq_len)
    parameters = module.config.rope_parameters
    parameters = parameters if layer_type is None else parameters[layer_type]
    longer: Tensor = lengths > parameters["original_max_position_embeddings"]
    return longer.long()


def _forget_longer(module: Any, layer_type: str | None) -> None:
    """Put the frequencies back that dynamic NTK begins with."""
    prefix = "" if layer_type is None else f"{layer_type}_"
    beginning = getattr(module, f"{prefix}original_inv_freq")
    getattr(module, f"{prefix}inv_freq").data = beginning.clone()
    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _together(turned: list[tuple[Tensor, Any]]) -> Any:
    """Rows in their order: of a tensor, or of each of several, such as cosines and sines."""
    first = turned[0][1]
    if not isinstance(first, Tensor):
        parts = [_together([(rows, out[i]) for rows, out in turned]) for i in range(len(first))]
        return type(first)(parts)
    order = torch.cat([rows for rows, _ in turned]).argsort()
    return torch.cat([out for _, out in turned])[order]


# -- generation ----------------------------------------------------------------------------------


@contextmanager
def read_again_when_a_row_passes(model: Any, mask: Tensor) -> Iterator[None]:
    """While this lasts, a generation begins its cache anew when any row passes the switch of longrope.

    Args:
        mask: of all prompts, padded on the left, [b, p]; the same on all ranks, so that all do alike.
    """
    switch = _switch(model)
    if switch is None:
        yield
        return
    inner = model.prepare_inputs_for_generation
    padding = mask.shape[1] - mask.sum(1)

    def prepare(input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        cache = kwargs.get(CACHE)
        kept = 0 if cache is None else int(cache.get_seq_length())
        passes = (kept - padding <= switch) & (input_ids.shape[1] - padding > switch)
        if kept and bool(passes.any()):
            kwargs[CACHE], kwargs["next_sequence_length"] = None, None
        inputs: dict[str, Any] = inner(input_ids, **kwargs)
        if inputs.get(CACHE) is None and kwargs.get("use_cache", True):
            inputs[CACHE] = fresh_cache(model)
        return inputs

    model.prepare_inputs_for_generation = prepare
    try:
        yield
    finally:
        del model.prepare_inputs_for_generation


def _switch(model: Any) -> int | None:
    """The length beyond which a model that reads its text again does so; None for all others."""
    own = getattr(type(model), "prepare_inputs_for_generation", None)
    if own in (None, GenerationMixin.prepare_inputs_for_generation):
        return None
    config = text_config(model.config)
    if "longrope" not in _kinds(getattr(config, "rope_parameters", None)):
        return None
    return getattr(config, "original_max_position_embeddings", None)
