"""OpenAI's sparse_autoencoder, and what Transformer Debugger serves: one ``.pt`` file, whose folders say layer and location.

That activations are standardised follows from the *word* TopK, as the repository's own reader has it. Transformer Debugger's class
reads the same file without that.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from garcon_backend.dictionaries.contents import Contents, Options
from garcon_backend.dictionaries.files import Files
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan
from garcon_jupyter.dictionaries import Activation, Description, Form, InputNorm, NamedPoint
from garcon_jupyter.dictionaries.places import place

KINDS: dict[str, Form] = {
    "ReLU": Form(subtracts_bias=True),
    "TopK": Form(
        subtracts_bias=True,
        activation=Activation("topk", 32),
        norm_in=InputNorm("standard"),
        norm_out=InputNorm("standard"),
    ),
}
_LOCATIONS = "mlp_post_act|resid_delta_attn|resid_delta_mlp|resid_post_attn|resid_post_mlp"
_COUNTS = r"stats_last_nonzero|latents_activation_frequency|latents_mean_square|activation\..*"


def recognises(files: Files) -> bool:
    """Whether a ``.pt`` file has OpenAI's names of tensors."""
    return any(
        {"pre_bias", "latent_bias"} <= files.tensors(name).keys() for name in files.matching(".pt")
    )


def read(files: Files) -> ReadingPlan:
    """What the file holds."""
    name = next(name for name in files.matching(".pt") if "pre_bias" in files.tensors(name))
    contents = Contents(files, files.tensors(name))
    others: dict[str, Any] = files.others(name)
    named = f"activation of {name}"
    kind = Options({"activation": others.get("activation", "ReLU")}, name).get(
        "activation", among=KINDS
    )
    form = KINDS[kind]
    if kind == "TopK":
        state = Options(others.get("activation_state_dict", {}), named)
        after = state.get("postact_fn", "ReLU", ("ReLU", "Identity"))
        form = replace(
            form, activation=Activation("topk", state.count("k"), rectified=after == "ReLU")
        )
    bias = contents.weight("pre_bias", "D")
    weights = {
        "encoder": contents.weight("encoder.weight", "FD"),
        "encoder_bias": contents.weight("latent_bias", "F"),
        "output_bias": replace(bias, axes="O", wanted="O"),
    }
    contents.agree("O", contents.size("D"), "pre_bias")
    tied = "decoder.linear.weight" in contents.tensors
    weights["decoder"] = (
        contents.weight("decoder.linear.weight", "FO")
        if tied
        else contents.weight("decoder.weight", "OF", "FO")
    )
    contents.finish(_COUNTS)
    at = _place(str(files.directory))
    description = Description(
        path=str(files.path),
        format="OpenAI",
        kind=kind + ", tied" * tied,
        form=form,
        d_in=contents.size("D"),
        d_out=contents.size("O"),
        latents=contents.size("F"),
        reads=(at,),
        writes=(at,),
        dtype=weights["decoder"].stored.dtype,
        nbytes=contents.nbytes,
        model="gpt2",
        notes=(
            "Transformer Debugger's own class reads this file without standardising what it encodes.",
        )
        * (kind == "TopK"),
    )
    return ReadingPlan(description, weights)


def _place(where: str) -> NamedPoint:
    layer, location = re.search(r"layer_?(\d+)", where), re.search(_LOCATIONS, where)
    if layer and location:
        return place(f"{location[0]}@{layer[1]}")
    return NamedPoint("")


FORMAT = Format(
    name="OpenAI",
    library="openai/sparse_autoencoder 4965b94",
    files="one `.pt` with `pre_bias` and `latent_bias`, below `layer_3/resid_post_mlp`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused={},
)
