"""Which releases of torch and transformers Garçon is tested with.

Both change what Garçon builds on from one minor release to the next, so each is tried before it is admitted. The table
of pairs is the one place that says so: ``make matrix`` makes an environment of each pair and runs tests in it, the bounds
in ``pyproject.toml`` are its ends (a test holds them equal), and ``garcon doctor`` and each launch compare it with what
is installed.

Not every pair is tried: three releases of one by four of the other would take hours. What breaks is nearly always one
library against Garçon, which each release's own row finds; what is between the two libraries shows where they are
furthest apart: the newest transformers, which may ask for a newer torch, on the oldest torch that is admitted.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

Minor = tuple[int, int]
"""A minor release, as (2, 13)."""


@dataclass(frozen=True)
class Pair:
    """Releases that are tested together: the newest patch of each minor release.

    Attributes:
        why: what this pair finds that the others do not.
    """

    torch: str
    transformers: str
    why: str


MATRIX = (
    Pair("2.13.0", "5.23.0", "what constraints.txt has: `make test` runs everything with it"),
    Pair("2.12.1", "5.22.2", "the oldest of both"),
    Pair("2.15.0", "5.24.0", "the newest of both"),
    Pair("2.12.1", "5.24.0", "the newest transformers on the oldest torch"),
    Pair("2.14.1", "5.23.0", "the release of torch that is in no other pair"),
)
"""Every pair has passed: one that does not is taken out, and the bounds in ``pyproject.toml`` with it."""

LIBRARIES = ("torch", "transformers")


def minor(release: str) -> Minor:
    """The minor release of a release, such as (2, 13) of "2.13.0+cpu"."""
    version = Version(release)
    return version.major, version.minor


def tested(library: str) -> tuple[Minor, ...]:
    """The minor releases of a library that passed, oldest first."""
    return tuple(sorted({minor(getattr(pair, library)) for pair in MATRIX}))


def span(library: str) -> str:
    """The minor releases that passed, in words: "5.22 to 5.24"."""
    found = tested(library)
    return f"{_said(found[0])} to {_said(found[-1])}"


def specifier(library: str) -> str:
    """The bounds of a requirement that admits what passed, and nothing else: ">=5.22,<5.25"."""
    oldest, newest = tested(library)[0], tested(library)[-1]
    return f">={_said(oldest)},<{newest[0]}.{newest[1] + 1}"


def installed(library: str) -> str | None:
    """The release that is installed, without importing it; None where there is none."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def untested(torch: str | None = None, transformers: str | None = None) -> Iterator[str]:
    """What is installed and was not tested, a sentence for each library.

    Args:
        torch, transformers: releases; those that are installed where none is given.
    """
    for library, given in zip(LIBRARIES, (torch, transformers), strict=True):
        release = given or installed(library)
        if release is None:
            continue
        try:
            found = minor(release)
        except InvalidVersion:
            found = (0, 0)
        if found not in tested(library):
            yield f"{library} {release} has not been tested with Garçon: {span(library)} have"


def tested_together(torch: str, transformers: str) -> bool:
    """Whether releases of these minors are a pair of the table."""
    pair = minor(torch), minor(transformers)
    return pair in {(minor(each.torch), minor(each.transformers)) for each in MATRIX}


def _said(release: Minor) -> str:
    return f"{release[0]}.{release[1]}"
