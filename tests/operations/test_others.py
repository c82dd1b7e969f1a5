"""What is there, tokens, gradients, parameters: held against plain transformers, or against the client that computes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from garcon_jupyter import errors
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS
from garcon_jupyter.points import POINTS
from tests import oracle

IDS = oracle.PROMPT[0]


# -- what is there -------------------------------------------------------------------------------


def test_describe(door: Door) -> None:
    found = OPERATIONS["describe"](door, {})
    assert found.model.layers == 4 and found.model.sizes["M"] == 80
    assert found.model.name == "tiny" and found.model.dtype == "float32"
    assert found.limits == RequestLimits() and found.dictionaries == [] and found.atlases == []


def test_records_alone() -> None:
    assert OPERATIONS["describe"](Door(), {}).model is None


def test_every_point_is_there_or_has_a_reason(door: Door) -> None:
    found = OPERATIONS["points"](door, {})
    there, lacking = {p.template for p in found.points}, {p.template: p.why for p in found.lacking}
    assert there | set(lacking) == {spec.template for spec in POINTS} and not there & set(lacking)
    assert all(lacking.values())
    (z,) = [p for p in found.points if p.template == "layers.{i}.attn.z"]
    assert z.shape == ["b", "p", 6, 16] and z.layers == [0, 1, 2, 3]


@pytest.mark.parametrize("pattern", ["layers.*.attn.z", "layers.2.attn.z", "layers.{i}.attn.z"])
def test_points_of_a_pattern(door: Door, pattern: str) -> None:
    (found,) = OPERATIONS["points"](door, {"pattern": pattern}).points
    assert found.template == "layers.{i}.attn.z"


def test_a_point_that_nobody_has(door: Door) -> None:
    with pytest.raises(errors.UnknownPoint, match="layers.0.attn.z"):
        OPERATIONS["points"](door, {"pattern": "layers.0.attn.zz"})


def test_status(door: Door) -> None:
    found = OPERATIONS["status"](door, {})
    assert len(found.ranks) == 1 and found.running is None


# -- tokens --------------------------------------------------------------------------------------


def test_tokens_are_those_of_the_tokenizer(door: Door, plain: oracle.Plain) -> None:
    texts = ["hello there", "a"]
    found = OPERATIONS["tokenize"](door, {"texts": texts})
    assert [each.ids for each in found.tokens] == plain.tokenizer(texts)["input_ids"]
    bare = OPERATIONS["tokenize"](door, {"texts": texts, "special": False})
    wanted = plain.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [each.ids for each in bare.tokens] == wanted
    back = OPERATIONS["detokenize"](door, {"ids": wanted})
    assert back.texts == texts and "".join(back.strings[0]) == texts[0]


def test_a_chat_is_laid_out_by_the_models_template(door: Door, plain: oracle.Plain) -> None:
    messages = [{"role": "user", "content": "hi"}]
    found = OPERATIONS["chat"](door, {"messages": messages})
    wanted = plain.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert found.tokens.ids == plain.tokenizer(wanted, add_special_tokens=False)["input_ids"]
    assert len(OPERATIONS["chat"](door, {"messages": messages, "answer": False}).tokens.ids) < len(
        found.tokens.ids
    )


# -- gradients -----------------------------------------------------------------------------------


def test_backward(door: Door, plain: oracle.Plain) -> None:
    """Activation × gradient of a difference of mean logits, by autograd."""
    caught: list[torch.Tensor] = []

    def keep(module: object, args: object, out: torch.Tensor) -> None:
        out.retain_grad()
        caught.append(out)

    handle = plain.module("model.layers.1.mlp").register_forward_hook(keep)
    try:
        last = plain.model(torch.tensor([IDS])).logits[0, -1]
    finally:
        handle.remove()
    metric = last[[5, 9]].mean() - last[[7]].mean()
    metric.backward()
    asked = {"prompt": IDS, "targets": [5, 9], "distractors": [7], "points": ["layers.1.mlp.out"]}
    found = OPERATIONS["backward"](door, asked)
    assert found.metric == pytest.approx(float(metric), abs=1e-4)
    (point,) = found.points
    (out,) = caught
    for told, wanted in (
        (point.activation, out),
        (point.gradient, out.grad),
        (point.product, out * out.grad),
    ):
        assert oracle.close(torch.from_numpy(np.array(told.numpy())), wanted, 1e-4)
    other = OPERATIONS["backward"](door, {**asked, "distractors": []})
    assert other.metric == pytest.approx(float(last[[5, 9]].mean()), abs=1e-4)


def test_indices_have_no_gradient(door: Door) -> None:
    with pytest.raises(errors.BadRequest, match="several|tokens"):
        OPERATIONS["backward"](
            door, {"prompt": IDS, "targets": ["hello there"], "points": ["layers.1.mlp.out"]}
        )


# -- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, [0, 5, -1]])
@pytest.mark.parametrize("columns", [None, [2, 79]])
def test_parameter(
    door: Door, plain: oracle.Plain, rows: list[int] | None, columns: list[int] | None
) -> None:
    asked = {"name": "layers.1.mlp.down_proj", "rows": rows, "columns": columns, "form": "base64"}
    found = OPERATIONS["parameter"](door, asked)
    weight = plain.module("model.layers.1.mlp.down_proj").weight.detach()
    wanted = weight if rows is None else weight[rows]
    wanted = wanted if columns is None else wanted[:, columns]
    assert found.shape == [48, 80] and np.array_equal(found.values.numpy(), wanted.numpy())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"rows": [48]}, "no row 48"),
        ({"columns": [80]}, "no column 80"),
        ({"name": "layers.1.mlp.norm.weight", "columns": [0]}, "Leave columns out"),
    ],
)
def test_a_part_that_is_not_there(door: Door, asked: dict[str, object], words: str) -> None:
    with pytest.raises(errors.BadRequest, match=words):
        OPERATIONS["parameter"](door, {"name": "layers.1.mlp.down_proj", **asked})


# -- experiments ---------------------------------------------------------------------------------


def test_results_are_those_of_the_experiments(door: Door) -> None:
    experiments = door.model.experiments
    other = [*IDS[:-1], 9]
    pairs = [
        ("lens", {"prompt": IDS, "answer": 5}, experiments.read_lens([IDS], answer=5)),
        (
            "direct_logit_attribution",
            {"prompt": IDS, "answers": [5, 6], "by": "head"},
            experiments.direct_logit_attribution([IDS], answers=(5, 6), by="head"),
        ),
        (
            "effects",
            {"prompt": IDS, "of": ["heads"], "targets": [5], "distractors": [6], "strongest": 4},
            experiments.effects([IDS], "heads", (5, 6), strongest=4),
        ),
        (
            "patch",
            {"clean": IDS, "corrupted": other, "points": ["layers.*.resid_pre"], "answers": [5, 6]},
            experiments.patch([IDS], [other], "layers.*.resid_pre", answers=(5, 6)),
        ),
        (
            "attribute",
            {"clean": IDS, "corrupted": other, "answers": [5, 6]},
            experiments.attribute([IDS], [other], answers=(5, 6)),
        ),
        ("head_scores", {"rows": 2, "seed": 1}, experiments.head_scores(2, seed=1)),
    ]
    for name, asked, wanted in pairs:
        found = OPERATIONS[name](door, {**asked, "form": "base64"})
        assert found.axes == {axis: [*labels] for axis, labels in wanted.axes.items()}, name
        numbers, right = found.values.numpy(), wanted.values.numpy()
        assert np.allclose(numbers, right, rtol=1e-4, atol=1e-5, equal_nan=True), name
        assert set(found.more) == set(wanted.more), name
        assert "NaN" not in found.model_dump_json(), name


def test_several_targets_are_their_mean(door: Door) -> None:
    """The metric of a node table with several answers is that of ``backward``."""
    asked = {"prompt": IDS, "targets": [5, 9], "distractors": [7, 8]}
    table = OPERATIONS["effects"](door, {**asked, "of": ["neurons"], "strongest": 3})
    told = OPERATIONS["backward"](door, {**asked, "points": ["layers.0.mlp.out"]})
    assert table.facts["metric"] == pytest.approx(told.metric, abs=1e-4)


def test_facts_are_json(door: Door) -> None:
    found = OPERATIONS["lens"](door, {"prompt": IDS})
    json.loads(found.model_dump_json(), parse_constant=lambda word: pytest.fail(word))
