"""What became of a checkpoint's weights: how many parameters the model has, and which weights it has no place for.

A bias that the configuration denies, a layer more than it counts: transformers leaves such weights out, and
prints them. Nobody reads what a server prints, so they are told with the model. Leftovers of which the
architecture knows that they are none of its weights (``_keys_to_ignore_on_load_unexpected``) stay unsaid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

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
    """

    parameters: int
    unused: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, found: dict[str, Any]) -> Account:
        """Of a model that is whole, and what transformers says of its loading."""
        unused = sorted(name for name in found["unexpected_keys"] if not _DERIVED.search(name))
        return cls(sum(p.numel() for p in model.parameters()), tuple(unused))

    def notes(self) -> list[str]:
        """What a user must know, in sentences."""
        if not self.unused:
            return []
        count = len(self.unused)
        named = ", ".join(self.unused[:NAMED]) + (", …" if count > NAMED else "")
        held, unused = ("1 weight has", "is") if count == 1 else (f"{count} weights have", "are")
        return [
            f"{held} no place in the model that config.json describes, and {unused} not used: {named}"
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


def keep(model: nn.Module, account: Account) -> None:
    """Leave the account with the model."""
    setattr(model, _ACCOUNT, account)


def account_of(model: nn.Module) -> Account:
    """The account that was left with a model; of a module of the user's own, made of what it has."""
    account = getattr(model, _ACCOUNT, None)
    return account or Account(sum(p.numel() for p in model.parameters()), ())
