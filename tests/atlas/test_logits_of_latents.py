"""From latents to the logits by their rows of the decoder, against norms and unembedding written out in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter.atlas.logits import writes_to_the_stream
from garcon_jupyter.errors import BadData
from tests import checkpoints
from tests.atlas.test_logits import AFTER, straight
from tests.dictionaries.making import saelens
from tests.oracle import Plain

F = 40
MID = "blocks.1.hook_resid_mid"
TRANSCODES = {
    "metadata": {
        "sae_lens_version": "6.54.12",
        "hook_name": MID,
        "hook_name_out": "blocks.1.hook_mlp_out",
    }
}
CASES: dict[str, tuple[str, str, dict[str, Any], Any, str, str]] = {
    # family, architecture, options, where it is put, the norms on the way
    "stream": ("llama", "topk", {"k": 4}, "layers.1.resid_post", "", "model.norm"),
    "centred": ("gpt2", "topk", {"k": 4}, "layers.1.resid_post", "", "transformer.ln_f"),
    "over norms": ("llama", "topk", {"k": 4, "rescale_acts_by_decoder_norm": True}, "layers.1.resid_post", "", "model.norm"),
    "before a norm": ("gemma2", "transcoder", TRANSCODES, ("layers.1.mlp.in", "layers.1.mlp.out"), f"model.layers.1.{AFTER}", "model.norm"),
    "behind it": ("gemma2", "transcoder", TRANSCODES, ("layers.1.mlp.in", "layers.1.mlp.contribution"), "", "model.norm"),
}  # fmt: skip


def by_hand(plain: Plain, decoder: Tensor, over_norms: bool, norms: tuple[str, str]) -> Tensor:
    """[F, V], float64."""
    plain.model.double()
    directions = decoder.double()
    if over_norms:
        directions = directions / directions.norm(dim=1, keepdim=True)
    for path in norms:
        if path:
            norm = plain.module(path)
            assert isinstance(norm, nn.Module)
            directions = straight(norm, directions)
    found: Tensor = plain.model.get_output_embeddings()(directions)
    return found


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_latents_reach_the_logits_through_the_norms(case: str, tmp_path: Path) -> None:
    family, architecture, options, at, *norms = CASES[case]
    path = checkpoints.make(family, tmp_path / "model")
    model = garcon.connect(open_here(path))
    width = model.catalog.sizes["D"]
    files = saelens(tmp_path / "sae", width, F, MID, architecture, **options)
    sae = model.dictionaries.load(files, name="one", at=at, show=False)
    rows = torch.randint(4, 60, (3, 8), generator=torch.Generator().manual_seed(0)).tolist()
    atlas = model.atlas(sae.latents.name, rows, tmp_path / "atlas", k=2, show=False)
    scores = by_hand(
        Plain(path),
        load_file(files / "sae_weights.safetensors")["W_dec"],
        "over" in case,
        (norms[0], norms[1]),
    )
    for word, largest in (("up", True), ("down", False)):
        best = scores.topk(10, 1, largest=largest).values
        values = torch.from_numpy(atlas.array(f"logits_{word}_values").copy()).double()
        assert torch.allclose(values, best, atol=1e-4), word
        tokens = torch.from_numpy(atlas.array(f"logits_{word}").copy()).long()
        assert torch.allclose(scores.gather(1, tokens), best, atol=1e-4), word
    # Rows of others, or without the gain of the final norm, the answer would be another.
    bare = load_file(files / "sae_weights.safetensors")["W_dec"].double()
    bare = plain_scores(Plain(path), bare)
    assert float((bare.topk(10, 1).values - scores.topk(10, 1).values).abs().max()) > 0.01
    assert float((scores.roll(1, 0).topk(10, 1).values - scores.topk(10, 1).values).abs().max()) > 0.01  # fmt: skip
    (_, value), *_ = atlas[sae.latents.name, 7].logits()
    assert value == pytest.approx(float(scores[7].max()), abs=1e-4)
    model.close()


def plain_scores(plain: Plain, directions: Tensor) -> Tensor:
    plain.model.double()
    found: Tensor = plain.model.get_output_embeddings()(directions)
    return found


def test_which_points_have_a_direct_way() -> None:
    ways = ["layers.3.resid_post", "layers.3.mlp.out", "layers.3.attn.contribution", "embed.out"]
    assert all(map(writes_to_the_stream, ways))
    none = ["layers.3.attn.z", "layers.3.mlp.in", "layers.3.mlp.post_activation", "final_norm.out"]
    assert not any(map(writes_to_the_stream, none))


def test_latents_without_a_direct_way(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    """An atlas of them has no tokens, and one that is told to have them is refused."""
    sizes = rmodel.catalog.sizes
    files = saelens(tmp_path / "sae", sizes["M"], F, "", "topk", k=4)
    sae = rmodel.dictionaries.load(files, name="one", at="layers.1.mlp.post_activation", show=False)
    try:
        atlas = rmodel.atlas(sae.latents.name, [[5, 6, 7]], tmp_path / "a", show=False)
        assert "logits_up" not in atlas.index["arrays"]
        with pytest.raises(BadData, match="write to the stream"):
            rmodel.atlas(sae.latents.name, [[5, 6, 7]], tmp_path / "b", logits=True, show=False)
    finally:
        sae.unload()
