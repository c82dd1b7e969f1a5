"""Asking for a fork: messages with files, and the child that nobody waits for."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from garcon_jupyter.wire import forking
from garcon_jupyter.wire.forking import NotForked


def test_a_message_brings_open_files_along(tmp_path: Path) -> None:
    a, b = socket.socketpair()
    with a, b, (tmp_path / "file").open("w+b") as file:
        message = {"words": ["é", 1], "long": "x" * 100_000}
        sender = threading.Thread(target=forking.send, args=(a, message, (file.fileno(),)))
        sender.start()
        received, (other,) = forking.receive(b)
        sender.join()
        assert received == message
        assert os.fstat(other).st_ino == os.fstat(file.fileno()).st_ino
        assert other != file.fileno()
        os.close(other)


def test_what_is_no_message_is_refused() -> None:
    for data, error in ((b"", EOFError), (struct.pack("!I", 1 << 30), ValueError)):
        a, b = socket.socketpair()
        with a, b:
            a.sendall(data)
            a.shutdown(socket.SHUT_WR)
            with pytest.raises(error):
                forking.receive(b)
    a, b = socket.socketpair()
    with a, b:
        a.sendall(struct.pack("!I", 3) + b"[1]")
        with pytest.raises(ValueError, match="dictionary"):
            forking.receive(b)


def test_a_child_may_live_once_it_has_told_its_number() -> None:
    a, b = socket.socketpair()
    with a, b:
        forking.send(b, {"pid": 7})
        assert forking.born(a) == 7
        assert forking.receive(b)[0] == {"live": True}
    a, b = socket.socketpair()
    with a, b:
        forking.send(b, {"refused": "another user"})
        with pytest.raises(NotForked, match="another user"):
            forking.born(a)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "PATIENCE", 0.05)
    a, b = socket.socketpair()
    with a, b, pytest.raises(NotForked, match="does not answer"):
        forking.born(a)  # one that is stopped
    a, b = socket.socketpair()
    b.close()
    with a, pytest.raises(NotForked, match="does not answer"):
        forking.born(a)


def test_only_a_private_directory_of_this_user_is_knocked_at(tmp_path: Path) -> None:
    directory = tmp_path / "server"
    file = directory / forking.SOCKET
    with pytest.raises(NotForked, match="no private directory"):
        forking.knock(file, {}, ())
    directory.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(file))
        listener.listen()
        with pytest.raises(NotForked, match="no private directory"):
            forking.knock(file, {}, ())
        directory.chmod(0o700)

        def answer() -> None:
            link, _ = listener.accept()
            with link:
                assert forking.peer(link) == os.getuid()
                assert forking.receive(link)[0] == {"who": "me"}
                forking.send(link, {"pid": 9})
                forking.receive(link)

        other = threading.Thread(target=answer)
        other.start()
        assert forking.knock(file, {"who": "me"}, ()) == 9
        other.join()
    with pytest.raises(
        NotForked, match="does not answer"
    ):  # the file is there, and nobody behind it
        forking.knock(file, {}, ())
