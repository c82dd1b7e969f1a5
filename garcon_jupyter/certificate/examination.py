"""A certificate is made: passes are run, and what they show is held against what should hold."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.certificate import evaluation
from garcon_jupyter.certificate.attention_formulas import repeated
from garcon_jupyter.certificate.closeness import apart, is_rough, tolerance
from garcon_jupyter.certificate.dictionary_examination import DictionaryExamination
from garcon_jupyter.certificate.edits import EditFindings
from garcon_jupyter.certificate.evaluation import Held
from garcon_jupyter.certificate.identities import IDENTITIES, UNCOVERED
from garcon_jupyter.certificate.layer_kinds import layer_kinds
from garcon_jupyter.certificate.passes import CertificatePasses
from garcon_jupyter.certificate.result import Certificate, CertificateFinding, CertificateRow
from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.points import PARAMETERS, POINTS, fill, parse_parameter

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.certificate.values import PointValues
    from garcon_jupyter.client.client import Client

LENGTH = 5
"""Tokens of the text that is read."""

INSIDE = (".norm.out", "final_norm.out", ".attn.out", ".mlp.out", ".resid_post")
"""Ends of the names of points that show whether looking at others changed anything."""


def examine(rmodel: Client, facts: Mapping[str, Any], every_layer: bool = False) -> Certificate:
    """The certificate of a served model.

    Args:
        facts: of the model, as the certificate shall have them.
        every_layer: read all layers, not two of each kind.

    Raises:
        BadRequest: the model has points of its modules only.
    """
    if not rmodel.catalog.mapped:
        raise BadRequest(
            "This model has no named points: a certificate has nothing to say of it.",
            f"Its modules are {rmodel.catalog.a_module()} and others; no family maps this architecture.",
        )
    return Examination(rmodel, facts, every_layer).certificate()


class Examination:
    """One certificate in the making.

    Attributes:
        kinds: of layers.
        values: of the text as it is.
        held: the identities that could be held against these, by the template of their point and the kind of layer.
    """

    def __init__(self, rmodel: Client, facts: Mapping[str, Any], every_layer: bool = False) -> None:
        self._began = time.monotonic()
        self._rmodel, self._facts, self._catalog = rmodel, facts, rmodel.catalog
        self._dtype = str(rmodel.facts["model"]["dtype"])
        self.kinds = layer_kinds(rmodel.catalog, every_layer)
        self._passes = CertificatePasses(rmodel, _text(rmodel.catalog.sizes.get("V", 2)))
        self._checks: dict[str, CertificateFinding] = {}
        self._wrong: dict[str, CertificateFinding] = {}
        self.values, logits = self._passes.read(self._names())
        self._logits = self._passes.logits()
        self._looking_changes_nothing(logits)
        self._equal_edits_change_nothing(logits)
        self.held = self._hold()
        self._turn()
        self._edits = EditFindings(
            self._passes,
            self.kinds,
            self.values,
            [h for hs in self.held.values() for h in hs],
            self._dtype,
            logits,
        )

    def certificate(self) -> Certificate:
        """What was found."""
        rows = [*self._point_rows(), *self._parameter_rows()]
        for name in self._rmodel.dictionaries:
            one = DictionaryExamination(
                self._passes, self._rmodel.dictionaries[name], self._dtype, self._logits
            )
            self._checks |= one.checks()
            rows += one.rows()
        sampled = tuple(sorted({_template(name) for name in self._passes.parameters.sampled}))
        seconds = round(time.monotonic() - self._began, 2)
        return Certificate(self._facts, self.kinds, tuple(rows), self._checks, sampled, seconds)

    # -- what is read ------------------------------------------------------------------------

    def _names(self) -> list[str]:
        """All points of the layers that are read, and the stream of all."""
        read = {layer for kind in self.kinds.values() for layer in kind.read}
        stream = ("layers.{i}.resid_pre", "layers.{i}.resid_post")
        found = []
        for name in self._catalog.names():
            address = self._catalog.point(name)
            if address.layer is None or address.layer in read or address.template in stream:
                found.append(name)
        return found

    def _looking_changes_nothing(self, logits: Tensor) -> None:
        """Hold the logits, and what halves of blocks put out, against passes that see less."""
        allowed = tolerance("deep", self._dtype)
        error = float(apart(logits.double(), self._passes.logits().double()).max())
        says = "logits of a pass with all probes are those of one without"
        self._checks["looking changes nothing"] = _finding(error, allowed, says)
        if error > allowed and self._flips:
            says = f"rounding to {self._dtype} may give a token other experts, from one pass to the next"
            self._checks["looking changes nothing"] = CertificateFinding(None, says, error)
        outer = [name for name in self.values.points if name.endswith(INSIDE)]
        for fewer in (outer, _without_first(self.values.points)):
            alone, _ = self._passes.read(fewer)
            for name, value in alone.points.items():
                error = float(apart(self.values.points[name], value).max())
                told = not self._flips or name.startswith("layers.0.attn.")
                if error > allowed and told:
                    self._wrong[name] = CertificateFinding(
                        False, "looking at other points changes it", error
                    )

    @property
    def _flips(self) -> bool:
        """Whether rounding may give a token other experts."""
        return self._catalog.n_experts > 0 and is_rough(self._dtype)

    def _equal_edits_change_nothing(self, logits: Tensor) -> None:
        """Hold a pass in which each value is replaced by an equal one against one in which it is not: to the last bit."""
        import torch

        again, after = self._passes.read([*self.values.points], put_back=True)
        same = torch.equal(logits, after)
        first = next(
            (
                n
                for n, value in self.values.points.items()
                if not _equal(value, again.points.get(n))
            ),
            None,
        )
        says = "an edit that changes nothing is, to the last bit, no edit"
        if first is not None and "mixer" in first and self._nearly(again):
            says = "an edit that changes nothing is no edit, up to the rounding of a recurrence"
            first, same = None, True
        if first is not None or not same:
            says += f": it is not, from {first or 'the logits'} on"
        self._checks["equal edits"] = CertificateFinding(first is None and same, says)
        answered = self.values.points.get("logits")
        if answered is not None and self.values.columns is not None:
            whole = logits.double()[..., self.values.columns]
            error = float(apart(answered, whole).max())
            says = "the point logits is what a forward answers"
            self._checks["logits"] = _finding(error, tolerance("sum", self._dtype), says)

    def _nearly(self, again: PointValues) -> bool:
        """Whether all values of another pass are those of the first, up to its rounding."""
        errors = [
            float(apart(value[None], again.points[name][None]).max())
            for name, value in self.values.points.items()
            if name in again.points and "experts" not in name
        ]
        return max(errors) <= tolerance("deep", self._dtype)

    # -- identities --------------------------------------------------------------------------

    def _hold(self) -> dict[tuple[str, str], list[Held]]:
        """Every identity of the layers that are read, and the stream from layer to layer of all."""
        found: dict[tuple[str, str], list[Held]] = defaultdict(list)
        read = {layer for kind in self.kinds.values() for layer in kind.read}
        for one in evaluation.held(self.values, range(self._catalog.n_layers), self._dtype):
            if one.layer in read or one.layer is None or one.identity.of == "layers.{i}.resid_pre":
                found[one.identity.of, self._kind_of(one.layer)].append(one)
        return found

    def _kind_of(self, layer: int | None) -> str:
        """Name of the kind of a layer."""
        return next((name for name, kind in self.kinds.items() if layer in kind.layers), "")

    def _turn(self) -> None:
        """Hold rotary positions against what they are for: equal queries and keys see the distance alone (Su et al. 2021)."""
        for kind in self.kinds.values():
            at = f"layers.{kind.moved}.attn."
            rotated = [f"{at}q_rot", f"{at}k_rot"]
            entering = [f"{at}{x}" for x in ("q", "k", "k_nope", "k_rope")]
            entering = [name for name in entering if name in self.values.points]
            if len(entering) < 2 or not all(name in self.values.points for name in rotated):
                continue
            found = self._passes.turned_alike(entering, rotated)
            error = _off_by_distance(*(found[name] for name in rotated))
            if error > 10 * tolerance("product", self._dtype):
                says = "q·k of equal queries and keys depends on more than their distance"
                wrong = CertificateFinding(False, says, error if error < float("inf") else None)
                self._wrong |= dict.fromkeys(rotated, wrong)

    # -- rows --------------------------------------------------------------------------------

    def _point_rows(self) -> Iterator[CertificateRow]:
        for spec in POINTS:
            for kind, addresses in self._addresses(spec.template).items():
                value = self._value(spec.template, kind, addresses)
                edit, gradient = self._edits.of(spec.template, kind)
                yield CertificateRow(spec.template, kind, value, edit, gradient)

    def _addresses(self, template: str) -> dict[str, list[str]]:
        """The addresses of a template that are read, by kind of layer."""
        if template in self._catalog.refused:
            return {}
        if "{i}" not in template:
            return {"": [template]}
        having = self._catalog.layers.get(template, ())
        found = {}
        for name, kind in self.kinds.items():
            layers = [layer for layer in kind.read if layer in having]
            experts: Sequence[int | None] = (
                range(self._catalog.n_experts) if "{e}" in template else (None,)
            )
            if layers:
                found[name] = [fill(template, layer, e) for layer in layers for e in experts]
        return found

    def _value(self, template: str, kind: str, addresses: Sequence[str]) -> CertificateFinding:
        for name in addresses:
            if (why := self._unprobed(name)) is not None:
                return why
        for name in addresses:
            if name in self._wrong:
                return self._wrong[name]
            if (problem := self._shape(name)) is not None:
                return CertificateFinding(False, problem)
        own = self.held.get((template, kind), [])
        if own:
            worst = max(own, key=lambda one: one.error / one.allowed)
            return _finding(worst.error, worst.allowed, worst.says)
        readers = [h for hs in self.held.values() for h in hs if template in h.identity.reads]
        readers = [h for h in readers if self._kind_of(h.layer) == kind and h.holds]
        if readers:
            return CertificateFinding(
                True, f"{readers[0].identity.of} is made of it", readers[0].error
            )
        return CertificateFinding(
            None, UNCOVERED.get(template, "this model has nothing that it is made of")
        )

    def _unprobed(self, name: str) -> CertificateFinding | None:
        """Why a point could not be read."""
        if name in self._passes.silent:
            return CertificateFinding(False, self._passes.silent[name])
        error = self._passes.failed.get(name)
        if error is None:
            return None
        refused = isinstance(error, PointUnavailable)
        return CertificateFinding(None if refused else False, getattr(error, "problem", str(error)))

    def _shape(self, name: str) -> str | None:
        """What is wrong with the shape of a value."""
        value, address = self.values.points[name], self._catalog.point(name)
        known: dict[str, int] = {"b": 1, **dict.fromkeys(("p", "p_q", "p_k"), LENGTH)}
        shape = [known.get(str(size), size) for size in self._catalog.shape(address)]
        if name == "logits" and self.values.columns is not None:
            shape[-1] = len(self.values.columns)
        if address.expert is not None:  # where some layers are dense, M is of these
            shape = ["n", "M"]
        fits = len(shape) == value.dim() and all(
            one == other
            for one, other in zip(shape, value.shape, strict=True)
            if isinstance(one, int)
        )
        return None if fits else f"its shape is {[*value.shape]}, not {shape}"

    def _parameter_rows(self) -> Iterator[CertificateRow]:
        for spec in PARAMETERS:
            for kind in self._kinds_having(spec.template):
                yield CertificateRow(spec.template, kind, self._parameter(spec.template, kind))

    def _kinds_having(self, template: str) -> list[str]:
        """The kinds whose layers have a parameter."""
        kinds = {self._kind_of(layer) for layer in self._having[template]}
        return [kind for kind in ("", *self.kinds) if kind in kinds]

    @functools.cached_property
    def _having(self) -> Mapping[str, set[int | None]]:
        """The layers that have a parameter, by its template."""
        found: dict[str, set[int | None]] = defaultdict(set)
        for name in self._catalog.parameters:
            if (address := parse_parameter(name)) is not None:
                found[address.template].add(address.layer)
        return found

    def _parameter(self, template: str, kind: str) -> CertificateFinding:
        using = {identity.of for identity in IDENTITIES if template in identity.by}
        ones = [h for hs in self.held.values() for h in hs if h.identity.of in using]
        here = [h for h in ones if self._kind_of(h.layer) == kind or "{i}" not in template]
        read = [one for one in here if self._reads(one, template)]
        if not read:
            return CertificateFinding(
                None, UNCOVERED.get(template, "no point of this model is made with it")
            )
        worst = max(read, key=lambda one: one.error / one.allowed)
        return _finding(worst.error, worst.allowed, f"{worst.identity.of} is made with it")

    def _reads(self, one: Held, template: str) -> bool:
        """Whether an identity's layer has the parameter."""
        return self.values.at(one.layer).has(template) or "{e}" in template


