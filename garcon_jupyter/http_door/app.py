"""The routes, as an ASGI application made from the table of operations.

==========  =================  ======================================================================
GET         /                  a page that asks the same operations (open)
GET         /health            whether the door is there, whatever the model does (open)
GET         /openapi.json      the form of each request and answer (open)
GET         /v1/describe       the model, and the limits
POST        /v1/OPERATION      one of the table; with ``Accept: text/event-stream`` its progress as well
==========  =================  ======================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection, Coroutine
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from garcon_jupyter.http_door.desk import OperationDesk, Reply
from garcon_jupyter.http_door.guard import LOOPBACK, Application, BodyTooLong, Guard, too_long
from garcon_jupyter.operations import openapi
from garcon_jupyter.operations.failures import Failure

PAGE = Path(__file__).parent / "page"

ASSETS = {
    "/": "index.html",
    **{f"/{file.name}": file.name for file in PAGE.iterdir() if file.suffix in (".js", ".css")},
}
"""Files of the page: they say nothing of the model, and load nothing from elsewhere."""

OPEN = ("/health", "/openapi.json", *ASSETS)

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def application(
    desk: OperationDesk,
    token: str,
    hosts: Collection[str] = LOOPBACK,
    origins: Collection[str] = (),
) -> Application:
    """The application.

    Args:
        desk: answers.
        token: whoever asks must have it.
        hosts: names by which the door may be called.
        origins: of pages that may read answers.
    """
    described = openapi.text()

    async def health(request: Request) -> Response:
        return _json(200, b'{"status":"ok"}')

    async def openapi_json(request: Request) -> Response:
        return _json(200, described.encode())

    async def asset(request: Request) -> Response:
        file = PAGE / ASSETS[request.url.path]
        return FileResponse(file, headers={"Content-Security-Policy": POLICY})

    async def asked(request: Request) -> Response:
        name = request.path_params.get("operation", "describe")
        body = await request.body()
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(_events(desk, name, body), media_type="text/event-stream")
        return _response(await _unless_gone(request, desk.answer(name, body)))

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        desk.close()

    app = Starlette(
        routes=[
            *(Route(path, asset) for path in ASSETS),
            Route("/health", health),
            Route("/openapi.json", openapi_json),
            Route("/v1/describe", asked, methods=["GET"]),
            Route("/v1/{operation}", asked, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _no_route,
            ClientDisconnect: _nobody_there,
            BodyTooLong: _too_long,
        },
        lifespan=life,
    )
    return Guard(app, token, OPEN, desk.limits.body_bytes, hosts, origins)


def _json(status: int, body: bytes, headers: Any = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def _response(reply: Reply) -> Response:
    return _json(reply.status, reply.body, dict(reply.headers))


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = Failure(
        kind="UnknownName",
        problem=f"There is no {request.method} {request.url.path}.",
        remedy="GET /openapi.json lists what there is.",
    )
    return _json(status, told.model_dump_json().encode())


async def _too_long(request: Request, error: Exception) -> Response:
    status, told = too_long(int(error.args[0]))
    return _json(status, told.model_dump_json().encode())


async def _nobody_there(request: Request, error: Exception) -> Response:
    return _json(499, b"")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Reply]) -> Reply:
    """The answer; called off when whoever asked hangs up."""
    answering = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        return Reply(499, b"")
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(desk: OperationDesk, name: str, body: bytes) -> AsyncIterator[str]:
    """Server-sent events: ``told`` as often as there is something, then ``answer`` or ``failure``."""
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answering = asyncio.ensure_future(desk.answer(name, body, told.put_nowait))
    hearing = asyncio.ensure_future(told.get())
    try:
        while True:
            await asyncio.wait({answering, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                yield _event("told", json.dumps(hearing.result()))
                hearing = asyncio.ensure_future(told.get())
            elif answering.done():
                break
        reply = answering.result()
        yield _event("answer" if reply.status == 200 else "failure", reply.body.decode())
    finally:
        hearing.cancel()
        answering.cancel()


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {data}\n\n"
