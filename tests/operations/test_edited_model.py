"""Experiments of a model that is edited while they run: held against plain transformers with a plain hook."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import errors
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS
from tests import oracle

IDS = oracle.PROMPT[0]
NEURON = {"point": "layers.1.mlp.post_activation", "units": [7], "positions": [2]}
TARGET, DISTRACTOR = 12, 200


@pytest.fixture
def open_door(rmodel: garcon.RemoteModel) -> Door:
    """A door to a fresh session on the small Llama."""
    return Door(rmodel)


@pytest.fixture
def without(plain: oracle.Plain) -> Any:
    """The logits of the small Llama without neuron 7 of layer 1 at position 2, [p, V], by a hook on plain transformers."""

    def ablate(module: Any, args: Any) -> Any:
        changed = args[0].clone()
        changed[:, 2, 7] = 0
        return (changed,)

    handle = plain.module("model.layers.1.mlp.down_proj").register_forward_pre_hook(ablate)
    try:
        return plain.logits([IDS])[0]
    finally:
        handle.remove()


def asked(**more: Any) -> dict[str, Any]:
    return {"prompt": IDS, "targets": [TARGET], "distractors": [DISTRACTOR], **more}


def test_effects_are_of_the_edited_model(
    open_door: Door, plain: oracle.Plain, without: Any
) -> None:
    effects = OPERATIONS["effects"]
    found = effects(open_door, asked(edits=[NEURON], of=["neurons"], strongest=40))
    wanted = float(without[-1, TARGET] - without[-1, DISTRACTOR])
    bare = plain.logits([IDS])[0, -1]
    assert found.facts["metric"] == pytest.approx(wanted, abs=1e-5)
    assert abs(float(bare[TARGET] - bare[DISTRACTOR]) - wanted) > 1e-4  # the edit does something
    names = found.axes["unit"]
    if "neuron 1.7" in names:  # it writes nothing there any more
        row = names.index("neuron 1.7")
        assert not found.more["activation"].values[row][2]


def test_effects_add_up_from_an_edit_on(open_door: Door, without: Any) -> None:
    """The total effect of a second ablation is what the two leave, less what the first leaves."""
    effects, forward = OPERATIONS["effects"], OPERATIONS["forward"]
    found = effects(open_door, asked(edits=[NEURON], of=["heads"], strongest=1))
    ((place, _),) = [
        ((unit, position), value)
        for unit, row in zip(found.axes["unit"], found.more["total effect"].values, strict=True)
        for position, value in enumerate(row)
        if value is not None
    ]
    layer, head = map(int, place[0].split()[1].split("."))
    second = {"point": f"layers.{layer}.attn.z", "units": [head], "positions": [place[1]]}
    answer = forward(open_door, {"prompts": IDS, "edits": [NEURON, second], "logits": "last"})
    last = answer.logits.numpy()[0]
    both = float(last[TARGET] - last[DISTRACTOR])
    first = float(without[-1, TARGET] - without[-1, DISTRACTOR])
    total = next(v for row in found.more["total effect"].values for v in row if v is not None)
    assert total == pytest.approx(first - both, abs=1e-5)


def test_the_lens_reads_the_edited_model(open_door: Door, without: Any) -> None:
    asked_lens = {"prompt": IDS, "edits": [NEURON], "answer": TARGET}
    found = OPERATIONS["lens"](open_door, asked_lens)
    row = found.axes["statistic"].index("answer probability")
    last = torch.tensor(found.values.values[row][-1])
    assert oracle.close(last, without.softmax(-1)[:, TARGET])


def test_attention_is_of_the_edited_model(open_door: Door) -> None:
    attention, forward = OPERATIONS["attention"], OPERATIONS["forward"]
    point = "layers.2.attn.pattern"
    (found,) = attention(open_door, {"prompt": IDS, "layers": [2], "edits": [NEURON]}).patterns
    (bare,) = attention(open_door, {"prompt": IDS, "layers": [2]}).patterns
    wanted = forward(open_door, {"prompts": IDS, "reads": [{"point": point}], "edits": [NEURON]})
    assert found.values.values == wanted.activations[0].values.values != bare.values.values


def test_an_edit_of_a_point_that_is_not_there(open_door: Door) -> None:
    with pytest.raises(errors.UnknownPoint):
        OPERATIONS["effects"](open_door, asked(edits=[{"point": "layers.1.mlp.post_activatio"}]))
    assert not open_door.model.recordings(fetch=False)
