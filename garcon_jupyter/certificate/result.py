"""What a certificate says: for each point and parameter, by kind of layer, what it was held against."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.client import display_hooks


@dataclass(frozen=True)
class CertificateFinding:
    """What was found when something was held against something.

    Attributes:
        held: whether it holds; None where nothing could be held against it.
        says: what holds, or does not, in words; where nothing could be, why.
        error: how far it was off, relative; None where that is no number.
    """

    held: bool | None
    says: str
    error: float | None = None


NOTHING = CertificateFinding(None, "")
"""Where there is nothing to be found, such as the gradient of a parameter's name."""


@dataclass(frozen=True)
class CertificateRow:
    """A point or parameter of one kind of layer.

    Attributes:
        name: its template.
        kind: of the layers; "" for what is in no layer.
        value: its value, by an identity.
        edit: whether an edit there reaches what comes after it, and only that.
        gradient: the gradient there, by a finite difference.
    """

    name: str
    kind: str
    value: CertificateFinding
    edit: CertificateFinding = NOTHING
    gradient: CertificateFinding = NOTHING

    @property
    def findings(self) -> dict[str, CertificateFinding]:
        """What was found, by the column."""
        return {word: getattr(self, word) for word in ("value", "edit", "gradient")}

    @property
    def held(self) -> bool | None:
        """Whether all that could be held against something holds; None where nothing could."""
        told = [finding.held for finding in self.findings.values() if finding.held is not None]
        return all(told) if told else None


@dataclass(frozen=True)
class LayerKind:
    """Layers that have the same points and mix tokens alike.

    Attributes:
        layers: numbers of all of them.
        read: of those whose values were read.
        moved: of the one whose points were moved.
    """

    layers: tuple[int, ...]
    read: tuple[int, ...]
    moved: int


@dataclass(frozen=True)
class Certificate:
    """Every named point of one model, as it is served, held against identities.

    Attributes:
        facts: which model, how it is cut, which dtype and which versions.
        kinds: kinds of layers, by name.
        rows: one for each point and parameter of each kind.
        checks: what concerns the whole model, by name.
        sampled: parameters of which some rows were read, not all.
        seconds: how long it took.
    """

    facts: Mapping[str, Any]
    kinds: Mapping[str, LayerKind]
    rows: tuple[CertificateRow, ...]
    checks: Mapping[str, CertificateFinding]
    sampled: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """A short name, by which recordings name it: eight hexadecimal digits of what it says."""
        told = json.dumps(dataclasses.asdict(self), sort_keys=True).encode()
        return hashlib.sha256(told).hexdigest()[:8]

    @property
    def holds(self) -> bool:
        """Whether nothing is broken."""
        return not any(True for _ in self.broken())

    def broken(self) -> Iterator[tuple[str, str, str, CertificateFinding]]:
        """(point or parameter, kind of layer, column, finding) of what does not hold."""
        for name, finding in self.checks.items():
            if finding.held is False:
                yield name, "", "check", finding
        for row in self.rows:
            for column, finding in row.findings.items():
                if finding.held is False:
                    yield row.name, row.kind, column, finding

    def not_covered(self) -> Iterator[tuple[str, str, str]]:
        """(point or parameter, kind of layer, why) of those whose value was held against nothing."""
        for row in self.rows:
            if row.value.held is None:
                yield row.name, row.kind, row.value.says

    def row(self, name: str, kind: str | None = None) -> CertificateRow:
        """The row of a template; of its first kind of layer, unless one is named.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.name == name and kind in (None, row.kind):
                return row
        raise KeyError(name if kind is None else (name, kind))

    @property
    def summary(self) -> str:
        """In a sentence."""
        total = sum(row.held is not None for row in self.rows)
        held = sum(row.held is True for row in self.rows)
        said = f"{held} of {total} points and parameters held"
        broken, uncovered = len(list(self.broken())), len(list(self.not_covered()))
        said += f", {broken} findings are broken" if broken else ""
        return said + (f", {uncovered} not covered" if uncovered else "")

    def as_json(self) -> dict[str, Any]:
        """Plain data, of which :meth:`of_json` makes the same again; with "id" and "summary"."""
        told = {"id": self.id, "summary": self.summary, **dataclasses.asdict(self)}
        plain: dict[str, Any] = json.loads(json.dumps(told))
        return plain

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Certificate:
        """A certificate of what :meth:`as_json` says."""

        def finding(said: Mapping[str, Any]) -> CertificateFinding:
            return CertificateFinding(said["held"], said["says"], said["error"])

        def kind(said: Mapping[str, Any]) -> LayerKind:
            return LayerKind(tuple(said["layers"]), tuple(said["read"]), said["moved"])

        def row(said: Mapping[str, Any]) -> CertificateRow:
            found = (finding(said[word]) for word in ("value", "edit", "gradient"))
            return CertificateRow(said["name"], said["kind"], *found)

        return cls(
            told["facts"],
            {name: kind(said) for name, said in told["kinds"].items()},
            tuple(row(said) for said in told["rows"]),
            {name: finding(said) for name, said in told["checks"].items()},
            tuple(told["sampled"]),
            told["seconds"],
        )

    def __repr__(self) -> str:
        return f"<certificate {self.id} of {self.facts.get('name')}: {self.summary}>"

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)
