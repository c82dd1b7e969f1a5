"""Requests that somebody has tampered with: each is answered, nothing is run or read that was not declared, and the door goes on.

``python -m tests.http_door.test_mutations 100000`` sends as many as one likes.
"""

from __future__ import annotations

import asyncio
import builtins
import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere, open_here
from garcon_jupyter.http_door.desk import OperationDesk
from garcon_jupyter.operations.limits import RequestLimits

IDS = [0, 40, 41, 42]

VALID: list[tuple[str, dict[str, Any]]] = [
    ("describe", {}),
    ("points", {"pattern": "layers.*.attn.z"}),
    ("status", {}),
    ("parameter", {"name": "layers.1.mlp.down_proj", "rows": [0, 1], "columns": [2]}),
    ("tokenize", {"texts": ["hello"], "special": True}),
    ("detokenize", {"ids": [[1, 2]]}),
    ("chat", {"messages": [{"role": "user", "content": "hi"}]}),
    ("forward", {"prompts": [IDS], "reads": [{"point": "layers.1.mlp.out", "reduce": "strongest", "k": 3}], "likely": 2}),
    ("forward", {"prompts": "hello", "edits": [{"point": "layers.0.mlp.out", "kind": "add", "value": 1.5, "units": [3]}]}),
    ("forward", {"prompts": [IDS], "edits": [{"point": "layers.0.attn.z", "kind": "patch", "prompts": [IDS[::-1]]}]}),
    ("attention", {"prompt": IDS, "layers": [0], "heads": [1]}),
    ("generate", {"prompts": [IDS], "max_new_tokens": 2, "temperature": 0.5, "stop": ["x"]}),
    ("backward", {"prompt": IDS, "targets": [5], "distractors": [6], "points": ["layers.1.mlp.out"]}),
    ("lens", {"prompt": IDS, "choices": 2, "answer": 5}),
    ("effects", {"prompt": IDS, "of": ["heads"], "targets": [5], "strongest": 2}),
    ("unit", {"point": "layers.1.mlp.post_activation", "unit": 3}),
    ("search", {"token": "a"}),
    ("steer", {"job": "none", "what": "pause"}),
]  # fmt: skip

STRANGE = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 1e308, -0.0, "", "\x00", "layers.*.*", "layers.0.mlp.out", "module:model.output",
    "module:__class__.output", "__import__('os').system('true')", "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "{0.__class__}",
    "a" * 3000, "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"), [], {}, [[]], [None], [[1, "a"]], {"__class__": "x"}, [-1],
    [10**9], [0] * 300, ["layers.0.mlp.out"] * 300,
]  # fmt: skip


def mutated(rng: random.Random) -> tuple[str, bytes]:
    """An operation and a body: a valid request of which one thing or several were changed."""
    name, request = rng.choice(VALID)
    value: Any = copy.deepcopy(request)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _changed(rng, value)
    if rng.random() < 0.05:
        name = rng.choice(VALID)[0]
    body = json.dumps(value).encode()
    if rng.random() < 0.1 and body:
        at = rng.randrange(len(body))
        body = body[:at] + bytes([rng.randrange(256)]) + body[at + rng.choice((0, 1)) :]
    return name, body


def _changed(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        way = rng.random()
        if way < 0.1:
            del value[key]
        elif way < 0.2:
            value[key + rng.choice(("", "_", "__class__"))] = rng.choice(STRANGE)
        else:
            value[key] = _changed(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        value[at] = _changed(rng, value[at])
        return value
    return copy.deepcopy(rng.choice(STRANGE))


@contextmanager
def watched() -> Iterator[list[str]]:
    """Names of files that this process opens or programs that it starts meanwhile, beside libraries' own."""
    seen: list[str] = []
    on = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not on[0]:
            return
        if event == "open" and isinstance(args[0], str):
            inside = any(
                args[0].startswith(each)
                for each in (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev")
            )
            if not inside and "garcon" not in args[0] and "site-packages" not in args[0]:
                seen.append(args[0])
        elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
            seen.append(event)

    sys.addaudithook(hook)
    try:
        yield seen
    finally:
        on[0] = False


async def send(desk: OperationDesk, count: int, seed: int) -> Counter[int]:
    """Send so many; how often each status came back."""
    rng, found = random.Random(seed), Counter[int]()
    for _ in range(count):
        name, body = mutated(rng)
        reply = await asyncio.wait_for(desk.answer(name, body), 60)
        json.loads(reply.body)
        assert reply.status != 500, (name, body, reply.body)
        found[reply.status] += 1
    return found


def test_each_is_answered(
    llama_here: ModelHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "GARCON_RUNTIME", str(tmp_path)
    )  # jobs of other tests are looked at by their locks
    limits = RequestLimits(prompt_tokens=64, answer_bytes=1 << 22)
    desk = OperationDesk(lambda: garcon.connect(llama_here), limits)
    before = builtins.open, Path.cwd()
    with watched() as opened:
        found = asyncio.run(send(desk, 1500, 1))
    assert found[200] > 50 and found[422] > 300 and found[404] > 20
    assert opened == [], "a request led to a file or a program"
    assert (builtins.open, Path.cwd()) == before
    reply = asyncio.run(desk.answer("forward", json.dumps({"prompts": [IDS]}).encode()))
    assert reply.status == 200
    assert desk._model is not None and not set(desk._model.recordings(fetch=False))
    desk.close()


def test_what_watches_sees(tmp_path: Path) -> None:
    """The wrong answer: a file that is read is found."""
    (tmp_path / "secret").write_text("x")
    with watched() as opened:
        (tmp_path / "secret").open().close()
    assert opened == [str(tmp_path / "secret")]


if __name__ == "__main__":
    from tests import checkpoints

    here = open_here(checkpoints.make("llama", Path("build/mutations")))
    door = OperationDesk(lambda: garcon.connect(here), RequestLimits(prompt_tokens=64))
    process = psutil.Process()
    for part in range(max(1, int(sys.argv[1]) // 5000)):
        told = asyncio.run(send(door, 5000, part))
        print(part, dict(told), f"{process.memory_info().rss / 1e6:.0f} MB", flush=True)
    door.close()
