"""A direction at a point, as an object.

direction = Direction.of(experiments.linear_probe(rmodel, "layers.*.resid_post", texts, labels), layer=12)
rmodel.generate(prompt, probes=direction.adding(rmodel, 2 * direction.scale, positions="generated"))
rmodel.forward(text, probes=direction.removing(rmodel, points="layers.*.resid_post"))
direction.show(rmodel, text)                    # a text coloured by its projection
direction.keep(rmodel); experiments.kept_directions(rmodel)
direction.save("sentiment.safetensors"); Direction.load("sentiment.safetensors")
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from garcon_jupyter.client import display_hooks
from garcon_jupyter.client.probes import Probe
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, one_text
from garcon_jupyter.experiments.directions import edits
from garcon_jupyter.experiments.directions.places import Places, checked_places
from garcon_jupyter.experiments.result import ExperimentResult, Label

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

_KEPT = "direction: "
"""What the name of a save context begins with that holds a direction."""

_HEADER = "garcon_direction"


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """A unit vector at a point, with what is known of how the point's values lie along it.

    Attributes:
        name: what it is called.
        point: where it was found.
        vector: float32 [units] of length 1; heads and their dimensions side by side. It is made of any vector that is given.
        scale: how far the two kinds of texts lie apart along it, that of their means: adding ``scale × vector`` takes the mean of the
            one kind to that of the other. Where none is given, the length of the vector that was given.
        centre: half way between them, along it.
        made: how it was made, as plain data.

    Raises:
        BadRequest: a vector that is none: of several dimensions, of length 0, with NaN.
    """

    name: str
    point: str
    vector: Tensor
    scale: float | None = None
    centre: float = 0.0
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        given = torch.as_tensor(self.vector).detach().cpu()
        if given.dim() != 1 or not given.is_floating_point():
            raise BadRequest(
                f"{self.name!r} is {[*given.shape]} of {given.dtype}, and no vector.",
                "Give floating-point numbers [units].",
            )
        length = float(given.double().norm())
        if not math.isfinite(length) or length == 0:
            raise BadRequest(
                f"The vector of {self.name!r} has the length {length}.",
                "Give one that is finite, and not 0.",
            )
        unit = (given.double() / length).float()
        object.__setattr__(self, "vector", unit)
        object.__setattr__(self, "scale", length if self.scale is None else float(self.scale))

    @classmethod
    def of(cls, found: ExperimentResult, name: str = "", **place: Label) -> Self:
        """The direction that a linear probe found, also one that was loaded from a file.

        Args:
            found: the result of :func:`~garcon_jupyter.experiments.linear_probe`.
            name: by default the labels that it tells apart.
            place: of which layer (``layer=12``) or point; by default where the held-out accuracy is largest.

        Raises:
            BadRequest: the result has no directions; there is no such place.
        """
        if "vectors" not in found.more:
            raise BadRequest(
                f"{found.experiment} found no directions.", "experiments.linear_probe does."
            )
        ((axis, labels),) = found.axes.items()
        found.at(**place)  # says so where there is no such place
        label = place[axis] if place else found.strongest(1)[0][0][axis]
        at = labels.index(label)
        first, second = found.facts["labels"]
        return cls(
            name or f"{first} to {second}",
            found.facts["points"][at],
            found.more["vectors"][at],
            float(found.more["scale"][at]),
            float(found.more["centre"][at]),
            {
                **{k: found.facts[k] for k in ("model", "method", "labels", "positions", "texts")},
                "held-out accuracy": float(found.values[at]),
            },
        )

    # -- edits -------------------------------------------------------------------------------

    def adding(
        self,
        rmodel: Client,
        coefficient: float,
        positions: Places = "all",
        points: str | None = None,
    ) -> list[Probe]:
        """Probes that add ``coefficient × vector``, for a forward or a generation.

        Args:
            coefficient: in units of the point's values; ``direction.scale`` is from the mean of one label to that of the other.
            positions: "all"; "given", the text or prompt; "last", its last token; "generated", what follows it; a number, several, or a
                slice, of the text that is given. The first token that is generated is chosen at the prompt's last, so "generated"
                changes the second one on.
            points: where; by default at the point where it was found. A pattern for several.

        Raises:
            BadRequest: positions that are none; a point of another width; a coefficient that is no number.
        """
        import torch

        if not isinstance(coefficient, int | float) or not math.isfinite(coefficient):
            raise BadRequest(
                f"coefficient={coefficient!r} is no finite number.",
                "Give one, such as 2 * direction.scale.",
            )
        vector = (self.vector.double() * coefficient).to(torch.float32)
        change = edits.adding(vector, checked_places(positions))
        return self._probes(rmodel, change, points)

    def removing(
        self,
        rmodel: Client,
        positions: Places = "all",
        keep_mean: bool = False,
        points: str | None = None,
    ) -> list[Probe]:
        """Probes that take the direction out of a point's values: ``x − (x·u) u``.

        Args:
            positions: as for :meth:`adding`.
            keep_mean: leave ``centre`` along it instead of 0, where the values of both kinds have their middle.
            points: where; by default at the point where it was found. "layers.*.resid_post" takes it out after each layer.

        Raises:
            BadRequest: positions that are none; a point of another width.
        """
        left = self.centre if keep_mean else 0.0
        change = edits.removing(self.vector, left, checked_places(positions))
        return self._probes(rmodel, change, points)

    def _probes(
        self,
        rmodel: Client,
        function: Any,
        points: str | None = None,
        name: str = "",
        read_only: bool = False,
    ) -> list[Probe]:
        where = rmodel.probe_points[points or self.point]
        for address in where.addresses:
            shape = rmodel.catalog.shape(address)
            units = math.prod(shape[2:]) if _known(shape) else len(self.vector)
            if address.spec is not None and (shape[:2] != ("b", "p") or len(shape) < 3):
                raise BadRequest(
                    f"{address.name} is [{', '.join(map(str, shape))}], without a vector for each token.",
                    "Choose a point of shape [b, p, …].",
                )
            if units != len(self.vector):
                raise BadRequest(
                    f"{self.name!r} has {len(self.vector)} numbers, and {address.name} has {units} units.",
                    f"It was found at {self.point}.",
                )
        return where.probes(function, name=name or f"{_KEPT}{self.name}", read_only=read_only)

    # -- reading -----------------------------------------------------------------------------

    def projection(self, rmodel: Client, text: Any) -> ExperimentResult:
        """How far each token of a text lies along it, x·u less ``centre``: positive towards the second label.

        Args:
            text: one text, or tokens.

        Returns:
            ``values`` [position]; ``facts["tokens"]`` are the tokens.

        Raises:
            BadRequest: several texts; another model, of another width.
        """
        tokens = one_text(rmodel, text)
        with contexts(rmodel, "projection") as name:
            probes = self._probes(rmodel, edits.reading(self.vector), name=name, read_only=True)
            rmodel.forward(tokens, probes=probes, logits="none")
            along = rmodel.recordings()[self.point, name].along
        facts = {
            "model": rmodel.facts["name"],
            "direction": self.name,
            "point": self.point,
            "tokens": list(rmodel.token_strings(tokens)[0]),
        }
        axes = {"position": tuple(range(len(along)))}
        says = f"along {self.name!r} at {self.point}, from its centre"
        return ExperimentResult("projection", along - self.centre, axes, says, facts)

    def show(self, rmodel: Client, text: Any) -> Any:
        """A text whose tokens are coloured by their projection."""
        return display_hooks.drawn(self, "show", rmodel, text)

    # -- keeping -----------------------------------------------------------------------------

    def keep(self, rmodel: Client) -> None:
        """Let the session on the server keep it: :func:`~garcon_jupyter.experiments.kept_directions` finds it there, from another notebook too."""
        vector, about = self.vector, json.dumps(self._about())

        def keep(save_ctx: Any, tensor: Any) -> None:
            save_ctx.vector, save_ctx.about = vector, about

        rmodel.forward([[0]], probes=self._probes(rmodel, keep, read_only=True), logits="none")

    def forget(self, rmodel: Client) -> None:
        """Let the session keep it no longer."""
        rmodel.clear_recordings(name=f"{_KEPT}{self.name}")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as safetensors, with what is known of it in the header."""
        from safetensors.torch import save_file

        save_file({"vector": self.vector}, path, metadata={_HEADER: json.dumps(self._about())})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """What :meth:`save` wrote.

        Raises:
            BadRequest: the file holds no direction.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(os.fspath(path), "pt") as opened:
                about = json.loads((opened.metadata() or {})[_HEADER])
                return cls(vector=opened.get_tensor("vector"), **about)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise BadRequest(
                f"{path} holds no direction: {type(error).__name__}: {error}.",
                "direction.save(path) writes one.",
            ) from None

    def _about(self) -> dict[str, Any]:
        said = ("name", "point", "scale", "centre")
        return {**{name: getattr(self, name) for name in said}, "made": dict(self.made)}

    def __repr__(self) -> str:
        accuracy = self.made.get("held-out accuracy")
        told = "" if accuracy is None else f", held-out accuracy {accuracy:.3f}"
        return f"<direction {self.name!r} at {self.point} [{len(self.vector)}]: scale {self.scale:.4g}{told}>"


def kept_directions(rmodel: Client) -> dict[str, Direction]:
    """The directions that a session keeps, by name.

    A direction is kept on the server, beside what probes saved, until the session ends or forgets it; a notebook that connects to
    the session again finds it.

    Returns:
        Name to :class:`~garcon_jupyter.experiments.directions.direction.Direction`.

    Examples:
        >>> direction = experiments.Direction("axis", "layers.4.resid_post", torch.eye(576)[3])
        >>> direction.keep(rmodel)
        >>> experiments.kept_directions(rmodel)
        {'axis': <direction 'axis' at layers.4.resid_post [576]: scale 1>}
        >>> direction.forget(rmodel)
    """
    recordings = rmodel.recordings(fetch=False)
    keys = [key for key in recordings if isinstance(key, tuple) and key[1].startswith(_KEPT)]
    keys = [key for key in keys if "about" in recordings[key].keys()]  # noqa: SIM118
    wanted = [recordings[key].handle(part) for key in keys for part in ("vector", "about")]
    parts = iter(rmodel.fetch(*wanted) if wanted else ())
    found = {}
    for vector, about in zip(parts, parts, strict=True):
        direction = Direction(vector=vector, **json.loads(about))
        found[direction.name] = direction
    return found


@contextmanager
def attached(rmodel: Client, *probes: Probe) -> Iterator[None]:
    """While this is entered, probes apply to every pass that names none.

    with attached(rmodel, *direction.adding(rmodel, 8.0)):
        rmodel.generate(prompt)

    Those that were attached before stay, and are there alone again afterwards.
    """
    before = dict(rmodel.attached)
    rmodel.attach(*probes)
    try:
        yield
    finally:
        rmodel.attached.clear()
        rmodel.attached.update(before)


def _known(shape: tuple[str | int, ...]) -> bool:
    """Whether the units of a point have sizes, and not letters."""
    return len(shape) > 2 and all(isinstance(size, int) for size in shape[2:])
