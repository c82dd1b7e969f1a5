"""``%garcon WORD …``, and the two cell magics."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from garcon_jupyter import api
from garcon_jupyter.client import resuming
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.display import certificate, listings
from garcon_jupyter.display.whereabouts import whereabouts
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.magics import activations, arguments
from garcon_jupyter.magics.cells import Cell, parse
from garcon_jupyter.magics.current import Current
from garcon_jupyter.magics.dictionaries import dictionary
from garcon_jupyter.magics.dictionary_training import train
from garcon_jupyter.magics.experiments import EXPERIMENTS
from garcon_jupyter.magics.explanations import explain
from garcon_jupyter.magics.parser import HelpShown
from garcon_jupyter.magics.probe import ProbeCell
from garcon_jupyter.magics.training import training
from garcon_jupyter.model import VARIABLE
from garcon_jupyter.servers import control, fleet_files, registry
from garcon_jupyter.servers.option_forms import launch_options
from garcon_jupyter.servers.server import Server


@magics_class
class GarconMagics(Magics):
    """The magics of one shell."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.current = Current(shell)

    @no_var_expand
    @line_cell_magic
    def garcon(self, line: str, cell: str | None = None) -> None:
        if cell is not None:
            self._garcon_cell(line, cell)
            return
        word, rest = arguments.word_of(self._words(line) or ["help"])
        parser = arguments.PARSERS["help" if word in ("-h", "--help") else word_or_error(word)]
        try:
            given = parser.parse_args(rest)
        except HelpShown:
            return
        COMMANDS[parser.prog.removeprefix("%garcon ")](self.current, given)

    @no_var_expand
    @line_cell_magic
    def probe(self, line: str, cell: str | None = None) -> None:
        # %probe has no body: that is for --record.
        self._probe(line, Cell.of(self.shell, "probe", line, cell or ""))

    def _garcon_cell(self, line: str, body: str) -> None:
        cell = Cell.of(self.shell, "garcon", line, body)
        first = (self._words(line) or [""])[0]
        if first == "--ranks":
            self._on_ranks(line, cell)
        elif first in arguments.PARSERS:
            raise BadRequest(
                f"%%garcon {first} has a body below it, which means nothing there.",
                f"Write %garcon {first} with one %.",
            )
        elif not first:
            raise BadRequest(
                "%%garcon says neither where nor how to run this cell.",
                "%%garcon POINT … makes it a probe; %%garcon --ranks runs it on every rank.",
            )
        else:
            self._probe(line, cell)

    def _probe(self, line: str, cell: Cell) -> None:
        words = arguments.words(line)
        try:
            given, more = arguments.PROBE.parse_known_args(words)
        except HelpShown:
            return
        if unknown := [word for word in more if word.startswith("-")]:
            arguments.PROBE.error(f"there is no option {unknown[0]}")
        given.points += more  # points may stand behind options
        ProbeCell(self.current, given, cell).run()

    def _on_ranks(self, line: str, cell: Cell) -> None:
        if len(self._words(line)) > 1:
            raise BadRequest("%%garcon --ranks takes nothing else.", "Leave the rest out.")
        parse(cell, "cell")
        self.current.model().run_on_ranks(cell.source, cell.filename)

    def _words(self, line: str) -> list[str]:
        return [arguments.expanded(w, self.current.variables) for w in arguments.words(line)]


GarconMagics.garcon.__doc__ = arguments.overview()
GarconMagics.probe.__doc__ = arguments.PROBE.format_help()


def word_or_error(word: str) -> str:
    """A word after ``%garcon`` that there is.

    Raises:
        UnknownName: there is none; names the nearest.
    """
    arguments.parser_of(word)
    return word


# -- the words after %garcon ---------------------------------------------------------------------


def _launch(current: Current, given: argparse.Namespace) -> None:
    server = api.launch(given.path, **launch_options(given))
    if server.alive:  # on another host than the first of several, it has ended meanwhile
        _connect_to(current, server, given.session)


def _connect(current: Current, given: argparse.Namespace) -> None:
    _connect_to(current, registry.find(given.name), given.session)


def _connect_to(current: Current, server: Server, session: str | None) -> None:
    model, same = current.connect(server, session)
    current.use(model)
    still = "is still connected" if same else "is connected"
    print(f"{VARIABLE} {still} to {server.name}: {listings.model_line(model.facts)}.")
    if model.resumed and not same:
        n = len(model.recordings())
        print(f"Session {model.session!r} is resumed, with {n} recording{'' if n == 1 else 's'}.")
        if pending := model.pending():
            print(listings.pending(pending))


