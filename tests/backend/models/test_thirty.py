"""The thirty families that people used most in 2026, by papers, lenses and dictionaries: all have their points by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import AutoConfig

from garcon_backend.models.families import family_of
from garcon_jupyter.model_files.multimodal import wrapper_of
from tests.backend.cases import EVERY

THIRTY: dict[str, tuple[str, ...]] = {
    "Llama 3, R1-distill, SmolLM2": ("llama",),
    "Qwen 2.5": ("qwen2",),
    "Gemma 3, 4B to 27B": ("gemma3",),
    "Gemma 3, 270M and 1B": ("gemma3_text",),
    "Qwen 3": ("qwen3",),
    "Gemma 2": ("gemma2",),
    "GPT-2": ("gpt2",),
    "Pythia": ("gpt_neox",),
    "gpt-oss": ("gpt_oss",),
    "Qwen 3.5 and 3.6": ("qwen3_5", "qwen3_5_text"),
    "Qwen 3.5 and 3.6, mixtures": ("qwen3_5_moe", "qwen3_5_moe_text"),
    "Qwen 3, mixtures": ("qwen3_moe",),
    "OLMo 3": ("olmo3",),
    "OLMo 2": ("olmo2",),
    "Gemma 4": ("gemma4", "gemma4_text"),
    "DeepSeek V3, R1": ("deepseek_v3",),
    "DeepSeek V3.2": ("deepseek_v32",),
    "Mistral 7B, Nemo": ("mistral",),
    "Mistral Small 3": ("mistral3",),
    "Ministral 3": ("ministral3",),
    "Mixtral": ("mixtral",),
    "GLM 4.5 to 4.7": ("glm4_moe", "glm4_moe_lite"),
    "GLM 5": ("glm_moe_dsa",),
    "Llama 4": ("llama4", "llama4_text"),
    "Phi 3 and 4": ("phi3",),
    "Qwen3-Next": ("qwen3_next",),
    "Nemotron-H, Nemotron 3": ("nemotron_h",),
    "Granite 3 and 4": ("granite", "granitemoehybrid"),
    "SmolLM3": ("smollm3",),
    "Mamba 2, Falcon-H1": ("mamba2", "falcon_h1"),
}
"""What people call them: the ``model_type`` of their configurations."""

UNLIKE_THEIR_WRAPPER = {"qwen3_5", "qwen3_5_moe"}
"""Multimodal checkpoints that are tested by their text part alone."""

README = Path(__file__).parents[3] / "README.md"


def test_they_are_thirty_and_the_readme_says_so() -> None:
    assert len(THIRTY) == 30
    said = " ".join(README.read_text().split())
    assert "thirty of the thirty" in said
    for name in THIRTY:
        assert name in said, name


@pytest.mark.parametrize("name", THIRTY)
def test_each_has_its_points_by_name_and_is_held_against_a_forward_by_hand(name: str) -> None:
    tested = {family for family, _ in EVERY.values()}
    for kind in THIRTY[name]:
        config = AutoConfig.for_model(kind)
        family = family_of(config)
        assert family is not None, kind
        assert kind in tested or (kind in UNLIKE_THEIR_WRAPPER and wrapper_of(config)), kind


def test_another_has_none() -> None:
    assert family_of(AutoConfig.for_model("biogpt")) is None


def test_the_readme_counts_families() -> None:
    from garcon_backend.models.families import FAMILIES

    [said] = re.findall(r"for (\d+) families of architectures", README.read_text())
    assert int(said) == len({family.name for family in FAMILIES.values()})
