"""Models that read images beside text: where the text part is in them, and what it is called by.

transformers wraps the language model of such a checkpoint: its modules lie deeper, and its configuration is one of
several inside the checkpoint's. What a table of points says of the language model alone holds inside the wrapper too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wrapper:
    """A multimodal architecture of transformers.

    Attributes:
        texts: the ``model_type`` of the text parts that it comes with.
        stem: where what a language model alone calls ``model`` is.
        head: where what it calls ``lm_head`` is.
        needs: packages without which transformers cannot build what sees images.
    """

    texts: tuple[str, ...]
    stem: str = "model.language_model"
    head: str = "lm_head"
    needs: tuple[str, ...] = ()

    def path(self, alone: str) -> str:
        """Where a module or parameter is whose path in the language model alone is given."""
        for start, here in (("model", self.stem), ("lm_head", self.head)):
            if alone == start or alone.startswith(f"{start}."):
                return here + alone[len(start) :]
        return alone

    def holds(self, path: str) -> bool:
        """Whether a path is of the text part."""
        return any(path == part or path.startswith(f"{part}.") for part in (self.stem, self.head))


WRAPPERS: dict[str, Wrapper] = {
    "gemma3": Wrapper(("gemma3_text",)),
    "gemma3n": Wrapper(("gemma3n_text",), needs=("timm", "PIL")),
    "gemma4": Wrapper(("gemma4_text",)),
    "llama4": Wrapper(("llama4_text",), "language_model.model", "language_model.lm_head"),
    "mistral3": Wrapper(("mistral", "ministral3")),
    "qwen2_vl": Wrapper(("qwen2_vl_text",)),
    "qwen2_5_vl": Wrapper(("qwen2_5_vl_text",)),
    "qwen3_vl": Wrapper(("qwen3_vl_text",)),
    "qwen3_vl_moe": Wrapper(("qwen3_vl_moe_text",)),
    "qwen3_5": Wrapper(("qwen3_5_text",)),
    "qwen3_5_moe": Wrapper(("qwen3_5_moe_text",)),
}
"""The multimodal architectures that are served by their text part, by the ``model_type`` of the checkpoint."""


def wrapper_of(config: Any) -> Wrapper | None:
    """How a configuration wraps its text part; None where it is one of text alone."""
    return WRAPPERS.get(getattr(config, "model_type", ""))


def text_config(config: Any) -> Any:
    """The configuration of the text part; of a model of text alone, its own."""
    return config if wrapper_of(config) is None else config.get_text_config(decoder=True)


PLACEHOLDERS = (
    *("image_token_id", "image_token_index", "video_token_id", "video_token_index"),
    *("audio_token_id", "audio_token_index"),
)
"""What configurations call the tokens in whose places pieces of images, videos and sounds are put."""


def placeholders(config: Any) -> dict[int, str]:
    """Ids of the tokens that stand for pieces of something other than text: "image", "video" or "audio"."""
    if wrapper_of(config) is None:
        return {}
    found = {getattr(config, name, None): name.partition("_")[0] for name in PLACEHOLDERS}
    return {id: kind for id, kind in found.items() if isinstance(id, int) and id >= 0}
