"""Latents recorded while data streams past: of those that are on alone, as of all of them, on one rank and on two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.dictionaries import load
from garcon_jupyter import recorders
from garcon_jupyter.recorders import Recorder, Seen
from garcon_jupyter.servers import control
from tests.conftest import quiet
from tests.dictionaries.making import saelens

HOOK = "blocks.1.hook_resid_post"
F = 96
DRAW = torch.Generator().manual_seed(5)
ROWS = [torch.randint(4, 60, (9,), generator=DRAW).tolist() for _ in range(6)]
FEW: dict[str, dict[str, Any]] = {
    "topk": {"k": 5},
    "abstopk": {"k": 5},
    "topk-over-norms": {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {"above": 7.0},
    "transcoder": {"hook": "blocks.1.hook_resid_mid", "hook_out": "blocks.1.hook_mlp_out", "below": 7.0},
    "transcoder-jumprelu": {
        "architecture": "jumprelu_transcoder", "hook": "blocks.1.hook_resid_mid", "hook_out": "blocks.1.hook_mlp_out", "above": 7.0,
    },
}  # fmt: skip
EVERY: list[Recorder[Any]] = [
    recorders.TopK(3, before=2, after=1),
    recorders.BottomK(2),
    recorders.EqualCountReservoir(2, 2, before=1),
    recorders.Histogram(),
    recorders.Firing(),
    recorders.Moments(),
]
ROUNDED = {"moments": 1e-12}


class Stored(Recorder[float]):
    """How many numbers it was shown of the last batch, or piece of one, for each of all values: 1, or less where those that are 0 were left out."""

    name = "stored"
    SPARSE = True

    def update(self, state: float | None, seen: Seen) -> float:
        if seen.sparse is None:
            return seen.values.numel() / (seen.values.shape[0] * F)
        return len(seen.sparse.value) / (seen.sparse.n * F)

    def merge(self, states: Any) -> float:
        return sum(states)


@pytest.fixture
def model(either: garcon.RemoteModel) -> Iterator[garcon.RemoteModel]:
    yield either
    for name in list(either.dictionaries):
        either.dictionaries.unload(name)


def files(folder: Path, width: int, kind: str) -> Path:
    """A dictionary of which few latents are on."""
    from safetensors.torch import load_file, save_file

    options = {"architecture": kind, "hook": HOOK} | FEW[kind]
    above, below = options.pop("above", 0.0), options.pop("below", 0.0)
    hook = options.pop("hook")
    if hook_out := options.pop("hook_out", None):
        options["metadata"] = {"sae_lens_version": "6.54.12", "hook_name": hook, "hook_name_out": hook_out}  # fmt: skip
    saelens(folder, width, F, hook, **options)
    stored = folder / "sae_weights.safetensors"
    tensors = load_file(stored)
    if above:
        tensors["threshold"] = tensors["threshold"] + above
    tensors["b_enc"] = tensors["b_enc"] - below
    save_file(tensors, stored)
    return folder


def recorded(model: garcon.RemoteModel, point: Any, more: list[Any] = []) -> Any:  # noqa: B006
    chosen = [recorders.Together(EVERY), Stored()]
    probes = [point.probe(each.without("first"), name="all") for each in chosen]
    model.run(ROWS, [*probes, *more], batch_tokens=18, seed=3, show=False)
    return model.recordings()[point.name, "all"]


def looked_at(save_ctx: Any, tensor: Any) -> None:
    save_ctx.shape = tuple(tensor.shape)


@pytest.mark.parametrize("kind", FEW)
def test_few_latents_are_recorded_as_all_are(
    model: garcon.RemoteModel, kind: str, tmp_path: Path
) -> None:
    width = model.catalog.sizes["D"]
    sae = model.dictionaries.load(files(tmp_path / kind, width, kind), name="few")
    few = recorded(model, sae.latents)
    # Somebody who looks at all of them is shown all of them, and so is everybody else.
    other = sae.latents.probe(looked_at, read_only=True, name="other")
    every = recorded(model, sae.latents, [other])
    assert every.stored == 1 and 0 < few.stored < 1 / 8
    for recorder in EVERY:
        found, wanted = (getattr(each, recorder.name) for each in (few, every))
        tolerance = ROUNDED.get(recorder.name, 0.0)
        for name, value in found.tensors().items():
            assert torch.allclose(
                value, wanted.tensors()[name], tolerance, tolerance, equal_nan=True
            ), (recorder.name, name)
        assert found.numbers() == wanted.numbers()


def test_they_are_the_latents_of_the_values(model: garcon.RemoteModel, tmp_path: Path) -> None:
    """Held against the dictionary's own encoder, of what a probe saw at the point that it reads."""

    def keep(save_ctx: Any, tensor: Any) -> None:
        save_ctx.value = tensor

    path = files(tmp_path / "topk", model.catalog.sizes["D"], "topk")
    sae = model.dictionaries.load(path, name="few")
    few = recorded(model, sae.latents)
    host = model.probe_points["layers.1.resid_post"]
    model.forward(ROWS, probes=[host.probe(keep, name="kept")])
    value = model.recordings()[host.name, "kept"].value
    latents = load(path).encode(value)[:, 1:].flatten(0, 1)
    assert few.firing.fired.tolist() == (latents > 0).sum(0).tolist()
    assert torch.allclose(few.topk.values, latents.T.topk(3).values, atol=1e-5)
    assert torch.allclose(few.moments.mean, latents.double().mean(0), atol=1e-6)
    other = load(path).encode(value.roll(1, -1))[:, 1:].flatten(0, 1)
    assert few.firing.fired.tolist() != (other > 0).sum(0).tolist()


