"""Loading a model from a directory onto the ranks of a mesh.

What comes back is the module as transformers wrote it, in evaluation mode and frozen. Its attention runs
through the function that probes can look into where the architecture is mapped, and through its own where it
is not (:mod:`garcon_backend.models.attending`). Nothing here reaches for the network, and code of a checkpoint
runs only where somebody said in so many words that it may.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.libraries.transformers_internals import kept_in_float32
from garcon_backend.models import account, rotary, sharding, shared_keys
from garcon_backend.models.attending import attending
from garcon_backend.models.config import (
    brings_its_code,
    model_class_of,
    read_config,
    torch_dtype,
)
from garcon_backend.models.families import family_of
from garcon_backend.models.family import Family
from garcon_backend.models.fit import check_degrees
from garcon_jupyter.errors import BadDegrees, BadRequest, MissingModule, UnknownName
from garcon_jupyter.model_files import quantised, weights
from garcon_jupyter.model_files.multimodal import wrapper_of

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def load(
    snapshot_dir: Path | str,
    mesh: Mesh,
    dtype: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
    trust_remote_code: bool = False,
    family: Family | None = None,
    as_in: nn.Module | None = None,
) -> nn.Module:
    """Load this rank's part of a causal language model.

    Args:
        snapshot_dir: a directory as ``save_pretrained`` writes it.
        mesh: the ranks to load it onto; every one of them calls this.
        dtype: a key of :data:`~garcon_backend.models.config.DTYPES`; None for the checkpoint's own.
        progress: is told in a line what is going on.
        trust_remote_code: whether code that the checkpoint brings may run.
        family: where its points are, where it is not the one that its architecture has here.
        as_in: a model of the same configuration that was loaded onto this mesh: the ranks then read each by itself, and meet
            in no collective.

    Returns:
        The model on the mesh's device, in evaluation mode, no parameter requiring a gradient.

    Raises:
        NotAModel: the directory holds no causal language model that transformers knows.
        BadRequest: an unknown dtype.
        BadDegrees: the degrees do not divide the model.
        MissingModule: a package is not installed that a multimodal model is built with.
    """
    directory = Path(snapshot_dir)
    config = read_config(directory, trust_remote_code)
    _check_packages(config)
    check_degrees(config, mesh.degrees)
    model_class = model_class_of(config, directory, trust_remote_code)
    _check_packing(config, directory, mesh)
    for file in weights.weight_files(directory):
        if file.suffix == ".bin":
            weights.stored_tensors(file)  # refuses one with code, before transformers reads it
    known = None if brings_its_code(model_class) else family_of(config)
    attention = attending(model_class, config, family or known)
    options: dict[str, Any] = {
        "config": config,
        "dtype": "auto" if dtype is None else torch_dtype(dtype),
        "attn_implementation": attention.implementation,
        "local_files_only": True,
        "ignore_mismatched_sizes": True,  # to be refused by name, with those that are missing
    }
    progress(f"loading {directory.name}, {config.model_type}; attention is {attention.reason}")
    model: nn.Module
    if mesh.world == 1:
        auto: Any = AutoModelForImageTextToText if wrapper_of(config) else AutoModelForCausalLM
        loaded: Any = auto.from_pretrained(
            directory, output_loading_info=True, trust_remote_code=trust_remote_code, **options
        )
        model, found = loaded
        sharding.refuse_missing(directory, found)
        account.keep(model, account.Account.of(model, found))
        model.to(mesh.device)
    else:
        model = sharding.load_sharded(model_class, directory, mesh, options, as_in)
        if mesh.rank == 0:  # who tells of the whole
            account.keep(model, account.of_cut_model(model_class, directory, config))
    if quantised.is_unpacked(config.to_dict()):
        _cast_the_rest(model)
    told = account.account_of(model)
    account.keep(model, replace(told, remarks=account.remarks(directory, model)))
    model.eval().requires_grad_(False)
    rotary.turn_each_row_by_its_length(model)
    shared_keys.compute_all_positions(model)
    whole = account.account_of(model)
    progress(f"loaded {whole.parameters:,} parameters")
    for note in whole.notes():
        progress(note)
    return model


def _check_packing(config: Any, directory: Path, mesh: Mesh) -> None:
    """Refuse packed weights that cannot be read here; have those unpacked that can be, on GPUs too.

    transformers would compute with FP8 and MXFP4 as they are packed where the device and packages allow it. Then a module's
    weight is not what it multiplies by, and points that are computed from weights would be wrong.
    """
    said = config.to_dict()
    if quantised.method_of(said) is None:
        return
    quantised.check(said, directory)
    degrees = {word: getattr(mesh.degrees, word) for word in ("tp", "pp", "dp")}
    quantised.check_place(said, str(directory), mesh.device.type, degrees)
    if quantised.is_unpacked(said):
        packing = said["quantization_config"]
        config.quantization_config = {**packing, "dequantize": True}


def _cast_the_rest(model: Any) -> None:
    """Give weights that were not packed the model's dtype, which transformers leaves as they are stored beside those that it
    unpacks; but for those that an architecture keeps in float32."""
    kept = kept_in_float32(model)
    for name, parameter in model.named_parameters():
        wide = any(re.search(rf"(^|\.){each}($|\.)", name) for each in kept)
        if parameter.is_floating_point() and not wide:
            parameter.data = parameter.data.to(model.config.dtype)


def _check_packages(config: Any) -> None:
    """Raises MissingModule where transformers cannot build what sees images."""
    wrapper = wrapper_of(config)
    lacking = [n for n in (wrapper.needs if wrapper else ()) if importlib.util.find_spec(n) is None]
    if lacking:
        raise MissingModule(
            f"What sees images in a {config.model_type} is built by {' and '.join(lacking)}, which cannot be imported.",
            "Install it where the server runs, or save the text part as a checkpoint of its own.",
        )


def load_tokenizer(
    directory: Path | str,
    progress: Callable[[str], None] = lambda line: None,
    trust_remote_code: bool = False,
) -> Any | None:
    """The tokenizer of a directory; None where it has none, or none that can be read, which is told."""
    directory = Path(directory)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # noqa: BLE001 - a model is of use without it
        reason = str(error).strip().splitlines()
        progress(
            f"the tokenizer of {directory.name} cannot be read, so texts are refused and token ids are taken: "
            f"{reason[0] if reason else type(error).__name__}"
        )
        return None


def load_with(
    loader: str, path: Path | str, mesh: Mesh, dtype: str | None = None
) -> tuple[nn.Module, Any | None]:
    """Load a module of the user's own.

    Args:
        loader: ``package.module:function``; the function is called with the path, a string, and
            returns a module, or (module, tokenizer).
        path: what the function is called with.
        mesh: must be one process.
        dtype: to convert floating-point parameters to; None to leave them.

    Returns:
        (module on the mesh's device, in evaluation mode and frozen; tokenizer or None).

    Raises:
        BadDegrees: more than one process: nothing is known of how such a module could be cut.
        BadRequest: `loader` is not of that form, or what it returned is no module.
        MissingModule: its module cannot be imported.
        UnknownName: its module has no such function.
    """
    if mesh.world > 1:
        raise BadDegrees(
            f"A module of your own runs in one process, not with {mesh.degrees}.",
            "Launch it without degrees.",
        )
    made = _find_loader(loader)(str(path))
    module, tokenizer = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise BadRequest(
            f"The loader {loader!r} returned a {type(module).__name__}, not a torch.nn.Module.",
            "Return a module, or (module, tokenizer).",
        )
    module.to(mesh.device, None if dtype is None else torch_dtype(dtype))
    return module.eval().requires_grad_(False), tokenizer


def _find_loader(loader: str) -> Callable[[str], Any]:
    package, colon, name = loader.partition(":")
    if not (package and colon and name):
        raise BadRequest(f"{loader!r} names no loader.", "Write package.module:function.")
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise MissingModule(
            f"The module {package!r} of the loader cannot be imported: {error}",
            "Install it where the server runs, or add its directory to PYTHONPATH.",
        ) from error
    function: Callable[[str], Any] | None = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UnknownName.among(f"function in {package}", name, known)
    return function
