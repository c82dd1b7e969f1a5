"""Every cell of a sweep is the run that a loop of forwards makes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadProbe, BadRequest, PointUnavailable, UnknownPoint, experiments
from garcon_jupyter.client.tokens import Tokens
from tests.experiments.activation_patching.by_loop import Loop, Site, close
from tests.oracle import Plain

CLEAN, CORRUPTED = [0, 40, 41, 42, 99], [0, 40, 77, 42, 99]
ANSWERS = (17, 23)
LAYERS, HEADS, GROUPS, WIDTH = 4, 6, 2, 16


@pytest.fixture
def loop(plain: Plain) -> Loop:
    return Loop(plain, ANSWERS)


def swept(rmodel: garcon.RemoteModel, points: Any, by: Any, **options: Any) -> Any:
    clean, corrupted = options.pop("texts", ([CLEAN], [CORRUPTED]))
    answers = None if "metric" in options else options.pop("answers", ANSWERS)
    return experiments.patch(rmodel, clean, corrupted, points, by, answers, **options)


def block(layer: int) -> Site:
    return f"model.layers.{layer}", "input"


def projected(layer: int) -> Site:
    return f"model.layers.{layer}.self_attn.o_proj", "input"


def head(number: int) -> tuple[Any, ...]:
    return (..., slice(number * WIDTH, (number + 1) * WIDTH))


def at(position: int) -> tuple[Any, ...]:
    return (slice(None), position)


def test_the_residual_stream_by_layer_and_position(either: garcon.RemoteModel, loop: Loop) -> None:
    found = swept(either, "layers.*.resid_pre", ("layer", "position"))
    expected = [
        [loop.share(CLEAN, CORRUPTED, {block(layer): at(p)}) for p in range(5)]
        for layer in range(LAYERS)
    ]
    assert close(found.values, expected)
    assert list(found.axes) == ["layer", "position"] and found.values.shape == (LAYERS, 5)
    assert (found.values[:, :2] == 0).all()  # before the first token that differs, to the last bit
    assert found.facts["cells that change nothing"] == 2 * LAYERS
    assert found.facts["forwards"] == "from each cell's layer on"
    assert float(found.more["clean"]) == pytest.approx(loop.metric(CLEAN), abs=1e-5)
    assert float(found.more["corrupted"]) == pytest.approx(loop.metric(CORRUPTED), abs=1e-5)
    assert len(either.recordings()) == 0


def test_the_last_position_of_the_last_layer_brings_all_back(rmodel: garcon.RemoteModel) -> None:
    found = swept(rmodel, f"layers.{LAYERS - 1}.resid_post", "position")
    assert found.values[-1] == pytest.approx(1.0, abs=1e-5)
    assert close(found.values[:-1], torch.zeros(4), 1e-5)


def test_heads_by_what_they_write(either: garcon.RemoteModel, loop: Loop) -> None:
    found = swept(either, "layers.*.attn.z", ("head", "layer"))  # in the order that is asked for
    expected = [
        [loop.share(CLEAN, CORRUPTED, {projected(layer): head(number)}) for layer in range(LAYERS)]
        for number in range(HEADS)
    ]
    assert close(found.values, expected)
    wrong = loop.share(CLEAN, CORRUPTED, {projected(1): head(2)})  # of another head
    assert not close(found.at(layer=1, head=3), wrong, 1e-3)


def test_a_head_at_a_position(either: garcon.RemoteModel, loop: Loop) -> None:
    found = swept(either, "layers.2.attn.z", ("position", "head"))
    expected = [
        [
            loop.share(CLEAN, CORRUPTED, {projected(2): (slice(None), p, head(number)[1])})
            for number in range(HEADS)
        ]
        for p in range(5)
    ]
    assert close(found.values, expected)


@pytest.mark.parametrize("letter", "kv")
def test_keys_and_values_are_patched_by_group(
    either: garcon.RemoteModel, loop: Loop, letter: str
) -> None:
    point = f"layers.1.attn.{letter}"
    with pytest.raises(BadRequest, match="share keys and values.*kv_head"):
        swept(either, point, "head")
    found = swept(either, point, "kv_head")
    site = (f"model.layers.1.self_attn.{letter}_proj", "output")
    expected = [loop.share(CLEAN, CORRUPTED, {site: head(group)}) for group in range(GROUPS)]
    assert close(found.values, expected)
    assert not close(found.values.flip(0), expected, 1e-3)  # the wrong group


def test_queries_and_the_pattern_of_a_head(rmodel: garcon.RemoteModel, loop: Loop) -> None:
    found = swept(rmodel, "layers.1.attn.q", "head")
    site = ("model.layers.1.self_attn.q_proj", "output")
    expected = [loop.share(CLEAN, CORRUPTED, {site: head(number)}) for number in range(HEADS)]
    assert close(found.values, expected)
    by_query = swept(rmodel, "layers.1.attn.pattern", ("head", "position"))
    assert by_query.values.shape == (HEADS, 5) and (by_query.values[:, 1] == 0).all()


def test_noising_patches_the_clean_run(rmodel: garcon.RemoteModel, loop: Loop) -> None:
    found = swept(rmodel, "layers.*.resid_pre", ("layer", "position"), denoise=False)
    expected = [
        [loop.share(CLEAN, CORRUPTED, {block(layer): at(p)}, denoise=False) for p in range(5)]
        for layer in range(LAYERS)
    ]
    assert close(found.values, expected)
    assert (found.values[:, :2] == 1).all()  # as clean: nothing has changed


def test_units_lie_side_by_side_over_heads(rmodel: garcon.RemoteModel, loop: Loop) -> None:
    neurons = swept(rmodel, "layers.1-2.mlp.post_activation", ("layer", "unit"), units=[3, 70])
    expected = [
        [
            loop.share(
                CLEAN, CORRUPTED, {(f"model.layers.{layer}.mlp.down_proj", "input"): (..., n)}
            )
            for n in (3, 70)
        ]
        for layer in (1, 2)
    ]
    assert close(neurons.values, expected) and neurons.axes["unit"] == (3, 70)
    found = swept(rmodel, "layers.1.attn.z", "unit", units=[5, 37])
    assert close(
        found.values,
        [loop.share(CLEAN, CORRUPTED, {projected(1): (..., unit)}) for unit in (5, 37)],
    )


def test_what_is_not_asked_apart_is_patched_together(
    rmodel: garcon.RemoteModel, loop: Loop
) -> None:
    found = swept(rmodel, "layers.*.attn.out", "position")
    sites: list[Site] = [(f"model.layers.{n}.self_attn.o_proj", "output") for n in range(LAYERS)]
    expected = [
        loop.share(CLEAN, CORRUPTED, dict.fromkeys(sites, at(position))) for position in range(5)
    ]
    assert close(found.values, expected)


def test_several_patterns_are_an_axis(rmodel: garcon.RemoteModel) -> None:
    patterns = ["layers.*.attn.out", "layers.1-2.mlp.out", "embed.out"]
    found = swept(rmodel, patterns[:2], ("layer", "position"))
    assert list(found.axes) == ["point", "layer", "position"]
    assert torch.isnan(found.at(point=patterns[1], layer=3)).all()
    alone = swept(rmodel, patterns[1], ("layer", "position"))
    assert close(found.at(point=patterns[1])[1:3], alone.values)
    embedded = swept(rmodel, patterns[2], "position")
    stream = swept(rmodel, "layers.0.resid_pre", "position")
    assert close(embedded.values, stream.values, 1e-6)
    module = swept(rmodel, "module:model.layers.2.mlp.output", "position")
    assert close(module.values, alone.at(layer=2), 1e-6)


def padded(texts: list[list[int]], left: bool = False) -> Tokens:
    """Texts of any lengths as a batch, filled up on either side."""
    width = max(map(len, texts))
    ids, mask = torch.full((len(texts), width), 7), torch.zeros(len(texts), width, dtype=torch.bool)
    for row, text in enumerate(texts):
        columns = slice(width - len(text), width) if left else slice(len(text))
        ids[row, columns], mask[row, columns] = torch.tensor(text), True
    return Tokens(ids, mask)


def test_pairs_of_any_length_stand_side_by_side(rmodel: garcon.RemoteModel) -> None:
    clean, corrupted = [CLEAN, [0, 9, 50]], [CORRUPTED, [0, 9, 51]]
    points, by = "layers.*.resid_pre", ("layer", "position")
    for left in (False, True):
        texts = padded(clean, left), padded(corrupted, left)
        found = swept(rmodel, points, by, texts=texts)
        assert list(found.axes) == ["pair", "layer", "position"]
        for number, pair in enumerate(zip(clean, corrupted, strict=True)):
            alone = swept(rmodel, points, by, texts=([pair[0]], [pair[1]]))
            length = len(pair[0])
            assert close(found.values[number, :, :length], alone.values, 1e-5)
            assert torch.isnan(found.values[number, :, length:]).all()
            assert float(found.more["clean"][number]) == pytest.approx(
                float(alone.more["clean"]), abs=1e-5
            )


def test_each_pair_has_its_answers(rmodel: garcon.RemoteModel) -> None:
    options: dict[str, Any] = {"points": "layers.0.attn.out", "by": "position"}
    both = swept(rmodel, **options, texts=(MANY[:2], OTHERS[:2]), answers=[(5, 6), (7, 8)])
    second = swept(rmodel, **options, texts=(MANY[1:2], OTHERS[1:2]), answers=(7, 8))
    assert close(both.values[1], second.values, 1e-5)


MANY = [[0, 40, 41, 42, 99], [0, 9, 50, 60, 70], [0, 200, 12, 90, 3]]
OTHERS = [[0, 40, 77, 42, 99], [0, 9, 51, 60, 75], [0, 201, 12, 91, 3]]


def test_the_mean_of_other_runs(rmodel: garcon.RemoteModel, loop: Loop) -> None:
    found = swept(
        rmodel, "layers.*.attn.z", ("layer", "head"), texts=(MANY, OTHERS), replace="mean"
    )
    for pair, (clean, corrupted) in enumerate(zip(MANY, OTHERS, strict=True)):
        for layer, number in ((0, 1), (2, 5)):
            site, place = projected(layer), head(number)
            mean = torch.cat([loop.value(ids, site) for ids in OTHERS]).mean(0, keepdim=True)
            ablated = loop.patched(clean, {site: (place, mean[place])})
            assert close(found.values[pair, layer, number], loop.scaled(ablated, clean, corrupted))


def test_another_pairs_value_is_drawn(rmodel: garcon.RemoteModel, loop: Loop) -> None:
    options: dict[str, Any] = {"texts": (MANY, OTHERS), "replace": "resample"}
    found = swept(rmodel, "layers.1.resid_pre", "position", seed=3, **options)
    again = swept(rmodel, "layers.1.resid_pre", "position", seed=3, tokens=1, **options)
    assert close(found.values, again.values, 1e-5)
    for pair, (clean, corrupted) in enumerate(zip(MANY, OTHERS, strict=True)):
        by_source = []
        for other in {0, 1, 2} - {pair}:
            value = loop.value(OTHERS[other], block(1))[at(3)]
            ablated = loop.patched(clean, {block(1): (at(3), value)})
            by_source.append(loop.scaled(ablated, clean, corrupted))
        assert any(close(found.values[pair, 3], one) for one in by_source)


def test_a_metric_of_ones_own(either: garcon.RemoteModel) -> None:
    def difference(logits: Tensor) -> Tensor:
        assert logits.dim() == 3
        return logits[:, -1, ANSWERS[0]] - logits[:, -1, ANSWERS[1]]

    mine = swept(either, "layers.*.resid_pre", ("layer", "position"), metric=difference)
    assert close(
        mine.values, swept(either, "layers.*.resid_pre", ("layer", "position")).values, 1e-5
    )


def test_chunks_make_no_difference_and_are_requests(rmodel: garcon.RemoteModel) -> None:
    def requests(**options: Any) -> tuple[int, Any]:
        before = rmodel.requests
        found = swept(rmodel, "layers.*.attn.z", ("layer", "head"), **options)
        return rmodel.requests - before, found.values

    (one, whole), (several, cut) = requests(), requests(tokens=40)
    assert (one, several) == (1, LAYERS * HEADS // (40 // 5 - 2))
    assert close(whole, cut, 1e-5)
    alone, exact = requests(exact=True)
    assert alone == 1 and close(whole, exact, 1e-5)


def test_one_by_one_is_a_loop_bit_by_bit(rmodel: garcon.RemoteModel) -> None:
    """A cell alone, as the only one of its sweep or as one of many, is the same number."""
    many = swept(rmodel, "layers.*.attn.z", ("layer", "head"), exact=True).values
    for layer, number in ((0, 0), (3, 4)):
        one = swept(rmodel, f"layers.{layer}.attn.z", "head", exact=True, tokens=1)
        assert one.values[number] == many[layer, number]


def test_what_the_model_predicts_are_the_answers(rmodel: garcon.RemoteModel) -> None:
    clean, corrupted = MANY[0], OTHERS[0]
    found = experiments.patch(rmodel, [clean], [corrupted], "layers.0.resid_pre", "position")
    best = [
        int(rmodel.forward([ids], probes=[], logits="last")[0].argmax())
        for ids in (clean, corrupted)
    ]
    assert found.facts["answers"] == [best]


def test_it_is_a_method_and_is_saved(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    found = rmodel.experiments.patch([CLEAN], [CORRUPTED], "layers.*.resid_pre", answers=ANSWERS)
    again = experiments.load(found.save(tmp_path / "patch.npz"))
    assert torch.equal(again.values, found.values) and again.facts == found.facts
    assert torch.equal(again.more["clean"], found.more["clean"])
    assert list(again.to_frame().columns) == ["layer", "position", "value", "metric"]


def raises(logits: Tensor) -> Tensor:
    raise ZeroDivisionError("of the metric")


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unequal lengths": ({"texts": ([CLEAN], [CORRUPTED[:4]])}, BadRequest, "5 and 4 tokens"),
    "no difference": ({"texts": ([CLEAN], [CLEAN])}, BadRequest, "same tokens.*nothing to restore"),
    "unequal numbers": ({"texts": (MANY, OTHERS[:2])}, BadRequest, "3 clean texts and 2 corrupted"),
    "the same answers": ({"answers": (5, 5)}, BadRequest, "never differ"),
    "one answer": ({"answers": (5,)}, BadRequest, "not two tokens for 1 pairs"),
    "an answer of several tokens": (
        {"answers": ("Hello", "x")},
        BadRequest,
        r"'Hello' is \d tokens",
    ),
    "an answer that is no token": ({"answers": (5, 9999)}, BadRequest, "no token 9999"),
    "no such axis": ({"by": "neuron"}, BadRequest, "are no axes"),
    "an axis twice": ({"by": ("layer", "layer")}, BadRequest, "are no axes"),
    "heads of a stream": ({"by": "head"}, BadRequest, r"\[b, p, D\]: no head"),
    "units without which": ({"by": "unit"}, BadRequest, r"units=\[…\]"),
    "a unit that there is not": (
        {"by": "unit", "units": [48]},
        BadRequest,
        "no unit 48: it has 48",
    ),
    "a head and a unit": ({"by": ("head", "unit"), "units": [1]}, BadRequest, "says twice"),
    "a layer of no layer": ({"points": "embed.out"}, BadRequest, "is of no layer"),
    "the logits": ({"points": "logits", "by": "position"}, PointUnavailable, "nothing comes after"),
    "a point that it has not": (
        {"points": "pos_embed.out", "by": "position"},
        PointUnavailable,
        "rotary",
    ),
    "no point": ({"points": "layers.*.attn.zz"}, UnknownPoint, "attn.zz"),
    "no points": ({"points": ()}, BadRequest, "no points to patch"),
    "a layer too many": ({"points": "layers.4.resid_pre"}, UnknownPoint, "0 to 3"),
    "no such replacement": ({"replace": "zero"}, BadRequest, "There is no replace='zero'"),
    "a mean of one": ({"replace": "mean"}, BadRequest, "Give two pairs at least"),
    "tokens": ({"tokens": 0}, BadRequest, "no number of tokens"),
    "a metric and answers": (
        {"answers": ANSWERS, "metric": raises, "both": True},
        BadRequest,
        "Leave one out",
    ),
    "a metric that takes nothing": ({"metric": lambda: 0}, BadProbe, "cannot be a metric function"),
    "one number for all": (
        {"metric": lambda logits: logits.sum()},
        BadRequest,
        "one number for each row",
    ),
    "no number": ({"metric": lambda logits: "x"}, BadRequest, "gave str for"),
    "a metric that raises": ({"metric": raises}, ZeroDivisionError, "of the metric"),
    "the same metric": (
        {"metric": lambda logits: logits[:, 0, 0]},
        BadRequest,
        "nothing to restore",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_mistakes_are_told_and_nothing_is_left(
    rmodel: garcon.RemoteModel, loop: Loop, wrong: str
) -> None:
    options, kind, message = WRONG[wrong]
    options = dict(options)
    points, by = (
        options.pop("points", "layers.*.resid_pre"),
        options.pop("by", ("layer", "position")),
    )
    if options.pop("both", False):
        with pytest.raises(kind, match=message):
            experiments.patch(rmodel, [CLEAN], [CORRUPTED], points, by, **options)
        return
    with pytest.raises(kind, match=message):
        swept(rmodel, points, by, **options)
    after = swept(rmodel, "layers.1.resid_pre", "position")
    assert close(after.values[2], loop.share(CLEAN, CORRUPTED, {block(1): at(2)}))
    assert len(rmodel.recordings()) == 0


def test_an_interrupt_ends_it_and_the_next_is_right(rmodel: garcon.RemoteModel) -> None:
    def interrupted(logits: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return logits[:, -1, 0]

    with pytest.raises(garcon.Interrupted):
        swept(rmodel, "layers.*.resid_pre", ("layer", "position"), metric=interrupted, tokens=20)
    assert swept(rmodel, "layers.0.resid_pre", "position").values[2] == pytest.approx(1, abs=1e-4)


def test_memory_is_told_before_it_is_used(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from garcon_backend.process import memory

    monkeypatch.setattr(memory, "left", lambda device: 1 << 20)
    by: Callable[..., Any] = lambda **more: swept(  # noqa: E731
        rmodel, "layers.*.attn.z", ("layer", "head", "position"), tokens=1 << 22, **more
    )
    with pytest.raises(garcon.DoesNotFit, match="smaller tokens="):
        by(texts=([CLEAN * 20], [CORRUPTED * 20]), metric=lambda logits: logits[:, -1, 0])
