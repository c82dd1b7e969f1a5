"""Gemma Scope 1 (``params.npz``) and 2 (``params.safetensors``, ``config.json``).

The first has no configuration: where a dictionary belongs is in its path. b_dec is not subtracted. Autoencoders of attention read all
heads side by side, before the output projection. Those of the embedding were trained on the embedding as it is looked up; transformers
5 multiplies it by √D within the module, as Gemma does.

The skip of the second is [in, out], where others have [out, in].
"""

from __future__ import annotations

import re
from dataclasses import replace

from garcon_backend.dictionaries.contents import Contents, Options
from garcon_backend.dictionaries.files import AGAIN, Files
from garcon_backend.dictionaries.formats.format import Format
from garcon_backend.dictionaries.plan import ReadingPlan, StoredWeight
from garcon_jupyter.dictionaries import Activation, Description, Form, InputNorm, NamedPoint
from garcon_jupyter.dictionaries.places import place
from garcon_jupyter.errors import NotADictionary

CONFIG, FIRST, SECOND = "config.json", "params.npz", "params.safetensors"
_JUMP = Activation("jumprelu", rectified=False)
KINDS: dict[str, Form] = {
    "1, autoencoder": Form(activation=_JUMP),
    "1, transcoder": Form(activation=_JUMP),
    "2, autoencoder": Form(activation=_JUMP),
    "2, transcoder": Form(activation=_JUMP, skip=True),
    "2, cross-layer transcoder": Form(kind="cross-layer", activation=_JUMP, skip=True),
}
_LAYER_FILE = re.compile(r"params_layer_(\d+)\.safetensors")
_SITES = {
    "res": "blocks.{i}.hook_resid_post",
    "mlp": "blocks.{i}.hook_mlp_out",
    "att": "blocks.{i}.attn.hook_z",
}


def recognises(files: Files) -> bool:
    """Whether there are parameters by the names of either release."""
    first = [name for name in files.matching(".npz") if files.tensors(name)]
    if first:
        keys = {key.replace("w_", "W_") for key in files.tensors(first[0])}
        return keys >= {"W_enc", "W_dec"}
    named = [name for name in files.matching(".safetensors") if "params" in name]
    return bool(named) and files.tensors(named[0]).keys() >= {"w_enc", "w_dec"}


def read(files: Files) -> ReadingPlan:
    """What the files hold."""
    if named := files.matching(".npz"):
        return _first(files, named[0])
    named = [name for name in files.names if name.endswith(".safetensors") and "params" in name]
    if len(named) > 1:
        return _cross_layer(files)
    return _second(files, named[0])


def _first(files: Files, name: str) -> ReadingPlan:
    contents = Contents(files, files.tensors(name))
    w = "W_" if "W_enc" in contents.tensors else "w_"
    weights = _weights(contents, w)
    contents.finish()
    where = str(files.directory)
    site = next(
        (site for site in ("transcoder", *_SITES) if re.search(rf"-{site}s?(-|/|$)", where)), ""
    )
    found = re.search(r"layer_(\d+)(/|$)", where)
    kind = "1, transcoder" if site == "transcoder" else "1, autoencoder"
    reads, writes = _places_of_path(where, site, found[1] if found else "")
    form, notes = KINDS[kind], []
    if "/embedding/" in where:
        reads = writes = place("hook_embed")
        scale = InputNorm("scale", (contents.size("D") ** -0.5,))
        form = replace(form, norm_in=scale, norm_out=scale)
        notes = ["Trained on the embedding before it is multiplied by √D."]
    description = _description(files, contents, kind, form, (reads,), (writes,), weights["decoder"])
    heads = site == "att"
    return ReadingPlan(
        replace(description, heads=heads, notes=tuple(notes), model=_model_of(where)), weights
    )


def _places_of_path(where: str, site: str, layer: str) -> tuple[NamedPoint, NamedPoint]:
    if not layer:
        return NamedPoint(where), NamedPoint(where)
    if site == "transcoder":
        return place(f"blocks.{layer}.ln2.hook_normalized"), place(f"blocks.{layer}.hook_mlp_out")
    if site:
        at = place(_SITES[site].format(i=layer))
        return at, at
    at = NamedPoint(
        f"layer {layer}",
        tuple(point for each in _SITES.values() for point in place(each.format(i=layer)).points),
    )
    return at, at


def _model_of(where: str) -> str:
    found = re.search(r"gemma-scope-(\w+-(?:pt|it))", where)
    return f"google/gemma-2-{found[1].removesuffix('-pt')}" if found else ""


