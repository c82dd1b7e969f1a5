"""Jacobian lenses, their files and their merging.

A fit is a mean over texts, so lenses that were fitted to different texts with the same settings, on any servers, are one lens of all
of them: the mean, each weighted by how many texts it is of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.lenses.files import read_pt
from garcon_jupyter.experiments.lenses.lens import LayerMap, Lens, known_map

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

KIND = "Jacobian lens"
_FORMAT = "garcon jacobian lens 1"
_LAYER = "layers."
_ALIKE = ("model", "skip", "length")
"""Facts that two parts of one lens have in common."""

_PUBLISHED = "Give a file with J, n_prompts and d_model, or one that .save(path) wrote."


@dataclass(frozen=True, eq=False, repr=False)
class JacobianLens(Lens):
    """A Jacobian lens: the mean derivative of the last stream by that of each layer.

    Attributes:
        texts: of how many texts it is the mean.
    """

    texts: int = 0

    @classmethod
    def of(
        cls, jacobians: Mapping[int, Tensor], texts: int, facts: Mapping[str, Any]
    ) -> JacobianLens:
        """From matrices [D, D], of what goes out by what comes in."""
        maps = {layer: LayerMap(jacobians[layer].float()) for layer in sorted(jacobians)}
        return cls(KIND, maps, dict(facts), texts)

    @property
    def jacobians(self) -> dict[int, Tensor]:
        """The matrix of each layer: float32 [D, D], of what goes out by what comes in."""
        return {layer: one.weight for layer, one in self.maps.items()}

    def check(self, rmodel: Client) -> None:
        """As of any lens; and what it maps to must be the last stream."""
        super().check(rmodel)
        target, last = self.facts.get("target_layer"), rmodel.catalog.n_layers - 1
        if target is not None and target not in (last, -1):
            raise BadRequest(
                f"target_layer of this Jacobian lens is {target}, and the model's last layer is {last}.",
                "Give a lens that maps to the last layer.",
            )

    def merge(self, *others: JacobianLens) -> JacobianLens:
        """One lens of all texts that this one and others were fitted to; the order does not matter.

        Raises:
            BadRequest: they have other layers, widths or settings, or it is not known of how many texts they are.
        """
        lenses = [self, *others]
        for one in lenses:
            if one.texts < 1:
                raise BadRequest(
                    f"{one!r} does not say of how many texts it is the mean.",
                    "Merge lenses that were fitted, or whose files have n_prompts.",
                )
            self._agree(one)
        total = sum(one.texts for one in lenses)
        merged = {
            layer: sum(one.maps[layer].weight.double() * one.texts for one in lenses) / total
            for layer in self.maps
        }
        return JacobianLens.of(merged, total, self.facts)  # type: ignore[arg-type]

    def _agree(self, other: JacobianLens) -> None:
        mine: dict[str, Any] = {"layers": sorted(self.maps), "width": self._width()}
        theirs: dict[str, Any] = {"layers": sorted(other.maps), "width": other._width()}
        for name in _ALIKE:
            mine[name], theirs[name] = self.facts.get(name), other.facts.get(name)
        for name, value in mine.items():
            if value != theirs[name]:
                raise BadRequest(
                    f"{name} of one Jacobian lens is {value}, and of another {theirs[name]}.",
                    "Merge lenses of one model that were fitted with the same settings.",
                )

    def _width(self) -> int:
        return len(next(iter(self.maps.values())).weight)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it into one file: safetensors, or, where the name ends in .pt, the published form in half precision."""
        import json

        import torch
        from safetensors.torch import save_file

        target = Path(path)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        facts = dict(self.facts)
        if target.suffix == ".pt":
            content = {
                "J": {layer: one.half() for layer, one in self.jacobians.items()},
                "n_prompts": self.texts,
                "source_layers": sorted(self.maps),
                "d_model": self._width(),
                "metadata": facts,
            }
            torch.save(content, beside)
        else:
            tensors = {f"{_LAYER}{layer}": one for layer, one in self.jacobians.items()}
            about = {"format": _FORMAT, "texts": str(self.texts), "facts": json.dumps(facts)}
            save_file(tensors, beside, about)
        beside.replace(target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> JacobianLens:
        """What :meth:`save` wrote, or a published lens: ``.pt`` with ``J``, or with the sums that a fit put down.

        Raises:
            BadRequest: it cannot be read, or its keys contradict one another; names the key.
        """
        return (
            _from_pt(Path(path)) if Path(path).suffix != ".safetensors" else _from_own(Path(path))
        )


def merge_jacobian_lenses(lenses: Sequence[JacobianLens]) -> JacobianLens:
    """One lens of several that were fitted to different texts; see :meth:`JacobianLens.merge`.

    Raises:
        BadRequest: there are none, or they do not belong together.
    """
    if not lenses:
        raise BadRequest("There are no lenses to merge.", "Give at least one.")
    return lenses[0].merge(*lenses[1:])


def _from_own(path: Path) -> JacobianLens:
    import json

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about.get("format") != _FORMAT:
            raise ValueError(f"its format is {about.get('format')!r}")
        facts, texts = json.loads(about["facts"]), int(about["texts"])
        layers = {int(name.removeprefix(_LAYER)): one for name, one in tensors.items()}
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror or error}.", _PUBLISHED) from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadRequest(f"{path} holds no Jacobian lens: {error}.", _PUBLISHED) from None
    width = len(next(iter(layers.values())))
    known = {n: known_map(one, width, f"{_LAYER}{n}", path) for n, one in layers.items()}
    return JacobianLens.of(known, texts, facts)


def _from_pt(path: Path) -> JacobianLens:
    """The published form, as Anthropic's reference and TransformerLens write it."""
    content = read_pt(path)
    key = "J" if "J" in content else "jacobian_sum"
    matrices = content.get(key)
    if not isinstance(matrices, Mapping) or not matrices:
        raise BadRequest(
            f"{path} holds no Jacobian lens: it has neither J nor jacobian_sum.", _PUBLISHED
        )
    count = content.get("n_prompts" if key == "J" else "n_done", 0)
    first = next(iter(matrices.values()))
    width = content.get("d_model", len(first)) if key == "J" else len(first)
    if key == "jacobian_sum" and not (isinstance(count, int) and count > 0):
        raise BadRequest(
            f"{path} has sums, and n_done is {count}: their mean is not known.", _PUBLISHED
        )
    known = {n: known_map(one, width, f"{key}[{n}]", path) for n, one in matrices.items()}
    listed = content.get("source_layers")
    if listed is not None and sorted(listed) != sorted(known):
        raise BadRequest(
            f"{path}: source_layers is {listed}, and {key} has {sorted(known)}.", _PUBLISHED
        )
    if key == "jacobian_sum":
        known = {n: one / count for n, one in known.items()}
    facts = {**(content.get("metadata") or {})}
    if "target_layer" in content:
        facts["target_layer"] = content["target_layer"]
    return JacobianLens.of(known, int(count), facts)
