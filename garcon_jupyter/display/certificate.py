"""How a certificate shows itself: as a table by point and kind of layer, as text and as HTML."""

from __future__ import annotations

import time
from collections.abc import Iterator

from garcon_jupyter.certificate.result import Certificate, CertificateFinding, CertificateRow
from garcon_jupyter.display.html import _code, _escaped, _folded, _framed, _heading, _soft, _table
from garcon_jupyter.display.listings import columns, spans

WORDS = {True: "held", False: "BROKEN", None: "not covered"}


def text(certificate: Certificate) -> str:
    """The whole of it, as a list for a terminal."""
    parts = [f"{certificate!r}", _of(certificate), *_kinds(certificate)]
    rows: list[tuple[str, ...]] = [("POINT", "LAYERS", "VALUE", "EDIT", "GRADIENT", "HELD TO")]
    rows += [
        (row.name, row.kind or "", *(_word(f) for f in row.findings.values()), row.value.says)
        for row in certificate.rows
    ]
    parts.append(columns(rows))
    parts += [
        f"{name}: {_word(finding)}. {finding.says}" for name, finding in certificate.checks.items()
    ]
    broken = [
        f"  {' '.join(filter(None, where))}: {_why(finding)}"
        for *where, finding in certificate.broken()
    ]
    parts += ["Broken:", *broken] if broken else []
    return "\n".join(parts)


def html(certificate: Certificate) -> str:
    """A table, broken rows first, with all others folded."""
    rows = [row for row in certificate.rows if row.held is not True]
    checks = [
        [_escaped(n), _escaped(_word(f)), _escaped(_why(f))] for n, f in certificate.checks.items()
    ]
    head = ["point", "layers", "value", "edit", "gradient", "held to, or why not"]
    whole = _table_of([row for row in certificate.rows if row.held is True], head)
    return _framed(
        _heading(f"Certificate {certificate.id}", certificate.summary),
        _soft(_of(certificate)),
        *(_soft(line) for line in _kinds(certificate)),
        _table_of(rows, head),
        _table(["of the whole model", "", ""], checks),
        _folded(f"{sum(row.held is True for row in certificate.rows)} held", whole),
    )


def _table_of(rows: list[CertificateRow], head: list[str]) -> str:
    """Rows as a table, cut where a table is."""
    return _table(head, [[*_cells(row)] for row in rows])


def _cells(row: CertificateRow) -> Iterator[str]:
    yield _code(row.name)
    yield _escaped(row.kind)
    wrong = [finding for finding in row.findings.values() if finding.held is False]
    for finding in row.findings.values():
        word = _escaped(_word(finding))
        yield f"<b>{word}</b>" if finding.held is False else word
    yield _escaped(_why(wrong[0]) if wrong else row.value.says)


def _word(finding: CertificateFinding) -> str:
    """A finding in a word, with how far it was off."""
    if finding.held is None:
        return "not covered" if finding.says else ""
    error = "" if finding.error is None else f" {finding.error:.0e}"
    return f"{WORDS[finding.held]}{error}"


def _why(finding: CertificateFinding) -> str:
    error = "" if finding.error is None else f" (off by {finding.error:.1e})"
    return f"{finding.says}{error}"


def _of(certificate: Certificate) -> str:
    """What it is of."""
    facts = certificate.facts
    cut = ", ".join(f"{word}={n}" for word, n in facts["degrees"].items() if n > 1) or "one process"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["made"]))
    return (
        f"{facts['architecture']}, {facts['dtype']}, {cut}; {versions}; "
        f"made {made} in {certificate.seconds:.1f} s"
    )


def _kinds(certificate: Certificate) -> list[str]:
    """Which layers were read."""
    lines = [
        f"Layers of the kind {name}: {spans(kind.layers)}; read: {spans(kind.read)}; moved: {kind.moved}."
        for name, kind in certificate.kinds.items()
    ]
    if certificate.sampled:
        lines.append(f"Some rows only were read of {', '.join(certificate.sampled)}.")
    return lines
