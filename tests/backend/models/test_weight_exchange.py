"""Weights exchanged on several ranks: every rank has what a fresh launch gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.hook_sites import attention
from garcon_backend.models import loading, weight_exchange
from garcon_backend.models.tensor_parallel import cut_of
from garcon_jupyter.errors import ModelsDiffer
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.ranks import run_on_ranks
from tests.checkpoints import make

pytestmark = pytest.mark.processes

FAMILIES = ("llama", "gpt2", "mixtral")
IDS = (torch.arange(12).view(2, 6) * 37 + 11) % 263


def exchanged(folder: str, degrees: list[tuple[int, int]]) -> list[str]:
    """On a rank: what differs from a fresh model after an exchange, and what did not differ before."""
    attention.register()
    found = []
    for tp, pp in degrees:
        mesh = Mesh.form(Degrees(tp=tp, pp=pp), "cpu")
        for family in FAMILIES:
            one, other = Path(folder, family, "one"), Path(folder, family, "other")
            model: Any = loading.load(one, mesh)
            expected: Any = loading.load(other, mesh)
            with torch.no_grad():
                before, right = model(IDS).logits, expected(IDS).logits
            coming = loading.load(other, mesh, as_in=model)
            weight_exchange.check(model, coming, other)
            weight_exchange.put(model, coming)
            with torch.no_grad():
                after = model(IDS).logits
            what = f"{family} tp={tp} pp={pp}"
            if mesh.last_stage and (torch.equal(before, right) or not torch.equal(after, right)):
                found.append(f"logits of {what}")
            mine, theirs = (dict(m.named_parameters()) for m in (model, expected))
            found += [f"{n} of {what}" for n in mine if not torch.equal(mine[n], theirs[n])]
            found += [f"cut of {n}" for n in mine if cut_of(mine[n]) != cut_of(theirs[n])]
            found += [f"names of {what}"] * (mine.keys() != theirs.keys())
    mesh.leave()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchange")
    for family in FAMILIES:
        make(family, folder / family / "one")
        make(family, folder / family / "other", seed=7)
    return folder


def test_every_rank_has_what_a_fresh_launch_gives_it(folder: Path) -> None:
    assert run_on_ranks(2, exchanged, str(folder), [(2, 1), (1, 2)]) == [[], []]


def test_what_lies_otherwise_in_memory_is_refused(folder: Path, tmp_path: Path) -> None:
    attention.register()
    mesh, path = Mesh.solo(), folder / "llama" / "one"
    model, untied = loading.load(path, mesh), loading.load(path, mesh)
    head: Any = untied.get_submodule("lm_head")
    tied: Any = model.get_submodule("lm_head")
    is_tied = tied.weight is model.get_input_embeddings().weight  # type: ignore[operator]
    head.weight = (
        torch.nn.Parameter(head.weight.clone()) if is_tied else untied.get_input_embeddings().weight  # type: ignore[operator]
    )
    with pytest.raises(ModelsDiffer, match="tied to each other"):
        weight_exchange.check(model, untied, path)
    narrow = loading.load(path, mesh, "bfloat16")
    with pytest.raises(ModelsDiffer, match="bfloat16, which is loaded .* float32"):
        weight_exchange.check(model, narrow, path)
