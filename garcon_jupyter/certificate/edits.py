"""Edits and gradients, held against what they should do.

Each point of a layer of each kind is moved in rows of its own of one batch. In its row every identity must hold with the moved
value, but the one that says what the point itself is made of: so an edit that is lost, or that reaches more than it should,
breaks one. And a loss of the logits must change by what its gradient at the point says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.closeness import is_rough, loss_noise, slope_tolerance
from garcon_jupyter.certificate.evaluation import Held
from garcon_jupyter.certificate.passes import SIZE, CertificatePasses, Nudged
from garcon_jupyter.certificate.result import NOTHING, CertificateFinding, LayerKind
from garcon_jupyter.certificate.values import PointValues
from garcon_jupyter.points import fill

if TYPE_CHECKING:
    from torch import Tensor

REACHES = "identities hold with the value that was put in"
SLOPE = "a loss changes by what its gradient says"
LOST = "an edit there changes nothing"
SIGN = 0.9
"""An error of a slope below is of one whose sign is right, and which is not nothing."""

NEAR = 4
"""Layers through which rounding to few digits leaves the sign of a slope."""

FAINT = 4
"""A change of a loss that is less than so many times its rounding tells nothing."""

AGAIN = 1 / 5
"""Of the size, how far a value is moved of which the loss bends too much."""


class EditFindings:
    """What was found of edits and gradients, by point.

    Args:
        passes: run them.
        kinds: of layers.
        values: of the text as it is.
        held: the identities that could be held against these.
        dtype: of the model.
        logits: of the text, [1, p, V].
    """

    def __init__(
        self,
        passes: CertificatePasses,
        kinds: Mapping[str, LayerKind],
        values: PointValues,
        held: Sequence[Held],
        dtype: str,
        logits: Tensor,
    ) -> None:
        self._noise = loss_noise(logits, dtype)
        self._passes, self._kinds, self._values, self._dtype = passes, kinds, values, dtype
        self._catalog = values.catalog
        moved = self._all = list(self._moved())
        layers = {kind.moved for kind in kinds.values()} | {None}
        after = {kind.moved + 1 for kind in kinds.values()}
        self._held = [h for h in held if h.holds and h.layer in layers | after]
        self._edits: dict[str, CertificateFinding] = {}
        self._gradients: dict[str, CertificateFinding] = {}
        read = [name for name in values.points if self._catalog.point(name).layer in layers | after]
        self._size = SIZE.get(dtype, SIZE["bfloat16"])
        for nudged in passes.nudged(moved, read, self._size):
            self._judge(nudged, read)
        self._look_again()

    def _bends(self, name: str, error: float) -> bool:
        """Whether the model's dtype, and the layers that follow, do not let a slope be told more exactly."""
        layer = self._catalog.point(name).layer
        first = layer is None and not name.startswith(("final_norm", "logits"))
        far = first or (layer is not None and self._catalog.n_layers - layer > NEAR)
        return self._rough and (error < SIGN or far)

    @property
    def _rough(self) -> bool:
        """Whether the model's dtype has too few digits for a finite difference through all layers."""
        return is_rough(self._dtype)

    def of(self, template: str, kind: str) -> tuple[CertificateFinding, CertificateFinding]:
        """What was found of edits and gradients at a point of a kind of layer."""
        name = self._address(template, kind)
        if name is None:
            return CertificateFinding(None, "no token of the text comes to it"), NOTHING
        if (error := self._passes.failed.get(name)) is not None:
            told = CertificateFinding(
                None if name not in self._values.points else False, error.problem
            )
            return self._edits.get(name, told), self._gradients.get(name, told)
        return self._edits.get(name, NOTHING), self._gradients.get(name, NOTHING)

    def _moved(self) -> Iterator[str]:
        for template in self._catalog.layers:
            for kind in self._kinds:
                name = self._address(template, kind)
                if name is not None and name in self._values.points:
                    yield name
        yield from (n for n in self._values.points if self._catalog.point(n).layer is None)

    def _address(self, template: str, kind: str) -> str | None:
        """The point of a template that is moved: of experts the one with most tokens; None where there is none."""
        if "{i}" not in template:
            return template
        layer = self._kinds[kind].moved if kind in self._kinds else None
        if "{e}" not in template or layer is None:
            return fill(template, layer)
        names = [fill(template, layer, expert) for expert in range(self._catalog.n_experts)]
        count = {n: len(self._values.tokens.get(n, ())) for n in names}
        best = max(names, key=lambda name: count[name])
        return best if count[best] else None

    # -- what is found -----------------------------------------------------------------------

    def _judge(self, nudged: Nudged, read: Sequence[str]) -> None:
        """Find out about each point that was moved, and about those that cannot be moved in a row of their own."""
        alone = [
            name
            for name, row in nudged.rows.items()
            if len(nudged.values.points.get(name, ())) <= row and "experts" not in name
        ]
        errors = (
            [(one, one.errors(nudged.values)) for one in self._held]
            if set(nudged.rows) - set(alone)
            else []
        )
        for name, row in nudged.rows.items():
            if name not in alone:
                self._edits[name] = self._reaches(name, row, errors)
                self._gradients[name] = self._slope(name, nudged)
        for name in alone:
            one = self._passes.nudged_alone(name, read, self._size)
            if one is not None:
                self._judge(one, read)

    def _reaches(
        self, name: str, row: int, errors: Sequence[tuple[Held, Tensor | None]]
    ) -> CertificateFinding:
        """Whether the identities of a row hold, but that of the point which is moved."""
        address = self._catalog.point(name)
        template, layer = address.template, address.layer
        worst: CertificateFinding | None = None
        for one, error in errors:
            own = template == one.identity.of or template in one.identity.beside
            if error is None or row >= len(error) or (own and one.layer == layer):
                continue
            found = float(error[row])
            if not found <= 4 * one.allowed:
                says = f"{one.point} is no longer {one.says}"
                return CertificateFinding(False, says, found if found < float("inf") else None)
            if worst is None or worst.error is None or found > worst.error:
                worst = CertificateFinding(True, REACHES, found)
        return worst or CertificateFinding(None, "no identity reads it")

    def _slope(self, name: str, nudged: Nudged) -> CertificateFinding:
        """Whether the loss changed by what the gradient says; of what has none, whether it changed."""
        expected, found = nudged.expected[name], nudged.found[name]
        if not self._passes.differentiable(name):
            if found == 0:
                self._edits[name] = CertificateFinding(False, LOST)
            return CertificateFinding(None, "it has no gradient")
        if expected is None:
            return CertificateFinding(False, "no gradient came to it")
        if expected == 0 or abs(found) <= abs(expected) * 1e-3:
            if abs(found) <= abs(expected) * 1e-3 and expected:
                self._edits[name] = CertificateFinding(False, LOST)
            return CertificateFinding(False, "its gradient is zero" if expected == 0 else LOST)
        if max(abs(expected), abs(found)) < FAINT * self._noise:
            return CertificateFinding(
                None, "it changes a loss by less than the rounding of the logits"
            )
        off = max(0.0, abs(found - expected) - self._noise)
        error = off / max(abs(expected), abs(found))
        if error > slope_tolerance(self._dtype) and self._bends(name, error):
            return CertificateFinding(
                None, f"the loss bends more than {self._dtype} resolves; the sign is right", error
            )
        return CertificateFinding(error <= slope_tolerance(self._dtype), SLOPE, error)

    def _look_again(self) -> None:
        """Move those again, by less, of which the loss did not change as it should: a router may have chosen others."""
        bent = [
            name for name, found in self._gradients.items() if found.held is False and found.error
        ]
        if not bent or self._rough:
            return
        for nudged in self._passes.nudged(bent, [], AGAIN * self._size, self._all):
            for name in nudged.rows:
                again, expected = self._slope(name, nudged), nudged.expected[name] or 0.0
                told = self._noise < slope_tolerance(self._dtype) * abs(expected)
                if again.held and told:
                    self._gradients[name] = again
