"""Every error a user of Garçon can meet, as a type.

An error is one sentence of what is wrong and one of what to do about it. The server raises the same
classes: they travel by name (see :mod:`garcon_jupyter.wire.failures`), so that
``except garcon.UnknownPoint`` means the same whether the mistake was noticed here or there.
"""

from __future__ import annotations

import difflib
import linecache
from collections.abc import Iterable

from garcon_jupyter import imported


class GarconError(Exception):
    """Base of all errors of Garçon.

    Args:
        problem: what is wrong, one sentence.
        remedy: what the user can do about it, one sentence.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())

    def __reduce__(self) -> tuple[type[GarconError], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of the local stack: the two sentences say it all."""
        return [f"{type(self).__name__}: {self.problem}", *filter(None, [self.remedy])]


class UnknownName(GarconError, LookupError):
    """A name that does not exist, with the nearest ones that do."""

    def __init__(self, problem: str, remedy: str = "", nearest: Iterable[str] = ()) -> None:
        self.nearest = tuple(nearest)
        super().__init__(problem, remedy)

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], remedy: str = "") -> UnknownName:
        """The error for `name`, a `kind` that is not in `known`; it names the nearest ones."""
        nearest = tuple(difflib.get_close_matches(name, list(known), n=3, cutoff=0.5))
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else ""
        return cls(f"There is no {kind} {name!r}.", f"{hint} {remedy}".strip(), nearest)


class UnknownPoint(UnknownName):
    """A probe point that the grammar does not have."""


class UnknownParameter(UnknownName):
    """A parameter name that the grammar, or this model, does not have."""


class PointUnavailable(GarconError, LookupError):
    """A point of the table which this architecture, layer or sharding does not have, and why."""


class UnknownServer(UnknownName):
    """No running server has this name."""


class BadTokens(GarconError, ValueError):
    """Tokens that the model cannot read: empty, ragged, out of range, too long."""


class BadData(GarconError, ValueError):
    """Data of a run that cannot be read: the file, or one document of it, which is named."""


class BadProbe(GarconError, TypeError):
    """A probe that cannot be made or shipped: its body, its options or what it captures."""


class BadRequest(GarconError, ValueError):
    """A request whose arguments make no sense together."""


class ProbesUnknown(GarconError):
    """The server does not have probes that a request names by digest; the client sends them again."""


class MissingModule(GarconError, ImportError):
    """Shipped code needs a module that the server cannot import."""


class CannotTravel(GarconError, TypeError):
    """A value that cannot be pickled, with the name of the attribute that holds it."""


class WrongValue(GarconError, TypeError):
    """A probe returned a value of another shape, dtype, device or type than the point's."""


class NoRecording(GarconError, LookupError):
    """Nothing was recorded under this name."""


class ServerError(GarconError):
    """The server failed in its own code: a bug of Garçon, shown with its traceback."""


class ModelError(GarconError, RuntimeError):
    """The model's own code raised in the middle of a pass: in which module, and what probes had edited before."""


class ProbeError(GarconError):
    """User code raised on the server.

    What is raised in the notebook is an instance of this *and* of the original exception type.

    Attributes:
        original: name of the original exception type.
        where: the point (and call) at which the code ran, with shape, dtype and sharding.
        frames: the user's frames, outermost first, as ``(file, line, function)``.
        sources: the line of each frame, as it was shipped.
    """

    original: str = ""
    where: str = ""
    frames: tuple[tuple[str, int, str], ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        """Where user code failed: the point, and the lines of the user's cell."""
        lines = [f"  at {self.where}"] if self.where else []
        for number, (file, line, name) in enumerate(self.frames):
            lines.append(f"  {file_shown(file)}, line {line}, in {name}")
            shipped = self.sources[number] if number < len(self.sources) else ""
            if source := shipped or linecache.getline(file, line).strip():
                lines.append(f"    {source}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.problem}\n{self.location}".rstrip()

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of the local stack: the user's own lines."""
        return ["-" * 75, self.original or type(self).__name__, self.location, "", self.problem]


def file_shown(file: str) -> str:
    """A file as a traceback names it; a notebook's cells have names of their own."""
    shell = imported.shell()
    named = shell.compile.format_code_name(file) if shell else None
    return " ".join(named) if named else f'File "{file}"'


class Interrupted(GarconError, KeyboardInterrupt):
    """The request was stopped by an interrupt; the server, the model and recordings are intact."""


class NotFinished(GarconError, TimeoutError):
    """What was waited for goes on beyond the time that it was given."""


class NotAModel(GarconError, ValueError):
    """A path that holds no model which can be served."""


class NotAnAdapter(GarconError, ValueError):
    """A path that holds no adapter which this model can run with, and why."""


class NotADictionary(GarconError, ValueError):
    """Files that hold no dictionary which can be read as it was meant, with the key that is wrong or missing."""


class WrongDictionary(GarconError, ValueError):
    """A dictionary that was made for activations which this model does not have."""


class UnclearPoint(UnknownName):
    """A name of another library that may mean several points, or none, with those that it may mean."""


class NotTheReference(GarconError, ValueError):
    """A model that, as it would be served, does not compute what its own implementation computes."""


class FetchFailed(GarconError, OSError):
    """A model could not be fetched."""


class DigestMismatch(FetchFailed):
    """What was fetched is not what was promised."""


class DoesNotFit(GarconError, MemoryError):
    """A model, an answer or a recording needs more memory than there is; nothing was begun."""


class OutOfMemory(GarconError, MemoryError):
    """Memory ended while a request ran: it failed, and the server goes on without it."""


class BadDegrees(GarconError, ValueError):
    """Degrees of parallelism that do not divide the model or exceed the devices."""


class ModelsDiffer(GarconError, ValueError):
    """Checkpoints that shall be compared differ in more than their weights: in what, member by member."""


class ServerMismatch(GarconError):
    """A server of this name runs with another model, degrees, dtype or loader."""


class LaunchFailed(GarconError):
    """The server ended before it was ready; the end of its log is in the message."""


class ServerGone(GarconError, ConnectionError):
    """The server ended or does not answer; says why where a tombstone tells."""


class ServerRestarted(GarconError, ConnectionError):
    """A rank was lost while the request ran; the server starts its ranks anew, and goes on."""


class Unreachable(GarconError, ConnectionError):
    """A machine that ssh cannot connect to, or an address that does not answer, or does not let us in; with what was said."""


class VersionMismatch(GarconError, ConnectionError):
    """Client and server do not speak the same protocol or Python."""


class LibraryChanged(GarconError, ImportError):
    """An installed release of a library lacks something that Garçon is built on; names it, and the releases that have it."""


class BadConnectionFile(GarconError, ValueError):
    """A file that is no connection file of a Garçon server."""


class NotConnected(GarconError, ConnectionError):
    """A connection that was closed, or that belongs to the process of which this one is a fork."""


class SessionInUse(GarconError):
    """Another living client holds the session."""


class LanguageModelRefused(GarconError, ConnectionError):
    """A language model that explains or simulates answers no request: the address, the key or the model's name is wrong."""


ERRORS: dict[str, type[GarconError]] = {
    kind.__name__: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, GarconError)
}
"""All of them by name: the one table that the wire, the package and the tests read."""
