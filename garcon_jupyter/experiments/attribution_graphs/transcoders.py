"""Which dictionaries stand for which MLP, and what of a model is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, PointUnavailable, UnknownName
from garcon_jupyter.experiments.clean_passes import need
from garcon_jupyter.points import DictionaryPoints, fill

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

ENTERS, FINAL_SCALE, PATTERN = "layers.0.resid_pre", "final_norm.scale", "layers.{i}.attn.pattern"
SCALES = ("layers.{i}.attn.norm.scale", "layers.{i}.mlp.norm.scale")
WRITTEN = "layers.{i}.mlp.contribution"
_OUTPUTS = (WRITTEN, "layers.{i}.mlp.out")
_READS = ("layers.{i}.mlp.in", "layers.{i}.mlp.norm.normalized", "layers.{i}.resid_mid")
_NONLINEAR = ("attn.post_norm", "mixer")


@dataclass(frozen=True)
class LayerTranscoder:
    """A dictionary in the place of the MLP of a layer."""

    layer: int
    points: DictionaryPoints

    @property
    def name(self) -> str:
        """On the server."""
        return self.points.name


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
        one = _in_place_of_an_mlp(rmodel, there[name])
        if one.layer in found:
            raise BadRequest(
                f"{found[one.layer].name} and {name} both stand for the MLP of layer {one.layer}.",
                "Give one of each layer.",
            )
        found[one.layer] = one
    if not found:
        raise BadRequest("No dictionary was named.", 'Give some: dictionaries=["NAME", …].')
    return [found[layer] for layer in sorted(found)]


def _in_place_of_an_mlp(rmodel: Client, points: DictionaryPoints) -> LayerTranscoder:
    reads, writes = (rmodel.catalog.point(point) for point in (points.reads, points.writes))
    fits = reads.template in _READS and writes.template in _OUTPUTS and reads.layer == writes.layer
    if not fits or "pre_activation" not in points.words or reads.layer is None:
        raise BadRequest(
            f"{points.name} reads {points.reads} and writes {points.writes}: it is no transcoder of an MLP.",
            "Give dictionaries that read what an MLP reads and write what it puts out, such as layers.3.mlp.in → layers.3.mlp.out.",
        )
    return LayerTranscoder(reads.layer, points)


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
    for word in _NONLINEAR:
        if any(f".{word}" in name for name in (*catalog.parameters, *catalog.layers)):
            raise PointUnavailable(
                f"This model has {word}, which is no straight line and cannot be held.",
                "experiments.effects tells what each latent does by gradients and by ablation.",
            )


def held_points(rmodel: Client) -> list[str]:
    """The patterns and denominators that are held."""
    catalog = rmodel.catalog
    names = [FINAL_SCALE]
    for template in (PATTERN, *SCALES):
        names += [fill(template, layer) for layer in catalog.layers.get(template, ())]
    return names