def _second(files: Files, name: str) -> ReadingPlan:
    config = Options(files.json(CONFIG), CONFIG)
    config.get("architecture", among=("jump_relu",))
    contents = Contents(files, files.tensors(name))
    weights = _weights(contents, "w_")
    kind = "2, transcoder" if config.get("hf_hook_point_out", None) else "2, autoencoder"
    skip = "affine_skip_connection" in contents.tensors
    if skip != bool(config.get("affine_connection", False)):
        raise NotADictionary(
            f"{files.path} contradicts itself: {CONFIG} says affine_connection = {config.get('affine_connection', False)}, and the "
            f"tensor affine_skip_connection is {'there' if skip else 'missing'}.",
            AGAIN,
        )
    if skip:
        weights["skip"] = contents.weight("affine_skip_connection", "DO", "OD")
    contents.finish()
    form = replace(KINDS[kind], skip=skip)
    reads = place(config.get("hf_hook_point_in", ""))
    writes = place(config.get("hf_hook_point_out", None) or reads.named)
    described = _description(files, contents, kind, form, (reads,), (writes,), weights["decoder"])
    heads = bool(reads.points) and reads.points[0].endswith("attn.z")
    return ReadingPlan(replace(described, heads=heads, model=config.get("model_name", "")), weights)


def _cross_layer(files: Files) -> ReadingPlan:
    found = {int(match[1]): name for name in files.names if (match := _LAYER_FILE.fullmatch(name))}
    layers = range(max(found, default=-1) + 1)
    if lacking := [f"params_layer_{i}.safetensors" for i in layers if i not in found] or (
        not found and [SECOND]
    ):
        raise NotADictionary(
            f"{files.path} lacks {', '.join(lacking)} of a cross-layer transcoder.", AGAIN
        )
    contents = [Contents(files, files.tensors(found[i])) for i in layers]
    by_layer = [_weights(each, "w_", "FiO", len(layers)) for each in contents]
    skip = "affine_skip_connection" in contents[0].tensors
    for each, weights in zip(contents, by_layer, strict=True):
        if skip:
            weights["skip"] = each.weight("affine_skip_connection", "DO", "OD")
        each.finish()
    lists = {name: tuple(weights[name] for weights in by_layer) for name in by_layer[0]}
    lists["decoder_all"] = lists.pop("decoder")
    form = replace(KINDS["2, cross-layer transcoder"], skip=skip)
    config = files.json(CONFIG) if CONFIG in files else {}
    reads = tuple(place(f"model.layers.{i}.pre_feedforward_layernorm.output") for i in layers)
    writes = tuple(place(f"model.layers.{i}.post_feedforward_layernorm.output") for i in layers)
    described = _description(
        files, contents[0], "2, cross-layer transcoder", form, reads, writes, lists["encoder"][0]
    )
    nbytes = sum(each.nbytes for each in contents)
    return ReadingPlan(
        replace(described, nbytes=nbytes, model=config.get("model_name", "")), {}, lists
    )


def _weights(
    contents: Contents, w: str, decoder: str = "FO", layers: int = 0
) -> dict[str, StoredWeight]:
    if layers:
        contents.agree("i", layers, "the number of files")
    return {
        "encoder": contents.weight(f"{w}enc", "DF", "FD"),
        "encoder_bias": contents.weight("b_enc", "F"),
        "decoder": contents.weight(f"{w}dec", decoder),
        "output_bias": contents.weight("b_dec", "O"),
        "threshold": contents.weight("threshold", "F"),
    }


def _description(
    files: Files,
    contents: Contents,
    kind: str,
    form: Form,
    reads: tuple[NamedPoint, ...],
    writes: tuple[NamedPoint, ...],
    weight: StoredWeight,
) -> Description:
    return Description(
        path=str(files.path),
        format="Gemma Scope",
        kind=kind,
        form=form,
        d_in=contents.size("D"),
        d_out=contents.size("O"),
        latents=contents.size("F"),
        reads=reads,
        writes=writes,
        dtype=weight.stored.dtype,
        nbytes=contents.nbytes,
        untrained=(0,),  # BOS, which their authors leave out
    )


FORMAT = Format(
    name="Gemma Scope",
    library="circuit-tracer 0.5.0 (its readers of Gemma Scope 1 and 2)",
    files=f"`{FIRST}` in a folder that says layer and site, or `{SECOND}` and `{CONFIG}`",
    kinds=KINDS,
    recognises=recognises,
    read=read,
    refused={},
)
