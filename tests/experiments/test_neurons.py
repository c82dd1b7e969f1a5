"""A unit's record against the plain model's neurons and weights; attention by layer; the card."""

from __future__ import annotations

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest
from tests.experiments.conftest import TEXT
from tests.oracle import Plain

POINT, UNIT = "layers.2.mlp.post_activation", 5
TEXTS = ["Hello, world", "Hi", "One two three"]


def test_a_record_is_of_the_units_own_values(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    widget = rmodel.show_neuron(POINT, UNIT, TEXTS, "Try me")
    alone = [plain.neurons(2, rmodel.encode(text).ids)[0] for text in TEXTS]
    whole = np.concatenate([values.numpy() for values in alone])
    own = whole[:, UNIT]
    assert widget.record["density"] == pytest.approx((own > 0).mean())
    assert widget.record["largest"] == pytest.approx(own.max(), rel=1e-4)
    name, size = widget.record["correlated"][0]
    correlations = np.corrcoef(whole.T)[UNIT]
    correlations[UNIT] = -2
    assert name == f"unit {correlations.argmax()}"
    assert size == pytest.approx(correlations.max(), abs=1e-4)
    assert widget.worker.wait() and widget.trouble == ""
    tried = plain.neurons(2, rmodel.encode("Try me").ids)[0, :, UNIT]
    assert np.allclose(widget.tried["values"], tried, atol=1e-5)


def test_logits_are_the_direct_path(either: garcon.RemoteModel, plain: Plain) -> None:
    record = either.show_neuron(POINT, UNIT, TEXTS).record
    written = plain.module("model.layers.2.mlp.down_proj").weight[:, UNIT].double()
    effect = plain.module("lm_head").weight.double() @ (
        written * plain.module("model.norm").weight.double()
    )
    effect = (effect - effect.mean()).detach()
    assert record["up"][0][1] == pytest.approx(float(effect.max()), rel=1e-4)
    assert record["down"][0][1] == pytest.approx(float(effect.min()), rel=1e-4)


def test_what_is_no_unit_is_refused(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(BadRequest, match="has no unit 80"):
        rmodel.show_neuron(POINT, 80, TEXTS)
    with pytest.raises(BadRequest, match="Choose a point of shape"):
        rmodel.show_neuron("layers.0.attn.z", 0, TEXTS)


def test_attention_comes_layer_by_layer(rmodel: garcon.RemoteModel) -> None:
    widget = rmodel.show_attention(TEXT, layer=1)
    look = rmodel.look(TEXT)
    widget.selected_head = 2
    for layer in (1, 3):
        widget.layer = layer
        assert widget.worker.wait() and widget.trouble == ""
        expected = look[f"layers.{layer}.attn.pattern"][0, 2].numpy()
        assert np.allclose(
            np.frombuffer(widget.matrix, "<f4").reshape(expected.shape), expected, atol=1e-6
        )
    with pytest.raises(garcon.UnknownPoint, match="layers 0 to 3"):
        rmodel.show_attention(TEXT, layer=9)


def test_the_card_is_of_this_server(rmodel_served: garcon.RemoteModel) -> None:
    card = rmodel_served.card()
    assert card.title == rmodel_served.server.name and card.facts[0] == "LlamaForCausalLM"
    assert [rank["rank"] for rank in card.state["ranks"]] == [0]
    card._hear(card, {"do": "keep"}, [])
    assert card.worker.wait() and card.trouble == "" and card.state["idle_left"] > 3590
