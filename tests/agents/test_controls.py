"""What chance would have found, against the same by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from garcon_jupyter import experiments
from garcon_jupyter.agents.agent_session import AgentSession
from tests.agents.conftest import ask
from tests.oracle import Plain

CLEAN, CORRUPTED, ANSWERS = [5, 9, 2, 17, 30, 8], [5, 9, 3, 17, 30, 8], [11, 12]


def test_random_units_are_of_the_same_layers_and_have_their_exact_effects(
    session: AgentSession, plain: Plain
) -> None:
    told = ask(
        session,
        "effects",
        prompt=CLEAN,
        of=["neurons"],
        targets=[11],
        distractors=[12],
        strongest=10,
    )
    held, found = told["control"], told["answer"]
    names = session.shelf[found["values"]["kept_as"]].axes["unit"]
    layers = {str(name).split(".")[0] for name in names or ()}
    assert len(held["units"]) == 8 and held["seed"] == 1
    tokens = torch.tensor([CLEAN])
    with torch.no_grad():
        whole = plain.model(tokens).logits[0, -1]
    for one in held["units"]:
        word, number = one["unit"].split(".")
        assert word in layers and one["unit"] not in (names or ())
        layer = plain.model.model.layers[int(word.split()[1])]

        def to_zero(
            module: object,
            given: tuple[torch.Tensor, ...],
            one: dict[str, int] = one,
            number: str = number,
        ) -> tuple[torch.Tensor]:
            new = given[0].clone()
            new[0, one["position"], int(number)] = 0
            return (new,)

        hook = layer.mlp.down_proj.register_forward_pre_hook(to_zero)
        with torch.no_grad():
            edited = plain.model(tokens).logits[0, -1]
        hook.remove()
        lost = (whole[11] - whole[12]) - (edited[11] - edited[12])
        assert one["total effect"] == pytest.approx(float(lost), abs=1e-5)
    assert held["largest"] == max(abs(one["total effect"]) for one in held["units"])


@pytest.mark.parametrize("name", ["patch", "attribute"])
def test_an_unrelated_text_is_a_share_of_the_same_difference(
    session: AgentSession, name: str
) -> None:
    points = {"patch": ["layers.*.attn.z"], "attribute": "layers.*.attn.z"}[name]
    request = {
        "clean": CLEAN,
        "corrupted": CORRUPTED,
        "points": points,
        "by": ["layer", "head"],
        "answers": ANSWERS,
    }
    held = ask(session, name, **request)["control"]
    model = session.door(lambda what: None).model
    # The same draw, and the formula by hand from logits.
    import random

    draw = random.Random(f"{held['seed']} 0")
    size = model.catalog.sizes["V"]
    text = torch.tensor([[CLEAN[0], *(draw.randrange(size) for _ in CLEAN[1:])]])
    corrupted = torch.tensor([CORRUPTED])

    def metric(tokens: torch.Tensor) -> float:
        last = model.forward(tokens, probes=[], logits="last")[0]
        return float(last[ANSWERS[0]] - last[ANSWERS[1]])

    ends = metric(torch.tensor([CLEAN])) - metric(corrupted)
    run = getattr(experiments, name)
    found = run(model, text, corrupted, "layers.*.attn.z", by=("layer", "head"), answers=ANSWERS)
    shares = found.values.numpy() * (metric(text) - metric(corrupted)) / ends
    assert held["largest"] == pytest.approx(float(np.abs(shares).max()), rel=1e-2)
    assert held["statistics"]["mean"] == pytest.approx(float(shares.mean()), rel=1e-2, abs=1e-4)


def test_looks_draw_anew_and_a_seed_draws_the_same(session: AgentSession) -> None:
    request = {"prompt": CLEAN, "of": ["neurons"], "targets": [11], "strongest": 5}
    first, second = (ask(session, "effects", **request)["control"] for _ in range(2))
    assert first["seed"] != second["seed"] and first["units"] != second["units"]
    assert "control" not in ask(session, "effects", **request, control=False)
