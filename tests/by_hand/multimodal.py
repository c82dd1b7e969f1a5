"""The text part of a model that reads images, too: written as the same model alone is, over the modules inside."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoModelForImageTextToText

from tests.by_hand.base import ByHand


class TextPart(nn.Module):
    """What the writing of a language model needs of one, under the names that it has alone."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        alone = getattr(whole, "language_model", None)  # Llama 4 has one with its own head
        self.model = whole.model.language_model if alone is None else alone.model
        self.lm_head = whole.lm_head if alone is None else alone.lm_head
        self.config = whole.config.text_config


def text_part(alone: type[ByHand]) -> type[ByHand]:
    """The writing of a model alone, over the text part of a multimodal checkpoint."""
    return type(alone.__name__, (alone,), {"auto": AutoModelForImageTextToText, "part": TextPart})
