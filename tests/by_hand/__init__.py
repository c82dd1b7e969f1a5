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
from tests.by_hand.fused import MPT, CodeGen, Falcon, GPTBigCode
from tests.by_hand.gemma3n import Gemma3n
from tests.by_hand.gemma4 import Gemma4
from tests.by_hand.gpt import GPT2, GPTNeoX
from tests.by_hand.kimi import KimiLinear
from tests.by_hand.kin import (
    BitNet,
    FlexOlmo,
    GraniteMoe,
    Jais2,
    MiniMaxM2,
    NanoChat,
    Olmo,
    Persimmon,
    PhiMoe,
    VaultGemma,
)
from tests.by_hand.latent import DeepSeekV2, DeepSeekV3, DeepSeekV32, Glm5, MiniCPM3
from tests.by_hand.lightning import MiniMax
from tests.by_hand.linear import OlmoHybrid, Qwen3Next, Qwen35, Qwen35Moe
from tests.by_hand.llama import Gemma2, Llama, Mixtral
from tests.by_hand.llama4 import Llama4
from tests.by_hand.mamba import Bamba, FalconH1, GraniteHybrid, Jamba, Mamba, Mamba2
from tests.by_hand.mixtures import Dots1, ErnieMoe, Glm4Moe, HunyuanMoe, Qwen2Moe
from tests.by_hand.multimodal import text_part
from tests.by_hand.nemotron_h import NemotronH
from tests.by_hand.relatives import Gemma3, Mistral, Olmo2, Phi3, Qwen3, Qwen3Moe
from tests.by_hand.zamba2 import Zamba2

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
    "olmo": Olmo,
    "flex_olmo": FlexOlmo,
    "vaultgemma": VaultGemma,
    "nanochat": NanoChat,
    "persimmon": Persimmon,
    "jais2": Jais2,
    "granitemoe": GraniteMoe,
    "phimoe": PhiMoe,
    "minimax_m2": MiniMaxM2,
    "internlm3": Llama,
    "bitnet": BitNet,
    "falcon": Falcon,
    "codegen": CodeGen,
    "mpt": MPT,
    "gpt_bigcode": GPTBigCode,
    "gemma3n_text": Gemma3n,
    "gemma4_text": Gemma4,
    "gemma4": text_part(Gemma4),
    "llama4_text": Llama4,
    "llama4": text_part(Llama4),
    "gemma3": text_part(Gemma3),
    "mistral3": text_part(Ministral3),
    "qwen2_vl": text_part(Llama),
    "qwen2_5_vl": text_part(Llama),
    "qwen3_vl": text_part(Qwen3),
    "qwen3_vl_moe": text_part(Qwen3Moe),
    "qwen2_moe": Qwen2Moe,
    "deepseek_v3": DeepSeekV3,
    "deepseek_v2": DeepSeekV2,
    "glm4_moe_lite": DeepSeekV3,
    "deepseek_v32": DeepSeekV32,
    "glm_moe_dsa": Glm5,
    "minicpm3": MiniCPM3,
    "glm4_moe": Glm4Moe,
    "dots1": Dots1,
    "ernie4_5_moe": ErnieMoe,
    "hunyuan_v1_moe": HunyuanMoe,
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
    "minimax": MiniMax,
    "kimi_linear": KimiLinear,
    "zamba2": Zamba2,
}
"""By transformers' ``model_type``."""


def by_hand(family: str, path: Path) -> ByHand:
    """The model of a checkpoint."""
    return ARCHITECTURES[family](path)


__all__ = ["ARCHITECTURES", "ByHand", "Edit", "Stored", "Taps", "by_hand"]
