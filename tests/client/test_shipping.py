"""Functions on their way to the server: by value, by name, and what they carry."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadProbe, MissingModule, RemoteModel
from garcon_jupyter.client import shipping
from tests.oracle import PROMPT

OUT = "layers.2.mlp.out"

SHIFT = 3


def cell(source: str) -> dict[str, Any]:
    """The names that a notebook cell defines."""
    scope: dict[str, Any] = {"__name__": "__main__", "torch": torch}
    exec(compile(source, "<cell>", "exec"), scope)
    return scope


def test_only_the_names_that_are_used_travel() -> None:
    scope = cell(
        "small, large = 1, torch.zeros(100_000)\n"
        "def probe(save_ctx, tensor):\n    return tensor + small\n"
    )
    code = shipping.pack(scope["probe"])
    assert [name for name, _ in code.captured] == ["small"]
    assert len(code.payload) < 5_000


def test_what_is_captured_is_counted_in_bytes() -> None:
    scope = cell(
        "table = torch.zeros(10_000)\n"
        "def probe(save_ctx, tensor):\n    inner = lambda: table\n    return inner()\n"
    )
    ((name, size),) = shipping.pack(scope["probe"]).captured
    assert name == "table" and 40_000 <= size < 42_000


def test_names_of_attributes_and_builtins_are_no_captures() -> None:
    scope = cell("shape = 5\ndef probe(save_ctx, tensor):\n    return len(tensor.shape)\n")
    assert shipping.pack(scope["probe"]).captured == ()


def test_the_digest_is_of_the_code_and_its_captures() -> None:
    source = "def probe(save_ctx, tensor):\n    return tensor + {}\n"
    one, again, other = (shipping.pack(cell(source.format(n))["probe"]) for n in (1, 1, 2))
    assert one.digest == again.digest != other.digest


def test_helpers_and_classes_of_the_notebook_travel_along(rmodel: RemoteModel) -> None:
    scope = cell(
        "class Scale:\n    def __init__(self, by): self.by = by\n"
        "    def __call__(self, x): return x * self.by\n"
        "def helper(x): return Scale(2)(x)\n"
        "def probe(save_ctx, tensor):\n"
        "    save_ctx.doubled = helper(tensor)\n    save_ctx.tensor = tensor\n"
        "    save_ctx.scale = Scale(7)\n"
    )
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(scope["probe"])])
    saved = rmodel.recordings()[OUT]
    assert torch.equal(saved.doubled, 2 * saved.tensor)
    assert saved.scale.by == 7
    assert type(saved.scale) is scope["Scale"]  # back as the notebook's own class


def test_callables_other_than_functions_are_probes_too(rmodel: RemoteModel) -> None:
    import functools

    def scaled(factor: float, save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.tensor = tensor * factor

    class Saver:
        def __call__(self, save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.tensor = tensor * 3

        def method(self, save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.tensor = tensor * 4

    point = rmodel.probe_points[OUT]
    for number, fn in enumerate([functools.partial(scaled, 2.0), Saver(), Saver().method]):
        rmodel.forward(PROMPT, probes=[point.probe(fn, name=str(number))])
    recorded = rmodel.recordings()
    twice = recorded[OUT, "0"].tensor
    assert torch.allclose(recorded[OUT, "1"].tensor, twice * 1.5)
    assert torch.allclose(recorded[OUT, "2"].tensor, twice * 2)


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda: threading.Lock(), "'thing', a lock"),
        (lambda: Path(os.devnull).open("w"), "'thing', a TextIOWrapper"),  # noqa: SIM115
        (lambda: (n for n in range(3)), "'thing', a generator"),
        (lambda: {"deep": [threading.Lock()]}, "'thing', a dict"),
    ],
    ids=["lock", "file", "generator", "nested"],
)
def test_what_cannot_travel_is_named(make: Any, culprit: str) -> None:
    thing = make()

    def probe(save_ctx: Any, tensor: Tensor) -> Any:
        return thing

    with pytest.raises(BadProbe, match=culprit):
        shipping.pack(probe)


def test_capturing_the_model_itself_is_named(rmodel: RemoteModel) -> None:
    with pytest.raises(BadProbe, match="'rmodel', a RemoteModel"):
        rmodel.probe_points[OUT].probe(lambda save_ctx, tensor: rmodel.get_parameter("x"))


@pytest.fixture
def installed_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that is installed where the notebook runs, and that the server cannot import."""
    place = tmp_path / "site-packages"
    place.mkdir()
    source = "OFFSET = 5\ndef helper(x):\n    return x + OFFSET\n"
    (place / "my_installed.py").write_text(source)
    monkeypatch.syspath_prepend(str(place))
    module = importlib.import_module("my_installed")
    yield module
    del sys.modules["my_installed"]


def test_a_module_that_the_server_lacks_is_named_before_anything_runs(
    rmodel_served: RemoteModel, installed_module: ModuleType
) -> None:
    def before(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.ran = True

    def uses(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.tensor = installed_module.helper(tensor)

    point = rmodel_served.probe_points[OUT]
    probes = [point.probe(before), point.probe(uses, name="b")]
    with pytest.raises(MissingModule, match=r"needs the module 'my_installed'.*garcon\.ship"):
        rmodel_served.forward(PROMPT, probes=probes)
    assert list(rmodel_served.recordings()) == []


def test_a_shipped_module_travels_by_value(
    rmodel_tp2: RemoteModel, installed_module: ModuleType
) -> None:
    garcon.ship(installed_module)
    try:

        def uses(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.tensor = installed_module.helper(tensor)
            save_ctx.clean = tensor

        rmodel_tp2.forward(PROMPT, probes=[rmodel_tp2.probe_points[OUT].probe(uses)])
        saved = rmodel_tp2.recordings()[OUT]
        assert torch.equal(saved.tensor, saved.clean + 5)
    finally:
        cloudpickle.unregister_pickle_by_value(installed_module)


def test_imports_inside_a_function_happen_on_the_server(rmodel: RemoteModel) -> None:
    def uses(save_ctx: Any, tensor: Tensor) -> None:
        import no_such_module_anywhere  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(uses)])


def test_captured_tensors_keep_their_values(rmodel: RemoteModel) -> None:
    direction = torch.randn(48, requires_grad=True)
    half = torch.randn(48).bfloat16()

    def project(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.direction, save_ctx.half = direction, half

    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(project)])
    saved = rmodel.recordings()[OUT]
    assert torch.equal(saved.direction, direction.detach())
    assert torch.equal(saved.half, half)


def test_a_pack_is_plain_data() -> None:
    code = shipping.pack(lambda save_ctx, tensor: tensor + SHIFT)
    again = pickle.loads(pickle.dumps(code))
    assert again == code and "<lambda>" in code.name
