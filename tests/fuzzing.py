"""Messages as an enemy would send them: mutated, truncated, forged, and half of them signed with the right key.

All is drawn from one seed. What must never run is a pickle that makes a file (:meth:`Fuzzer.bomb`): it is in
messages whose signature or digest is wrong, and in no other.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pickle
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from garcon_jupyter.wire import protocol, requests, transfers, transport
from garcon_jupyter.wire import tokenizer_messages as ask

DELIMITER = b"<IDS|MSG>"

Frames = list[bytes]


class Fuzzer:
    """Draws messages.

    Args:
        key: of the server.
        session: an open session of it.
        trap: a file that must never be made.
        shared: the server's directory in shared memory.

    Attributes:
        requests: ids of those to the shell port, which must be answered.
        victim: a file that messages name, and which nobody may touch.
    """

    def __init__(self, seed: int, key: str, session: str, trap: Path, shared: Path) -> None:
        self.rng = random.Random(seed)
        self._key, self._session, self._trap, self._shared = key.encode(), session, trap, shared
        self._bomb = cloudpickle.dumps(_Bomb(str(trap)))
        self._number = 0
        self.requests: list[str] = []
        self.victim = trap.parent / "victim"
        self.victim.write_text("is not read, and not removed")
        self._requests = [self._pickled(one) for one in self._wrong_requests()]
        self._questions = [self._pickled(one) for one in self._wrong_questions()]

    # -- parts -------------------------------------------------------------------------------

    def junk(self, depth: int = 0) -> Any:
        """Any value that JSON knows, often an unfortunate one."""
        draw = self.rng.randrange(14 if depth < 3 else 9)
        plain: list[Callable[[], Any]] = [
            lambda: None,
            lambda: self.rng.choice([True, False]),
            lambda: self.rng.choice([0, -1, 1, 2**31, 2**63, -(2**70), 10**30]),
            lambda: self.rng.choice([0.0, -1.5, 1e308, float("nan"), float("inf")]),
            lambda: self.rng.choice(
                ["", "\0", "../../etc/passwd", "/etc/passwd", "a" * 5000, "é\ud800"]
            ),
            lambda: self.rng.choice([self._session, "session-1", str(self._shared), "Forward"]),
            lambda: self.rng.choice([[], {}, [[]], [{}]]),
            lambda: secrets.token_hex(self.rng.randrange(40)),
            lambda: str(self._trap),
        ]
        if draw < len(plain):
            return plain[draw]()
        if draw < 12:
            return [self.junk(depth + 1) for _ in range(self.rng.randrange(4))]
        return {str(self.junk(3))[:50]: self.junk(depth + 1) for _ in range(self.rng.randrange(4))}

    def mutated(self, content: dict[str, Any]) -> dict[str, Any]:
        """With one to three of its entries lacking, replaced, or new."""
        changed = dict(content)
        for _ in range(self.rng.randint(1, 3)):
            name = self.rng.choice([*changed, "value", "session", "request"])
            if self.rng.random() < 0.3:
                changed.pop(name, None)
            else:
                changed[name] = self.junk()
        changed.pop("force", None)  # which would end the server, and may
        return changed

    def bytes(self, most: int = 200) -> bytes:
        return self.rng.randbytes(self.rng.randrange(most))

    def _pickled(self, value: Any) -> tuple[dict[str, Any], Frames]:
        content, buffers = transport.pack(value)
        return content, [bytes(memoryview(buffer).cast("B")) for buffer in buffers]

    # -- messages ----------------------------------------------------------------------------

    def frames(self, kind: str, content: Any, buffers: Frames = (), **header: Any) -> Frames:  # type: ignore[assignment]
        """A message that is rightly signed."""
        self._number += 1
        own = {
            "msg_id": f"fuzz-{self._number}",
            "msg_type": kind,
            "session": "fuzz",
            "username": "fuzz",
            "version": "5.4",
            "date": "2026-01-01T00:00:00Z",
        }
        parts = [_json({**own, **header}), b"{}", b"{}", _json(content)]
        return [DELIMITER, self.signature(parts), *parts, *buffers]

    def signature(self, parts: Frames) -> bytes:
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            digest.update(part)
        return digest.hexdigest().encode()

    def request(self) -> Frames:
        """A request, wrong in its content, its digests, its pickle, or what was pickled."""
        content, buffers = self.rng.choice(self._requests)
        content = {"session": self._session, "kind": "forward", "same_host": False, **content}
        draw = self.rng.randrange(6)
        if draw == 0:
            content = self.mutated(content)
        elif draw == 1:
            content["value"] = self._wrong_description(content["value"])
        elif draw == 2:  # the digest is another's
            return self.frames(protocol.REQUEST, content, [self._bomb, *buffers[1:]])
        elif draw == 3:  # it is right, and the pickle is none
            payload = self.rng.choice([self.bytes(), buffers[0][:-3], b"\x80\x05]\x94e.", b"."])
            content["value"] = {"digests": [hashlib.sha256(payload).hexdigest()]}
            buffers = [payload]
        elif draw == 4:
            content = self.rng.choice([[], "text", None, 5, self.junk()])
        return self.frames(protocol.REQUEST, content, buffers)

    def _wrong_description(self, right: dict[str, Any]) -> Any:
        paths = [str(self.victim), f"{self._shared}/../{self.victim}", str(self._shared), "x", "\0"]
        return self.rng.choice(
            [
                {**right, "files": [self.rng.choice(paths)], "places": [[0, 0, 10]]},
                {**right, "files": self.junk(), "places": self.junk()},
                {**right, "digests": self.junk()},
                {**right, "digests": right["digests"][::-1] * 1000},
                {},
                self.junk(),
            ]
        )

    def question(self) -> Frames:
        """A question on the control channel."""
        kind = self.rng.choice(protocol.CONTROL_MESSAGES)
        me = {"user": "fuzz", "host": "elsewhere", "pid": 7, "protocol": protocol.PROTOCOL}
        content: Any = {**me, "python": protocol.python_version(), "request": "fuzz-1", "heard": 0}
        buffers: Frames = []
        if kind == protocol.TOKENIZE:
            content, buffers = self.rng.choice(self._questions)
        content = {**content, "session": self.rng.choice(["fuzzed", "fuzzed too"])}
        content = self.mutated(content) if self.rng.random() < 0.8 else self.junk()
        if isinstance(content, dict) and isinstance(content.get("session"), str):
            content["session"] = content["session"][:12]  # so that there are few
        return self.frames(kind, content, buffers)

    def jupyter(self, port: str) -> Frames:
        """A message of Jupyter's own; those that run code or end things by right are not among them."""
        kinds = ["kernel_info", "comm_info", "is_complete", "connect", "history", "interrupt"]
        if port == "control":
            kinds += ["debug", "usage", "create_subshell", "delete_subshell", "list_subshell"]
        kinds = [*(f"{kind}_request" for kind in kinds), "comm_open", "comm_msg", "comm_close"]
        content = {
            **{"code": "x =", "cursor_pos": 2, "hist_access_type": "tail", "n": 3},
            **{"comm_id": "x", "target_name": "jupyter.widget", "data": {"method": "update"}},
            **{"type": "request", "command": "initialize", "arguments": {}, "seq": 1},
            "subshell_id": "x",
        }
        header = {"subshell_id": self.junk()} if self.rng.random() < 0.3 else {}
        buffers = self.rng.choice([[], [self._bomb]])
        return self.frames(self.rng.choice(kinds), self.mutated(content), buffers, **header)

    def headless(self) -> Frames:
        """Rightly signed, with a header that is none."""
        header = {
            "msg_id": self.junk(),
            "msg_type": self.rng.choice([protocol.REQUEST, self.junk()]),
        }
        parts = [_json(self.rng.choice([header, self.junk()])), b"{}", b"{}", _json(self.junk())]
        if self.rng.random() < 0.3:
            parts[self.rng.randrange(4)] = self.bytes()
        return [DELIMITER, self.signature(parts), *parts]

    def transfer(self) -> Frames:
        """A message for the data port: rightly sealed, and wrong inside."""
        header = {
            **{"verb": self.rng.choice(protocol.DATA_MESSAGES), "transfer": secrets.token_hex(16)},
            **{"first": 0, "count": 4, "number": 0, "session": self._session, "size": 1000},
        }
        if self.rng.random() < 0.3:  # of one that was offered before
            header["transfer"] = "0" * 32
        changed = self.mutated(header) if self.rng.random() < 0.8 else self.junk()
        frame = transfers.sealed(self._key, changed)
        return [frame, *(self.bytes() for _ in range(self.rng.randrange(3)))]

    def signed(self, port: str) -> Frames:
        """A message with the right key, wrong inside, of those that a port is for."""
        draw = self.rng.random()
        if port == "data":
            return self.transfer()
        if draw < 0.1:
            return self.headless()
        if draw < 0.14:
            return self.jupyter(port)
        if port == "control":
            return self.question()
        if port == "shell":
            self.requests.append(f"fuzz-{self._number + 1}")
        return self.request()

    def unsigned(self) -> Frames:
        """A message without the key: noise, or a right one that was tampered with."""
        draw = self.rng.randrange(7)
        if draw == 0:
            return [self.bytes() for _ in range(self.rng.randrange(1, 8))]
        digest = hashlib.sha256(self._bomb).hexdigest()
        content = {"session": self._session, "kind": "x", "value": {"digests": [digest]}}
        kind = self.rng.choice([protocol.REQUEST, protocol.TOKENIZE, "execute_request"])
        if kind == "execute_request":
            content = {"code": f"open({str(self._trap)!r}, 'w')", "silent": False}
        message = self.frames(kind, content, [self._bomb])
        if draw == 1:
            message[1] = self.rng.choice([b"", secrets.token_hex(32).encode(), message[1][:-1]])
        elif draw == 2:
            other = Fuzzer.__new__(Fuzzer)
            other._key = secrets.token_bytes(32)
            message[1] = other.signature(message[2:6])
        elif draw == 3:
            part = self.rng.randrange(2, 6)
            changed = bytearray(message[part])
            changed[self.rng.randrange(len(changed))] ^= 1 << self.rng.randrange(8)
            message[part] = bytes(changed)
        elif draw == 4:
            message = message[: self.rng.randrange(1, 6)]
        elif draw == 5:  # signed in another order
            message[2:6] = message[3:6] + message[2:3]
        else:  # the right bytes under the digest of others
            message = [*message[:2], *self.frames(kind, {}, [self._bomb])[2:]]
        return message

    # -- what is rightly pickled and makes no sense ------------------------------------------

    def _wrong_requests(self) -> list[Any]:
        code = requests.Code(pickle.dumps(len), "0", "len")
        batches: list[Any] = [
            requests.Batch(ids)
            for ids in (None, "x", 5, [[1, 2]], torch.ones(2, 3), torch.full((1, 3), 2**40), {})
        ]
        good = requests.Batch(torch.tensor([[1, 2]]))
        wrong = [requests.Forward(batch=batch) for batch in batches]
        wrong += [requests.Forward(batch=b) for b in ("x", None, requests.Batch(torch.ones(0, 0)))]
        wrong += [
            requests.Forward(batch=good, probes=probes)
            for probes in (5, ("x",), (requests.ProbeSpec("no.such", code),))
        ]
        wrong += [
            requests.ProbeSpec("layers.0.mlp.out", code, params=5),
            5,
            None,
            {},
            requests.Request,
        ]
        wrong += [requests.Snapshot(number="x"), requests.Clear(points=5), requests.GetParameter(5)]
        wrong += [requests.Patch(texts=batch.ids) for batch in batches]
        wrong += [requests.Jacobian(batch=batch, target="layers.1.resid_post") for batch in batches]
        wrong += [requests.TrainDictionary(batch=batch) for batch in batches]
        wrong += [requests.KeepTraining(what=what) for what in ("burn", "checkpoint", "restore")]
        wrong += [requests.MeasureTraining(batch=good)]
        wrong += [requests.ReadWeights(function=code) for code in (None, 5, code)]
        wrong += [requests.Fetch(wanted=((1, 2),)), requests.Generate(good, options={"no": 1})]
        wrong += [requests.Snapshot(released="many"), requests.Forward(batch=good, logits=5)]
        for request in wrong:
            if isinstance(request, requests.Request):
                request.session = self._session
        return wrong

    def _wrong_questions(self) -> list[Any]:
        rows: list[Any] = [[[1, 2]], 5, [["x"]], [[2**70]], [[-1]], None]
        texts: list[Any] = [("x",), (), 5, (5,), ("",)]
        chats: Any = ([{"role": 5}],)
        return [
            *(ask.Decode(one) for one in rows),
            *(ask.Strings(one) for one in rows),
            *(ask.Encode(one) for one in texts),
            ask.Encode(chats=chats),
            5,
            None,
        ]


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (self._file,)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf8", "surrogatepass")
