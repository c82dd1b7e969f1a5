"""Bringing the members of a fleet up, or finding those that run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack, cast

from garcon_jupyter import api
from garcon_jupyter.errors import BadRequest, GarconError, Interrupted
from garcon_jupyter.fleets import budget, likeness
from garcon_jupyter.fleets.fleet import Fleet, check_on_error, raise_first
from garcon_jupyter.fleets.side_by_side import side_by_side
from garcon_jupyter.model_files import snapshots
from garcon_jupyter.model_files.snapshots import ModelDirectory
from garcon_jupyter.servers import fleet_files, limits, placement, registry
from garcon_jupyter.servers.option_checks import check_words
from garcon_jupyter.servers.options import HostsOptions, LaunchOptions
from garcon_jupyter.servers.server import Progress, Server
from garcon_jupyter.servers.settings import DEGREES, Settings

_NAME = re.compile(r"[\w.@+-]+")


def fleet(
    models: Mapping[str, str | os.PathLike[str]],
    name: str | None = None,
    *,
    jobs: int | None = None,
    on_error: str = "keep",
    progress: Progress = print,
    **options: Unpack[LaunchOptions],
) -> Fleet:
    """Launch several checkpoints of one architecture, a server each, and connect to all of them.

    Before anything starts, their configurations and shapes are compared, and the memory of all is held against what is
    free. The same line, run again, finds the members that run and launches those that do not.

    Args:
        models: paths by label, as of :func:`garcon_jupyter.launch`: ``{"step0": path, "step512": path}``. The server
            of a member is ``NAME.LABEL``; what a server's name cannot have becomes a dash there.
        name: of the fleet; None makes one of labels and paths.
        jobs: launches at once; None for half of the cores, as launches compute.
        on_error: "keep" has the exception of a member that did not come up stand in its place, as long as there is one
            that did; "raise" raises it. Those that came up go on in any case.
        progress: is told in a line what is going on, by label.
        options: of :func:`garcon_jupyter.launch`, the same for each: ``tp=2, dtype="bfloat16"``. Where neither `memory`
            nor `keep` is given, members on the CPU share what the models leave free.

    Raises:
        NotAModel, FetchFailed: a path holds no model; nothing was launched.
        ModelsDiffer: they are not of one architecture; with the differences.
        DoesNotFit: they do not fit into memory together; with the numbers.
        BadRequest: a label, or an option, makes no sense.
        LaunchFailed: none came up; or the typed reason why.
        Interrupted: you interrupted it; launches under way were ended.
    """
    check_on_error(on_error)
    _check_options(options, jobs)
    servers = _servers(models, name)
    fleet_name = name or _automatic(models)
    if (dtype := _dtype(options)) is not None:
        options["dtype"] = dtype
    for label, path in models.items():
        check_words(path, {"name": servers[label], **options})
    limits.taken(options)
    found = {
        label: snapshots.resolve(path, progress, False, bool(options.get("trust_remote_code")))
        for label, path in models.items()
    }
    likeness.check(found, dtype)
    options = cast(LaunchOptions, {**options, **_limits(found, servers, options)})
    fleet_files.write(fleet_name, servers)
    launched = _launched(found, servers, jobs, progress, options)
    members = {label: _connected(server) for label, server in launched.items()}
    if on_error == "raise" or all(isinstance(one, BaseException) for one in members.values()):
        raise_first(members)
    alike = likeness.one_tokenizer([directory.path for directory in found.values()])
    return Fleet(fleet_name, members, alike)


def _launched(
    found: Mapping[str, ModelDirectory],
    servers: Mapping[str, str],
    jobs: int | None,
    progress: Progress,
    options: LaunchOptions,
) -> dict[str, Server | BaseException]:
    """The servers of the members, or why they did not come up; so many at once as `jobs` says."""
    speaking = threading.Lock()

    def told(label: str, line: str) -> None:
        with speaking:
            progress(f"{label}: {line}")

    launches = {
        label: partial(
            api.launch, directory.path, servers[label], progress=partial(told, label), **options
        )
        for label, directory in found.items()
    }
    try:
        return side_by_side(launches, jobs or max(1, len(os.sched_getaffinity(0)) // 2))
    except Interrupted:
        raise Interrupted(
            "You interrupted the launch of the fleet; what was not ready has been ended.",
            "The same line launches the members that are missing.",
        ) from None


def _connected(server: Server | BaseException) -> Any:
    """A connection to a member in this notebook's session, or why there is none."""
    if isinstance(server, BaseException):
        return server
    try:
        return api.in_notebook_session(server)
    except GarconError as error:
        return error


# -- before anything starts ----------------------------------------------------------------------


def _check_options(options: Mapping[str, Any], jobs: Any) -> None:
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise BadRequest(f"jobs={jobs!r} is no number of launches.", "Give at least 1.")
    if options.get("loader"):
        raise BadRequest(
            "A fleet compares configurations, and a model that a loader makes has none.",
            "Launch such models one by one.",
        )
    several = [word for word in HostsOptions.__annotations__ if options.get(word) is not None]
    if several:
        raise BadRequest(
            f"A fleet is launched on one host, and {several[0]} is for several.",
            "Launch the members one by one; garcon.connect finds each.",
        )


def _servers(models: Any, name: Any) -> dict[str, str]:
    """Names of the members' servers by label.

    Raises:
        BadRequest: there are no members, or a name can be none of a server.
    """
    if not isinstance(models, Mapping) or not models:
        raise BadRequest(
            "A fleet was given no members.",
            'Give paths by label: {"step0": path, "step512": path}.',
        )
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise BadRequest(
            f"{name!r} is no name of a fleet.", "Use letters, digits, and . _ - @ + in it."
        )
    fleet_name = name or _automatic(models)
    found: dict[str, str] = {}
    for label in models:
        made = re.sub(r"[^\w.@+-]+", "-", label).strip("-") if isinstance(label, str) else ""
        if not made:
            raise BadRequest(f"{label!r} is no label.", "Give a text, such as 'step512'.")
        server = f"{fleet_name}.{made}"
        if server in found.values():
            other = next(each for each, taken in found.items() if taken == server)
            raise BadRequest(
                f"The labels {other!r} and {label!r} would both name the server {server}.",
                "Let them differ in letters, digits, or one of . _ - @ +.",
            )
        found[label] = server
    return found


def _automatic(models: Mapping[str, Any]) -> str:
    """A name that the same members have again."""
    told = json.dumps([[str(label), os.fspath(path)] for label, path in models.items()])
    return f"fleet-{hashlib.sha256(told.encode()).hexdigest()[:6]}"


def _dtype(options: Mapping[str, Any]) -> str | None:
    dtype = options.get("dtype")
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _limits(
    found: Mapping[str, ModelDirectory], servers: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, int]:
    """What each member may use, where nobody said; members that do not fit together are refused.

    Raises:
        DoesNotFit: with the numbers.
    """
    if options.get("launcher"):  # a job of Slurm runs on a host that nobody here knows
        return {}
    running = {server.name for server in registry.servers()}
    asked = {
        label: Settings(
            str(directory.path),
            dtype=_dtype(options),
            device=options.get("device"),
            **{word: options.get(word) for word in DEGREES},
        )
        for label, directory in found.items()
        if servers[label] not in running
    }
    left = budget.check(asked)
    if not asked or options.get("memory") is not None or options.get("keep") is not None:
        return {}
    on_gpus = placement.device_of(next(iter(asked.values()))) != "cpu"
    return {} if on_gpus else budget.share(left, len(found))
