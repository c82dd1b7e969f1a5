"""Llama Scope's first releases: ``hyperparams.json`` and ``checkpoints/final.safetensors``, with one threshold for all latents.

No public writer of this layout was there to compare with. The threshold is read as SAELens reads it: in units of activations as they
are, so that it is scaled as they are.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.dictionaries.contents import Contents, Options
from garcon_backend.dictionaries.files import Files
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan
from garcon_jupyter.dictionaries import Activation, Description, Form, InputNorm
from garcon_jupyter.dictionaries.places import place
from garcon_jupyter.errors import NotADictionary

CONFIG = "hyperparams.json"
WEIGHTS = tuple(f"checkpoints/{which}.safetensors" for which in ("pruned", "final"))
KINDS: dict[str, Form] = {
    "jumprelu": Form(
        activation=Activation("jumprelu"), norm_in=InputNorm("scale"), norm_out=InputNorm("scale")
    ),
    "topk": Form(
        activation=Activation("topk", 50), norm_in=InputNorm("scale"), norm_out=InputNorm("scale")
    ),
    "relu": Form(norm_in=InputNorm("scale"), norm_out=InputNorm("scale")),
}


def recognises(files: Files) -> bool:
    """Whether there are hyperparameters beside checkpoints."""
    return CONFIG in files and any(name in files for name in WEIGHTS)


def read(files: Files) -> ReadingPlan:
    """What the files hold."""
    config = Options(files.json(CONFIG), CONFIG)
    contents = Contents(files, files.tensors(next(name for name in WEIGHTS if name in files)))
    d_model = config.count("d_model")
    contents.agree("D", d_model, f"d_model of {CONFIG}")
    contents.agree("O", d_model, f"d_model of {CONFIG}")
    contents.agree("F", config.count("d_sae"), f"d_sae of {CONFIG}")
    for key, meaning in {
        "use_glu_encoder": "a GLU of this layout is not computed here",
        "apply_decoder_bias_to_pre_encoder": "a bias before the encoder of this layout is not computed here",
    }.items():
        config.refuse(key, meaning)
    kind = config.get("act_fn", among=KINDS)
    form = replace(KINDS[kind], output_bias=bool(config.get("use_decoder_bias", True)))
    config.get("norm_activation", among=("dataset-wise",))
    lengths = Options(
        config.get("dataset_average_activation_norm"),
        f"dataset_average_activation_norm of {CONFIG}",
    )
    scales = []
    for side in ("in", "out"):
        length = lengths.get(side)
        if not isinstance(length, (int, float)) or not 0 < length < 1e6:
            raise NotADictionary(
                f"{lengths.named} says {side} = {length!r}, which is no average length of activations.",
                "Measure it and correct it.",
            )
        scales.append(d_model**0.5 / length)
    gate = bool(config.get("sparsity_include_decoder_norm", True))
    form = replace(
        form,
        norm_in=InputNorm("scale", (scales[0],)),
        norm_out=InputNorm("scale", (scales[1],)),
        decoder_norms="gate" if gate else "",
    )
    if kind == "topk":
        form = replace(form, activation=Activation("topk", config.count("top_k")))
    weights = {
        "encoder": contents.weight("encoder.weight", "FD"),
        "encoder_bias": contents.weight("encoder.bias", "F"),
        "decoder": contents.weight("decoder.weight", "OF", "FO"),
    }
    if form.output_bias:
        weights["output_bias"] = contents.weight("decoder.bias", "O")
    contents.finish()
    constants = {}
    if kind == "jumprelu":
        constants["threshold"] = float(config.get("jump_relu_threshold")) * scales[0]
    description = Description(
        path=str(files.path),
        format="Llama Scope, first releases",
        kind=kind,
        form=form,
        d_in=d_model,
        d_out=d_model,
        latents=contents.size("F"),
        reads=(place(config.get("hook_point_in")),),
        writes=(place(config.get("hook_point_out")),),
        dtype=weights["decoder"].stored.dtype,
        nbytes=contents.nbytes,
        untrained=(0,),  # BOS, as of the later ones
        notes=("Its threshold is read in units of activations as they are, as SAELens reads it.",)
        * bool(constants),
    )
    return ReadingPlan(description, weights, constants=constants)


FORMAT = Format(
    name="Llama Scope, first releases",
    library="sae-lens 6.54.12 (its reader of Llama Scope)",
    files=f"`{CONFIG}` and `{WEIGHTS[-1]}`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused={},
)