def test_many_latents_are_shown_whole(model: garcon.RemoteModel, tmp_path: Path) -> None:
    """Half of the latents of a random autoencoder are on: with where they are they would take more than all of them."""
    sae = model.dictionaries.load(
        saelens(tmp_path / "many", model.catalog.sizes["D"], F, HOOK), name="many"
    )
    assert recorded(model, sae.latents).stored == 1


def test_nothing_else_changes(model: garcon.RemoteModel, tmp_path: Path) -> None:
    """Logits of a run whose latents are recorded, to the last bit; and other points of the dictionary are whole."""
    path = files(tmp_path / "topk", model.catalog.sizes["D"], "topk")
    sae = model.dictionaries.load(path, name="few")
    bare = model.forward(ROWS, probes=[])
    probe = sae.latents.probe(recorders.TopK(2))
    assert torch.equal(model.forward(ROWS, probes=[probe]), bare)
    with model.spliced("few", error="none"):
        through = model.forward(ROWS, probes=[])
        assert torch.equal(model.forward(ROWS, probes=[probe]), through)
    assert not torch.equal(through, bare)


@pytest.mark.processes
def test_replicas_record_their_own_rows(llama_path: Path, llama_here: str, tmp_path: Path) -> None:
    """Five rows over two replicas: one of them reads a row that only fills up, and that nobody may count."""
    server = garcon.launch(llama_path, "replicas", dp=2, progress=quiet)
    found = []
    for name in (llama_here, server.name):
        model = garcon.connect(name)
        path = files(tmp_path / "topk", model.catalog.sizes["D"], "topk")
        sae = model.dictionaries.load(path, name="few")
        probes = [sae.latents.probe(each) for each in (*EVERY, Stored())]
        model.run(ROWS[:5], probes, batch_tokens=45, show=False)
        kept = model.recordings()[sae.latents.name]
        found.append({each.name: getattr(kept, each.name) for each in (*EVERY, Stored())})
        model.dictionaries.unload("few")
        model.close()
    control.stop(server, force=True)
    one, two = found
    assert one.pop("stored") == two.pop("stored") / 2 == 5 / F  # of two replicas the shares add up
    for what, state in one.items():
        for name, value in state.tensors().items():
            assert torch.allclose(two[what].tensors()[name], value, 1e-5, 1e-5, equal_nan=True), (
                what,
                name,
            )
