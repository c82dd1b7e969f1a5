"""Rank 0 becomes a Jupyter kernel and says where it can be reached.

The connection file is an ordinary one (``jupyter console --existing FILE`` works) with one more entry,
``garcon``, that tells what is served. It is written, 0600, when the server is ready, and not before.
On one host its sockets are files that no other user can reach. Over hosts they are on the address of the
first, for clients on any host that sees the connection file, and encrypted by CURVE with a key pair that only
the file holds: without it nobody on the network can connect or read output.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import zmq

from garcon_backend.distributed.rank_failures import epoch
from garcon_backend.execution.rank_loading import LoadedRank
from garcon_backend.kernel.application import Application
from garcon_backend.kernel.context import KernelContext
from garcon_backend.kernel.data_socket import DataPlane
from garcon_backend.kernel.idle import IdleClock
from garcon_backend.kernel.kernel import GarconKernel
from garcon_backend.lockstep.command_sockets import Link
from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.lockstep.liveness import PARTING_TIME
from garcon_backend.lockstep.outcome import RequestFailed
from garcon_backend.probing import loaded_dictionaries
from garcon_backend.process.output import log
from garcon_backend.tokenization.tokenizer import Tokenizing
from garcon_jupyter.points import Catalog, parameter_order
from garcon_jupyter.wire import protocol
from garcon_jupyter.wire.launch_spec import LaunchSpec
from garcon_jupyter.wire.private_files import write_private


def serve(spec: LaunchSpec, loaded: LoadedRank, link: Link) -> None:
    """Serve until told to stop."""
    lockstep = Lockstep(loaded.executor, loaded.mesh.world - 1, link)
    introductions = [(loaded.facts, loaded.catalog), *lockstep.introductions()]
    catalog = merged([catalog for _, catalog in introductions])
    lockstep.share_catalog(catalog)
    ranks = [facts for facts, _ in introductions]
    for left in spec.shared.iterdir():  # by a rank 0 that was lost
        left.unlink(missing_ok=True)
    stages = [facts["stage"] for facts in ranks]
    lockstep.watched(stages, lambda why: _restart(spec, why, ranks), spec.pulse_file)
    GarconKernel.served = KernelContext(
        lockstep,
        Tokenizing(loaded.executor.rank.tokenizer),
        IdleClock(spec.limits.idle_timeout),
        _server_facts(spec, loaded, ranks),
        catalog,
        spec.shared,
        lambda reason: _end(spec, reason),
        spec.directory / "runs",
        _data_plane(spec, _connection(spec)),
    )
    _dictionaries_again(spec, lockstep)
    app = _application(spec, loaded)
    _announce(spec, Path(app.abs_connection_file))
    spec.ready_file.touch()
    app.start()
    link.await_parting()
    _await_others(ranks)
    app.close()  # when the last answers are on their way


def _dictionaries_again(spec: LaunchSpec, lockstep: Lockstep) -> None:
    """Load the dictionaries that were there before the ranks were started anew, and from now on note which there are."""
    note = spec.directory / loaded_dictionaries.NOTE
    for request in loaded_dictionaries.noted(note) if epoch() else ():
        try:
            lockstep.run(f"dictionary {request.name}", request)
        except RequestFailed as error:
            log(f"the dictionary {request.name} is not loaded again: {error.failure['problem']}")
    lockstep.executor.rank.dictionaries.note = note


def _await_others(ranks: list[dict[str, Any]]) -> None:
    """Wait until the ranks of this host have heard the last command and gone, within reason."""
    pids = [facts["pid"] for facts in ranks[1:] if facts["host"] == ranks[0]["host"]]
    end = time.monotonic() + PARTING_TIME
    while time.monotonic() < end and any(map(_lives, pids)):
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        alive: bool = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return alive
    except psutil.Error:
        return False


def _end(spec: LaunchSpec, reason: str) -> None:
    """From now on nobody can connect, and a rank that goes is not started again."""
    spec.say_why(reason)
    spec.connection_file.unlink(missing_ok=True)


def _restart(spec: LaunchSpec, reason: str, ranks: list[dict[str, Any]]) -> None:
    """Let the launcher start all ranks anew. Does not return."""
    log(reason)
    spec.say_why(reason)
    here = [facts["pid"] for facts in ranks[1:] if facts["host"] == ranks[0]["host"]]
    for pid in [*here, os.getpid()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _application(spec: LaunchSpec, loaded: LoadedRank) -> Application:
    """The kernel application, on a connection file that already holds the keys."""
    app = Application.instance(
        kernel_class=GarconKernel,
        connection_file=str(_kernel_file(spec)),
        capture_fd_output=False,
        user_ns={"model": loaded.executor.rank.model, "garcon": GarconKernel.served.facts},
    )
    app.initialize([])
    return app


def _kernel_file(spec: LaunchSpec) -> Path:
    return spec.directory / "kernel.json"


def _connection(spec: LaunchSpec) -> dict[str, Any]:
    """Keys and addresses. Started anew, the server keeps them: a console that is attached stays so."""
    file = _kernel_file(spec)
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept
    connection = {
        "key": secrets.token_hex(32),
        "signature_scheme": "hmac-sha256",
        "kernel_name": "garcon",
        **_endpoint(spec),
    }
    write_private(file, connection)
    return connection


def _data_plane(spec: LaunchSpec, connection: dict[str, Any]) -> DataPlane:
    """The socket for data, beside those of the kernel, whose file says where it is."""
    way, place, port = (connection[word] for word in ("transport", "ip", "data_port"))
    address = f"{way}://{place}{'-' if way == 'ipc' else ':'}{port or '*'}"
    curve = None
    if connection["data_encrypted"]:
        curve = connection["curve_publickey"].encode(), connection["curve_secretkey"].encode()
    plane = DataPlane(connection["key"].encode(), address, curve)
    if not port:
        connection["data_port"] = int(plane.address.rpartition(":")[2])
        write_private(_kernel_file(spec), connection)
    return plane


def _endpoint(spec: LaunchSpec) -> dict[str, Any]:
    """Where the kernel listens, as a connection file says it.

    On one host these are socket files, which no other user can reach and which need no cipher. (Jupyter's
    console, for one, knows no CURVE when it attaches to a kernel that runs.)
    """
    if spec.hosts is None:
        numbers = {port: number for number, port in enumerate(protocol.PORTS, 1)}
        place = {"transport": "ipc", "ip": str(spec.directory / "kernel")}
        return {**place, **numbers, "data_encrypted": False}
    public, secret = zmq.curve_keypair()
    keys = {"curve_publickey": public.decode(), "curve_secretkey": secret.decode()}
    place = {"transport": "tcp", "ip": spec.hosts.local_addr}
    free = dict.fromkeys(protocol.PORTS, 0)
    return {**place, **free, **keys, "data_encrypted": not _is_loopback(spec.hosts.local_addr)}


def _is_loopback(address: str) -> bool:
    """Whether nobody but this host can hear what goes to an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name, which may mean anything
        return False


