"""The checkpoints that families are tested on, each served by us and computed by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests import by_hand, checkpoints
from tests.backend.bare_rank import BareRank

IDS = (torch.arange(18).view(2, 9) * 37 + 11) % checkpoints.VOCABULARY
MASK = torch.ones_like(IDS)
MASK[1, 6:] = 0
WEIGHTS = torch.randn(2, 9, checkpoints.VOCABULARY, generator=torch.Generator().manual_seed(5))

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in ("gpt2", "gpt_neox", "llama", "gemma2", "mixtral")},
    "gpt_neox_sequential": ("gpt_neox", {"use_parallel_residual": False}),
}
"""name → (family, configuration that differs from the table of checkpoints)"""

RELATIVES: dict[str, tuple[str, dict[str, Any]]] = {
    family: (family, {})
    for family in (*checkpoints.FAMILIES, *checkpoints.MULTIMODAL)
    if family not in CASES
}
RELATIVES["cohere_normed"] = ("cohere", {"use_qk_norm": True})
RELATIVES["falcon_40b"] = ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2})
RELATIVES["falcon_rw"] = (
    "falcon",
    {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
)
RELATIVES["gpt_bigcode_many"] = ("gpt_bigcode", {"multi_query": False})
"""Families that differ from these by a few lines, and other shapes of some."""

EVERY = CASES | RELATIVES

CUT_AS_OTHERS = list(RELATIVES)[list(RELATIVES).index("smollm3") :]
"""Families whose modules are cut as those before them are: two layouts say what can be said."""

NO_PLAN = (
    *("stablelm", "hunyuan_v1_dense", "gptj", "gpt_neo", "bloom", "opt", "persimmon", "bitnet"),
    *("falcon", "falcon_40b", "falcon_rw", "codegen", "mpt", "gpt_bigcode", "gpt_bigcode_many"),
    *("gemma3n_text", "qwen3_vl_moe", "mamba", "mamba2", "bamba", "lfm2", "falcon_h1"),
    "zamba2",
)
"""Families without a plan for tensor parallelism."""

NO_STAGES = ("gemma4_text", "gemma3n_text", "glm_moe_dsa", "zamba2")
"""Models whose layers hand on, or are given, more than the residual stream, so that they are not cut into stages."""

OWN_ATTENTION = ("gptj", "gpt_neo", "bloom", "falcon", "falcon_40b", "falcon_rw", "codegen", "mpt")
"""Families whose attention is a class of its own, which can be looked into at its softmax at most."""

BARE = ("olmo", "nanochat")
"""Families whose norms have no parameters."""


@dataclass
class Case:
    """One checkpoint, served by us and computed by hand."""

    name: str
    path: Path
    ours: BareRank
    theirs: by_hand.ByHand
    clean: by_hand.Taps

    @property
    def rounding(self) -> int:
        """How many times as far as others it may be off: a recurrence adds up what float32 rounds at each token."""
        return 5 if "layers.{i}.mixer.state_out" in self.ours.catalog.layers else 1

    @property
    def edited_layers(self) -> tuple[int, ...]:
        # Gemma 2's layers see a window and everything by turns; hybrids attend in the second, and not in the third.
        kinds = self.ours.catalog.kinds
        if self.name == "nemotron_h":  # whose layers are one thing each
            return (0, 1, 2, 3)
        both = "gemma" in self.name or "layers.{i}.mixer.in" in self.ours.catalog.layers
        return (1, 2) if both and kinds[1] != kinds[2] else (1,)


def load(name: str, directory: Path) -> Case:
    """Make the checkpoint of a case and load it on both sides."""
    family, config = EVERY[name]
    path = checkpoints.make(family, directory, **config)
    theirs = by_hand.by_hand(family, path)
    clean = theirs.run(IDS, MASK)
    loss(clean.values["logits"]).backward()
    return Case(name, path, BareRank(path), theirs, clean)


def loss(logits: Tensor, values: Any = ()) -> Tensor:
    """Every logit of every real token matters, each differently."""
    return (logits * (WEIGHTS * MASK[:, :, None]).to(logits.dtype)).sum()


def apart(ours: Tensor, theirs: Tensor) -> float:
    """max|a−b| / max|b|; infinite where shapes differ. Of scores, those that are not masked."""
    a, b = ours.detach().double(), theirs.detach().double()
    if a.shape != b.shape or bool(((a < -1e30) != (b < -1e30)).any()):
        return float("inf")
    seen = b >= -1e30
    if not b[seen].numel() or not (a[seen].any() or b[seen].any()):  # an expert of no token
        return 0.0
    return float((a - b)[seen].abs().max() / b[seen].abs().max())


def wrong(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> dict[str, float]:
    """Which of ours are not theirs, and how far they are apart."""
    found = {name: apart(value, theirs[name]) for name, value in ours.items()}
    return {name: distance for name, distance in found.items() if not distance <= tolerance}


NORMALISED_AGAIN = ("gemma4_text", "gemma4")
"""Families that normalise queries, keys and values: how far the norm before them scales its input makes no difference."""


def with_effect(case: Case, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was found at points, without those that can make no difference but rounding."""
    if case.name not in NORMALISED_AGAIN:
        return found
    return {n: value for n, value in found.items() if not n.endswith("attn.norm.scale")}


def changed(value: Tensor, row: int = 0) -> Tensor:
    """The value with one position of a row changed: an expert's first token, a head."""
    new = value.clone()
    if not len(value):  # an expert of no token
        return new
    at: Any = (row, 2) if value.dim() == 3 else (row, 1) if value.dim() == 4 else (row,)
    if not value.is_floating_point():
        new[at] = (new[at] + 1) % 4
    elif value.shape[-1] == 1:  # a denominator stays away from zero
        new[at] = new[at] * 0.5 + 0.3
    else:
        noise = torch.randn(new[at].shape, generator=torch.Generator().manual_seed(3))
        new[at] = new[at] * 0.5 + 0.3 * noise.to(value.dtype)
    return new


def changed_in_place(value: Tensor, row: int = 0) -> None:
    value.copy_(changed(value, row))


def cancelled(case: Case) -> set[str]:
    """Points that change nothing after them: BitNet norms the neurons, which scale with what its MLP reads."""
    return {f"layers.{i}.mlp.norm.scale" for i in range(4)} if case.name == "bitnet" else set()


def edited_points(case: Case) -> list[str]:
    """Points of the edited layers, and those of none; of all experts the busiest."""
    names = []
    for name in case.ours.catalog.names():
        address = case.ours.catalog.point(name)
        if address.layer not in (*case.edited_layers, None):
            continue
        if address.expert is not None:
            mine = [n for n in case.clean.values if n.startswith(name.split("experts")[0] + "exp")]
            if name != max(mine, key=lambda n: len(case.clean.values[n])):
                continue
        names.append(name)
    return names


def gradient_of(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad
