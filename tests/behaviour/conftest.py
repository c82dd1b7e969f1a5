"""Servers of one test, which may be hurt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_jupyter import Server, UnknownServer
from garcon_jupyter.servers import control, registry
from tests.behaviour.test_servers import traces, until
from tests.conftest import quiet
from tests.served import either, rmodel, smollm2  # noqa: F401

Launch = Callable[..., Server]


@pytest.fixture
def launch(llama_path: Path) -> Iterator[Launch]:
    """Launches servers that end with the test."""
    started: list[Server] = []

    def launch(name: str, **words: Any) -> Server:
        started.append(garcon.launch(llama_path, name, progress=quiet, **words))
        return started[-1]

    yield launch
    for server in started:
        with contextlib.suppress(UnknownServer):  # it may have other processes than it began with
            control.kill(registry.find(server.name))
        until(lambda server=server: not traces(server))
