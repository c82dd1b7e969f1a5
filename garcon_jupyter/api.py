"""Launching a server and connecting to it: the first line of every notebook."""

from __future__ import annotations

import os
from typing import Any, Unpack, cast

from garcon_jupyter import imported
from garcon_jupyter.client import preload, resuming
from garcon_jupyter.client.look import Look
from garcon_jupyter.client.resuming import notebook_session  # noqa: F401 - its former place
from garcon_jupyter.connection import prints
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.errors import ServerGone
from garcon_jupyter.model import RemoteModel
from garcon_jupyter.servers import launching, limits, registry
from garcon_jupyter.servers.option_checks import absolute_family, check_words
from garcon_jupyter.servers.option_forms import with_options
from garcon_jupyter.servers.options import LaunchOptions, ModelOptions, Several, part
from garcon_jupyter.servers.server import Progress, Server
from garcon_jupyter.servers.settings import Settings


@with_options
def launch(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    progress: Progress = print,
    **options: Unpack[LaunchOptions],
) -> Server:
    """Launch a server for a model, or find the one that runs.

    Args:
        path: "smollm2" (a real model that needs no hub), a directory as ``save_pretrained`` writes it, or a
            hub id where there is network; with `loader`, whatever the loader takes.
        progress: is told in a line what is going on.
        name, options: of the server, as :class:`garcon_jupyter.servers.options.LaunchOptions` declares them:
            ``tp=2, dtype="bfloat16", memory="8GiB"``.
            A server over several hosts is launched by the same call on each,
            ``nnodes=2, rdzv_endpoint="10.0.0.1:29400"``, or by Slurm, ``launcher="slurm", nodes=2``. On another
            host than the first, the call returns when the server has ended.

    Raises:
        NotAModel: the path holds no model; says what it is.
        NotTheReference: as it would be served it does not compute what its own implementation computes; says where.
        BadRequest, UnknownName: an option makes no sense, or there is none of that name.
        ServerMismatch: a server of that name runs with another model, degrees, dtype or loader.
        BadDegrees, DoesNotFit: the model cannot be cut so, or is too large; with the numbers.
        LaunchFailed: it did not come up; with the end of its log.

    Examples:
        One line starts the server, or finds it where it runs; a second launch of the same finds the first.

        >>> server = garcon.launch("smollm2", name="smollm2")
        >>> server.name, server.alive
        ('smollm2', True)
        >>> garcon.launch("smollm2", name="smollm2") == server
        True

        Over three processes, in half precision, and with limits:
        ``garcon.launch("smollm2", name="three", tp=3, dtype="bfloat16", memory="4GiB", idle_timeout="20m")``.
        What is asked for must be what runs.

        >>> garcon.launch("smollm2", name="smollm2", tp=3)
        Traceback (most recent call last):
        garcon_jupyter.errors.ServerMismatch: ...
    """
    return _launch(path, name, progress, options)[0]


def _launch(
    path: str | os.PathLike[str], name: str | None, progress: Progress, options: LaunchOptions
) -> tuple[Server, bool]:
    if (dtype := options.get("dtype")) is not None:
        options["dtype"] = str(dtype).removeprefix("torch.")
    check_words(path, {"name": name, **options})
    if (family := options.get("family")) is not None:
        options["family"] = absolute_family(family)
    trusted = bool(options.get("trust_remote_code"))
    where, automatic = _resolved(path, options.get("loader"), progress, trusted)
    asked = part(options, ModelOptions) | {"adapter": _adapters(options.get("adapter"))}
    settings = Settings(where, **asked)
    several = cast(Several, part(options, Several))
    allowed = limits.taken(options)
    server, started = launching.launch(name or automatic, settings, allowed, progress, several)
    if started:
        progress(f"{server.name} is ready")
    return server, started


def _adapters(given: Any) -> dict[str, str] | None:
    """Directories of the adapters by name, their files and configurations known to be good; None for none."""
    from pathlib import Path

    from garcon_jupyter.model_files import adapters

    found = adapters.named(given)
    for directory in found.values():
        adapters.read_config(Path(directory))
    return found or None


def _resolved(
    path: str | os.PathLike[str], loader: str | None, progress: Progress, trust_remote_code: bool
) -> tuple[str, str]:
    """The resolved path, and the automatic name of its server."""
    from pathlib import Path

    from garcon_jupyter.model_files import snapshots

    if loader:
        return str(path), snapshots.server_name(Path(path))
    found = snapshots.resolve(path, progress, False, trust_remote_code)
    directory = found.path
    return str(directory), snapshots.server_name(directory)


def connect(name: str | Endpoint | None = None, session: str | None = None) -> RemoteModel:
    """Connect to a running server.

    Each call has a session of its own, so that a process can have several that do not see each other.
    :func:`launch_and_connect` and ``%garcon connect`` go on in the one that the notebook had.

    Args:
        name: of the server; ``ssh://user@host/name`` for one of another machine. Or a model in this process, as
            ``garcon_backend.in_process.open_here`` makes it.
        session: of the session to resume, or to make; by default a fresh one. :func:`sessions` lists them.

    Raises:
        BadRequest: that is no name.
        UnknownServer: none of that name runs; says why the last one ended.
        Unreachable: ssh cannot connect; with what it said.
        SessionInUse: another living client holds the session.
        VersionMismatch: server and client do not understand each other.
    """
    model = RemoteModel(registry.endpoint(name), session=session)  # type: ignore[arg-type]  # None is told so
    if session is None and imported.shell():  # a script has no cell that is run again
        prints.notice(resuming.tell(model))
    return model


@with_options
def launch_and_connect(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    session: str | None = None,
    progress: Progress = print,
    **options: Unpack[LaunchOptions],
) -> RemoteModel:
    """Launch a server, or find the one that runs, and connect to it.

    Running the same line again goes on in the same session. It is named after the user and the notebook or
    script, so that a notebook whose kernel was restarted finds its recordings (:mod:`garcon_jupyter.client.resuming`);
    where another living client holds it, the session is a fresh one, and a line says so.

    Args:
        session: of the session to resume, instead.

    The other arguments are those of :func:`launch`. Over several hosts, this is for the first.

    Raises:
        ServerGone: this is another host than the first, and the server has ended.
    """
    preload.begin()
    server, started = _launch(path, name, progress, options)
    rmodel = in_notebook_session(server, session)
    if not started:
        progress(f"connected to the running server {server.name}")
    return rmodel


def in_notebook_session(server: Server, session: str | None = None) -> RemoteModel:
    """Connect to a server in a named session, else in that of this process or notebook, else in a fresh one,
    and say so where others could be resumed.

    Raises:
        ServerGone: the server has ended.
    """
    if not server.alive:
        raise ServerGone(
            f"Server {server.name!r} has ended.",
            "To connect, launch on the first host; on the others launch is enough.",
        )
    if session is not None:
        return RemoteModel(server, session=session)
    wish = resuming.own(server)
    model = RemoteModel(server, prefer=wish.name, lasting=wish.lasting)
    resuming.remember(model)
    prints.notice(resuming.tell(model, wish))
    return model


def easy_garcon(model: RemoteModel | str, text: Any) -> Look:
    """One context as it passes through a model, looked at without ceremony.

    Args:
        model: a connection, or a path to launch.
        text: a text or tokens.

    Returns:
        A :class:`~garcon_jupyter.client.look.Look`: any point by attribute or name, fetched in one forward.
    """
    rmodel = model if isinstance(model, RemoteModel) else launch_and_connect(model)
    return Look(rmodel, text)
