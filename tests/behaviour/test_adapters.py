"""A server that is launched with adapters: over two ranks, in requests of one client in turn, and refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from garcon_jupyter.servers import control
from tests import lora
from tests.checkpoints import make
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

pytestmark = pytest.mark.processes


def test_two_adapters_on_two_ranks(llama_path: Path, plain: Plain, tmp_path: Path) -> None:
    wanted = {None: plain.logits(PROMPT)}
    for seed, name in enumerate(("one", "two")):
        changed = lora.make(tmp_path / name, plain.model, ["q_proj", "o_proj", "down_proj"], seed)
        with torch.no_grad():
            merged = lora.with_merged(plain.model, changed)
            wanted[name] = merged(torch.tensor(PROMPT)).logits
    given = [tmp_path / "one", f"two={tmp_path / 'two'}"]
    with pytest.raises(garcon.NotAnAdapter, match="is of another model"):
        other = AutoModelForCausalLM.from_pretrained(make("llama", tmp_path / "o", hidden_size=60))
        lora.make(tmp_path / "wrong", other, ["q_proj"])
        garcon.launch(llama_path, name="adapted", tp=2, adapter=tmp_path / "wrong", progress=quiet)
    server = garcon.launch(llama_path, name="adapted", tp=2, adapter=given, progress=quiet)
    try:
        rmodel = garcon.connect(server)
        for name in ("one", None, "two", "one", None):
            assert close(rmodel.forward(PROMPT, adapter=name), wanted[name])
        assert close(rmodel.adapted("two").forward(PROMPT), wanted["two"])
        with pytest.raises(garcon.UnknownName, match="Did you mean two"):
            rmodel.forward(PROMPT, adapter="tow")
        assert garcon.launch(llama_path, name="adapted", tp=2, adapter=given) == server
        with pytest.raises(garcon.ServerMismatch, match="adapter="):
            garcon.launch(llama_path, name="adapted", tp=2)
    finally:
        control.stop(server, force=True)
