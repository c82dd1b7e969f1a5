"""Weights that a served model has no place for are told at launch and by the model, also over ranks."""

from __future__ import annotations

import json
from pathlib import Path

import garcon_jupyter as garcon
from tests.checkpoints import make


def test_weights_without_a_place_are_told_over_two_ranks(tmp_path: Path) -> None:
    file = make("llama", tmp_path / "tiny", attention_bias=True) / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "attention_bias": False, "num_hidden_layers": 3}))
    lines: list[str] = []
    rmodel = garcon.launch_and_connect(
        file.parent, name="left-over", tp=2, device="cpu", progress=lines.append
    )
    try:
        # Three layers' biases of q, k, v and o, and a whole layer: its nine weights and four biases.
        note = "25 weights have no place in the model that config.json describes, and are not used"
        assert any(line.startswith(note) for line in lines)
        assert note in repr(rmodel) and note in rmodel._repr_html_()
        served = rmodel.facts["model"]
        assert len(served["unused_weights"]) == 25
        assert "model.layers.3.mlp.up_proj.weight" in served["unused_weights"]
        layer = 48 * (2 * 96 + 2 * 32) + 3 * 48 * 80 + 2 * 48
        whole = 2 * 263 * 48 + 3 * layer + 48
        assert served["parameters"] == whole
        assert f"loaded {whole:,} parameters" in lines
    finally:
        rmodel.shutdown(force=True)
