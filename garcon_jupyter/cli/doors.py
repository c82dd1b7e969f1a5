"""``garcon serve``, ``garcon ask``: the table of operations over HTTP, and from a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.servers import registry

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_commands(command: Add) -> None:
    """Add both commands to a parser."""
    serve = command(
        "serve", _serve, "open a door over HTTP to a server's model, or to stored records"
    )
    serve.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="of a server; default: the only one that runs, or none with --records",
    )
    serve.add_argument("--port", type=int, default=8484, help="0 for a free one (default: 8484)")
    serve.add_argument("--host", default="127.0.0.1", help="where it listens (default: 127.0.0.1)")
    serve.add_argument(
        "--records",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="an atlas whose records are served; again for more, which are searched in this order",
    )
    serve.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a page's that may read answers",
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="a name by which this host is called",
    )
    serve.add_argument("--certificate", type=Path, metavar="FILE", help="for TLS")
    serve.add_argument("--key", type=Path, metavar="FILE", help="of the certificate")
    ask = command("ask", _ask, "ask a server's model something in JSON, and print the answer")
    ask.add_argument("name", metavar="NAME", help="of a server")
    ask.add_argument(
        "operation", metavar="OPERATION", help="such as forward; describe tells the limits"
    )
    ask.add_argument(
        "request", metavar="JSON", nargs="?", default="{}", help="- reads it from stdin"
    )


def _serve(given: argparse.Namespace) -> int:
    from garcon_jupyter.http_door.serving import DoorOptions, serve

    options = DoorOptions(
        server=given.name or (None if given.records else registry.only("garcon serve")),
        host=given.host,
        port=given.port,
        records=dict(_named(word) for word in given.records),
        allow_hosts=tuple(given.allow_host),
        allow_origins=tuple(given.allow_origin),
        certificate=given.certificate,
        key=given.key,
    )
    serve(options, lambda line: print(line, flush=True))
    return 0


def _named(word: str) -> tuple[str, Path]:
    """The name and the directory of ``NAME=DIR``; a directory alone has its own name."""
    name, equals, directory = word.partition("=")
    path = Path(directory if equals else word)
    return (name if equals else path.name.removesuffix(".atlas")), path


def _ask(given: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from garcon_jupyter.model import RemoteModel
    from garcon_jupyter.operations.failures import failure
    from garcon_jupyter.operations.operation import Door
    from garcon_jupyter.operations.table import named

    operation = named(given.operation)
    text = sys.stdin.read() if given.request == "-" else given.request
    try:
        asked = operation.request.model_validate_json(text)
    except ValidationError as error:
        _, told = failure(error)
        raise BadRequest(told.problem, told.remedy) from None
    model = RemoteModel(registry.find(given.name), prefer="garcon ask", lasting=False)
    try:
        print(operation(Door(model), asked).model_dump_json())
    finally:
        model.close()
    return 0
