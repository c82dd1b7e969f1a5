"""Forward, attention, generation: held against plain transformers with plain hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from garcon_jupyter import errors
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.table import OPERATIONS
from tests import oracle

IDS = oracle.PROMPT
forward, attention, generate = (OPERATIONS[name] for name in ("forward", "attention", "generate"))


def values(door: Door, point: str, prompts: Any = IDS, **read: Any) -> Any:
    """What one read of a point answers."""
    asked = {"prompts": prompts, "reads": [{"point": point, **read}]}
    (found,) = forward(door, asked).activations
    return found


def near(found: Any, wanted: torch.Tensor) -> None:
    numbers = torch.from_numpy(np.array(found.values.numpy()))
    assert oracle.close(numbers, wanted)


@pytest.mark.parametrize("form", ["lists", "base64"])
def test_a_value_as_it_is(door: Door, plain: oracle.Plain, form: str) -> None:
    asked = {"prompts": IDS, "reads": [{"point": "layers.1.mlp.post_activation"}], "form": form}
    (found,) = forward(door, asked).activations
    assert found.axes == ["b", "p", "M"] and found.dtype == "float32"
    near(found, plain.neurons(1, IDS))


def test_base64_is_what_the_model_has_to_the_bit(door: Door) -> None:
    asked = {"prompts": IDS, "reads": [{"point": "layers.2.resid_post"}], "form": "base64"}
    (found,) = forward(door, asked).activations
    look = door.model.look(IDS)
    assert torch.equal(torch.from_numpy(found.values.numpy().copy()), look["layers.2.resid_post"])


def test_slices(door: Door, plain: oracle.Plain) -> None:
    found = values(door, "layers.1.mlp.post_activation", positions=[-1, 0], units=[3, 7, 3])
    near(found, plain.neurons(1, IDS)[:, [-1, 0]][:, :, [3, 7, 3]])


@pytest.mark.parametrize("reduce", ["norm", "mean", "max", "min", "sum"])
def test_reductions(door: Door, plain: oracle.Plain, reduce: str) -> None:
    neurons = plain.neurons(1, IDS).double()
    wanted = {
        "norm": neurons.norm(dim=-1),
        "mean": neurons.mean(1),
        "max": neurons.amax(1),
        "min": neurons.amin(1),
        "sum": neurons.sum(1),
    }
    near(values(door, "layers.1.mlp.post_activation", reduce=reduce), wanted[reduce])


def test_padding_does_not_count(door: Door, plain: oracle.Plain) -> None:
    """Of two texts of unequal length, each has what it has alone."""
    short, long = IDS[0][:3], IDS[1]
    for reduce in ("mean", "max", "min", "sum"):
        both = values(door, "layers.1.mlp.post_activation", [short, long], reduce=reduce)
        alone = values(door, "layers.1.mlp.post_activation", [short], reduce=reduce)
        assert np.allclose(both.values.numpy()[0], alone.values.numpy()[0], atol=1e-5)
    found = values(door, "layers.1.mlp.post_activation", [short, long], reduce="strongest", k=400)
    assert len(found.strongest[0]) == min(400, 3 * 80) and len(found.strongest[1]) == 400
    assert max(place.place[0] for place in found.strongest[0]) == 2


@pytest.mark.parametrize("order", ["largest", "smallest", "size"])
def test_the_strongest(door: Door, plain: oracle.Plain, order: str) -> None:
    found = values(door, "layers.1.mlp.post_activation", reduce="strongest", k=5, order=order)
    neurons = plain.neurons(1, IDS)
    rank = {"largest": neurons, "smallest": -neurons, "size": neurons.abs()}[order]
    for row, places in enumerate(found.strongest):
        best = rank[row].flatten().topk(5).indices
        assert [place.place for place in places] == [[int(n) // 80, int(n) % 80] for n in best]
        near_values = [neurons[row].flatten()[n].item() for n in best]
        assert np.allclose([place.value for place in places], near_values, rtol=1e-4)


def test_places_are_told_as_they_were_asked_for(door: Door, plain: oracle.Plain) -> None:
    found = values(
        door,
        "layers.1.mlp.post_activation",
        reduce="strongest",
        k=1,
        positions=[4, 5],
        units=[70, 71],
    )
    neurons = plain.neurons(1, IDS)
    for row, (place,) in enumerate(found.strongest):
        assert place.place[0] in (4, 5) and place.place[1] in (70, 71)
        assert place.value == pytest.approx(neurons[row][tuple(place.place)].item(), rel=1e-4)


def test_logits_and_likely_tokens(door: Door, plain: oracle.Plain) -> None:
    wanted = plain.logits(IDS)
    found = forward(door, {"prompts": IDS, "logits": "all", "likely": 3, "at": "all"})
    assert oracle.close(torch.from_numpy(np.array(found.logits.numpy())), wanted)
    best = wanted.softmax(-1).topk(3)
    assert [[[t.id for t in at] for at in row] for row in found.likely] == best.indices.tolist()
    chances = [[[t.probability for t in at] for at in row] for row in found.likely]
    assert np.allclose(chances, best.values, atol=1e-5)


def test_the_last_token_of_each_text(door: Door, plain: oracle.Plain) -> None:
    short, long = IDS[0][:3], IDS[1]
    found = forward(door, {"prompts": [short, long], "logits": "last", "likely": 1})
    for row, ids in enumerate((short, long)):
        wanted = plain.logits([ids])[0, -1]
        assert np.allclose(found.logits.numpy()[row], wanted, atol=1e-4)
        assert found.likely[row][0][0].id == int(wanted.argmax())
    assert [len(each.ids) for each in found.tokens] == [3, 6]


# -- edits ---------------------------------------------------------------------------------------


def edited(door: Door, edit: dict[str, Any], prompts: Any = IDS) -> torch.Tensor:
    asked = {"prompts": prompts, "edits": [edit], "logits": "all", "form": "base64"}
    return torch.from_numpy(forward(door, asked).logits.numpy().copy())


def by_hook(plain: oracle.Plain, change: Any, layer: int = 1) -> torch.Tensor:
    """The logits with the output of an MLP changed."""
    with plain.hooked(f"model.layers.{layer}.mlp", change):
        return plain.logits(IDS)


def changed(plain: oracle.Plain, do: Any) -> torch.Tensor:
    def hook(out: torch.Tensor) -> torch.Tensor:
        new = out.clone()
        do(new)
        return new

    return by_hook(plain, hook)


POINT = "layers.1.mlp.out"


def test_ablation(door: Door, plain: oracle.Plain) -> None:
    wanted = changed(plain, lambda out: out.zero_())
    assert oracle.close(edited(door, {"point": POINT}), wanted)
    assert not oracle.close(edited(door, {"point": "layers.2.mlp.out"}), wanted, 1e-3)


def test_places_of_an_edit(door: Door, plain: oracle.Plain) -> None:
    def do(out: torch.Tensor) -> None:
        out[:, 2:4, [5, 9]] = 0

    found = edited(door, {"point": POINT, "positions": [2, 3], "units": [5, 9]})
    assert oracle.close(found, changed(plain, do))


@pytest.mark.parametrize("kind", ["set", "scale", "add"])
def test_numbers_of_an_edit(door: Door, plain: oracle.Plain, kind: str) -> None:
    vector = torch.linspace(-1, 1, 48)

    def do(out: torch.Tensor) -> None:
        whole = {"set": vector.expand(out.shape), "scale": out * vector, "add": out + vector}[kind]
        out[:, -1] = whole[:, -1]

    found = edited(
        door, {"point": POINT, "kind": kind, "value": vector.tolist(), "positions": [-1]}
    )
    assert oracle.close(found, changed(plain, do))


def test_one_number_for_each_unit(door: Door, plain: oracle.Plain) -> None:
    def do(out: torch.Tensor) -> None:
        out[:, :, 3] += 2
        out[:, :, 40] -= 5

    found = edited(door, {"point": POINT, "kind": "add", "value": [2, -5], "units": [3, 40]})
    assert oracle.close(found, changed(plain, do))


def test_a_number_for_each_head(door: Door) -> None:
    """Heads are units of ``attn.z``, whatever size they have."""
    asked = {
        "prompts": IDS,
        "edits": [{"point": "layers.0.attn.z", "kind": "scale", "value": [0, 2], "units": [1, 4]}],
        "reads": [{"point": "layers.0.attn.z"}],
    }
    (after,) = forward(door, asked).activations
    before = values(door, "layers.0.attn.z").values.numpy().copy()
    before[:, :, 1] *= 0
    before[:, :, 4] *= 2
    assert np.allclose(after.values.numpy(), before, atol=1e-6)


def test_patching_from_other_prompts(door: Door, plain: oracle.Plain) -> None:
    other = [row[::-1] for row in IDS]
    source = plain.output("model.layers.1.mlp", other)

    def do(out: torch.Tensor) -> None:
        out[:, [1, 2]] = source[:, [1, 2]]

    found = edited(door, {"point": POINT, "kind": "patch", "prompts": other, "positions": [1, 2]})
    assert oracle.close(found, changed(plain, do))


def test_an_edit_is_made_before_what_is_read(door: Door) -> None:
    asked = {"prompts": IDS, "edits": [{"point": POINT}], "reads": [{"point": POINT}]}
    assert not forward(door, asked).activations[0].values.numpy().any()


def test_nothing_stays_behind(door: Door) -> None:
    before = set(door.model.recordings(fetch=False))
    edited(door, {"point": POINT, "kind": "patch", "prompts": [row[::-1] for row in IDS]})
    values(door, "layers.1.resid_post", reduce="strongest")
    assert set(door.model.recordings(fetch=False)) == before
    assert door.model.attached == {}


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"reads": [{"point": "layers.9.mlp.out"}]}, LookupError, "layers 0 to 3"),
        ({"reads": [{"point": "layers.0.mlp.ot"}]}, errors.UnknownPoint, "layers.0.mlp.out"),
        ({"reads": [{"point": POINT, "units": [48]}]}, errors.BadRequest, "units 0 to 47"),
        ({"reads": [{"point": POINT, "positions": [6]}]}, errors.BadRequest, "positions 0 to 5"),
        ({"reads": [{"point": POINT, "positions": []}]}, errors.BadRequest, "empty"),
        ({"edits": [{"point": POINT, "kind": "add", "value": [1, 2, 3]}]}, errors.BadRequest, "3 numbers"),
        ({"edits": [{"point": POINT, "kind": "patch", "prompts": [[1]]}]}, errors.BadRequest, "equally many"),
        ({"edits": [{"point": POINT, "kind": "set"}]}, ValueError, "takes a value"),
        ({"edits": [{"point": POINT, "prompts": "a"}]}, ValueError, "patch"),
        ({"prompts": [[1], []]}, ValueError, "at least 1"),
        ({"prompts": [[99999]]}, errors.BadTokens, "99999"),
        ({"splice": {"dictionaries": ["none"]}}, errors.UnknownName, "none"),
        ({"adapter": "none"}, errors.UnknownName, "adapter"),
        ({"logits": "some"}, ValueError, "logits"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(door: Door, asked: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        forward(door, {"prompts": IDS, **asked})


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"prompt_tokens": 5}, {}),
        ({"prompts": 1}, {}),
        ({"points": 3}, {"reads": [{"point": "layers.*.resid_post"}]}),
        ({"strongest": 5}, {"reads": [{"point": POINT, "reduce": "strongest", "k": 6}]}),
        ({"strongest": 5}, {"likely": 6}),
        ({"edits": 3}, {"edits": [{"point": "layers.*.mlp.out"}]}),
        ({"answer_bytes": 100}, {"reads": [{"point": POINT}]}),
        ({"answer_bytes": 1000}, {"logits": "all"}),
    ],
)
def test_limits(door: Door, limits: dict[str, int], asked: dict[str, Any]) -> None:
    (name,) = limits
    with pytest.raises(errors.BadRequest, match=f"limits.{name}"):
        forward(Door(door.model, RequestLimits(**limits)), {"prompts": IDS, **asked})


# -- attention and generation --------------------------------------------------------------------


def test_attention(door: Door) -> None:
    found = attention(door, {"prompt": IDS[0], "layers": [0, 2], "heads": [1, 5]})
    look = door.model.look([IDS[0]])
    assert [each.point for each in found.patterns] == [
        "layers.0.attn.pattern",
        "layers.2.attn.pattern",
    ]
    for each in found.patterns:
        pattern = each.values.numpy()
        assert pattern.shape == (1, 2, 6, 6) and np.allclose(pattern.sum(-1), 1, atol=1e-5)
        assert np.allclose(pattern, look[each.point][:, [1, 5]], atol=1e-6)


def test_generation(door: Door, plain: oracle.Plain) -> None:
    told: list[dict[str, Any]] = []
    listening = Door(door.model, tell=told.append)
    found = generate(listening, {"prompts": [IDS[0]], "max_new_tokens": 6})
    ids = torch.tensor([IDS[0]])
    for _ in range(6):
        ids = torch.cat([ids, plain.logits(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    wanted = ids[0, 6:].tolist()
    assert found.new[0].ids == wanted[: len(found.new[0].ids)] and found.new[0].ids
    assert [step["tokens"][0] for step in told] == found.new[0].ids
    assert found.texts[0] == door.model.decode(found.new[0].ids)


def test_an_edited_generation(door: Door) -> None:
    asked = {"prompts": [IDS[0]], "max_new_tokens": 4}
    plain_one = generate(door, asked)
    steered = generate(
        door, {**asked, "edits": [{"point": "layers.2.resid_post", "kind": "scale", "value": -3.0}]}
    )
    assert plain_one.new[0].ids != steered.new[0].ids
    with pytest.raises(errors.BadRequest, match="at all positions"):
        generate(door, {**asked, "edits": [{"point": POINT, "positions": [0]}]})


def test_the_same_seed_draws_the_same(door: Door) -> None:
    asked = {"prompts": [IDS[0]], "max_new_tokens": 8, "temperature": 2.0, "seed": 3}
    assert generate(door, asked) == generate(door, asked)
    assert generate(door, asked) != generate(door, {**asked, "seed": 4})