def _finding(error: float, allowed: float, says: str) -> CertificateFinding:
    return CertificateFinding(error <= allowed, says, error if error < float("inf") else None)


def _equal(one: Tensor, other: Tensor | None) -> bool:
    import torch

    return other is not None and torch.equal(one, other)


def _off_by_distance(queries: Tensor, keys: Tensor) -> float:
    """How far q·k [1, p, heads] of equal queries and keys are from depending on p_q − p_k alone."""
    import torch

    if queries.shape[2] % keys.shape[2] or queries.shape[3:] != keys.shape[3:]:
        return float("inf")
    keys = repeated(keys, queries.shape[2])
    queries, keys = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-300) for x in (queries, keys))
    angles = torch.einsum("bqhd,bkhd->bhqk", queries, keys)
    return float((angles[..., 1:, 1:] - angles[..., :-1, :-1]).abs().max())


def _without_first(names: Iterable[str]) -> list[str]:
    """Points without the first of those that begin alike: what a module is run in steps for may be said by that alone."""
    seen: set[str] = set()
    found = []
    for name in names:
        beginning = name.rpartition(".")[0]
        if beginning in seen:
            found.append(name)
        seen.add(beginning)
    return found


def _text(vocabulary: int) -> Tensor:
    """Token ids [1, p] of no meaning, spread over the vocabulary."""
    import torch

    return ((torch.arange(LENGTH) * 7919 + 1013) % vocabulary)[None]


def _template(parameter: str) -> str:
    address = parse_parameter(parameter)
    return address.template if address else parameter
