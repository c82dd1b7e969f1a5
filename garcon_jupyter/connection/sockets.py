"""Jupyter's sockets of one server, and messages on them, signed with the key of its connection file.

Plain blocking ZMQ sockets with Jupyter's own signing and, where the connection file has keys, CURVE.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session

from garcon_jupyter.connection.connection_file import read_connection_file, version
from garcon_jupyter.connection.pending import Pulse
from garcon_jupyter.wire.transfers import LARGEST_MESSAGE


class Sockets:
    """The sockets to one server. They belong to the process that made them.

    Args:
        file: the connection file.

    Attributes:
        info: what the connection file says.
        facts: what the server says of itself there.
        same_host: whether the server runs on this host.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._owner = os.getpid()
        self._open()

    def _open(self) -> None:
        """Read the connection file and connect."""
        as_of = version(self._file)
        self.info = read_connection_file(self._file)
        self.facts: dict[str, Any] = self.info["garcon"]
        self.same_host = self.facts.get("host") == socket.gethostname()
        self._session = Session(key=self.info["key"].encode())
        self._context = zmq.Context()
        self._control = self._connect(zmq.DEALER, "control_port")
        self._shell = self._connect(zmq.DEALER, "shell_port")
        self._iopub = self._connect(zmq.SUB, "iopub_port")
        self._pulse = Pulse(self._connect(zmq.DEALER, "hb_port"))
        self._version = as_of

    def _connect(self, kind: int, port: str) -> zmq.Socket[bytes]:
        sock = self._socket(kind, encrypted="curve_publickey" in self.info)
        if kind == zmq.DEALER:
            sock.identity = self._session.bsession
        if kind == zmq.SUB:
            sock.subscribe(b"")
        self._attach(sock, port)
        return sock

    def _connect_for_data(self) -> zmq.Socket[bytes]:
        sock = self._socket(zmq.DEALER, encrypted=self.info["data_encrypted"])
        sock.maxmsgsize = LARGEST_MESSAGE
        self._attach(sock, "data_port")
        return sock

    def _socket(self, kind: int, encrypted: bool) -> zmq.Socket[bytes]:
        sock = self._context.socket(kind)
        sock.linger = 0
        sock.rcvhwm = sock.sndhwm = 0
        if encrypted:
            sock.curve_serverkey = sock.curve_publickey = self.info["curve_publickey"].encode()
            sock.curve_secretkey = self.info["curve_secretkey"].encode()
        return sock

    def _attach(self, sock: zmq.Socket[bytes], port: str) -> None:
        joint = "-" if self.info["transport"] == "ipc" else ":"  # as Jupyter names its sockets
        sock.connect(f"{self.info['transport']}://{self.info['ip']}{joint}{self.info[port]}")

    def _disconnect(self) -> None:
        self._context.destroy(linger=0)

    @property
    def key(self) -> str:
        """With which messages are signed: every server has its own."""
        return str(self.info["key"])

    @property
    def mine(self) -> bool:
        """Whether this process made it; else it is a fork of the one that did."""
        return os.getpid() == self._owner

    def _send(self, sock: Any, kind: str, content: dict[str, Any], buffers: Any) -> str:
        """Send a message; its id."""
        message: Any = self._session.send(sock, kind, content, buffers=list(buffers))
        sent: str = message["header"]["msg_id"]
        return sent

    def _receive(self, sock: Any) -> dict[str, Any] | None:
        return self._message(sock.recv_multipart(copy=True))

    def _message(self, frames: Any) -> dict[str, Any] | None:
        """What was received; None where it is not signed with our key."""
        _, frames = self._session.feed_identities(frames)
        try:
            return self._session.deserialize(frames)
        except ValueError:  # not signed with our key
            return None

    @property
    def _by_socket(self) -> bool:
        """Whether large values travel by the socket for data."""
        return not self.same_host and "data_port" in self.info

    @property
    def _shared(self) -> Path | None:
        """The server's directory in shared memory, where it can be reached."""
        return Path(self.facts["shared"]) if self.same_host and "shared" in self.facts else None

    def wait_for_prints(self) -> None:
        """Wait until the server has noticed our subscription, so that no print is missed.

        It welcomes the first subscriber of a topic only, so we subscribe to one of our own as well;
        and to another where it overlooked that, because it was sending.
        """
        for attempt in range(10):
            self._iopub.subscribe(f"{self._session.session}.{attempt}".encode())
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                if self._iopub.poll(50) and self._is_welcome(self._receive(self._iopub)):
                    return

    def _is_welcome(self, message: dict[str, Any] | None) -> bool:
        topic = str(message["content"].get("subscription")) if message else ""
        return topic.startswith(self._session.session)
