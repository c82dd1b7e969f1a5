"""A model of this process is opened: from a path, or as it is."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere, open_here
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.libraries import releases
from tests.oracle import PROMPT, Plain, close


class Toy(nn.Module):
    """A module that nobody mapped."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.head = nn.Linear(5, 11)

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        return self.head(self.embed(input_ids))


def test_it_is_what_a_connection_leads_to(llama_here: ModelHere, llama_path: Path) -> None:
    assert isinstance(llama_here, Endpoint)
    assert repr(llama_here) == f"<model tiny in this process: {llama_here.connect().facts['path']}>"
    assert llama_here.facts["path"] == str(llama_path)


def test_a_path_may_be_loaded_in_another_dtype(llama_path: Path) -> None:
    rmodel = garcon.connect(open_here(llama_path, dtype="bfloat16"))
    assert rmodel.forward(PROMPT).dtype == torch.bfloat16
    assert rmodel.facts["model"]["dtype"] == "bfloat16"
    assert rmodel.server.name == llama_path.name


def test_a_module_is_taken_as_it_is() -> None:
    torch.manual_seed(0)
    module = Toy().train()
    rmodel = garcon.connect(open_here(module))
    with torch.no_grad():
        expected = module(torch.tensor(PROMPT) % 11)
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert close(rmodel.forward(torch.tensor(PROMPT) % 11), expected)

    def double(save_ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor

    point = rmodel.probe_points["module:head.output"]
    assert close(
        rmodel.forward(torch.tensor(PROMPT) % 11, probes=[point.probe(double)]), 2 * expected
    )
    with pytest.raises(garcon.BadRequest, match="no tokenizer"):
        rmodel.encode("text")


def test_a_module_of_transformers_has_the_points_of_its_architecture(plain: Plain) -> None:
    model = copy.deepcopy(plain.model)  # it is frozen
    rmodel = garcon.connect(open_here(model, tokenizer=plain.tokenizer))
    assert close(rmodel.forward(PROMPT), plain.logits(PROMPT))
    assert rmodel.encode("Hello").tolist() == [plain.tokenizer("Hello")["input_ids"]]
    assert "layers.2.mlp.out" in rmodel.catalog.names()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(garcon.NotAModel):
        open_here(tmp_path)


def test_several_are_apart(llama_here: ModelHere, llama_path: Path) -> None:
    other = open_here(llama_path)
    assert other.connect().key != llama_here.connect().key


def test_it_has_neither_threads_nor_sockets(llama_path: Path) -> None:
    before = set(threading.enumerate())
    rmodel = garcon.connect(open_here(llama_path))
    rmodel.forward(PROMPT)
    rmodel.run([PROMPT[0]], [rmodel.probe_points["layers.0.mlp.out"].probe(nothing)], show=False)
    rmodel.close()
    assert {t for t in threading.enumerate() if t.name != "garcon-warming"} <= before


def nothing(save_ctx: Any, tensor: torch.Tensor) -> None:
    """A probe that only looks away."""


LEFT_OPEN = """
import sys, garcon_jupyter as garcon
from garcon_backend.in_process import open_here
rmodel = garcon.connect(open_here(sys.argv[1]))
print(rmodel.forward([[1, 2, 3]]).shape)
"""


@pytest.mark.processes
def test_a_script_ends_that_leaves_it_open(llama_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, llama_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "torch.Size([1, 3, 263])\n"
    assert "Traceback" not in done.stderr


def test_releases_that_were_not_tested_are_said_and_used(
    monkeypatch: pytest.MonkeyPatch, llama_path: Path, plain: Plain
) -> None:
    told: list[str] = []
    open_here(llama_path, progress=told.append)
    assert not any("tested" in line for line in told)
    real = releases.installed
    monkeypatch.setattr(
        releases, "installed", lambda name: {"torch": "9.1.0"}.get(name, real(name))
    )
    rmodel = garcon.connect(open_here(llama_path, progress=told.append))
    assert [line for line in told if "tested" in line] == [
        f"torch 9.1.0 has not been tested with Garçon: {releases.span('torch')} have; going on"
    ]
    assert close(rmodel.forward(PROMPT), plain.logits(PROMPT))
