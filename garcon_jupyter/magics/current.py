"""The current model: the notebook's variable ``rmodel``."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.api import in_notebook_session
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.model import VARIABLE, RemoteModel
from garcon_jupyter.servers import registry
from garcon_jupyter.servers.server import Server


class Current:
    """Which model the magics mean, and the connections that they have made.

    The variable is the one truth: ``rmodel = other`` in a cell does what ``%garcon use other`` does.
    Connections are kept here so that switching back to a server finds its attached probes.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._connections: dict[str, RemoteModel] = {}

    @property
    def variables(self) -> dict[str, Any]:
        """The notebook's variables."""
        variables: dict[str, Any] = self._shell.user_ns
        return variables

    @property
    def hidden(self) -> dict[str, Any]:
        """Those that IPython has put there."""
        hidden: dict[str, Any] = self._shell.user_ns_hidden
        return hidden

    def peek(self) -> RemoteModel | None:
        """The current model if there is one."""
        model = self.variables.get(VARIABLE)
        return model if isinstance(model, RemoteModel) and not model.closed else None

    def model(self) -> RemoteModel:
        """The current model.

        Raises:
            BadRequest: there is none; says how to get one.
        """
        if model := self.peek():
            return model
        names = ", ".join(server.name for server in registry.servers())
        remedy = "%garcon launch smollm2 launches a model and connects to it"
        remedy += f"; %garcon connect NAME connects to one that runs ({names})." if names else "."
        if VARIABLE not in self.variables:
            raise BadRequest(f"There is no model: {VARIABLE} is not set.", remedy)
        if isinstance(self.variables[VARIABLE], RemoteModel):
            raise BadRequest(f"The connection {VARIABLE} was closed.", remedy)
        kind = type(self.variables[VARIABLE]).__name__
        raise BadRequest(f"{VARIABLE} is a {kind}, not a connection to a model.", remedy)

    def use(self, model: RemoteModel) -> None:
        """Make a model the current one."""
        self.variables[VARIABLE] = model
        self._connections[model.server.name] = model

    def connect(self, server: Server, session: str | None) -> tuple[RemoteModel, bool]:
        """A connection to a server, and whether it is the one there was.

        Without `session`, the connection that this notebook has, else one in the notebook's session.
        """
        for model in (self.peek(), self._connections.get(server.name)):
            if model and _usable(model, server, session):
                return model, True
        return in_notebook_session(server, session), False

    def hang_up(self, server: Endpoint) -> None:
        """Close the connections to a server that has ended."""
        for model in (self.peek(), self._connections.pop(server.name, None)):
            if model and model.server.name == server.name:
                model.close()

    def named(self, word: str) -> RemoteModel:
        """The model of a variable or of a server.

        Raises:
            BadRequest: the variable holds something else.
            UnknownServer: neither a variable nor a server has this name.
        """
        if word in self.variables:
            model = self.variables[word]
            if not isinstance(model, RemoteModel) or model.closed:
                raise BadRequest(
                    f"{word} is no open connection to a model.",
                    "%garcon list names the servers to connect to.",
                )
            return model
        return self.connect(registry.find(word), None)[0]


def _usable(model: RemoteModel, server: Server, session: str | None) -> bool:
    """Whether a connection leads to this very server process, in the session asked for."""
    return (
        not model.closed
        and isinstance(model.server, Server)
        and model.server.name == server.name
        and model.server.file == server.file
        and model.facts["pid"] == server.facts["pid"]
        and session in (None, model.session)
    )
