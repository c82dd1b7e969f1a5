"""Small random checkpoints on disk, one per architecture family, for the tests.

A checkpoint made by :func:`make` is a directory as ``save_pretrained`` writes it: ``config.json``,
safetensors and a tokenizer with a chat template. Its numbers are random but its dimensions are
chosen so that a mistake shows:

* query heads H and key/value heads K differ, and H·d_head differs from d_model, where the family
  allows it, so that no two axes can be confused;
* the vocabulary is odd, so that sharding it is uneven; heads and neurons divide by two;
* *every* parameter is redrawn. A fresh model has norm gains of one and biases of zero, and code
  which forgets them would pass all tests on it.

The same family, seed and overrides give the same numbers in every process.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
)

from tests.configurations import FAMILIES
from tests.configurations.parts import COMMON, VOCABULARY
from tests.multimodal import MULTIMODAL

SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
"""Special tokens; they have the ids 0, 1 and 2."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)

_SPREAD = 0.2  # of every redrawn parameter: large enough that attention is far from uniform

_BEGINS_WITH_BOS = {"llama", "gemma2", "mixtral"}  # as the tokenizers of the real models do

_SEEDS = {"qwen3_5_text": 4, "qwen3_next": 5, "zamba2": 6}
"""Where a recurrence of the parameters of seed 0 adds up more rounding of float32 than tests allow."""

_SENTENCES = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "When Mary and John went to the store, John gave a drink to Mary.",
    "A waiter brings what was asked for, and says what it costs.",
)


def make(
    family: str,
    directory: Path | str,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> Path:
    """Save a small random checkpoint of `family` in `directory`, and return the directory.

    Args:
        family: a key of :data:`FAMILIES` or :data:`MULTIMODAL`.
        directory: created where missing.
        seed: of all parameters; same seed, same numbers.
        dtype: of the saved parameters.
        overrides: fields of the family's configuration that replace those of the table.
    """
    made = MULTIMODAL[family] if family in MULTIMODAL else {**COMMON, **FAMILIES[family]}
    config = AutoConfig.for_model(family, **{**made, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            seed
        )  # some vectors are drawn when they are made, and keep that as their mean
        model = auto_class(family).from_config(config, dtype=torch.float32)
    redraw(model, seed + _SEEDS.get(family, 0))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(directory)
    make_tokenizer(
        VOCABULARY if family in MULTIMODAL else config.vocab_size, family in _BEGINS_WITH_BOS
    ).save_pretrained(directory)
    return directory


def auto_class(family: str) -> Any:
    """The class of transformers that a checkpoint of the family is loaded by."""
    return AutoModelForImageTextToText if family in MULTIMODAL else AutoModelForCausalLM


make_gpt2 = functools.partial(make, "gpt2")
make_gpt_neox = functools.partial(make, "gpt_neox")
make_llama = functools.partial(make, "llama")
make_gemma2 = functools.partial(make, "gemma2")
make_mixtral = functools.partial(make, "mixtral")


@torch.no_grad()
def redraw(model: torch.nn.Module, seed: int = 0) -> None:
    """Redraw every parameter of `model` from a normal distribution, and the biases of its routers, in place.

    Vectors keep their initial value as the mean: gains stay around one (around zero where the
    family stores the gain minus one, as Gemma does) and biases around zero. So are the biases that routers choose
    experts with, which are no parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    biases = [(n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]
    for _, parameter in sorted([*model.named_parameters(), *biases]):
        noise = _SPREAD * torch.randn(parameter.shape, generator=generator)
        parameter.copy_(parameter + noise if parameter.dim() == 1 else noise)
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith(
            "layer_scalar"
        ):  # Gemma 4 learns it, and keeps it as none of its parameters
            buffer.copy_(buffer + _SPREAD * torch.randn(buffer.shape, generator=generator))


def make_tokenizer(
    vocabulary: int = VOCABULARY, begins_with_bos: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens that can encode any text."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(SPECIAL)
    if vocabulary < smallest:
        raise ValueError(f"a byte-level vocabulary has at least {smallest} tokens: {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, VOCABULARY),
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    if begins_with_bos:
        bos = SPECIAL["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
    fast.chat_template = CHAT_TEMPLATE
    return fast
