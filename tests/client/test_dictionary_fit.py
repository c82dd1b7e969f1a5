"""How well dictionaries of several points fit, beside the same sums in float64 over plain transformers with plain hooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadRequest
from tests import checkpoints
from tests.dictionaries.making import cross_layer, crosscoder, saelens
from tests.dictionaries.several_by_hand import CltByHand, CrosscoderByHand, PlainModel

IDS = torch.arange(3, 3 + 2 * 9).view(2, 9)
LATENTS, LAYERS = 64, 4
HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[garcon.RemoteModel]:
    found = garcon.connect(open_here(path, dtype="float64"))
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _none_is_left(model: garcon.RemoteModel) -> Iterator[None]:
    yield
    for name in list(model.dictionaries):
        model.dictionaries.unload(name)


def unexplained(values: list[Tensor], rebuilt: list[Tensor], first: int) -> float:
    """Σ over points of what lacks, over Σ of what is around each point's mean."""
    lacking = spread = 0.0
    for value, said in zip(values, rebuilt, strict=True):
        rows = value[:, first:].flatten(0, 1)
        lacking += float((rows - said[:, first:].flatten(0, 1)).pow(2).sum())
        spread += float((rows - rows.mean(0)).pow(2).sum())
    return lacking / spread


def test_a_cross_layer_transcoder_at_each_layer_and_in_all(
    model: garcon.RemoteModel, path: Path, tmp_path: Path
) -> None:
    files = cross_layer(tmp_path / "clt", model.catalog.sizes["D"], LATENTS, LAYERS)
    clt, by_hand, plain = (
        model.dictionaries.load(files, show=False),
        CltByHand(files),
        PlainModel(path, IDS),
    )
    plain(by_hand.hooked(plain))
    rebuilt = [by_hand.rebuilt[layer].detach() for layer in range(LAYERS)]
    values = [said + by_hand.lacking[layer].detach() for layer, said in enumerate(rebuilt)]
    fits = clt.fit(IDS)
    own = next(fit for fit in fits if fit.reads == "layers.{0-3}.mlp.in")
    assert own.writes == "layers.{0-3}.mlp.contribution" and own.tokens == IDS.numel()
    for first, found in ((0, own.unexplained), (1, own.without_first)):
        assert found == pytest.approx(unexplained(values, rebuilt, first), rel=1e-4)
    # Not the mean of shares: layers whose values are larger count for more.
    shares = [fit.unexplained for fit in own.each]
    assert own.unexplained != pytest.approx(sum(shares) / LAYERS, rel=1e-3)
    for layer, fit in enumerate(own.each):
        alone = unexplained(values[layer : layer + 1], rebuilt[layer : layer + 1], 1)
        assert fit.without_first == pytest.approx(alone, rel=1e-4)
        assert fit.reads == f"layers.{layer}.mlp.in"
    assert {"layers.{0-3}.resid_mid", "layers.{0-3}.attn.in"} <= {fit.reads for fit in fits}
    # What comes after the point that is written cannot be read for it.
    assert not any("resid_post" in fit.reads for fit in fits)
    assert "layers.0." in repr(fits) and [*model.dictionaries] == ["clt"]
    chosen = clt.fit(IDS, ["layers.*.resid_mid"])
    assert [fit.at for fit in chosen] == ["layers.{0-3}.resid_mid → layers.{0-3}.mlp.contribution"]
    with pytest.raises(BadRequest, match="names 1 point, of a dictionary that reads 4"):
        clt.fit(IDS, ["layers.1.mlp.in"])
    before = model.dictionaries.fit(files, IDS)
    assert [fit.at for fit in before] == [own.at] and before[0].unexplained == own.unexplained


def test_a_crosscoder_at_each_point_and_in_all(
    model: garcon.RemoteModel, path: Path, tmp_path: Path
) -> None:
    files = crosscoder(tmp_path / "crossed", model.catalog.sizes["D"], LATENTS, HOOKS)
    crossed, by_hand = model.dictionaries.load(files, show=False), CrosscoderByHand(files)
    plain = PlainModel(path, IDS)
    plain(by_hand.hooked(plain))
    values = [x.detach() for x in by_hand.xs]
    rebuilt = [by_hand.decode(by_hand.latents[h], h).detach() for h in range(len(values))]
    (own,) = crossed.fit(IDS, ["layers.{0,1,2}.resid_post"])
    for first, found in ((0, own.unexplained), (1, own.without_first)):
        assert found == pytest.approx(unexplained(values, rebuilt, first), rel=1e-4)
    assert [fit.at for fit in own.each] == [f"layers.{i}.resid_post" for i in range(3)]
    assert "layers.{0-2}.resid_pre" in {fit.at for fit in crossed.fit(IDS)}


def test_what_is_written_before_it_is_read_is_refused(
    model: garcon.RemoteModel, tmp_path: Path
) -> None:
    width = model.catalog.sizes["D"]
    files = saelens(tmp_path / "tc", width, 16, "blocks.2.mlp.hook_in", "transcoder")
    with pytest.raises(BadRequest, match="a pass comes by layers.2.resid_post after"):
        model.dictionaries.load(files, at=("layers.2.resid_post", "layers.2.mlp.out"))
    sae = model.dictionaries.load(files, at=("layers.2.mlp.in", "layers.2.mlp.out"), show=False)
    assert not any("resid_post" in fit.reads for fit in sae.fit(IDS))
