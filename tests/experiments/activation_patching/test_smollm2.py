"""A real model: sweeps of SmolLM2 against a loop of forwards, and the heads that are known to bring its answers back."""

from __future__ import annotations

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from garcon_jupyter.model_files import embedded
from tests.conftest import quiet
from tests.experiments.activation_patching.by_loop import Loop, close
from tests.oracle import Plain

pytestmark = pytest.mark.lasting

CLEAN = "When John and Mary went to the shops, John gave the bag to"
CORRUPTED = "When John and Mary went to the shops, Mary gave the bag to"
ANSWERS = (" Mary", " John")

PLACES = ("shops", "park", "office", "beach", "museum", "station", "garden", "church")
"""Eight prompts of our own, by where they are set."""

HEAD = 64


@pytest.fixture(scope="module")
def real() -> Plain:
    return Plain(embedded.fetch("smollm2", progress=quiet))


def sentence(place: str, name: str) -> str:
    return f"When John and Mary went to the {place}, {name} gave the bag to"


def test_the_residual_stream_of_all_layers_and_positions(
    smollm2: garcon.RemoteModel, real: Plain
) -> None:
    found = experiments.patch(smollm2, CLEAN, CORRUPTED, "layers.*.resid_pre", answers=ANSWERS)
    clean, corrupted = (smollm2.encode(text).tolist()[0] for text in (CLEAN, CORRUPTED))
    loop = Loop(real, [smollm2.encode(answer).tolist()[0][0] for answer in ANSWERS])
    assert found.values.shape == (30, 14)
    assert (found.values[:, :9] == 0).all()
    assert (float(found.more["clean"]), float(found.more["corrupted"])) == pytest.approx(
        (loop.metric(clean), loop.metric(corrupted)), abs=1e-4
    )
    for layer, position in ((0, 9), (14, 9), (14, 10), (24, 13), (29, 13)):
        site = (f"model.layers.{layer}", "input")
        share = loop.share(clean, corrupted, {site: (slice(None), position)})
        assert close(found.at(layer=layer, position=position), share)


def test_heads_that_move_the_name(smollm2: garcon.RemoteModel, real: Plain) -> None:
    """Eight prompts; the heads that bring the answer back are the same in all, and each number is that of a loop."""
    points, by = "layers.{20,23}.attn.z", ("layer", "head")
    clean = [sentence(place, "John") for place in PLACES]
    corrupted = [sentence(place, "Mary") for place in PLACES]
    found = experiments.patch(smollm2, clean, corrupted, points, by, ANSWERS)
    assert found.values.shape == (8, 2, 9)
    loop = Loop(real, [smollm2.encode(answer).tolist()[0][0] for answer in ANSWERS])
    for pair in range(8):
        texts = [smollm2.encode(text).tolist()[0] for text in (clean[pair], corrupted[pair])]
        layer, head = (20, 0) if pair % 2 else (23, 3)
        site = (f"model.layers.{layer}.self_attn.o_proj", "input")
        place = (..., slice(head * HEAD, (head + 1) * HEAD))
        assert close(found.at(pair=pair, layer=layer, head=head), loop.share(*texts, {site: place}))
    assert found.values.mean(0)[1].argmax() == 3
    first = experiments.patch(smollm2, CLEAN, CORRUPTED, points, by, ANSWERS)
    assert torch.allclose(first.values, found.values[0], atol=1e-4)
    assert float(first.at(layer=23, head=3)) == pytest.approx(0.74, abs=0.005)
