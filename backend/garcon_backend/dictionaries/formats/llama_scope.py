"""Llama Scope: what llamascopium (once lm-saes) writes, ``config.json`` and ``sae_weights.safetensors`` or ``.pt``.

What is read is scaled so that a token's length is √D on average over a data set; the averages are scalars among the tensors. The
library's encode does not scale, and its fold_activation_scale changes the numbers of jumprelu and GLU, since it folds neither the
threshold nor what the sigmoid reads. So files are read unfolded: scaled, encoded, decoded, scaled back.

Thresholds are stored as logarithms. Decoders of a cross-layer transcoder lie by the layer that is written to.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from garcon_backend.dictionaries.contents import Contents, Options
from garcon_backend.dictionaries.files import Files
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan, StoredWeight
from garcon_jupyter.dictionaries import Activation, Description, Form, InputNorm
from garcon_jupyter.dictionaries.places import place
from garcon_jupyter.errors import NotADictionary

CONFIG, WEIGHTS = "config.json", ("sae_weights.safetensors", "sae_weights.pt")
_FORM = Form(decoder_norms="gate", norm_in=InputNorm("scale"), norm_out=InputNorm("scale"))
KINDS: dict[str, Form] = {
    "sae": _FORM,
    "crosscoder": replace(_FORM, kind="crosscoder"),
    "clt": replace(_FORM, kind="cross-layer"),
}
_BATCH = "its latents depend on the batch"
REFUSED = {
    "lorsa": "a low-rank sparse attention is no dictionary of a point",
    "molt": "a mixture of linear transforms has no latents of directions",
}
_ACTIVATIONS = ("relu", "jumprelu", "topk", "layertopk")
_PER_BATCH = ("batchtopk", "batchlayertopk")
_NORM = "dataset_average_activation_norm."
_LARGEST = 1e6
"""Of an average length of activations. A model that was saved before it was measured has whatever was in memory."""


def recognises(files: Files) -> bool:
    """Whether there is a configuration with a ``sae_type`` beside such weights."""
    if CONFIG not in files or "sae_type" not in files.json(CONFIG):
        return False
    return any(name in files for name in WEIGHTS) or files.single or bool(files.matching(".dcp"))


def read(files: Files) -> ReadingPlan:
    """What the files hold."""
    config = Options(files.json(CONFIG), CONFIG)
    kind = config.get("sae_type")
    if kind in REFUSED:
        raise NotADictionary(
            f"{files.path} is a {kind}: {REFUSED[kind]}.", "Give a sae, crosscoder or clt."
        )
    config.get("sae_type", among=KINDS)
    name = next((name for name in (*WEIGHTS, files.names[0]) if name in files), "")
    contents = Contents(files, files.tensors(name))
    d_model = config.count("d_model")
    contents.agree("D", d_model, f"d_model of {CONFIG}")
    contents.agree("O", d_model, f"d_model of {CONFIG}")
    latents = int(d_model * float(config.get("expansion_factor")))
    contents.agree("F", latents, f"d_model × expansion_factor of {CONFIG}")
    hooks_in, hooks_out = _hooks(kind, config)
    if kind != "sae":
        contents.agree("i", len(hooks_in), f"the points of {CONFIG}")
    form = _form(kind, config, contents, hooks_in, hooks_out)
    weights, lists = (
        _cross_layer(contents, form, len(hooks_in))
        if kind == "clt"
        else (_weights(contents, form, kind), {})
    )
    contents.finish(rf"{_NORM.replace('.', chr(92) + '.')}.*")
    encoder = weights["encoder"].stored
    description = Description(
        path=str(files.path),
        format="Llama Scope",
        kind=kind,
        form=form,
        d_in=d_model,
        d_out=d_model,
        latents=latents,
        reads=tuple(map(place, hooks_in)),
        writes=tuple(map(place, hooks_out)),
        dtype=encoder.dtype,
        nbytes=contents.nbytes,
        notes=_notes(form),
        untrained=(0,),  # BOS: its library's activations are without special tokens
    )
    return ReadingPlan(description, weights, lists)


def _hooks(kind: str, config: Options) -> tuple[list[str], list[str]]:
    match kind:
        case "sae":
            return [config.get("hook_point_in")], [config.get("hook_point_out")]
        case "crosscoder":
            return config.get("hook_points"), config.get("hook_points")
    hooks = config.get("hook_points_in"), config.get("hook_points_out")
    if len(hooks[0]) != len(hooks[1]):
        raise NotADictionary(
            f"{CONFIG} has {len(hooks[0])} hook_points_in and {len(hooks[1])} hook_points_out.",
            "Correct them.",
        )
    return hooks


def _form(
    kind: str, config: Options, contents: Contents, hooks_in: list[str], hooks_out: list[str]
) -> Form:
    act = config.get("act_fn", "relu").lower()
    if act in _PER_BATCH:
        raise NotADictionary(
            f"{CONFIG} says act_fn = {act!r}: {_BATCH}.",
            "Convert it to jumprelu, as its authors do before they publish.",
        )
    Options({"act_fn": act}, CONFIG).get("act_fn", among=_ACTIVATIONS)
    k = config.count("top_k", 50) if "topk" in act else 0
    activation = Activation(
        "topk" if k else act, k, rectified=act != "jumprelu", joint=act == "layertopk"
    )
    norm = config.get("norm_activation", "dataset-wise")
    match norm:
        case "dataset-wise":
            reading = InputNorm("scale", _scales(contents, config, hooks_in))
            writing = InputNorm("scale", _scales(contents, config, hooks_out))
        case "inference":
            reading = writing = InputNorm()
        case "token-wise" if hooks_in == hooks_out:
            reading = writing = InputNorm("length")
        case "token-wise":
            raise NotADictionary(
                f"{CONFIG} says norm_activation = 'token-wise' of a transcoder: what it writes is scaled by a length that is not known.",
                "Give one of another norm_activation.",
            )
        case "batch-wise":
            raise NotADictionary(
                f"{CONFIG} says norm_activation = 'batch-wise': {_BATCH}.",
                "Give one of another norm_activation.",
            )
        case _:
            Options({"norm_activation": norm}, CONFIG).get(
                "norm_activation", among=("dataset-wise", "inference", "token-wise")
            )
    gate = bool(config.get("sparsity_include_decoder_norm", True))
    return replace(
        KINDS[kind],
        activation=activation,
        norm_in=reading,
        norm_out=writing,
        decoder_norms="gate" if gate else "",
        glu=bool(config.get("use_glu_encoder", False)),
        output_bias=bool(config.get("use_decoder_bias", True)),
    )


def _scales(contents: Contents, config: Options, hooks: list[str]) -> tuple[float, ...]:
    """√D over the average length, of each point."""
    scales = []
    for hook in hooks:
        length = contents.number(f"{_NORM}{hook}")
        if not (math.isfinite(length) and 0 < length < _LARGEST):
            raise NotADictionary(
                f"{_NORM}{hook} is {length:.3g}, which is no average length of activations: it was never measured.",
                "Measure it, set it with set_dataset_average_activation_norm, and save it again.",
            )
        scales.append(config.count("d_model") ** 0.5 / length)
    return tuple(scales) if len(set(scales)) > 1 else (scales[0],)


def _weights(contents: Contents, form: Form, kind: str) -> dict[str, StoredWeight]:
    i = "i" if kind == "crosscoder" else ""
    found = {
        "encoder": contents.weight("W_E", f"{i}DF", f"{i}FD"),
        "encoder_bias": contents.weight("b_E", f"{i}F"),
        "decoder": contents.weight("W_D", f"{i}FO"),
    }
    if form.output_bias:
        found["output_bias"] = contents.weight("b_D", f"{i}O")
    if form.glu:
        found |= {
            "glu": contents.weight("W_E_glu", "DF", "FD"),
            "glu_bias": contents.weight("b_E_glu", "F"),
        }
    return found | _threshold(contents, form, "F")


def _threshold(contents: Contents, form: Form, axes: str) -> dict[str, StoredWeight]:
    if form.activation.kind != "jumprelu":
        return {}
    key = "activation_function.log_jumprelu_threshold"
    return {"threshold": contents.weight(key, axes, function=torch.exp)}


def _cross_layer(
    contents: Contents, form: Form, n: int
) -> tuple[dict[str, StoredWeight], dict[str, tuple[StoredWeight, ...]]]:
    weights = {
        "encoder": contents.weight("W_E", "iDF", "iFD"),
        "encoder_bias": contents.weight("b_E", "iF"),
        **_threshold(contents, form, "iF"),
    }
    lists = {"decoder_to": tuple(contents.weight(f"W_D.{j}", "?FO") for j in range(n))}
    for j, decoder in enumerate(lists["decoder_to"]):
        if decoder.stored.shape[0] != j + 1:
            raise NotADictionary(
                f"W_D.{j} is {list(decoder.stored.shape)}, where layer {j} is written to from {j + 1} layers.",
                "Give the decoders by the layer that they write to.",
            )
    if form.output_bias:
        lists["output_bias"] = tuple(contents.weight(f"b_D.{j}", "O") for j in range(n))
    return weights, lists


def _notes(form: Form) -> tuple[str, ...]:
    if form.norm_in.kind != "scale":
        return ()
    return (
        "Its latents are of scaled activations; llamascopium's are these divided by the scale, once fold_activation_scale is used.",
    )


FORMAT = Format(
    name="Llama Scope",
    library="llamascopium 2.0.0b34",
    files=f"`{CONFIG}` with `sae_type`, and `{'` or `'.join(WEIGHTS)}`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused=REFUSED | {f"act_fn {act}": _BATCH for act in _PER_BATCH},
)
