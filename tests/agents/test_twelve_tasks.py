"""The twelve tasks of docs/agents.md, by a real client of a real `garcon mcp`; what comes out is held against plain transformers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from tests.agents import twelve_tasks
from tests.agents.conftest import over_stdio
from tests.oracle import Plain

pytestmark = pytest.mark.processes

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"


async def solved(server: str) -> dict[str, Any]:
    """What comes out of each task."""
    async with over_stdio(server, "--allow", "edit") as client:

        async def ask(name: str, /, **arguments: Any) -> dict[str, Any]:
            found = await client.call_tool(name, arguments)
            assert not found.is_error, found.structured_content
            told: dict[str, Any] = found.structured_content
            return told

        return {name: await task(ask) for name, task in twelve_tasks.TASKS.items()}


@pytest.fixture(scope="module")
def found(smollm2_server: garcon.Server) -> dict[str, Any]:
    return asyncio.run(solved(smollm2_server.name))


@pytest.fixture(scope="module")
def other(smollm2_server: garcon.Server) -> Plain:
    """The model as transformers loads it."""
    return Plain(Path(str(smollm2_server.facts["path"])))


def logits(other: Plain, text: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = other.model(**other.tokenizer(text, return_tensors="pt")).logits[
            0, -1
        ]
    return found


def names(other: Plain) -> list[int]:
    return [
        other.tokenizer(name, add_special_tokens=False)["input_ids"][0]
        for name in twelve_tasks.NAMES
    ]


def test_there_are_twelve_and_the_page_tells_each() -> None:
    assert len(twelve_tasks.TASKS) == 12
    page = PAGE.read_text(encoding="utf-8")
    for task in twelve_tasks.TASKS.values():
        assert (task.__doc__ or "").split("?")[0] in page, task.__doc__


def test_heads_are_those_that_other_pages_tell(found: dict[str, Any]) -> None:
    """docs/experiments/reading.md, whose tests count attention by hand."""
    assert found["induction_heads"] == ["18.6", "17.4", "17.5"]
    assert found["previous_token_heads"] == ["16.0", "11.1", "2.1"]
    assert found["duplicate_token_heads"] == ["14.3", "8.0", "9.2"]


def test_tokens_and_what_comes_next(found: dict[str, Any], other: Plain) -> None:
    ids = other.tokenizer(twelve_tasks.CAPITAL, return_tensors="pt")
    assert found["tokens_of_a_text"] == [other.tokenizer.decode(one) for one in ids["input_ids"][0]]
    made = other.model.generate(**ids, max_new_tokens=5, do_sample=False)
    assert found["generated"] == other.tokenizer.decode(made[0, ids["input_ids"].shape[1] :])


def test_the_head_that_moves_the_name(found: dict[str, Any], other: Plain) -> None:
    head, share = found["name_mover"]
    assert head == "23.3"
    projection, kept = other.model.model.layers[23].self_attn.o_proj, []

    def keep(module: object, given: tuple[torch.Tensor, ...]) -> None:
        kept.append(given[0][..., 3 * 64 : 4 * 64].clone())

    def put(module: object, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        new = given[0].clone()
        new[..., 3 * 64 : 4 * 64] = kept[0]
        return (new,)

    def difference(text: str, hook: Any = None) -> float:
        taken = projection.register_forward_pre_hook(hook) if hook else None
        last = logits(other, text)[names(other)]
        if taken:
            taken.remove()
        return float(last[0] - last[1])

    clean = difference(twelve_tasks.CLEAN, keep)
    corrupted = difference(twelve_tasks.CORRUPTED)
    patched = difference(twelve_tasks.CORRUPTED, put)
    assert share == pytest.approx((patched - corrupted) / (clean - corrupted), abs=2e-3)

    def gone(module: object, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        new = given[0].clone()
        new[..., 3 * 64 : 4 * 64] = 0
        return (new,)

    before, after = found["fall_of_an_ablation"]
    assert before == pytest.approx(clean, abs=1e-3)
    assert after == pytest.approx(difference(twelve_tasks.CLEAN, gone), abs=1e-3)
    assert after < before - 1


def test_the_layer_that_knows(found: dict[str, Any], other: Plain) -> None:
    """The logit lens by hand."""
    ids = other.tokenizer(twelve_tasks.CAPITAL, return_tensors="pt")
    paris = other.tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]
    streams: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(
            lambda m, g, out: streams.append(out[0] if isinstance(out, tuple) else out)
        )
        for layer in other.model.model.layers
    ]
    with torch.no_grad():
        other.model(**ids)
        said = [
            int(other.model.lm_head(other.model.model.norm(s))[0, -1].argmax()) for s in streams
        ]
    for hook in hooks:
        hook.remove()
    assert said.index(paris) == found["layer_that_knows"]


def test_the_neuron_of_a_word(found: dict[str, Any], other: Plain) -> None:
    word, neuron = found["neuron_of_a_word"]
    ids = other.tokenizer("She lived in Paris and worked in London.", return_tensors="pt")
    seen: list[torch.Tensor] = []
    hook = other.model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda module, given: seen.append(given[0][0])
    )
    with torch.no_grad():
        other.model(**ids)
    hook.remove()
    assert other.tokenizer.decode(ids["input_ids"][0, word]) == " Paris"
    assert int(seen[0][word].abs().argmax()) == neuron
    assert int(seen[0][:, neuron].abs().argmax()) == word  # on no other token of the text more


def test_the_others(found: dict[str, Any]) -> None:
    assert found["steered"] == " Rome"
    part, written = found["strongest_component"]
    assert part == "attention 23" and written == pytest.approx(3.66, abs=0.01)
    assert found["what_it_lacks"] == "this architecture does not normalise queries and keys"
