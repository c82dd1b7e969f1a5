"""The URLs. Each handler is one question; the work is done elsewhere, in threads where it blocks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import tornado
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join

from garcon_jupyter import errors
from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.http_door.desk import OperationDesk, Reply
from garcon_jupyter.http_door.guard import too_long
from garcon_jupyter.model import RemoteModel
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.server_extension import launch_form, models, points_tree, watching_jobs
from garcon_jupyter.server_extension.launching import Launches
from garcon_jupyter.server_extension.watching import Watcher
from garcon_jupyter.server_extension.watching_jobs import JobsWatcher
from garcon_jupyter.servers import control, fleet_files, registry
from garcon_jupyter.servers.server import Server

Value = TypeVar("Value")

STATUS: dict[type[GarconError], int] = {
    errors.UnknownName: 404,
    errors.BadRequest: 400,
    errors.ServerGone: 410,
    errors.VersionMismatch: 409,
}
"""HTTP status of each kind of error; 500 for the rest."""


class Desk:
    """What all handlers share."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(8, thread_name_prefix="garcon")
        self.watcher = Watcher(self.threads)
        self.jobs = JobsWatcher(self.threads)
        self.launches = Launches()
        self.trees: dict[tuple[str, int], dict[str, Any]] = {}
        self.limits = RequestLimits()
        self._operations: dict[str, OperationDesk] = {}

    def operations(self, name: str) -> OperationDesk:
        """What answers operations for the server of a name: a client of it, as long as this process lives."""

        def connect() -> RemoteModel:
            return RemoteModel(registry.find(name), prefer="jupyter http", lasting=False)

        if name not in self._operations:
            self._operations[name] = OperationDesk(connect, self.limits)
        return self._operations[name]

    async def run(self, work: Callable[..., Value], *args: Any) -> Value:
        """Do blocking work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *args)

    async def overview(self) -> dict[str, Any]:
        """Servers, fleets, jobs and launches."""
        found, jobs = await asyncio.gather(self.watcher.look(), self.jobs.look())
        return {**found, "jobs": jobs, "launches": self.launches.told()}

    async def tree(self, name: str) -> dict[str, Any]:
        """The points of a server's model."""
        server = await self.run(registry.find, name)
        key = name, server.facts["supervisor"]
        if key not in self.trees:
            self.trees[key] = points_tree.tree(await self.run(points_tree.catalog, server))
        return self.trees[key]

    async def ask(self, name: str, question: Callable[..., Value], *args: Any) -> Value:
        """Ask the server of a name something that may change what it says of itself."""

        def asked() -> Value:
            server: Server = registry.find(name)
            return question(server, *args)

        try:
            return await self.run(asked)
        finally:
            self.watcher.forget(name)

    async def steer_job(self, what: str, asked: Any) -> dict[str, Any]:
        """Pause, resume or cancel a job."""
        try:
            return await self.run(watching_jobs.steer, what, asked)
        finally:
            self.jobs.forget()

    async def end_fleet(self, name: str, force: bool) -> dict[str, Any]:
        """End all members of a fleet."""
        fleet = await self.run(fleet_files.read, name)
        try:
            await self.run(lambda: [*fleet_files.ended(name, force)])
        finally:
            for server in fleet.members.values() if fleet else ():
                self.watcher.forget(server)
        return {}


class _Handler(APIHandler):
    """Answers in JSON, errors too."""

    auth_resource = "garcon"

    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    async def answer(self, work: Awaitable[Any], status: int = 200) -> None:
        """Answer with what `work` returns, or with its error."""
        try:
            value = await work
        except GarconError as error:
            status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
            value = {
                "kind": type(error).__name__,
                "problem": error.problem,
                "remedy": error.remedy,
                "message": str(error),  # where Jupyter's own client looks
            }
        self.set_status(status)
        await self.finish(json.dumps(value))


class ServersHandler(_Handler):
    """GET garcon/servers: all servers, the fleets that they belong to, jobs, and launches that go on."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(self.desk.overview())


class ModelsHandler(_Handler):
    """GET garcon/models: what could be launched."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(self.desk.run(models.offered))


