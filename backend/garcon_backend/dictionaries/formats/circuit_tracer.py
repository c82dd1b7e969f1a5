"""circuit-tracer: ``layer_i.safetensors`` of a transcoder for each layer, and cross-layer transcoders.

Its jumprelu lets negative latents through where the threshold is below 0. A cross-layer transcoder's decoders lie in the file of
the layer that is read, ``W_dec_i`` [F, L - i, D]: to itself and all later layers.
"""

from __future__ import annotations

import re
from dataclasses import replace

from garcon_backend.dictionaries.contents import Contents
from garcon_backend.dictionaries.files import AGAIN, Files, StoredArray
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan, StoredWeight
from garcon_jupyter.dictionaries import Activation, Description, Form, NamedPoint
from garcon_jupyter.dictionaries.places import place
from garcon_jupyter.errors import NotADictionary

_JUMP = Activation("jumprelu", rectified=False)
KINDS: dict[str, Form] = {
    "transcoder": Form(),
    "transcoder, jumprelu": Form(activation=_JUMP),
    "cross-layer transcoder": Form(kind="cross-layer"),
    "cross-layer transcoder, jumprelu": Form(kind="cross-layer", activation=_JUMP),
}
_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_ENCODER = re.compile(r"W_enc_(\d+)\.safetensors")
_THRESHOLD = "activation_function.threshold"


def recognises(files: Files) -> bool:
    """Whether files are named by layer, with the tensors that circuit-tracer has."""
    if any(map(_ENCODER.fullmatch, files.names)):
        return True
    named = [name for name in files.names if _LAYER.fullmatch(name)]
    return bool(named) and {"W_enc", "W_dec", "b_enc", "b_dec"} <= files.tensors(named[0]).keys()


def read(files: Files) -> ReadingPlan:
    """What the files hold."""
    if any(map(_ENCODER.fullmatch, files.names)):
        return _cross_layer(files)
    named = [name for name in files.names if _LAYER.fullmatch(name)]
    if len(named) > 1:
        raise NotADictionary(
            f"{files.path} holds {len(named)} transcoders, one for each layer.",
            f"Give one: {', '.join(str(files.path / name) for name in named[:4])}.",
        )
    found = _LAYER.fullmatch(named[0])
    assert found
    contents = Contents(files, files.tensors(named[0]))
    weights = {
        "encoder": contents.weight("W_enc", "FD"),
        "encoder_bias": contents.weight("b_enc", "F"),
        "decoder": contents.weight("W_dec", "FO"),
        "output_bias": contents.weight("b_dec", "O"),
    }
    kind = "transcoder"
    if _THRESHOLD in contents.tensors:
        kind = "transcoder, jumprelu"
        weights["threshold"] = contents.weight(_THRESHOLD, "F")
    form = KINDS[kind]
    if "W_skip" in contents.tensors:
        weights["skip"] = contents.weight("W_skip", "OD")
        form = replace(form, skip=True)
    contents.finish()
    layers = range(int(found[1]), int(found[1]) + 1)
    return ReadingPlan(
        _described(files, contents, kind, form, layers, weights["decoder"].stored), weights
    )


def _cross_layer(files: Files) -> ReadingPlan:
    numbers = sorted(int(found[1]) for name in files.names if (found := _ENCODER.fullmatch(name)))
    layers = range(numbers[-1] + 1)
    lacking = [f"W_enc_{i}.safetensors" for i in layers if i not in numbers]
    lacking += [f"W_dec_{i}.safetensors" for i in layers if f"W_dec_{i}.safetensors" not in files]
    if lacking:
        raise NotADictionary(
            f"{files.path} lacks {', '.join(lacking[:4])} of a cross-layer transcoder of {len(layers)} layers.",
            AGAIN,
        )
    tensors: dict[str, StoredArray] = {}
    for i in layers:
        tensors |= files.tensors(f"W_enc_{i}.safetensors") | files.tensors(f"W_dec_{i}.safetensors")
    contents = Contents(files, tensors)
    jump = "threshold_0" in tensors
    kind = "cross-layer transcoder" + ", jumprelu" * jump
    lists: dict[str, tuple[StoredWeight, ...]] = {
        "encoder": tuple(contents.weight(f"W_enc_{i}", "FD") for i in layers),
        "encoder_bias": tuple(contents.weight(f"b_enc_{i}", "F") for i in layers),
        "output_bias": tuple(contents.weight(f"b_dec_{i}", "O") for i in layers),
        "decoder_from": tuple(contents.weight(f"W_dec_{i}", "F?O") for i in layers),
    }
    for i, decoder in enumerate(lists["decoder_from"]):
        if decoder.stored.shape[1] != len(layers) - i:
            raise NotADictionary(
                f"{decoder.stored.key} is {list(decoder.stored.shape)}, where layer {i} writes into {len(layers) - i} layers.",
                AGAIN,
            )
    if jump:
        lists["threshold"] = tuple(contents.weight(f"threshold_{i}", "F") for i in layers)
    contents.finish()
    form = KINDS[kind]
    description = _described(files, contents, kind, form, layers, lists["encoder"][0].stored)
    return ReadingPlan(description, {}, lists)


def _described(
    files: Files, contents: Contents, kind: str, form: Form, layers: range, stored: StoredArray
) -> Description:
    config = files.lines("config.yaml")

    def at(key: str) -> tuple[NamedPoint, ...]:
        named = config.get(key, "")
        if not named:
            return tuple(NamedPoint("") for _ in layers)
        return tuple(place(f"blocks.{layer}.{named}") for layer in layers)

    return Description(
        path=str(files.path),
        format="circuit-tracer",
        kind=kind,
        form=form,
        d_in=contents.size("D"),
        d_out=contents.size("O"),
        latents=contents.size("F"),
        reads=at("feature_input_hook"),
        writes=at("feature_output_hook"),
        dtype=stored.dtype,
        nbytes=contents.nbytes,
        model=config.get("model_name", ""),
        notes=(
            "circuit-tracer's attribution takes the latents of the first position as 0; these are as encode gives them.",
        ),
        untrained=(0,),
    )


FORMAT = Format(
    name="circuit-tracer",
    library="circuit-tracer 0.5.0",
    files="`layer_3.safetensors`, or `W_enc_0.safetensors`, `W_dec_0.safetensors` … of a cross-layer one; points in `config.yaml`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused={},
)
