"""sparsify (EleutherAI): a folder for each hookpoint, named by it, with ``cfg.json`` and ``sae.safetensors``.

Whether b_dec is subtracted follows from ``transcode``: a transcoder reads a module's input and writes the same module's output. A
skip belongs to forward(), not to decode().
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.dictionaries.contents import Contents, Options
from garcon_backend.dictionaries.files import AGAIN, Files
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan
from garcon_jupyter.dictionaries import Activation, Description, Form
from garcon_jupyter.dictionaries.places import place
from garcon_jupyter.errors import NotADictionary

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

KINDS: dict[str, Form] = {
    "topk": Form(subtracts_bias=True, activation=Activation("topk", 32)),
    "groupmax": Form(subtracts_bias=True, activation=Activation("groupmax", 32)),
    "topk, transcode": Form(activation=Activation("topk", 32)),
    "groupmax, transcode": Form(activation=Activation("groupmax", 32)),
}


def recognises(files: Files) -> bool:
    """Whether these are sparsify's names of files."""
    return WEIGHTS in files


def read(files: Files) -> ReadingPlan:
    """What the files hold."""
    config = Options(files.json(CONFIG), CONFIG)
    contents = Contents(files, files.tensors(WEIGHTS))
    d_in = config.count("d_in")
    latents = config.get("num_latents", 0) or d_in * config.count("expansion_factor")
    contents.agree("D", d_in, f"d_in of {CONFIG}")
    contents.agree("O", d_in, f"d_in of {CONFIG}")
    contents.agree("F", latents, f"num_latents of {CONFIG}")
    transcode = bool(config.get("transcode", False))
    kind = config.get("activation", "topk", ("topk", "groupmax")) + ", transcode" * transcode
    k = config.count("k")
    if k > latents or ("groupmax" in kind and latents % k):
        raise NotADictionary(f"{CONFIG} says k = {k} for {latents} latents.", AGAIN)
    skip = bool(config.get("skip_connection", False))
    form = replace(KINDS[kind], activation=replace(KINDS[kind].activation, k=k), skip=skip)
    weights = {
        "encoder": contents.weight("encoder.weight", "FD"),
        "encoder_bias": contents.weight("encoder.bias", "F"),
        "decoder": contents.weight("W_dec", "FO"),
        "output_bias": contents.weight("b_dec", "O"),
    }
    if skip:
        weights["skip"] = contents.weight("W_skip", "OD")
    contents.finish()
    hookpoint = files.directory.name
    module = place(hookpoint)
    read_at = place(f"{hookpoint}.input") if transcode else module
    description = Description(
        path=str(files.path),
        format="sparsify",
        kind=kind,
        form=form,
        d_in=d_in,
        d_out=d_in,
        latents=contents.size("F"),
        reads=(read_at,),
        writes=(module,),
        dtype=weights["decoder"].stored.dtype,
        nbytes=contents.nbytes,
        notes=("The library's decode leaves out the skip, which its forward adds.",) * skip,
    )
    return ReadingPlan(description, weights)


FORMAT = Format(
    name="sparsify",
    library="eai-sparsify 1.3.3",
    files=f"a folder named by the hookpoint (`layers.3.mlp`), with `{CONFIG}` and `{WEIGHTS}`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused={},
)
