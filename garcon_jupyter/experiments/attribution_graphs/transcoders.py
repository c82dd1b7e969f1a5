"""Which dictionaries stand for which MLP, and what of a model is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, PointUnavailable, UnknownName
from garcon_jupyter.experiments.clean_passes import need
from garcon_jupyter.points import DictionaryPoints, fill
from garcon_jupyter.points.dictionary_points import CROSSCODER

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

ENTERS, FINAL_SCALE, PATTERN = "layers.0.resid_pre", "final_norm.scale", "layers.{i}.attn.pattern"
HELD = (
    PATTERN,
    "layers.{i}.attn.gate",
    *(
        f"layers.{{i}}.{half}.{norm}.scale"
        for half in ("attn", "mlp")
        for norm in ("norm", "post_norm")
    ),
)
WRITTEN = "layers.{i}.mlp.contribution"
_OUTPUTS = (WRITTEN, "layers.{i}.mlp.out")
_READS = ("layers.{i}.mlp.in", "layers.{i}.mlp.norm.normalized", "layers.{i}.resid_mid")
_NONLINEAR = (
    "mixer",
    "altup",
    "laurel",
    "per_layer",
    "attn.kv_latent",
    "attn.z_normed",
    "attn.joint",
)
"""Words in names of points that no straight line leads through, and that cannot be held by a point of their own."""
_VALUE_NORM = ".v_norm"


@dataclass(frozen=True)
class LayerTranscoder:
    """A dictionary in the place of the MLP of a layer; of a cross-layer transcoder, what it has at that layer.

    Attributes:
        layer: whose MLP.
        points: of the dictionary.
        host: the point that is read there.
    """

    layer: int
    points: DictionaryPoints
    host: str

    @property
    def name(self) -> str:
        """On the server."""
        return self.points.name

    @property
    def label(self) -> str:
        """How its latents are called: by the dictionary's name, and the layer's number where it has several."""
        return f"{self.name}@{self.layer}" if self.points.several else self.name

    def point(self, word: str) -> str:
        """The name of one of its points."""
        return self.points.point(word, self.host)


def transcoders_of(rmodel: Client, names: Sequence[str]) -> list[LayerTranscoder]:
    """The dictionaries that were named, by layer.

    Raises:
        UnknownName: there is none of that name.
        BadRequest: one is no transcoder of an MLP, or two are of one layer.
        PointUnavailable: the model has parts through which no straight line leads.
    """
    _check_model(rmodel)
    there, found = rmodel.catalog.dictionaries, dict[int, LayerTranscoder]()
    for name in [names] if isinstance(names, str) else names:
        if name not in there:
            raise UnknownName.among(
                "dictionary", name, there, "rmodel.dictionaries.load(PATH) loads one."
            )
        for one in _in_place_of_mlps(rmodel, there[name]):
            if one.layer in found:
                raise BadRequest(
                    f"{found[one.layer].name} and {name} both stand for the MLP of layer {one.layer}.",
                    "Give one of each layer.",
                )
            found[one.layer] = one
    if not found:
        raise BadRequest("No dictionary was named.", 'Give some: dictionaries=["NAME", …].')
    return [found[layer] for layer in sorted(found)]


def _in_place_of_mlps(rmodel: Client, points: DictionaryPoints) -> list[LayerTranscoder]:
    found = []
    for ends in points.ends:
        reads, writes = (rmodel.catalog.point(point) for point in ends)
        fits = reads.template in _READS and writes.template in _OUTPUTS
        fits = fits and reads.layer == writes.layer and points.kind != CROSSCODER
        if not fits or "pre_activation" not in points.words or reads.layer is None:
            raise BadRequest(
                f"{points.name} reads {ends[0]} and writes {ends[1]}: it is no transcoder of an MLP.",
                "Give dictionaries that read what an MLP reads and write what it puts out, such as layers.3.mlp.in → layers.3.mlp.out.",
            )
        found.append(LayerTranscoder(reads.layer, points, ends[0]))
    return found


def _check_model(rmodel: Client) -> None:
    need(rmodel, "An attribution graph", ENTERS, PATTERN, FINAL_SCALE, WRITTEN, "logits")
    catalog = rmodel.catalog
    for layer in range(catalog.n_layers):
        if not {layer} <= set(catalog.layers.get(PATTERN, ())) & set(
            catalog.layers.get(WRITTEN, ())
        ):
            raise PointUnavailable(
                f"Layer {layer} has no attention pattern, or no MLP, that could be held.",
                "A graph is of models whose layers have both.",
            )
    present = [f".{word}" for word in _NONLINEAR if any(f".{word}" in n for n in catalog.layers)]
    present += [_VALUE_NORM for path in catalog.modules if path.endswith(_VALUE_NORM)][:1]
    for half in ("attn", "mlp"):
        norm = f"{half}.post_norm"
        there = catalog.layers.get(f"layers.{{i}}.{norm}.scale", ())
        layers = range(catalog.n_layers)
        if any(
            f"layers.{i}.{norm}.weight" in catalog.parameters and i not in there for i in layers
        ):
            present.append(f".{norm}")
    if present:
        raise PointUnavailable(
            f"This model has {present[0][1:]}, which is no straight line and cannot be held.",
            "experiments.effects tells what each latent does by gradients and by ablation.",
        )


def held_points(rmodel: Client) -> list[str]:
    """The patterns, gates and denominators that are held."""
    catalog = rmodel.catalog
    names = [FINAL_SCALE]
    for template in HELD:
        names += [fill(template, layer) for layer in catalog.layers.get(template, ())]
    return names
