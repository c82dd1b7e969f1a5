"""Every snippet of the Garçon article as printed, but for three corrections.

``garcon.connect("my-garcon")`` and its kin are those of "Garcon" (Elhage et al. 2021). The corrections: the
module's name is ``garcon_jupyter``; ``unit`` is ``mlp_idx``; and a missing ``]``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.servers import control, registry
from tests import checkpoints
from tests.oracle import Plain, close

pytestmark = pytest.mark.processes

SNIPPETS = [
    # "One typically uses Garçon by launching a new server": see the test of that name.
    'rmodel = garcon.connect("my-garcon")',
    "rmodel = garcon.launch_and_connect('path-to-model')",
    'logits = rmodel.forward(rmodel.encode("Hello, world"))',
    """
def save_tensor(save_ctx, tensor):
  save_ctx.tensor = tensor

point_name = 'layers.4.mlp.post_activation'
rmodel.forward(
  tokens,
  probes=[rmodel.probe_points[point_name].probe(save_tensor)]
)
""",
    """
def ablate_neuron(layer, mlp_idx):
  def hook(_, tensor):
    tensor[:, :, mlp_idx] = 0
    return tensor
  point_name = f'layers.{layer}.mlp.pre_activation'
  return rmodel.probe_points[point_name].probe(hook)
rmodel.forward(tokens, probes=[ablate_neuron(4, 123)])
""",
    "W = rmodel.get_parameter('layers.4.mlp.up_proj')",
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a fifth layer and a neuron 123, at "path-to-model"."""
    directory = tmp_path_factory.mktemp("article") / "path-to-model"
    return checkpoints.make("llama", directory, num_hidden_layers=6, intermediate_size=160)


@pytest.fixture(scope="module")
def scope(path: Path) -> dict[str, Any]:
    """The names of the article's notebook, after its first cell."""
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "garcon_jupyter.launch"),
            *("--snapshot", "path-to-model", "--name", "my-garcon"),
        ],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert launched.returncode == 0, launched.stdout + launched.stderr
    return {"garcon": garcon, "__name__": "__main__"}


@pytest.fixture(scope="module")
def plain_model(path: Path) -> Plain:
    return Plain(path)


def test_the_article_from_the_first_snippet_to_the_last(
    scope: dict[str, Any], path: Path, plain_model: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    connect, launch_and_connect, hello, save, ablate, parameter = SNIPPETS

    exec(connect, scope)
    first = scope["rmodel"]
    assert first.server.name == "my-garcon"

    exec(launch_and_connect, scope)
    rmodel = scope["rmodel"]
    assert rmodel.server.name.startswith("path-to-model-")
    pid = rmodel.facts["pid"]
    assert rmodel.facts["idle_timeout"] == 3600  # "automatically shut down after 1h of inactivity"
    exec(
        launch_and_connect, scope
    )  # "re-running that cell … can detect that the server is running"
    rmodel = scope["rmodel"]
    assert rmodel.facts["pid"] == pid

    exec(hello, scope)
    ids = plain_model.tokenizer("Hello, world")["input_ids"]
    clean = plain_model.logits([ids])
    assert close(scope["logits"], clean)

    scope["tokens"] = rmodel.encode("Hello, world")
    exec(save, scope)
    recorded = rmodel.recordings()["layers.4.mlp.post_activation"].tensor
    assert close(recorded, plain_model.neurons(4, [ids]))

    def unit_123(out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[:, :, 123] = 0
        return out

    with plain_model.hooked("model.layers.4.mlp.gate_proj", unit_123):
        expected = plain_model.logits([ids])
    assert not close(expected, clean, 1e-4)
    ablated = ablate.replace("rmodel.forward(tokens", "ablated = rmodel.forward(tokens")
    exec(ablated, scope)
    assert close(scope["ablated"], expected)

    exec(parameter, scope)
    assert torch.equal(
        scope["W"], plain_model.model.get_parameter("model.layers.4.mlp.up_proj.weight")
    )


def test_the_snippets_are_those_of_the_article() -> None:
    """Character by character, but for white space and the corrections."""
    printed = " ".join(ARTICLE.split())
    for snippet in SNIPPETS:
        plain_text = " ".join(snippet.split())
        as_printed = plain_text.replace("mlp_idx] = 0", "unit] = 0").replace("123)])", "123))")
        assert as_printed in printed, as_printed


ARTICLE = """
rmodel = garcon.connect("my-garcon")

rmodel = garcon.launch_and_connect('path-to-model')

logits = rmodel.forward(rmodel.encode("Hello, world"))

def save_tensor(save_ctx, tensor):

  save_ctx.tensor = tensor



point_name = 'layers.4.mlp.post_activation'

rmodel.forward(

  tokens,

  probes=[rmodel.probe_points[point_name].probe(save_tensor)]

)

def ablate_neuron(layer, mlp_idx):

  def hook(_, tensor):

    tensor[:, :, unit] = 0

    return tensor

  point_name = f'layers.{layer}.mlp.pre_activation'

  return rmodel.probe_points[point_name].probe(hook)

rmodel.forward(tokens, probes=[ablate_neuron(4, 123))

W = rmodel.get_parameter('layers.4.mlp.up_proj')
"""


def test_the_servers_of_the_article_run_beside_each_other(scope: dict[str, Any]) -> None:
    names = [server.name for server in garcon.servers()]
    assert "my-garcon" in names
    control.stop(registry.find("my-garcon"))
    assert "my-garcon" not in [server.name for server in garcon.servers()]
