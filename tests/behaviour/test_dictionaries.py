"""Dictionaries on real ranks: latents cut over tensor-parallel ranks, points on one stage, and a rank that is lost."""

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
from tests.behaviour.test_losses import kill_idle
from tests.behaviour.test_servers import until
from tests.conftest import quiet
from tests.dictionaries.making import saelens

IDS = torch.arange(3 * 7).view(3, 7) % 50

Told = dict[str, Tensor]


def save(save_ctx, tensor):
    save_ctx.value = tensor


def save_gradient(save_ctx, tensor):
    save_ctx.gradient = tensor


def edit(save_ctx, tensor):
    """Straddles every shard."""
    tensor[:, 3, ::3] = 0.7


def half(save_ctx, tensor):
    return tensor * 0.5


def a_logit(logits):
    return logits[:, -1, 3].sum()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make("llama", tmp_path_factory.mktemp("llama"))


def load_all(model: garcon.RemoteModel, folder: Path) -> None:
    """Of each way in which a value or the latents may lie on ranks one: whole and cut values, latents that compete and that do not."""
    sizes = model.catalog.sizes
    wide = sizes["D"]
    kinds = {
        "stream": (wide, "standard", "layers.1.resid_post"),
        "competing": (wide, "topk", "layers.0.resid_mid"),
        "heads": (sizes["H"] * sizes["d"], "jumprelu", "layers.1.attn.z"),
        "neurons": (sizes["M"], "standard", "layers.1.mlp.post_activation"),
        "across": (wide, "skip_transcoder", ("layers.1.mlp.in", "layers.1.mlp.contribution")),
        "uneven": (wide, "standard", "layers.1.resid_pre"),
    }
    for number, (name, (d_in, architecture, at)) in enumerate(kinds.items()):
        more = {"k": 5} if architecture == "topk" else {}
        latents = 63 if name == "uneven" else 64
        files = saelens(folder / name, d_in, latents, "", architecture, seed=number, **more)
        model.dictionaries.load(files, name, at, show=False)


def told(model: garcon.RemoteModel) -> Told:
    """What is read, edited and differentiated."""
    found: Told = {}
    clean = model.forward(IDS, probes=[])
    with model.spliced(*model.dictionaries):
        assert torch.equal(model.forward(IDS, probes=[]), clean)
    for name, sae in model.dictionaries.items():
        words = sae.points.words
        model.forward(IDS, probes=[sae.point(word).probe(save) for word in words])
        recordings = model.recordings()
        found |= {f"{name} {word}": recordings[sae.point(word).name].value for word in words}
        found[f"{name} edited"] = model.forward(IDS, probes=[sae.latents.probe(edit)])
        others = [sae.error.probe(edit), sae.reconstruction.probe(edit)]
        found[f"{name} edited otherwise"] = model.forward(IDS, probes=others)
        points = [sae.latents, sae.error, sae.pre_activation, model.probe_points["embed.out"]]
        for error in ("live", "frozen", "none"):
            with model.spliced(name, error=error, bypass=[0]):
                model.backward(
                    IDS, a_logit, probes=[p.probe(save_gradient, grad=True) for p in points]
                )
                found[f"{name} {error}"] = model.forward(IDS, probes=[])
            recordings = model.recordings()
            found |= {f"{name} {error} {p.name}": recordings[p.name].gradient for p in points}
        text = model.generate(IDS, max_new_tokens=4, probes=[sae.latents.probe(half)])
        found[f"{name} generated"] = text.ids.float()
    return found


@pytest.fixture(scope="module")
def one_process(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Told]]:
    folder = tmp_path_factory.mktemp("dictionaries")
    model = garcon.connect(open_here(path))
    load_all(model, folder)
    yield folder, told(model)
    model.close()


@pytest.mark.parametrize(
    "layout", [{"tp": 2}, {"pp": 2}, {"dp": 2}], ids=lambda layout: next(iter(layout))
)
def test_on_any_ranks_as_in_one_process(
    path: Path, one_process: tuple[Path, Told], layout: dict[str, int]
) -> None:
    folder, wanted = one_process
    model = garcon.connect(garcon.launch(path, name="cut", progress=quiet, **layout).name)
    load_all(model, folder)
    if "tp" in layout:  # each rank has a half, of those that can be cut
        cut = {name for name, sae in model.dictionaries.items() if sae.points.split}
        assert cut == {"stream", "competing", "heads", "neurons", "across"}
    found = told(model)
    model.shutdown()
    assert found.keys() == wanted.keys()
    for what, value in wanted.items():
        far = float((found[what] - value).abs().max() / value.abs().max().clamp(min=1e-6))
        assert far < (1e-4 if "layers" in what or "embed" in what else 2e-5), what


def test_over_two_stages_is_refused(path: Path, tmp_path: Path) -> None:
    model = garcon.connect(garcon.launch(path, name="staged", progress=quiet, pp=2).name)
    wide = model.catalog.sizes["D"]
    files = saelens(tmp_path / "far", wide, 32, "", "transcoder", d_out=wide)
    last = model.catalog.n_layers - 1
    with pytest.raises(BadRequest, match="different stages"):
        model.dictionaries.load(files, "far", ("layers.0.resid_pre", f"layers.{last}.resid_post"))
    assert not model.dictionaries
    model.shutdown()


def test_it_is_there_again_after_a_lost_rank(path: Path, tmp_path: Path) -> None:
    server = garcon.launch(path, name="lossy", progress=quiet)
    model = garcon.connect(server.name)
    wide = model.catalog.sizes["D"]
    sae = model.dictionaries.load(
        saelens(tmp_path / "kept", wide, 32, ""), "kept", "layers.1.resid_post"
    )
    model.dictionaries.load(
        saelens(tmp_path / "gone", wide, 32, ""), "gone", "layers.1.resid_post"
    ).unload()
    before = model.forward(IDS, probes=[sae.latents.probe(half)])
    kill_idle(server, 0)
    until(server.file.exists)
    assert torch.equal(model.forward(IDS, probes=[sae.latents.probe(half)]), before)
    assert [*model.dictionaries] == ["kept"]
    model.shutdown()
