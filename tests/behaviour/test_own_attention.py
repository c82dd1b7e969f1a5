"""A real server of an architecture that no family maps, whose attention has more than a function is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from tests.backend import architectures
from tests.backend.cases import IDS, apart
from tests.conftest import quiet

LAYER = "model.layers.1.self_attn.o_proj"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return architectures.make("granite_swa", tmp_path_factory.mktemp("granite-swa"))


@pytest.fixture(scope="module")
def granite(path: Path) -> Iterator[garcon.RemoteModel]:
    server = garcon.launch(path, name="own-attention", progress=quiet)
    model = garcon.connect(server.name)
    yield model
    model.shutdown(force=True)


def test_granite_by_its_own_attention(granite: garcon.RemoteModel, path: Path) -> None:
    """Logits, what goes into a module, an edit there and a continuation: as in transformers, with sinks."""
    plain: Any = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    kept: list[torch.Tensor] = []
    module = plain.get_submodule(LAYER)
    handle = module.register_forward_pre_hook(lambda m, args: kept.append(args[0]))

    def keep(save_ctx: Any, tensor: torch.Tensor) -> None:
        save_ctx.z = tensor

    def halve(save_ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 0.5

    point = granite.probe_points[f"module:{LAYER}.input"]
    with torch.no_grad():
        wanted = plain(IDS).logits
        assert apart(granite.forward(IDS, probes=[point.probe(keep)]), wanted) <= 1e-5
        assert apart(granite.recordings()[point.name].z, kept[0]) <= 1e-5
        handle.remove()
        module.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
        edited = granite.forward(IDS, probes=[point.probe(halve)])
        assert apart(edited, plain(IDS).logits) <= 1e-5
        assert apart(edited, wanted) > 1e-3
        found = granite.generate(IDS, max_new_tokens=5, probes=[point.probe(halve)])
        told = plain.generate(
            IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False
        )
    assert torch.equal(found.ids, told)
    with pytest.raises(garcon.PointUnavailable, match="no family file maps"):
        granite.probe_points["layers.1.attn.pattern"].probe(keep)
