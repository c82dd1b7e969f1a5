"""Where points are, told: what a value means depends on sinks, norms, routers and multipliers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter.display.whereabouts import whereabouts
from garcon_jupyter.errors import UnknownPoint
from tests import checkpoints


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], garcon.RemoteModel]:
    def model(family: str) -> garcon.RemoteModel:
        path = checkpoints.make(family, tmp_path_factory.mktemp(family))
        return garcon.connect(open_here(path))

    return model


@pytest.mark.parametrize(
    ("family", "point", "said"),
    [
        ("gpt_oss", "layers.0.attn.pattern", "A sink beside the keys"),
        ("gpt_oss", "layers.*.mlp.router.weights", "softmax over these alone"),
        ("mixtral", "layers.{i}.mlp.router.logits", "softmax over all experts, the top k"),
        ("qwen3_moe", "layers.0.mlp.router.weights", "Not renormalised"),
        ("gemma2", "layers.0.attn.norm", "the gain is 1 + weight, and applied in float32"),
        ("gemma2", "layers.0.attn.scores", "Soft-capped at"),
        ("llama", "layers.{i}.attn.norm.scale", "gain in the model's dtype"),
        ("granite", "logits", "Divided by 8 by the model"),
        ("granite", "layers.0.mlp.contribution", "× residual_multiplier"),
        ("gpt2", "layers.0.attn.k", "block 2 of 3 side by side in the output of transformer.h.{i}"),
        ("gpt2", "layers.0.mlp.pre_linear", "its MLP is not gated"),
    ],
)
def test_what_is_told(
    opened: Callable[[str], garcon.RemoteModel], family: str, point: str, said: str
) -> None:
    text = " ".join(whereabouts(opened(family).catalog, point).split())
    assert said in text


def test_all_points_are_told_and_of_which_kind_the_layers_are(
    opened: Callable[[str], garcon.RemoteModel],
) -> None:
    rmodel = opened("qwen3_moe")
    text = whereabouts(rmodel.catalog)
    assert "attention+moe  0-1, 3" in text and "attention      2" in text
    for template in rmodel.catalog.layers:
        assert template in text
    assert "pos_embed.out" in text.partition("does not have")[2]
    where = rmodel.probe_points["layers.0.attn.q"].where
    assert (
        where
        == "the heads that lie side by side in the output of model.layers.{i}.self_attn.q_proj"
    )
    assert "module:model.norm.input" in rmodel.probe_points["module:model.norm.input"].where


def test_an_unknown_point_names_the_nearest(
    opened: Callable[[str], garcon.RemoteModel], tmp_path: Path
) -> None:
    with pytest.raises(UnknownPoint, match=r"layers\.0\.mlp\.out"):
        whereabouts(opened("llama").catalog, "layers.0.mlp.ou")