def _announce(spec: LaunchSpec, kernel_file: Path) -> None:
    connection = json.loads(kernel_file.read_text())
    connection["garcon"] = {**GarconKernel.served.facts, "lost": _lost(spec.connection_file)}
    write_private(spec.connection_file, connection)


def _lost(connection_file: Path) -> str:
    """Why the ranks were started anew, for clients that look when it is over; "" at first."""
    try:
        return str(json.loads(connection_file.read_text())["garcon"].get("restarting", ""))
    except (OSError, ValueError, KeyError):
        return ""


def _server_facts(
    spec: LaunchSpec, loaded: LoadedRank, ranks: list[dict[str, Any]]
) -> dict[str, Any]:
    degrees = spec.degrees
    return {
        "name": spec.name,
        "path": spec.model,
        "settings": spec.settings,
        "degrees": {"tp": degrees.tp, "pp": degrees.pp, "dp": degrees.dp},
        "model": loaded.model_facts,
        "ranks": ranks,
        "epoch": epoch(),
        "shared": str(spec.shared),
        "supervisor": os.getppid(),
        "pid": os.getpid(),
        "host": ranks[0]["host"],
        "slurm_job": spec.slurm_job,
        "idle_timeout": spec.limits.idle_timeout,
        "forget": spec.limits.forget,
        "launched": time.time(),
        "protocol": protocol.PROTOCOL,
        "python": protocol.python_version(),
    }


def merged(catalogs: list[Catalog]) -> Catalog:
    """One catalog of all stages: what any of them has, the model has."""
    layers: dict[str, tuple[int, ...]] = {}
    for catalog in catalogs:
        for template, having in catalog.layers.items():
            layers[template] = tuple(sorted({*layers.get(template, ()), *having}))
    first = catalogs[0]
    refused = {
        template: why
        for template, why in first.refused.items()
        if all(template in catalog.refused for catalog in catalogs)
    }
    return Catalog(
        first.sizes,
        first.n_layers,
        first.n_experts,
        layers,
        refused,
        tuple(dict.fromkeys(name for catalog in catalogs for name in catalog.modules)),
        tuple(sorted({name for c in catalogs for name in c.parameters}, key=parameter_order)),
        _kinds_of(catalogs),
        {template: place for c in catalogs for template, place in c.places.items()},
        first.centred,
    )


def _kinds_of(catalogs: list[Catalog]) -> tuple[str, ...]:
    """The kind of each layer: only the stage that holds a layer knows of its experts."""
    known = zip(*(catalog.kinds for catalog in catalogs), strict=True)
    return tuple(max(kinds, key=len) for kinds in known)
