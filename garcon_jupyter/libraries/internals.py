"""What Garçon takes of a library that the library promises nobody: private names, functions between its modules,
methods that are replaced.

Such a thing may be renamed in any release. Where it is read, that raises somewhere deep in a pass; where it is replaced, by
a method of ours that nobody calls any more, nothing raises and the numbers are other ones. So each is declared, and looked
for when a server starts, before it is used: what is missing is an error that names the thing, the release, and the
releases that have it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.errors import LibraryChanged
from garcon_jupyter.libraries import releases


@dataclass(frozen=True)
class Internal:
    """Something of a library that may change without notice.

    Attributes:
        module: that it is in.
        name: of it there; with a dot, of a class.
        use: what Garçon does with it.
        takes: parameters that it is called with, or that our own in its place is called with.
        history: what is known to have changed about it, and in which release.
    """

    module: str
    name: str
    use: str
    takes: tuple[str, ...] = ()
    history: str = ""

    @property
    def path(self) -> str:
        """Its whole name."""
        return f"{self.module}.{self.name}"

    def lack(self) -> str:
        """What is missing of it in the installed release; "" where all is there."""
        try:
            found: Any = importlib.import_module(self.module)
        except ImportError:
            return f"has no module {self.module}"
        for part in self.name.split("."):
            look = inspect.getattr_static if isinstance(found, type) else getattr
            found = look(found, part, _MISSING)
            if found is _MISSING:
                return f"has no {self.path}"
        takes = set(inspect.signature(_called(found)).parameters) if self.takes else set()
        if lost := set(self.takes) - takes:
            return f"has a {self.path} that takes no {' and no '.join(sorted(lost))}"
        return ""


_MISSING = object()


def _called(found: Any) -> Any:
    return found.__func__ if isinstance(found, (classmethod, staticmethod)) else found


def check(library: str, internals: Iterable[Internal]) -> None:
    """Look for all that is taken of a library.

    Raises:
        LibraryChanged: the first that is not there as it is needed, what it is for, and with which releases it is.
    """
    for each in internals:
        if lack := each.lack():
            raise changed(library, each, lack)


def changed(library: str, each: Internal, lack: str) -> LibraryChanged:
    """The error for something that is not there as it is needed."""
    release = releases.installed(library)
    history = f" ({each.history})" if each.history else ""
    problem = f"{library} {release} {lack}, by which Garçon {each.use}{history}."
    if library not in releases.LIBRARIES:
        return LibraryChanged(problem, f"pip install a release of {library} of before.")
    later = release is not None and releases.minor(release) > releases.tested(library)[-1]
    since = f"It has changed since {releases.span(library).split()[-1]}. " if later else ""
    needed = f"'{library}{releases.specifier(library)}'"
    return LibraryChanged(
        problem, f"{since}{releases.span(library)} have it: pip install {needed}."
    )
