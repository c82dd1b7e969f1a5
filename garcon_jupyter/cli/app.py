"""The ``garcon`` command: servers from a terminal.

It prints what was asked for on stdout; progress and errors on stderr. Exit codes: 0 done, 1 an error
(one sentence says which, one what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from garcon_jupyter.cli import agent_door, doors
from garcon_jupyter.display import listings
from garcon_jupyter.display.whereabouts import WHY, whereabouts
from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.points import Catalog, is_pattern, parse_point
from garcon_jupyter.servers import control, fleet_files, registry
from garcon_jupyter.servers.option_forms import (
    add_certify_options,
    add_launch_options,
    launch_options,
)
from garcon_jupyter.servers.server import Server, log_file

FOLLOW_TICK = 0.2
"""Seconds between two looks for new lines of a log."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = _parser().parse_args(arguments)
    return reporting_errors(lambda: given.run(given))


def reporting_errors(work: Callable[[], int]) -> int:
    """The exit code of `work`; its errors on stderr, without a traceback."""
    try:
        return work()
    except GarconError as error:
        if isinstance(error, KeyboardInterrupt):
            return 130
        say(f"garcon: {error.problem}")
        if error.remedy:
            say(error.remedy)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        return 0


def say(line: str) -> None:
    """Progress and errors: on stderr, so that stdout holds only what was asked for."""
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="garcon",
        description="Servers of language models that notebooks look into.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], what: str) -> Add:
        added = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        added.set_defaults(run=run)
        return added

    launch = command("launch", lambda given: launched(given.path, given), "launch a server")
    launch.add_argument("path", metavar="PATH", help="smollm2, a directory, or a hub id")
    add_launch_options(launch)
    command("list", _list, "list the running servers")
    status = command("status", _status, "say what servers do, who is there and what they use")
    status.add_argument("name", metavar="NAME", nargs="?", help="default: all")
    sessions = command("sessions", _sessions, "list sessions: who has them, and what is in them")
    sessions.add_argument("name", metavar="NAME", nargs="?", help="of a server; default: all")
    logs = command("logs", _logs, "show what a server wrote")
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("-n", dest="lines", type=int, default=40, help="last lines (default: 40)")
    logs.add_argument("-f", dest="follow", action="store_true", help="go on until it ends")
    stop = command("stop", _stop, "end a server, or all members of a fleet")
    stop.add_argument("name", metavar="NAME", help="of a server, else of a fleet")
    stop.add_argument("--force", action="store_true", help="even while others use it, or it hangs")
    points = command("points", _points, "list the probe points of a model, with shapes")
    points.add_argument(
        "name", metavar="NAME", nargs="?", help="of a server; default: the only one"
    )
    points.add_argument("pattern", metavar="PATTERN", nargs="?", help="such as 'layers.*.mlp.out'")
    points.add_argument("--why", action="store_true", help=WHY)
    certify = command("certify", _certify, "hold a model's points against what must hold of them")
    certify.add_argument("name", metavar="NAME", help="of a server")
    add_certify_options(certify)
    shuffle = command("shuffle", _shuffle, "put the rows of a store of activations in random order")
    shuffle.add_argument("src", metavar="SRC", help="directory of a store")
    shuffle.add_argument("dst", metavar="DST", help="a new one, or that of a shuffle cut short")
    shuffle.add_argument("--seed", type=int, default=0, help="of the order (default: 0)")
    _add_engine(shuffle, "1GB")
    features = command(
        "features", _features, "find what latents of a dictionary fire on, by a store"
    )
    features.add_argument(
        "dictionary", metavar="DICTIONARY", help="its files; - for the units of the store's point"
    )
    features.add_argument("store", metavar="STORE", help="directory of a store, not shuffled")
    features.add_argument("out", metavar="DIR", help="a new one, or that of a call cut short")
    features.add_argument("--point", help="of the store, where it has several")
    features.add_argument("-k", type=int, default=20, help="strongest tokens (default: 20)")
    features.add_argument("--sample", type=int, default=200, help="sampled tokens (default: 200)")
    features.add_argument("--without-first", action="store_true", help="leave out first tokens")
    features.add_argument(
        "--server", metavar="NAME", help="whose tokenizer says texts (default: the only one)"
    )
    _add_engine(features, "2GB")
    jobs = command("jobs", _jobs, "list what takes long, or pause, resume or cancel it")
    jobs.add_argument(
        "what", metavar="pause|resume|cancel", nargs="?", choices=("pause", "resume", "cancel")
    )
    jobs.add_argument("name", metavar="JOB", nargs="?", help="as it is listed, or its end")
    doors.add_commands(command)
    agent_door.add_command(command)
    fetch = command("fetch", _fetch, "fetch an embedded model into the cache")
    fetch.add_argument("model", metavar="MODEL", help="smollm2 or gemma3-270m")
    command("doctor", _doctor, "check this machine, and say what to do")
    return parser


Add = argparse.ArgumentParser


def _add_engine(parser: Add, memory: str) -> None:
    parser.add_argument("--memory", default=memory, help=f"for all processes (default: {memory})")
    parser.add_argument(
        "--engine",
        default="local",
        help="what runs its tasks: local, ray, dask, slurm, ray:ADDRESS, …",
    )
    parser.add_argument("--workers", type=int, help="tasks at a time (default: the cores)")
    parser.add_argument("--work", metavar="DIR", help="where it is made, if DST is an address")


