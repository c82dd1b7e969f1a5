"""Checkpoints whose weights are packed: what the way they are packed needs on this machine.

``config.json`` names the way in its ``quantization_config``, and transformers asks for the package that can
read it when it loads, minutes into a launch, in a traceback of the server. Here the same is known from a
table, without importing anything.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadDegrees, NotAModel

UNPACK = "Or give the model in bfloat16, as its authors published it before it was packed."


@dataclass(frozen=True)
class Needs:
    """What a way of packing needs.

    Attributes:
        packages: names to import, and to install them by where they differ.
        gpu: whether it runs on GPUs only.
        unread: why transformers cannot load such a checkpoint at all, if so.
        unpacked: whether the weights become plain numbers while they are loaded, on every device: what computes with
            packed ones has no weight to look at, where some has it.
    """

    packages: tuple[tuple[str, str], ...] = ()
    gpu: bool = False
    unread: str = ""
    unpacked: bool = False


def _of(*packages: str, gpu: bool = False) -> Needs:
    """Packages as ``import`` or ``import=install``."""
    pairs = (package.partition("=") for package in packages)
    return Needs(tuple((name, to_install or name) for name, _, to_install in pairs), gpu)


METHODS: dict[str, Needs] = {
    "aqlm": _of("aqlm"),
    "auto-round": _of("auto_round=auto-round"),
    "awq": _of("gptqmodel"),
    "bitnet": _of(),
    "bitsandbytes": _of("bitsandbytes"),
    "compressed-tensors": _of("compressed_tensors=compressed-tensors"),
    "eetq": _of("kernels", gpu=True),
    "fbgemm_fp8": _of("fbgemm_gpu=fbgemm-gpu", gpu=True),
    "fouroversix": _of("fouroversix", gpu=True),
    "fp8": Needs(unpacked=True),
    "fp_quant": _of("fp_quant", gpu=True),
    "gemma": _of(),
    "gguf": Needs(unread="GGUF is converted first, by garcon_backend.models.convert_gguf"),
    "gptq": _of("optimum", "gptqmodel"),
    "higgs": _of("flute=flute-kernel", "fast_hadamard_transform", gpu=True),
    "hqq": _of("hqq"),
    "metal": Needs(unpacked=True),
    "mxfp4": Needs(unpacked=True),
    "mxfp8": Needs(unpacked=True),
    "nvfp4": Needs(unread="transformers packs so by itself, but loads no such checkpoint"),
    "quanto": _of("optimum.quanto=optimum-quanto"),
    "quark": _of("quark=amd-quark"),
    "sinq": _of("sinq"),
    "spqr": _of("spqr_quant=spqr_quant[gpu]", gpu=True),
    "torchao": _of("torchao"),
    "vptq": _of("vptq", gpu=True),
}
"""Every ``quant_method`` of transformers."""


def method_of(config: dict[str, Any]) -> str | None:
    """How the weights of a checkpoint are packed; None where they are not."""
    packing = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(packing, dict):
        return None
    if packing.get("load_in_8bit") or packing.get("load_in_4bit"):
        return "bitsandbytes"
    return str(packing.get("quant_method"))


def is_unpacked(config: dict[str, Any]) -> bool:
    """Whether the weights of a checkpoint are packed, and become plain numbers while they are loaded."""
    needs = METHODS.get(method_of(config) or "")
    return needs is not None and needs.unpacked


def check(config: dict[str, Any], directory: Path) -> None:
    """Refuse packed weights that nothing here can read.

    Raises:
        NotAModel: names the package that is missing.
    """
    method = method_of(config)
    if method is None:
        return
    needs = METHODS.get(method)
    if needs is None or needs.unread:
        why = needs.unread if needs else "transformers does not know that way of packing"
        raise NotAModel(f"{directory} is quantised ({method}): {why}.", UNPACK)
    missing = [install for name, install in needs.packages if not _is_there(name)]
    if missing:
        raise NotAModel(
            f"{directory} is quantised ({method}), which needs {' and '.join(missing)}, "
            f"and {'that is' if len(missing) == 1 else 'they are'} not installed.",
            f"Run `pip install {' '.join(missing)}`. {UNPACK}",
        )


def check_place(
    config: dict[str, Any], directory: str, device: str, degrees: dict[str, int]
) -> None:
    """Refuse packed weights on a device, or over processes, that they cannot be on.

    Raises:
        NotAModel: they need a GPU.
        BadDegrees: they would have to be cut.
    """
    method = method_of(config)
    if method is None:
        return
    if METHODS[method].gpu and device != "cuda":
        raise NotAModel(f"{directory} is quantised ({method}), which runs on GPUs only.", UNPACK)
    if any(degree > 1 for degree in degrees.values()):
        cut = ", ".join(f"{word}={degree}" for word, degree in degrees.items() if degree > 1)
        raise BadDegrees(
            f"A quantised model ({method}) is not cut or copied over processes, and {cut} asks for it: a part of packed "
            "weights may begin in the midst of numbers that share a scale.",
            f"Launch it without degrees. {UNPACK}",
        )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False
