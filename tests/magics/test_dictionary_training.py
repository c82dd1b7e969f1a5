"""The words ``dictionary train``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from garcon_backend.dictionaries import describe
from garcon_jupyter.errors import BadRequest
from tests.magics.conftest import Notebook


def test_a_training_is_begun_and_shown(connected: Notebook, tmp_path: Path) -> None:
    data = tmp_path / "rows.npy"
    np.save(data, np.random.default_rng(1).integers(3, 250, (12, 40)))
    line = f"layers.1.mlp.in,layers.1.mlp.out {data} {tmp_path / 'out'} --width 40 --k 3 --batch 64"
    connected.run(f"%garcon dictionary train {line} --kind transcoder")
    training = connected["training"].wait(show=False)
    assert training.told.written and training.settings.k == 3
    assert describe(tmp_path / "out").kind == "jumprelu_transcoder"


def test_its_words_are_helped_and_completed(connected: Notebook) -> None:
    shown = connected.run("%garcon dictionary train --help")
    assert "%garcon dictionary train" in shown and "READS,WRITES for a transcoder" in shown
    assert "--width" in connected.fails("%garcon dictionary train a b c", BadRequest)
    assert "layers.1.mlp.in" in connected.completions("%garcon dictionary train layers.1.mlp.i")
    assert connected.completions("%garcon dictionary tr") == ["train"]
    assert "topk" in connected.completions("%garcon dictionary train a b c --kind t")


def test_several_points_are_a_pattern_or_two(connected: Notebook, tmp_path: Path) -> None:
    data = tmp_path / "rows.npy"
    np.save(data, np.random.default_rng(1).integers(3, 250, (12, 40)))
    for kind, points, said in (
        ("crosscoder", "layers.0-1.resid_post", "crosscoder"),
        ("cross-layer", "layers.0-1.mlp.in,layers.0-1.mlp.out", "clt"),
    ):
        line = f"{points} {data} {tmp_path / kind} --width 40 --k 3 --batch 64 --kind {kind}"
        connected.run(f"%garcon dictionary train {line}")
        assert connected["training"].wait(show=False).told.written
        assert describe(tmp_path / kind).kind == said
