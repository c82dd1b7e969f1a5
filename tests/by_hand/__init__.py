"""Every point of the table, computed by hand: what the families are compared with.

A checkpoint is loaded by plain transformers, in float64; its forward is written out here, one
architecture at a time, with a tap at every point. A tap keeps the value, or puts another in its
place. Nothing of ours is imported, and no module's forward is called; that the writing is right is
shown by transformers' own logits and by plain hooks on its modules (see ``test_families``).
"""

from __future__ import annotations

from pathlib import Path

from tests.by_hand.arithmetic import Edit, Taps
from tests.by_hand.base import ByHand, Stored
from tests.by_hand.convolution import Lfm2, Lfm2Moe
from tests.by_hand.decoders import (
    Apertus,
    Arcee,
    Cohere,
    Cohere2,
    Exaone4,
    Glm,
    Glm4,
    GptOss,
    Granite,
    Helium,
    Hunyuan,
    Ministral3,
    Nemotron,
    Olmo3,
    Olmoe,
    Phi,
    SmolLM3,
    StableLM,
    StarCoder2,
    Windows,
)
from tests.by_hand.early import GPTJ, OPT, Bloom, GPTNeo
from tests.by_hand.gpt import GPT2, GPTNeoX
from tests.by_hand.linear import OlmoHybrid, Qwen3Next, Qwen35, Qwen35Moe
from tests.by_hand.llama import Gemma2, Llama, Mixtral
from tests.by_hand.mamba import Bamba, FalconH1, GraniteHybrid, Jamba, Mamba, Mamba2
from tests.by_hand.nemotron_h import NemotronH
from tests.by_hand.relatives import Gemma3, Mistral, Olmo2, Phi3, Qwen3, Qwen3Moe

ARCHITECTURES: dict[str, type[ByHand]] = {
    "gpt2": GPT2,
    "gpt_neox": GPTNeoX,
    "llama": Llama,
    "gemma2": Gemma2,
    "mixtral": Mixtral,
    "mistral": Mistral,
    "qwen2": Llama,
    "qwen3": Qwen3,
    "qwen3_moe": Qwen3Moe,
    "gemma3_text": Gemma3,
    "olmo2": Olmo2,
    "phi3": Phi3,
    "smollm3": SmolLM3,
    "seed_oss": Llama,
    "helium": Helium,
    "ernie4_5": Helium,
    "ministral": Windows,
    "ministral3": Ministral3,
    "arcee": Arcee,
    "starcoder2": StarCoder2,
    "nemotron": Nemotron,
    "apertus": Apertus,
    "olmo3": Olmo3,
    "exaone4": Exaone4,
    "glm": Glm,
    "glm4": Glm4,
    "granite": Granite,
    "cohere": Cohere,
    "cohere2": Cohere2,
    "phi": Phi,
    "stablelm": StableLM,
    "hunyuan_v1_dense": Hunyuan,
    "gptj": GPTJ,
    "gpt_neo": GPTNeo,
    "opt": OPT,
    "bloom": Bloom,
    "olmoe": Olmoe,
    "gpt_oss": GptOss,
    "qwen3_5_text": Qwen35,
    "qwen3_5_moe_text": Qwen35Moe,
    "qwen3_next": Qwen3Next,
    "olmo_hybrid": OlmoHybrid,
    "bamba": Bamba,
    "falcon_h1": FalconH1,
    "granitemoehybrid": GraniteHybrid,
    "jamba": Jamba,
    "lfm2": Lfm2,
    "lfm2_moe": Lfm2Moe,
    "nemotron_h": NemotronH,
    "mamba": Mamba,
    "mamba2": Mamba2,
}
"""By transformers' ``model_type``."""


def by_hand(family: str, path: Path) -> ByHand:
    """The model of a checkpoint."""
    return ARCHITECTURES[family](path)


__all__ = ["ARCHITECTURES", "ByHand", "Edit", "Stored", "Taps", "by_hand"]