# -- the commands --------------------------------------------------------------------------------


def launched(path: str, given: argparse.Namespace) -> int:
    """Launch a server, and say how to reach it."""
    from garcon_jupyter.api import launch

    server = launch(path, **launch_options(given), progress=say)
    if not server.alive:  # this was another host than its first, and stayed as long as the server
        print(f"{server.name} has ended.")
        return 0
    print(f"{server.name} runs: {listings.model_line(server.facts)}.")
    print(f"In a notebook: %garcon connect {server.name}")
    return 0


def _list(given: argparse.Namespace) -> int:
    print(listings.servers(registry.servers(), fleet_files.fleets()))
    return 0


def _status(given: argparse.Namespace) -> int:
    chosen = [registry.find(given.name)] if given.name else registry.servers()
    if not chosen:
        print(listings.servers([]))
    for server in chosen:
        print(listings.status(server, control.status(server)))
    return 0


def _sessions(given: argparse.Namespace) -> int:
    from garcon_jupyter.client.resuming import sessions

    print(listings.sessions(sessions(given.name)))
    return 0


def _logs(given: argparse.Namespace) -> int:
    running = {server.name: server for server in registry.servers()}
    print(listings.log_tail(given.name, given.lines), flush=True)
    if given.follow and given.name in running:
        _follow(running[given.name])
    return 0


def _follow(server: Server) -> None:
    """Print what a server writes until it ends."""
    with log_file(server.name).open(errors="replace") as stream:
        stream.seek(0, 2)
        lives = True
        while lives:
            lives = server.alive  # asked before reading, so that its last words are read
            print(stream.read(), end="", flush=True)
            time.sleep(FOLLOW_TICK if lives else 0)


def _stop(given: argparse.Namespace) -> int:
    for server in fleet_files.stopped(given.name, given.force):
        print(f"{server.name} has ended.", flush=True)
    return 0


def _points(given: argparse.Namespace) -> int:
    name, pattern = given.name, given.pattern
    running = {server.name: server for server in registry.servers()}
    if name and not pattern and name not in running and _names_points(name):
        name, pattern = None, name
    if name is None and not running:
        say("No server runs: this is the table that every model is measured by.")
        print(listings.points(None))
    else:
        shown = whereabouts if given.why else listings.points
        print(shown(_catalog(_the_server(name, running)), pattern))
    return 0


def _names_points(word: str) -> bool:
    return bool(parse_point(word)) or is_pattern(word) or word.startswith("layers")


def _the_server(name: str | None, running: dict[str, Server]) -> Server:
    if name is not None:
        return registry.find(name)
    if len(running) > 1:
        raise BadRequest(
            f"{len(running)} servers run: {', '.join(running)}.", "Say which: garcon points NAME."
        )
    return next(iter(running.values()))


def _certify(given: argparse.Namespace) -> int:
    from garcon_jupyter.display import certificate
    from garcon_jupyter.model import RemoteModel

    model = RemoteModel(registry.find(given.name), prefer="garcon certify", lasting=False)
    try:
        found = model.certify(anew=given.anew, every_layer=given.every_layer)
    finally:
        model.close()
    print(certificate.text(found))
    return 0 if found.holds else 1


def _catalog(server: Server) -> Catalog:
    from garcon_jupyter.model import RemoteModel

    model = RemoteModel(server, prefer="garcon points", lasting=False)
    try:
        return model.catalog
    finally:
        model.close()


def _shuffle(given: argparse.Namespace) -> int:
    from garcon_jupyter.exchanges import shuffle

    mixed = shuffle(
        given.src,
        given.dst,
        given.seed,
        given.memory,
        given.engine,
        given.workers,
        progress=say,
        work=given.work,
    )
    print(mixed)
    return 0


def _features(given: argparse.Namespace) -> int:
    from garcon_jupyter.features import features
    from garcon_jupyter.points.dictionary_points import name_of

    units = given.dictionary == "-"
    atlas = features(
        given.store,
        given.out,
        None if units else given.dictionary,
        given.point,
        given.k,
        given.sample,
        without=["first"] if given.without_first else [],
        memory=given.memory,
        engine=given.engine,
        workers=given.workers,
        vocabulary=_vocabulary(given.server),
        name="" if units else name_of(given.dictionary),
        progress=say,
        work=given.work,
    )
    print(atlas)
    return 0


def _vocabulary(name: str | None) -> list[str]:
    """The texts of the tokens of a server's model; none where no server is named and not one alone runs."""
    from garcon_jupyter.atlas.making import vocabulary
    from garcon_jupyter.model import RemoteModel

    running = registry.servers()
    if name is None and len(running) != 1:
        say("No server says the texts of tokens, so their ids are shown: give --server NAME.")
        return []
    server = registry.find(name) if name else running[0]
    model = RemoteModel(server, prefer="garcon features", lasting=False)
    try:
        return vocabulary(model)
    finally:
        model.close()


def _jobs(given: argparse.Namespace) -> int:
    from garcon_jupyter.client.jobs import jobs, steered

    print(jobs() if given.what is None else steered(given.what, given.name))
    return 0


def _fetch(given: argparse.Namespace) -> int:
    from garcon_jupyter.model_files.embedded import fetch

    print(fetch(given.model, progress=say))
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from garcon_jupyter.cli.doctor import examine

    findings = list(examine())
    for finding in findings:
        print(finding)
    return 1 if any(finding.level == "wrong" for finding in findings) else 0
