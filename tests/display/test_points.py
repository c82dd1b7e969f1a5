"""From a point to a picture: the right tensor, the right axes, the right tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, NoRecording, UnknownPoint
from garcon_jupyter.display.points import show, show_values
from tests.oracle import Plain

NEURONS = "layers.2.mlp.post_activation"
UNEQUAL = ["Hello", "Hi"]


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def run(rmodel: garcon.RemoteModel, point: str, text: Any, fn: Any = keep, **options: Any) -> None:
    rmodel.forward(text, probes=[rmodel.probe_points[point].probe(fn, **options)])


def drawn(view: Any) -> np.ndarray:
    return view._subject.values


def test_a_recording_with_its_tokens(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    tokens = rmodel.encode("Hello")
    run(rmodel, NEURONS, tokens)
    view = show(rmodel, NEURONS)
    expected = plain.neurons(2, tokens.ids)
    assert np.allclose(drawn(view), expected.numpy(), atol=1e-5)
    assert view._subject.tokens == tokens.strings
    assert view._subject.title == NEURONS and view._subject.unit_name == "neuron"


def test_tokens_are_those_of_the_recording_and_not_of_the_last_pass(
    rmodel: garcon.RemoteModel,
) -> None:
    run(rmodel, NEURONS, "Hello")
    rmodel.forward("World", probes=[])  # as many tokens
    assert show(rmodel, NEURONS)._subject.tokens == rmodel.encode("Hello").strings
    assert rmodel.encode("World").shape == rmodel.encode("Hello").shape


def test_tokens_are_unknown_after_a_pass_that_failed(rmodel: garcon.RemoteModel) -> None:
    run(rmodel, NEURONS, "Hello")

    def fail(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.tensor = tensor
        raise ValueError("after saving")

    with pytest.raises(ValueError, match="after saving"):
        run(rmodel, NEURONS, "World", fail)
    assert show(rmodel, NEURONS)._subject.tokens is None


def test_a_text_is_a_clean_pass(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    rmodel.attach(rmodel.probe_points[NEURONS].probe(lambda save_ctx, tensor: tensor * 0))
    view = show(rmodel, NEURONS, "Hello")
    expected = plain.neurons(2, rmodel.encode("Hello").ids)
    assert np.allclose(drawn(view), expected.numpy(), atol=1e-5)
    assert len(rmodel.recordings()) == 0


@pytest.mark.parametrize(
    ("point", "kind", "unit"),
    [
        ("layers.1.attn.pattern", "attention", "head"),
        ("layers.1.attn.z", "activations", "unit"),
        ("layers.1.resid_post", "activations", "dimension"),
        ("logits", "activations", "token id"),
    ],
)
def test_axes_are_those_of_the_table(
    rmodel: garcon.RemoteModel, point: str, kind: str, unit: str
) -> None:
    view = show(rmodel, point, UNEQUAL)
    assert (view._subject.kind, view._subject.unit_name) == (kind, unit)
    assert view._subject.tokens == rmodel.encode(UNEQUAL).strings


def test_which_saved_tensor(rmodel: garcon.RemoteModel) -> None:
    def several(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.count = 3
        save_ctx.mean = tensor.mean(2)
        save_ctx.row = tensor[0]
        save_ctx.keys = tensor * 2

    run(rmodel, NEURONS, "Hello", several)
    recording = rmodel.recordings()[NEURONS]
    assert np.array_equal(drawn(show(rmodel, NEURONS))[0], recording.row.numpy())
    assert show(rmodel, NEURONS)._subject.title == f"{NEURONS} · row"
    doubled = drawn(show(rmodel, NEURONS, attribute="keys"))
    assert np.allclose(doubled[0], 2 * recording.row.numpy())
    mean = show(rmodel, NEURONS, attribute="mean")
    assert drawn(mean).shape == (1, 1, 6) and mean._subject.tokens is None


def test_a_named_probes_recording(rmodel: garcon.RemoteModel) -> None:
    run(rmodel, NEURONS, "Hello", name="one")
    assert show(rmodel, NEURONS)._subject.tokens == rmodel.encode("Hello").strings
    run(rmodel, NEURONS, "Bonjour", name="two")
    with pytest.raises(BadRequest, match="Several named probes"):
        show(rmodel, NEURONS)
    assert drawn(show(rmodel, (NEURONS, "two"))).shape[1] == rmodel.encode("Bonjour").shape[1]


def test_values_that_are_here_already(rmodel: garcon.RemoteModel) -> None:
    value = torch.randn(1, 6, 80)
    view = show_values(rmodel, NEURONS, value, "Hello")
    assert np.array_equal(drawn(view), value.numpy())
    assert view._subject.tokens == rmodel.encode("Hello").strings
    assert show_values(rmodel, NEURONS, value[0], "Hello")._subject.unit_name == "neuron"
    assert show_values(rmodel, NEURONS, value, None)._subject.tokens is None
    assert show_values(rmodel, NEURONS, torch.randn(6, 7), "Hello")._subject.unit_name == "column"


def test_points_recordings_and_handles_show_themselves(
    rmodel: garcon.RemoteModel, plain: Plain
) -> None:
    tokens = rmodel.encode("Hello")
    expected = plain.neurons(2, tokens.ids).numpy()
    clean = rmodel.show(rmodel.probe_points[NEURONS], "Hello")
    run(rmodel, NEURONS, tokens, name="mine")
    recording = rmodel.recordings(fetch=False)[NEURONS, "mine"]
    for view in (clean, rmodel.show(recording), rmodel.show(recording.tensor)):
        assert np.allclose(drawn(view), expected, atol=1e-5)
        assert view._subject.tokens == tokens.strings and view._subject.title == NEURONS
    cut = rmodel.show(recording.tensor[0, :, 7:9])
    assert np.allclose(drawn(cut)[0], expected[0, :, 7:9], atol=1e-5)
    assert cut._subject.title == f"{NEURONS}, cut"


@pytest.mark.parametrize("recorded", [False, True])
def test_the_pattern_of_all_layers_is_one_picture(
    rmodel: garcon.RemoteModel, recorded: bool
) -> None:
    text = "Hello, world"
    if recorded:
        points = rmodel.probe_points["layers.*.attn.pattern"]
        rmodel.forward(text, probes=points.probes(keep))
    widget = rmodel.show("layers.*.attn.pattern", None if recorded else text)
    assert widget.worker.wait() and widget.trouble == "" and widget.overview
    look = rmodel.look(text)
    for layer in range(4):
        expected = look[f"layers.{layer}.attn.pattern"][0].numpy()
        codes = np.frombuffer(getattr(widget, f"small_{layer}"), np.uint8).reshape(expected.shape)
        off = codes - (128 + np.round(127 * np.sqrt(expected)))
        assert np.abs(off).max() <= 1  # by rounding
    assert widget.key_labels[-1] == rmodel.encode(text).strings[0][-1].replace(" ", "·")
    with pytest.raises(BadRequest, match="selects 4 points"):
        show(rmodel, "layers.*.attn.z", text)


def test_what_cannot_be_shown(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(UnknownPoint, match=r"Did you mean layers\.2\.mlp\.out"):
        show(rmodel, "layers.2.mlp.uot")
    with pytest.raises(BadRequest, match=r"selects 4 points.*layers\.0\.mlp\.out"):
        show(rmodel, "layers.*.mlp.out")
    with pytest.raises(NoRecording, match="Nothing is recorded at logits"):
        show(rmodel, "logits")

    def word(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.word = "no picture"

    run(rmodel, "logits", "Hello", word)
    with pytest.raises(NoRecording, match=r"can be drawn.*save_ctx\.tensor = tensor"):
        show(rmodel, "logits")
    with pytest.raises(NoRecording, match="has no 'wrod'"):
        show(rmodel, "logits", attribute="wrod")


def test_an_array_with_the_words_of_its_axes(rmodel: garcon.RemoteModel) -> None:
    scores = torch.arange(12.0).reshape(4, 3)
    view = rmodel.show(scores, rows="layer", columns="head", title="scores")
    assert repr(view) == "<View scores: 4 layers × 3 heads>"
    assert np.array_equal(view._sheet.values, scores)
    assert drawn(rmodel.show(scores)).shape == (1, 4, 3)
    assert repr(rmodel.show([[1.0, 2.0]], columns=["yes", "no"])) == "<View 1 rows × 2 columns>"


def test_what_is_no_point_and_no_array(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(BadRequest, match="5 cannot be shown"):
        rmodel.show(5)
    with pytest.raises(BadRequest, match="None cannot be shown"):
        rmodel.show(None)
    with pytest.raises(BadRequest, match="rows, columns and title are of an array"):
        rmodel.show(NEURONS, rows="layer")
    with pytest.raises(BadRequest, match="text and attribute are for points"):
        rmodel.show(torch.zeros(2, 2), "a text")
