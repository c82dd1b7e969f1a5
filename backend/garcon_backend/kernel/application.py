"""Jupyter's kernel application, as rank 0 needs it: with less that strangers could reach or fill."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any, cast

import zmq
from ipykernel.iostream import IOPubThread
from ipykernel.kernelapp import IPKernelApp

from garcon_backend.kernel import log_limit
from garcon_backend.libraries.jupyter_internals import INTERNALS
from garcon_jupyter.libraries.internals import check

TOPIC = 1024
"""Bytes of what a client says that it wants to hear; all say "everything". ZMQ keeps some thirty bytes for each of
them, until the client is gone."""

_PARTING = 5.0
"""Seconds that a channel's thread has to come to its end."""


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """While this is entered, a module cannot be imported."""
    modules = cast(dict[str, Any], sys.modules)
    former = modules.get(name)
    modules[name] = None
    try:
        yield
    finally:
        del modules[name]
        if former is not None:
            modules[name] = former


with _without("debugpy"):  # which takes half a second, for a debugger that this kernel closes
    importlib.import_module("ipykernel.debugger")

check("ipykernel", INTERNALS)


class Application(IPKernelApp):
    """The application of :class:`~garcon_backend.kernel.kernel.GarconKernel`."""

    def init_iopub(self, context: Any) -> None:
        """As its base, but for the port of loopback by which forked children would print.

        It has no key but a word that is said in the clear, and any user of the machine could reach it.
        """
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self.iopub_socket.maxmsgsize = TOPIC
        self._apply_curve_server_options(self.iopub_socket)
        self.iopub_port = self._bind_socket(self.iopub_socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = IOPubThread(self.iopub_socket, pipe=False, session=self.session)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket

    def initialize(self, argv: Any = None) -> None:
        super().initialize(argv)
        log_limit.limit(self.log)

    def close(self) -> None:
        """As its base, but what sends by the thread of iopub ends before that thread.

        Else a last message, such as that a channel is idle again, waits for ever for somebody to take it.
        """
        for thread in (self.control_thread, self.shell_channel_thread):
            if thread and thread.is_alive():
                thread.stop()
                thread.join(_PARTING)
        super().close()
