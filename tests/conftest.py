"""Models for the tests: in this process where that says as much, else on real servers.

Servers are started once, shared by all that only read, and gone at the end. What asks for values, errors and shapes has
`rmodel`, in this process; what is about processes, `rmodel_served`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Ten thousand tests are found, and torch is imported: garbage collections would take a quarter of that time, and find nothing.
if "pytest" in sys.modules:  # and not in a process that a test has started
    gc.disable()

import pytest

# Where the tests run in the background of a shell, interrupts are ignored, and by all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A registry of their own, so that tests never meet (or stop) the servers of whoever runs them.
# Processes that they start, and that import this file, share it.
RUNTIME = Path(os.environ.get("GARCON_TESTS") or tempfile.mkdtemp(prefix="garcon-tests-"))
os.environ["GARCON_TESTS"] = str(RUNTIME)
os.environ["GARCON_RUNTIME"] = str(RUNTIME)
os.environ.pop("JPY_SESSION_NAME", None)
os.environ["HF_HUB_OFFLINE"] = "1"

import garcon_jupyter as garcon  # noqa: E402
from garcon_backend.in_process import ModelHere, open_here  # noqa: E402
from garcon_jupyter.servers import control, registry  # noqa: E402
from tests import checkpoints, oracle  # noqa: E402

pytest_plugins = ["tests.quick", "tests.work_queue"]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """An interrupt that a test did not expect fails the test; as Ctrl-C it would end all of them."""
    try:
        return (yield)
    except garcon.Interrupted as error:
        raise AssertionError(f"a request was interrupted: {error}") from error


def quiet(line: str) -> None:
    """A progress callback for tests."""


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama checkpoint."""
    return checkpoints.make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def plain(llama_path: Path) -> oracle.Plain:
    """The small Llama as transformers loads it."""
    return oracle.Plain(llama_path)


@pytest.fixture(scope="session")
def llama_server(llama_path: Path) -> Iterator[garcon.Server]:
    """A server of it in one process, named "tiny"."""
    yield garcon.launch(llama_path, name="tiny", progress=quiet)


@pytest.fixture(scope="session")
def llama_tp2_server(llama_path: Path) -> Iterator[garcon.Server]:
    """The same over two tensor-parallel ranks, named "tiny-tp2"."""
    yield garcon.launch(llama_path, name="tiny-tp2", tp=2, progress=quiet)


@pytest.fixture(scope="session")
def llama_here(llama_path: Path) -> ModelHere:
    """The same in this process, named "tiny" as well."""
    return open_here(llama_path, name="tiny")


@pytest.fixture(scope="session")
def smollm2_here() -> ModelHere:
    """The real SmolLM2 in this process."""
    return open_here("smollm2")


@pytest.fixture(scope="session")
def smollm2_server() -> Iterator[garcon.Server]:
    """The real SmolLM2 in one process, named "smollm2"."""
    yield garcon.launch("smollm2", name="smollm2", progress=quiet)


@pytest.fixture
def rmodel(llama_here: ModelHere) -> Iterator[garcon.RemoteModel]:
    """A fresh session on the small Llama, in this process."""
    model = garcon.connect(llama_here)
    yield model
    model.close()


@pytest.fixture
def rmodel_served(llama_server: garcon.Server) -> Iterator[garcon.RemoteModel]:
    """A fresh session on the small Llama, on a server."""
    model = garcon.connect(llama_server.name)
    yield model
    model.close()


@pytest.fixture
def rmodel_tp2(llama_tp2_server: garcon.Server) -> Iterator[garcon.RemoteModel]:
    """A fresh session on the small Llama over two tensor-parallel ranks."""
    model = garcon.connect(llama_tp2_server.name)
    yield model
    model.close()


@pytest.fixture(params=["here", pytest.param("tiny-tp2", marks=pytest.mark.processes)])
def either(request: pytest.FixtureRequest) -> Iterator[garcon.RemoteModel]:
    """A fresh session on the small Llama, in this process and again over two ranks of a server."""
    fixture = {"here": "llama_here", "tiny-tp2": "llama_tp2_server"}[request.param]
    model = garcon.connect(request.getfixturevalue(fixture))
    yield model
    model.close()


@pytest.fixture(params=["tiny", "tiny-tp2"])
def either_served(request: pytest.FixtureRequest) -> Iterator[garcon.RemoteModel]:
    """A fresh session on the small Llama, on a server of one rank and again on one of two."""
    fixture = {"tiny": "llama_server", "tiny-tp2": "llama_tp2_server"}[request.param]
    model = garcon.connect(request.getfixturevalue(fixture))
    yield model
    model.close()


@pytest.fixture
def smollm2(smollm2_here: ModelHere) -> Iterator[garcon.RemoteModel]:
    """A fresh session on SmolLM2, in this process."""
    model = garcon.connect(smollm2_here)
    yield model
    model.close()


@pytest.fixture
def smollm2_served(smollm2_server: garcon.Server) -> Iterator[garcon.RemoteModel]:
    """A fresh session on SmolLM2, on a server."""
    model = garcon.connect(smollm2_server.name)
    yield model
    model.close()


@pytest.fixture(autouse=True)
def interrupts_are_interrupts() -> Iterator[None]:
    """No test leaves another meaning of Ctrl-C behind: later ones would hang."""
    yield
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert handler is signal.default_int_handler


def pytest_sessionfinish() -> None:
    """End every server of the run, and fail loudly where one cannot be ended."""
    import shutil

    for server in registry.servers():
        control.kill(server)
    shutil.rmtree(RUNTIME, ignore_errors=True)
    sys.stdout.flush()
