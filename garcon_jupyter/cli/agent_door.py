"""``garcon mcp``: the table of operations as tools of an agent, at standard input and output."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.servers import registry

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_command(command: Add) -> None:
    """Add it to a parser."""
    mcp = command("mcp", _mcp, "give an agent tools that ask a server's model (MCP over stdio)")
    mcp.add_argument(
        "name", metavar="NAME", nargs="?", help="of a server; default: the only one that runs"
    )
    mcp.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PERMISSION",
        help="edit or steer, beside read; again for both",
    )
    mcp.add_argument(
        "--tokens", type=int, default=2_000_000, help="through the model (default: 2,000,000)"
    )
    mcp.add_argument(
        "--seconds", type=float, default=1800, help="that the model works (default: 1800)"
    )
    mcp.add_argument(
        "--bytes", type=int, default=1 << 30, help="of numbers that are made (default: 1 GB)"
    )
    mcp.add_argument("--seed", type=int, default=0, help="of controls (default: 0)")
    mcp.add_argument(
        "--notebook", type=Path, metavar="FILE", help="has the log, as a notebook, at all times"
    )
    mcp.add_argument(
        "--records", action="append", default=[], metavar="DIR", help="an atlas; again for more"
    )


def _mcp(given: argparse.Namespace) -> int:
    from garcon_jupyter.agents.agent_session import AgentSession
    from garcon_jupyter.agents.allowances import Allowance
    from garcon_jupyter.agents.stdio import serve
    from garcon_jupyter.atlas import open_atlas
    from garcon_jupyter.model import RemoteModel

    budgets = {word: getattr(given, word) for word in ("tokens", "seconds", "bytes")}
    allowance = Allowance.of(given.allow, **budgets)
    if given.notebook is not None and not given.notebook.absolute().parent.is_dir():
        raise BadRequest(
            f"There is no directory {given.notebook.absolute().parent}.",
            "Give --notebook a file in one that is there.",
        )
    atlases = {Path(each).name.removesuffix(".atlas"): open_atlas(each) for each in given.records}
    name = registry.find(given.name or registry.only("garcon mcp")).name

    def connect() -> RemoteModel:
        return RemoteModel(registry.find(name), prefer="garcon mcp", lasting=False)

    serve(
        AgentSession(connect, allowance, atlases=atlases, seed=given.seed, notebook=given.notebook)
    )
    return 0