class LaunchFieldsHandler(_Handler):
    """GET garcon/launch-fields: what a launch can be asked for beside the model."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        await self.answer(self.desk.run(launch_form.fields))


class LaunchesHandler(_Handler):
    """POST garcon/launches: begin one; answers 202 at once."""

    @tornado.web.authenticated
    @authorized
    async def post(self) -> None:
        await self.answer(self.desk.launches.start(self.get_json_body()), 202)


class LaunchHandler(_Handler):
    """DELETE garcon/launches/KEY: forget one that failed or is over."""

    @tornado.web.authenticated
    @authorized
    async def delete(self, key: str) -> None:
        async def dismissed() -> dict[str, Any]:
            self.desk.launches.dismiss(key)
            return {}

        await self.answer(dismissed())


class ServerHandler(_Handler):
    """DELETE garcon/servers/NAME: end a server, with ``?force=1`` without asking it."""

    @tornado.web.authenticated
    @authorized
    async def delete(self, name: str) -> None:
        force = self.get_argument("force", "0") == "1"
        await self.answer(self.desk.ask(name, _stopped, force))


class FleetHandler(_Handler):
    """DELETE garcon/fleets/NAME: end all members of a fleet, with ``?force=1`` without asking them."""

    @tornado.web.authenticated
    @authorized
    async def delete(self, name: str) -> None:
        force = self.get_argument("force", "0") == "1"
        await self.answer(self.desk.end_fleet(name, force))


class JobHandler(_Handler):
    """POST garcon/jobs/pause, resume, cancel: steer the job that is named."""

    @tornado.web.authenticated
    @authorized
    async def post(self, what: str) -> None:
        await self.answer(self.desk.steer_job(what, self.get_json_body()))


class KeepAliveHandler(_Handler):
    """POST garcon/servers/NAME/keep-alive: begin the idle time anew."""

    @tornado.web.authenticated
    @authorized
    async def post(self, name: str) -> None:
        await self.answer(self.desk.ask(name, _kept_alive))


class CancelHandler(_Handler):
    """POST garcon/servers/NAME/cancel: stop the request that is named."""

    @tornado.web.authenticated
    @authorized
    async def post(self, name: str) -> None:
        async def cancelled() -> dict[str, Any]:
            request = (self.get_json_body() or {}).get("request")
            if not isinstance(request, str):
                raise BadRequest("No request was named.", 'Give {"request": ID} of garcon/servers.')
            return await self.desk.ask(name, _cancelled, request)

        await self.answer(cancelled())


class OperationHandler(_Handler):
    """POST garcon/servers/NAME/v1/OPERATION: one of the table of operations, with a session of its own on the server."""

    def initialize(self, desk: Desk) -> None:
        super().initialize(desk)
        self.asking: asyncio.Future[Reply] | None = None

    @tornado.web.authenticated
    @authorized
    async def post(self, name: str, operation: str) -> None:
        limit = self.desk.limits.body_bytes
        if len(self.request.body) > limit:
            await self._reply(Reply(413, too_long(limit)[1].model_dump_json().encode()))
            return
        desk = self.desk.operations(name)
        self.asking = asyncio.ensure_future(desk.answer(operation, self.request.body))
        try:
            await self._reply(await self.asking)
        except asyncio.CancelledError:  # whoever asked has hung up
            if not self.asking.cancelled():
                raise

    def on_connection_close(self) -> None:
        """Call off what nobody waits for any more."""
        if self.asking is not None:
            self.asking.cancel()

    async def _reply(self, reply: Reply) -> None:
        self.set_status(reply.status)
        for header, value in reply.headers.items():
            self.set_header(header, value)
        await self.finish(reply.body)


class PointsHandler(_Handler):
    """GET garcon/servers/NAME/points: the points of a server's model, as a tree."""

    @tornado.web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        await self.answer(self.desk.tree(name))


def _stopped(server: Server, force: bool) -> dict[str, Any]:
    control.stop(server, force)
    return {}


def _kept_alive(server: Server) -> dict[str, Any]:
    return {"idle_left": control.keep_alive(server)}


def _cancelled(server: Server, request: str) -> dict[str, Any]:
    return {"running": control.cancel(server, request)}


def add_handlers(web_app: Any) -> None:
    """Add the URLs to a Jupyter server's web application."""
    desk = {"desk": Desk()}
    name = r"([\w.@+-]+)"

    def url(*parts: str) -> str:
        return url_path_join(web_app.settings["base_url"], "garcon", *parts)

    web_app.add_handlers(
        ".*$",
        [
            (url("servers"), ServersHandler, desk),
            (url("models"), ModelsHandler, desk),
            (url("launch-fields"), LaunchFieldsHandler, desk),
            (url("launches"), LaunchesHandler, desk),
            (url("launches", name), LaunchHandler, desk),
            (url("fleets", name), FleetHandler, desk),
            (url("jobs", name), JobHandler, desk),
            (url("servers", name), ServerHandler, desk),
            (url("servers", name, "keep-alive"), KeepAliveHandler, desk),
            (url("servers", name, "cancel"), CancelHandler, desk),
            (url("servers", name, "points"), PointsHandler, desk),
            (url("servers", name, "v1", r"(\w+)"), OperationHandler, desk),
        ],
    )
