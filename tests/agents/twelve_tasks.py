"""Twelve tasks on SmolLM2, solved through the tools alone: what docs/agents.md tells, and test_twelve_tasks.py holds against other ways.

Each is a function of `ask`, which calls a tool by its name and gives what it tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Ask = Callable[..., Awaitable[dict[str, Any]]]

CAPITAL = "The capital of France is"
CLEAN = "When John and Mary went to the shops, John gave the bag to"
CORRUPTED = "When John and Mary went to the shops, Mary gave the bag to"
NAMES = [" Mary", " John"]
SCORES = ("previous token", "duplicate token", "induction")


async def tokens_of_a_text(ask: Ask) -> list[str]:
    """How does the model read a text?"""
    told = await ask("tokenize", texts=[CAPITAL])
    strings: list[str] = told["answer"]["tokens"][0]["strings"]
    return strings


async def _heads(ask: Ask, score: str) -> list[str]:
    """The heads with the largest score, of those whose score on text without repetition is told beside it."""
    found = (await ask("head_scores"))["answer"]["values"]["kept_as"]
    told = await ask("read_array", name=found, places=[SCORES.index(score)], strongest=3)
    return [f"{row['layer']}.{row['head']}" for row in told["strongest"]]


async def induction_heads(ask: Ask) -> list[str]:
    """Which heads attend to what followed an earlier copy?"""
    return await _heads(ask, "induction")


async def previous_token_heads(ask: Ask) -> list[str]:
    """Which heads attend to the token before?"""
    return await _heads(ask, "previous token")


async def duplicate_token_heads(ask: Ask) -> list[str]:
    """Which heads attend to earlier copies of the token?"""
    return await _heads(ask, "duplicate token")


async def name_mover(ask: Ask) -> tuple[str, float]:
    """Which head moves the name? Attribution finds it, and a patch says how much it restores."""
    told = await ask("attribute", clean=CLEAN, corrupted=CORRUPTED, answers=NAMES)
    first = told["answer"]["values"]["strongest"][0]
    point = f"layers.{first['layer']}.attn.z"
    told = await ask(
        "patch", clean=CLEAN, corrupted=CORRUPTED, points=[point], by=["head"], answers=NAMES
    )
    return f"{first['layer']}.{first['head']}", told["answer"]["values"]["values"][first["head"]]


async def layer_that_knows(ask: Ask) -> int:
    """Which is the first layer at which the logit lens says Paris?"""
    found = (await ask("lens", prompt=CAPITAL, answer=" Paris"))["answer"]["values"]["kept_as"]
    ranks = await ask("read_array", name=found, places=[None, None, -1])
    row = ranks["axes"]["statistic"].index("answer rank")
    values = ranks["values"][row]
    return int(ranks["axes"]["layer"][values.index(min(values))])


async def neuron_of_a_word(ask: Ask) -> tuple[int, int]:
    """Which neuron of layer 0 fires most on " Paris" and on nothing else of a text?"""
    text = "She lived in Paris and worked in London."
    read = {"point": "layers.0.mlp.post_activation"}
    told = await ask("forward", prompts=text, reads=[read])
    strings = told["answer"]["tokens"][0]["strings"]
    name = told["answer"]["activations"][0]["values"]["kept_as"]
    word = strings.index(" Paris")
    here = await ask("read_array", name=name, places=[0, word], strongest=1)
    return word, here["strongest"][0]["M"]


async def fall_of_an_ablation(ask: Ask) -> tuple[float, float]:
    """How far does the difference of the names' logits fall when head 23.3 is taken out?"""
    ids = [
        (await ask("tokenize", texts=[name], special=False))["answer"]["tokens"][0]["ids"][0]
        for name in NAMES
    ]
    found = []
    for edits in ([], [{"point": "layers.23.attn.z", "units": [3]}]):
        told = await ask("forward", prompts=CLEAN, edits=edits, logits="last")
        name = told["answer"]["logits"]["kept_as"]
        first, second = [
            (await ask("read_array", name=name, places=[0, token]))["values"] for token in ids
        ]
        found.append(first - second)
    return found[0], found[1]


async def steered(ask: Ask) -> str:
    """What is the capital of France along the difference of Italy and France?"""
    sides = []
    for country in ("Italy", "France"):
        read = {"point": "layers.24.resid_post", "positions": [-1]}
        told = await ask("forward", prompts=f"The capital of {country} is", reads=[read])
        name = told["answer"]["activations"][0]["values"]["kept_as"]
        sides.append((await ask("read_array", name=name, places=[0, 0]))["values"])
    direction = [italy - france for italy, france in zip(*sides, strict=True)]
    edit = {"point": "layers.24.resid_post", "kind": "add", "value": direction, "positions": [-1]}
    told = await ask("forward", prompts=CAPITAL, edits=[edit], likely=1)
    word: str = told["answer"]["likely"][0][0][0]["string"]
    return word


async def generated(ask: Ask) -> str:
    """How does the model go on?"""
    told = await ask("generate", prompts=CAPITAL, max_new_tokens=5)
    text: str = told["answer"]["texts"][0]
    return text


async def strongest_component(ask: Ask) -> tuple[str, float]:
    """Which part writes most to the difference of the names' logits?"""
    told = await ask("direct_logit_attribution", prompt=CLEAN, answers=NAMES)
    found = await ask("read_array", name=told["answer"]["values"]["kept_as"], strongest=1)
    row = found["strongest"][0]
    return str(row["component"]), row["value"]


async def what_it_lacks(ask: Ask) -> str:
    """Why has the model no queries after q-norm?"""
    told = await ask("points")
    return next(
        str(each["why"])
        for each in told["answer"]["lacking"]
        if each["template"] == "layers.{i}.attn.q_normed"
    )


TASKS: dict[str, Callable[[Ask], Awaitable[Any]]] = {
    task.__name__: task
    for task in (
        tokens_of_a_text,
        induction_heads,
        previous_token_heads,
        duplicate_token_heads,
        name_mover,
        layer_that_knows,
        neuron_of_a_word,
        fall_of_an_ablation,
        steered,
        generated,
        strongest_component,
        what_it_lacks,
    )
}
