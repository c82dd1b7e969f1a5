"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, of all its architectures, before and after 6.0.

``apply_b_dec_to_input`` is true where nothing is said. ``expected_average_only_in`` and ``covariance_whitening`` do nothing in SAELens
when it encodes: a file that still says them was never folded, and its numbers mean nothing on activations as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.dictionaries.contents import Contents, Options
from garcon_backend.dictionaries.files import Files
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan, StoredWeight
from garcon_jupyter.dictionaries import Activation, Description, Form, InputNorm
from garcon_jupyter.dictionaries.places import place
from garcon_jupyter.errors import NotADictionary

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

_JUMP = Activation("jumprelu")
_SAE = Form(subtracts_bias=True)
KINDS: dict[str, Form] = {
    "standard": _SAE,
    "gated": replace(_SAE, gated=True, activation=_JUMP),
    "jumprelu": replace(_SAE, activation=_JUMP),
    "topk": replace(_SAE, activation=Activation("topk", 100)),
    "abstopk": replace(_SAE, activation=Activation("abstopk", 100, rectified=False)),
    "transcoder": Form(),
    "skip_transcoder": Form(skip=True),
    "jumprelu_transcoder": Form(activation=_JUMP),
    "jumprelu_skip_transcoder": Form(activation=_JUMP, skip=True),
    "matching_pursuit": replace(
        _SAE, kind="pursuit", tied=True, options={"steps": 10, "residual": 0.01, "stops_on_old": 1}
    ),
    "temporal": replace(
        _SAE,
        kind="context",
        tied=True,
        activation=Activation("topk", 100),
        options={"heads": 8, "layers": 1, "factor": 0},
    ),
}
_TRAINING = "a file of training: its latents depend on the batch"
REFUSED = {
    "batchtopk": f"{_TRAINING}; sae.save_inference_model(path) writes the jumprelu that it becomes",
    "matryoshka_batchtopk": f"{_TRAINING}; sae.save_inference_model(path) writes the jumprelu that it becomes",
    "matching_pursuit_training": f"{_TRAINING}; sae.save_inference_model(path) writes what it becomes",
}

_NORMS: dict[str, InputNorm] = {
    "none": InputNorm(),
    "layer_norm": InputNorm("standard"),
    "constant_norm_rescale": InputNorm("length"),
    "constant_scalar_rescale": InputNorm("scale"),
}
_UNFOLDED = ("expected_average_only_in", "covariance_whitening")


def recognises(files: Files) -> bool:
    """Whether these are SAELens's names of files."""
    return WEIGHTS in files and CONFIG in files


