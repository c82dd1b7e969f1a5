"""dictionary_learning: ``trainer_N/ae.pt``, a pickled state dict, and ``config.json`` with the class.

AutoEncoderTopK and BatchTopKSAE have the same tensors: only the class says that the first takes the k largest of a token, whatever
threshold is stored, and the second what is above the threshold. A threshold of -1 was never trained, and lets all through.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.dictionaries.contents import Contents, Options
from garcon_backend.dictionaries.files import Files
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan, StoredWeight
from garcon_jupyter.dictionaries import Activation, Description, Form, NamedPoint
from garcon_jupyter.dictionaries.places import place

CONFIG, WEIGHTS = "config.json", "ae.pt"

_JUMP = Activation("jumprelu")
_SAE = Form(subtracts_bias=True)
KINDS: dict[str, Form] = {
    "AutoEncoder": _SAE,
    "AutoEncoderNew": Form(),
    "GatedAutoEncoder": replace(_SAE, gated=True, activation=_JUMP),
    "JumpReluAutoEncoder": Form(activation=_JUMP),
    "AutoEncoderTopK": replace(_SAE, activation=Activation("topk", 32)),
    "BatchTopKSAE": replace(_SAE, activation=_JUMP),
    "MatryoshkaBatchTopKSAE": replace(_SAE, activation=_JUMP),
}
_LINEAR = {"encoder": ("encoder.weight", "FD", ""), "decoder": ("decoder.weight", "OF", "FO")}
_MATRICES = {"encoder": ("W_enc", "DF", "FD"), "decoder": ("W_dec", "FO", "")}
_TENSORS: dict[str, dict[str, tuple[str, str, str]]] = {
    "AutoEncoder": {
        **_LINEAR,
        "encoder_bias": ("encoder.bias", "F", ""),
        "output_bias": ("bias", "O", ""),
    },
    "AutoEncoderNew": {
        **_LINEAR,
        "encoder_bias": ("encoder.bias", "F", ""),
        "output_bias": ("decoder.bias", "O", ""),
    },
    "GatedAutoEncoder": {
        **_LINEAR,
        "encoder_bias": ("mag_bias", "F", ""),
        "gate_bias": ("gate_bias", "F", ""),
        "gate_scale": ("r_mag", "F", ""),
        "output_bias": ("decoder_bias", "O", ""),
    },
    "JumpReluAutoEncoder": {
        **_MATRICES,
        "encoder_bias": ("b_enc", "F", ""),
        "threshold": ("threshold", "F", ""),
        "output_bias": ("b_dec", "O", ""),
    },
    "AutoEncoderTopK": {
        **_LINEAR,
        "encoder_bias": ("encoder.bias", "F", ""),
        "output_bias": ("b_dec", "O", ""),
    },
    "BatchTopKSAE": {
        **_LINEAR,
        "encoder_bias": ("encoder.bias", "F", ""),
        "output_bias": ("b_dec", "O", ""),
    },
    "MatryoshkaBatchTopKSAE": {
        **_MATRICES,
        "encoder_bias": ("b_enc", "F", ""),
        "output_bias": ("b_dec", "O", ""),
    },
}
"""For each class, where each tensor of the form is: its key, its axes as stored, and as the form has them."""

_ONE_THRESHOLD = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")


def recognises(files: Files) -> bool:
    """Whether these are dictionary_learning's names of files."""
    return WEIGHTS in files


def read(files: Files) -> ReadingPlan:
    """What the files hold."""
    trainer = Options(Options(files.json(CONFIG), CONFIG).get("trainer"), f"trainer of {CONFIG}")
    contents = Contents(files, files.tensors(WEIGHTS))
    kind = trainer.get("dict_class", among=KINDS)
    contents.agree("D", trainer.count("activation_dim"), f"activation_dim of {CONFIG}")
    contents.agree("O", trainer.count("activation_dim"), f"activation_dim of {CONFIG}")
    contents.agree("F", trainer.count("dict_size"), f"dict_size of {CONFIG}")
    form = KINDS[kind]
    weights: dict[str, StoredWeight] = {
        name: contents.weight(*where) for name, where in _TENSORS[kind].items()
    }
    if kind == "AutoEncoderTopK":
        k = int(contents.number("k")) if "k" in contents.tensors else trainer.count("k")
        contents.agree("k", trainer.count("k", k), f"k of {CONFIG}")
        contents.agree("k", k, "k of ae.pt")
        form = replace(form, activation=replace(form.activation, k=k))
    notes = list(_NOTES.get(kind, ()))
    if kind in _ONE_THRESHOLD:
        weights["threshold"] = contents.weight("threshold", "")
        if contents.number("threshold") < 0:
            notes.append(
                "Its threshold is below 0: it was never trained, and every latent above 0 passes."
            )
    contents.finish("k|threshold|group_sizes|rectangle.*")
    at = _places(trainer, files.json(CONFIG).get("buffer") or {})
    description = Description(
        path=str(files.path),
        format="dictionary_learning",
        kind=kind,
        form=form,
        d_in=contents.size("D"),
        d_out=contents.size("O"),
        latents=contents.size("F"),
        reads=(at,),
        writes=(at,),
        dtype=weights["decoder"].stored.dtype,
        nbytes=contents.nbytes,
        model=trainer.get("lm_name", ""),
        notes=tuple(notes),
    )
    return ReadingPlan(description, weights)


_NOTES = {
    "AutoEncoder": (
        "The latents are those of the file: the library's from_pretrained multiplies them by the norms of the decoder's columns.",
    ),
    "AutoEncoderNew": (
        "The latents are those of encode: the library's forward(output_features=True) gives them times the decoder's norms.",
    ),
    "AutoEncoderTopK": ("The threshold that is stored is not used, as in the library's encode.",),
}


def _places(trainer: Options, buffer: dict[str, Any]) -> NamedPoint:
    """The submodule that was read, whose name is free text; where it says no layer, the layer beside it is taken."""
    named = str(trainer.get("submodule_name", "") or "")
    layer, side = trainer.get("layer", None), buffer.get("io", "out")
    for candidate in (named, f"{named}_layer_{layer}"):
        found = place(candidate)
        if not found.points:
            continue
        point = found.points[0]
        if side == "in":
            point = point.replace("resid_post", "resid_pre").replace(".out", ".in")
        return NamedPoint(named, (point,))
    if named or layer is None:
        return NamedPoint(named)
    return NamedPoint(
        f"the {side}put of a module of layer {layer}",
        tuple(f"layers.{layer}.{name}" for name in ("resid_post", "mlp.out", "attn.out")),
    )


FORMAT = Format(
    name="dictionary_learning",
    library="dictionary-learning 0.1.0",
    files=f"`trainer_0/{WEIGHTS}` (a pickle, read as tensors only) and `{CONFIG}`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused={},
)
