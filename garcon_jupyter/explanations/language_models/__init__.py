"""Language models that explain, simulate and judge: one protocol, and what speaks it.

    from garcon_jupyter.explanations import OpenAICompatible, ServedModel

    hosted = OpenAICompatible("https://api.example.com/v1", "some-model", key_variable="EXAMPLE_KEY")
    local = ServedModel(rmodel)  # any model that garcon serves, with no network

Not here: what a model is asked (``prompts``), and what is made of its answers.

``protocol``           what a language model is, to this room
``openai_compatible``  one behind an address that speaks OpenAI's protocol
``served``             one that Garçon serves
``functions``          one that is a function, for tests and for rules written by hand
``tokens_alone``       whether a model's tokenizer has the levels as single tokens
"""

from __future__ import annotations

from garcon_jupyter.explanations.language_models.functions import FunctionModel
from garcon_jupyter.explanations.language_models.openai_compatible import OpenAICompatible
from garcon_jupyter.explanations.language_models.protocol import (
    CHAT,
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    Completion,
    LanguageModel,
    NoUsableReply,
)
from garcon_jupyter.explanations.language_models.served import ServedModel

__all__ = [
    "CHAT",
    "PROMPT_LOGPROBS",
    "TOKEN_LOGPROBS",
    "Completion",
    "FunctionModel",
    "LanguageModel",
    "NoUsableReply",
    "OpenAICompatible",
    "ServedModel",
]
