"""What became of a checkpoint's weights: how many parameters the model has, and which weights it has no place for.

A bias that the configuration denies, a layer more than it counts: transformers leaves such weights out, and
prints them. Nobody reads what a server prints, so they are told with the model. Leftovers of which the
architecture knows that they are none of its weights (``_keys_to_ignore_on_load_unexpected``) stay unsaid.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from garcon_backend.models.config import brings_its_code
from garcon_jupyter.amounts import sized
from garcon_jupyter.model_files import own_code, quantised, weights

_ACCOUNT = "_garcon_account"  # attribute of a model

_DERIVED = re.compile(r"(attn|attention)\.(masked_)?bias$|\.inv_freq$|\.position_ids$")
"""Masks and angles, which old checkpoints keep beside the weights."""

NAMED = 3
"""Weights without a place that a sentence names."""


@dataclass(frozen=True)
class Account:
    """The whole model, over however many ranks.

    Attributes:
        parameters: how many numbers it has; tied ones count once.
        unused: names of the weights in the files that have no place in it.
        remarks: what else a user must know of how it was loaded, in sentences.
    """

    parameters: int
    unused: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, found: dict[str, Any]) -> Account:
        """Of a model that is whole, and what transformers says of its loading."""
        unused = sorted(name for name in found["unexpected_keys"] if not _DERIVED.search(name))
        return cls(sum(p.numel() for p in model.parameters()), tuple(unused))

    def notes(self) -> list[str]:
        """What a user must know, in sentences."""
        if not self.unused:
            return [*self.remarks]
        count = len(self.unused)
        named = ", ".join(self.unused[:NAMED]) + (", …" if count > NAMED else "")
        held, unused = ("1 weight has", "is") if count == 1 else (f"{count} weights have", "are")
        return [
            *self.remarks,
            f"{held} no place in the model that config.json describes, and {unused} not used: {named}",
        ]


def of_cut_model(model_class: Any, directory: Path, config: Any) -> Account:
    """The account of a model that no rank holds whole: read once more, without memory or numbers."""
    model, found = model_class.from_pretrained(
        directory,
        config=config,
        device_map="meta",
        output_loading_info=True,
        local_files_only=True,
        ignore_mismatched_sizes=True,
    )
    return Account.of(model, found)


def remarks(directory: Path, model: nn.Module) -> tuple[str, ...]:
    """What a user must know of a loaded model beside its weights: whose code it is, and what was unpacked."""
    said = []
    if own_code.model_class(directory):
        names = ", ".join(own_code.file_names(directory))
        runs = brings_its_code(type(model))
        said.append(
            f"its own code runs: {names}"
            if runs
            else f"the checkpoint brings code of its own, which is not run: {names}"
        )
    if packing := _packing(directory, model):
        said.append(packing)
    return tuple(said)


def _packing(directory: Path, model: nn.Module) -> str:
    """What became of packed weights, with the bytes that they take; nothing where none are packed."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    method = quantised.method_of(config)
    if method is None:
        return ""
    stored = sum(file.stat().st_size for file in weights.weight_files(directory))
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    bytes_ = f"{sized(held)} in memory, {sized(stored)} in the files"
    counts: Counter[str] = Counter()
    for parameter in model.parameters():
        counts[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    if quantised.is_unpacked(config):
        return f"its weights are stored as {method} and were unpacked into {counts.most_common(1)[0][0]}: {bytes_}"
    dtypes = ", ".join(name for name, _ in counts.most_common())
    return f"its weights stay packed as {method} (parameters are {dtypes}): {bytes_}"


def keep(model: nn.Module, account: Account) -> None:
    """Leave the account with the model."""
    setattr(model, _ACCOUNT, account)


def account_of(model: nn.Module) -> Account:
    """The account that was left with a model; of a module of the user's own, made of what it has."""
    account = getattr(model, _ACCOUNT, None)
    return account or Account(sum(p.numel() for p in model.parameters()), ())
