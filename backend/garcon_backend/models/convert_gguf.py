"""Convert a GGUF file, once, to a Hugging Face snapshot.

GGUF packs quantised weights and the tokenizer in one file. Reading it means dequantising every
weight and rebuilding the tokenizer, which takes longer than all the rest of a launch. The snapshot
written here (float32 safetensors, tokenizer with chat template) is the same model to the last bit,
and loads in a second. A file that says or holds something which has no place in it is refused::

    python -m garcon_backend.models.convert_gguf SOURCE.gguf DESTINATION

One sentence on standard output tells each step; an error is one sentence on standard error and exit
status 1. The destination appears whole or not at all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from garcon_backend.libraries.transformers_internals import (
    GGUF_PRE_TOKENIZER_SPLITS,
    gguf_flags,
)
from garcon_backend.models.gguf import rope, tensors
from garcon_backend.models.gguf.keys import GgufFile, configuration, refusal
from garcon_jupyter.errors import GarconError, NotAModel

_MAGIC = b"GGUF"
_PROBE = "The capital of France is"

_CUT_AS_GPT2 = ("default", "gpt-2", "jais", "mpt", "olmo", "phi-2", "refact", "smollm", "starcoder")
"""Values of ``tokenizer.ggml.pre`` that mean GPT-2's way to cut a text before its merges, digits aside,
which have no merges in these vocabularies."""


def convert(source: Path, destination: Path) -> None:
    """Write the model in the GGUF file `source` as a snapshot to the directory `destination`.

    Raises:
        NotAModel: `source` is no GGUF file, or one without tokenizer, or of a model that
            transformers cannot be told whole; or `destination` exists.
        GarconError: the snapshot, read back, is not the same model; it is not kept.
    """
    _check(source, destination)
    file = GgufFile.of(source)
    config = configuration(file)
    print("Reading the tokenizer.", flush=True)
    tokenizer = _tokenizer(file)
    print("Dequantising the weights.", flush=True)
    model = _model(file, config)
    print("Writing the snapshot and comparing it.", flush=True)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=destination.parent) as work:
        written = Path(work, "snapshot")
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)
        _compare(model, tokenizer, written)
        written.rename(destination)


def _check(source: Path, destination: Path) -> None:
    if not source.is_file():
        raise NotAModel(f"There is no file {source}.", "Give the path of a GGUF file.")
    with source.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise NotAModel(f"{source} is not a GGUF file.", "Give the path of a GGUF file.")
    if destination.exists():
        raise NotAModel(f"{destination} exists already.", "Give a directory that does not exist.")
    destination.parent.mkdir(parents=True, exist_ok=True)


def _tokenizer(file: GgufFile) -> Any:
    if "tokenizer.ggml.tokens" not in file.keys:
        raise NotAModel(
            f"{file.path.name} has no tokenizer.", "Convert from the original checkpoint instead."
        )
    tokenizer = AutoTokenizer.from_pretrained(
        file.path.parent, **_where(file), **gguf_flags(file.keys)
    )
    cut = file.keys.get("tokenizer.ggml.pre", _CUT_AS_GPT2[0])
    of_bytes = file.keys.get("tokenizer.ggml.model") == "gpt2"
    if of_bytes and cut not in (*_CUT_AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
        print(f"Texts are cut as GPT-2's are: how {cut!r} cuts them is not known here.", flush=True)
    if file.keys.get("tokenizer.ggml.add_space_prefix") is False:
        first = tokenizer.tokenize("a")[:1]
        if first and first[0].startswith("\u2581"):
            key = "tokenizer.ggml.add_space_prefix"
            raise refusal(file, f"says {key} = False", [key])
    return tokenizer


def _model(file: GgufFile, config: Any) -> Any:
    """The model, with everything that the file says and holds."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.path.parent,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be refused by name
            **_where(file),
        )
    except Exception as error:
        raise NotAModel(
            f"transformers cannot read {file.path.name}: {type(error).__name__}: {error}",
            "Convert from the original checkpoint instead.",
        ) from error
    model, found = loaded
    tensors.check(file, model, found)
    rope.check(model, file.own, rope.factors_in(file.path))
    _forget_quantisation(model)
    return model


def _where(file: GgufFile) -> dict[str, Any]:
    return {"gguf_file": file.path.name, "local_files_only": True}


def _forget_quantisation(model: Any) -> None:
    """Make an ordinary model of a dequantised one, which transformers refuses to save as it is."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


@torch.no_grad()
def _compare(model: Any, tokenizer: Any, snapshot: Path) -> None:
    """Read the snapshot back: its parameters, logits, tokens and chat template must be the same."""
    again = AutoModelForCausalLM.from_pretrained(snapshot, local_files_only=True)
    tokens = tokenizer(_PROBE, return_tensors="pt").input_ids
    reread = AutoTokenizer.from_pretrained(snapshot, local_files_only=True)
    before, after = model.state_dict(), again.state_dict()
    same = (
        before.keys() == after.keys()
        and all(torch.equal(value, after[name]) for name, value in before.items())
        and torch.equal(model(tokens).logits, again(tokens).logits)
        and torch.equal(tokens, reread(_PROBE, return_tensors="pt").input_ids)
        and tokenizer.chat_template == reread.chat_template
    )
    if not same:
        raise GarconError(
            "The snapshot that was written is not the model that was read.",
            "Please report it, with the versions of transformers and gguf.",
        )


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 if the snapshot is there, 1 if it is not."""
    parser = argparse.ArgumentParser(
        prog="python -m garcon_backend.models.convert_gguf",
        description="Convert a GGUF file to a Hugging Face snapshot.",
    )
    parser.add_argument("source", type=Path, help="a GGUF file")
    parser.add_argument("destination", type=Path, help="a directory that does not exist yet")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        convert(options.source.absolute(), options.destination.absolute())
    except GarconError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