def read(files: Files) -> ReadingPlan:
    """What the files hold."""
    config = Options(_modern(files.json(CONFIG)), CONFIG)
    contents = Contents(files, files.tensors(WEIGHTS))
    contents.agree("D", config.count("d_in"), f"d_in of {CONFIG}")
    contents.agree("F", config.count("d_sae"), f"d_sae of {CONFIG}")
    kind = config.get("architecture")
    if kind in REFUSED:
        what, _, remedy = REFUSED[kind].partition("; ")
        raise NotADictionary(f"{files.path} is a SAELens {kind}, {what}.", f"{remedy}.")
    config.get("architecture", among=KINDS)
    form = _form(KINDS[kind], kind, config)
    metadata = config.get("metadata", {})
    transcoder = "transcoder" in kind
    if not transcoder:
        contents.agree("O", config.count("d_in"), f"d_in of {CONFIG}")
    else:
        contents.agree("O", config.count("d_out"), f"d_out of {CONFIG}")
    weights = _weights(contents, form, kind)
    contents.finish("scaling_factor")
    name_in = metadata.get("hf_hook_name") or metadata.get("hook_name")
    name_out = (
        metadata.get("hf_hook_name_out") or metadata.get("hook_name_out") if transcoder else name_in
    )
    reads, writes = place(name_in), place(name_out)
    reshaped = config.get("reshape_activations", "none", ("none", "hook_z")) == "hook_z"
    description = Description(
        path=str(files.path),
        format="SAELens",
        kind=kind,
        form=form,
        d_in=contents.size("D"),
        d_out=contents.size("O"),
        latents=contents.size("F"),
        reads=(reads,),
        writes=(writes,),
        dtype=weights["decoder"].stored.dtype,
        nbytes=contents.nbytes,
        model=metadata.get("model_name") or "",
        heads=reshaped or any(point.endswith(".attn.z") for point in reads.points),
        notes=_notes(kind, form, metadata),
        untrained=_untrained(metadata),
    )
    return ReadingPlan(description, weights)


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as 6.0 and later write it, by the rules by which SAELens reads older ones."""
    metadata = config.get("metadata") or {}
    version = config.get("sae_lens_version") or metadata.get("sae_lens_version")
    if version and int(str(version).split(".")[0]) >= 6:
        return config
    renamed = {
        "hook_point": "hook_name",
        "hook_point_head_index": "hook_head_index",
        "activation_fn_str": "activation_fn",
    }
    new = {renamed.get(key, key): value for key, value in config.items()}
    new.setdefault("architecture", "standard")
    new.setdefault(
        "reshape_activations", "hook_z" if "hook_z" in (new.get("hook_name") or "") else "none"
    )
    given = (new.get("activation_fn_kwargs") or {}).get("k")
    if new.get("activation_fn") == "topk" and given is not None:
        new.update(architecture="topk", k=given)
    norm = new.get("normalize_activations")
    if norm is None or isinstance(norm, bool):
        new["normalize_activations"] = "expected_average_only_in" if norm else "none"
    if new.get("activation_fn", "relu") not in ("relu", "topk"):
        raise NotADictionary(
            f"{CONFIG} says activation_fn = {new['activation_fn']!r}, which is not computed here.",
            "Known are 'relu', 'topk'.",
        )
    return {**new, "metadata": {**new, **metadata}}


def _form(form: Form, kind: str, config: Options) -> Form:
    norm = config.get("normalize_activations", "none")
    if norm in _UNFOLDED:
        raise NotADictionary(
            f"{config.named} says normalize_activations = {norm!r}: the scale of its training was never folded into its weights, "
            f"and is not in its files.",
            "Save it with save_inference_model, or after fold_activation_norm_scaling_factor.",
        )
    reading = _NORMS[config.get("normalize_activations", "none", _NORMS)]
    if reading.kind == "scale":
        reading = InputNorm("scale", (float(config.get("activation_normalization_factor")),))
    if config.get("finetuning_scaling_factor", False):
        raise NotADictionary(
            f"{config.named} says finetuning_scaling_factor, which no class of SAELens uses any longer.",
            "Fold it into W_dec first.",
        )
    transcoder = "transcoder" in kind
    subtracts = bool(config.get("apply_b_dec_to_input", not transcoder))
    if transcoder and subtracts:
        raise NotADictionary(
            f"{config.named} says apply_b_dec_to_input, which a transcoder cannot: its b_dec belongs to what it writes.",
            "Set it to false.",
        )
    form = replace(
        form,
        norm_in=reading,
        norm_out=InputNorm() if transcoder else reading,
        subtracts_bias=subtracts,
    )
    match kind:
        case "topk" | "abstopk":
            rescaled = config.get("rescale_acts_by_decoder_norm", False)
            activation = replace(form.activation, k=config.count("k"))
            return replace(form, activation=activation, decoder_norms="latents" if rescaled else "")
        case "matching_pursuit":
            steps = config.get("max_iterations") or config.count("d_in")
            residual, old = (
                float(config.get("residual_threshold")),
                bool(config.get("stop_on_duplicate_support")),
            )
            options = {"steps": steps, "residual": residual, "stops_on_old": old}
            return replace(form, options=options, output_bias=subtracts)
        case "temporal":
            return _temporal(form, config)
    return form


def _temporal(form: Form, config: Options) -> Form:
    tied = bool(config.get("tied_weights"))
    activation = Activation("relu")
    if (
        config.get("sae_diff_type", among=("relu", "topk")) == "topk"
        and config.get("kval_topk") is not None
    ):
        activation = Activation("topk", config.count("kval_topk"))
    options = {
        "heads": config.count("n_heads"),
        "layers": config.count("n_attn_layers"),
        "factor": 1 / (4 * config.count("d_in")),
    }
    bias = not tied or form.subtracts_bias
    return replace(form, tied=tied, activation=activation, options=options, output_bias=bias)


def _weights(contents: Contents, form: Form, kind: str) -> dict[str, StoredWeight]:
    found = {
        "decoder": contents.weight("W_dec", "FO"),
        "output_bias": contents.weight("b_dec", "O"),
    }
    if not form.tied:
        found["encoder"] = contents.weight("W_enc", "DF", "FD")
    if form.kind == "context":
        return found | _attention(contents, int(form.options["layers"]))
    if form.kind == "pursuit":
        return found
    found["encoder_bias"] = contents.weight("b_mag" if form.gated else "b_enc", "F")
    if form.gated:
        found |= {
            "gate_bias": contents.weight("b_gate", "F"),
            "gate_scale": contents.weight("r_mag", "F"),
        }
    elif form.activation.kind == "jumprelu":
        found["threshold"] = contents.weight("threshold", "F")
    if form.skip:
        found["skip"] = contents.weight("W_skip", "OD")
    return found


def _attention(contents: Contents, layers: int) -> dict[str, StoredWeight]:
    found = {}
    for layer in range(layers):
        for part, name in {"q": "q_target", "k": "k_ctx", "v": "v_ctx", "out": "c_proj"}.items():
            rows = "h" if part in "qk" else "f"
            key = f"attn_layers.{layer}.{name}"
            found[f"attention_{layer}_{part}"] = contents.weight(f"{key}.weight", rows + "g")
            found[f"attention_{layer}_{part}_bias"] = contents.weight(f"{key}.bias", rows)
    return found


def _untrained(metadata: dict[str, Any]) -> tuple[int, ...]:
    """Positions that it was not trained on: the beginning of a text that is cut off, and a first token that is a special one, left out."""
    cut = metadata.get("seqpos_slice") or ()
    first = cut[0] if isinstance(cut, list | tuple) and len(cut) > 1 else None
    if isinstance(first, int) and 0 < first <= _MOST_CUT:
        return tuple(range(first))
    special = bool(metadata.get("exclude_special_tokens")) and metadata.get("prepend_bos", True)
    return (0,) if special or "first" in (metadata.get("excluded_tokens") or ()) else ()


def _notes(kind: str, form: Form, metadata: dict[str, Any]) -> tuple[str, ...]:
    notes = []
    if metadata.get("training_architecture"):
        notes.append(f"Trained as {metadata['training_architecture']}.")
    if form.skip:
        notes.append("SAELens's encode and decode leave out the skip, which its forward adds.")
    if form.kind == "context":
        notes.append("Its latents depend on earlier tokens, so that it reads whole texts.")
    if metadata.get("exclude_special_tokens"):
        notes.append("Trained without special tokens.")
    if metadata.get("model_from_pretrained_kwargs"):
        notes.append(f"Its activations were made with {metadata['model_from_pretrained_kwargs']}.")
    return tuple(notes)


_MOST_CUT = 64
"""Positions at the beginning of a text that a slice may leave out and still be about its beginning."""

FORMAT = Format(
    name="SAELens",
    library="sae-lens 6.54.12",
    files=f"`{CONFIG}` and `{WEIGHTS}`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused=REFUSED,
)