def _list(current: Current, given: argparse.Namespace) -> None:
    print(listings.servers(registry.servers(), fleet_files.fleets()))


def _status(current: Current, given: argparse.Namespace) -> None:
    server = registry.find(given.name) if given.name else current.model().server
    print(listings.status(server, control.status(server)))


def _sessions(current: Current, given: argparse.Namespace) -> None:
    server = registry.find(given.name) if given.name else current.model().server
    print(listings.sessions(resuming.sessions(server)))


def _keep_alive(current: Current, given: argparse.Namespace) -> None:
    server = registry.find(given.name) if given.name else current.model().server
    left = control.keep_alive(server)
    ends = "never ends by itself" if left is None else f"stays for {listings.duration(left)}"
    print(f"{server.name} {ends}.")


def _stop(current: Current, given: argparse.Namespace) -> None:
    if given.name:
        ended: Iterable[Endpoint] = fleet_files.stopped(given.name, given.force)
    else:
        control.stop(current.model().server, given.force)
        ended = [current.model().server]
    for server in ended:
        current.hang_up(server)
        print(f"{server.name} has ended.")


def _points(current: Current, given: argparse.Namespace) -> None:
    catalog = current.model().catalog
    shown = whereabouts if given.why else listings.points
    print(shown(catalog, given.pattern))


def _params(current: Current, given: argparse.Namespace) -> None:
    print(listings.parameters(current.model().catalog, given.pattern))


def _certify(current: Current, given: argparse.Namespace) -> None:
    found = current.model().certify(anew=given.anew, every_layer=given.every_layer)
    print(certificate.text(found))


def _probes(current: Current, given: argparse.Namespace) -> None:
    model = current.model()
    if given.all or given.detach:
        gone = model.detach(None if given.all else given.detach)
        print(f"Detached {len(gone)} probe{'' if len(gone) == 1 else 's'}.")
    print(listings.attached(model))


def _recordings(current: Current, given: argparse.Namespace) -> None:
    print(current.model().recordings())


def _pending(current: Current, given: argparse.Namespace) -> None:
    print(listings.pending(current.model().pending()))


def _result(current: Current, given: argparse.Namespace) -> None:
    current.variables["result"] = current.model().result(given.request)


def _cancel(current: Current, given: argparse.Namespace) -> None:
    current.model().cancel(given.request)
    _pending(current, given)


def _clear(current: Current, given: argparse.Namespace) -> None:
    model = current.model()
    model.clear_recordings(given.pattern, given.name)
    print(f"Recordings left: {len(model.recordings())}.")


def _logs(current: Current, given: argparse.Namespace) -> None:
    name = given.name or current.model().server.name
    print(listings.log_tail(name, given.lines))


def _use(current: Current, given: argparse.Namespace) -> None:
    model = current.named(given.which)
    current.use(model)
    print(f"{VARIABLE} is {given.which} now: {model!r}")


def _help(current: Current, given: argparse.Namespace) -> None:
    about = " ".join(given.about)
    if not about:
        print(arguments.overview())
    elif about == "probe":
        print(arguments.PROBE.format_help())
    else:
        print(arguments.parser_of(about).format_help())


COMMANDS: dict[str, Callable[[Current, argparse.Namespace], None]] = {
    "launch": _launch,
    "connect": _connect,
    "list": _list,
    "status": _status,
    "sessions": _sessions,
    "keep-alive": _keep_alive,
    "stop": _stop,
    "points": _points,
    "params": _params,
    "certify": _certify,
    "probes": _probes,
    "recordings": _recordings,
    "pending": _pending,
    "result": _result,
    "cancel": _cancel,
    "clear": _clear,
    "store": activations.store,
    "shuffle": activations.shuffle,
    "features": activations.features,
    "jobs": activations.jobs,
    "dictionary": dictionary,
    "dictionary train": train,
    "training": training,
    "explain": explain,
    **{experiment.word: experiment for experiment in EXPERIMENTS},
    "logs": _logs,
    "use": _use,
    "help": _help,
}
"""What each word of :data:`~garcon_jupyter.magics.arguments.PARSERS` does."""
