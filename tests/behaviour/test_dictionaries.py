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
from tests.dictionaries.making import cross_layer, crosscoder, saelens

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


def load_several(model: garcon.RemoteModel, folder: Path) -> None:
    """Of several points, which a pipeline of two stages cuts: latents that can be cut, and that cannot."""
    wide = model.catalog.sizes["D"]
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    for number, (name, latents) in enumerate({"layered": 64, "layered-odd": 63}.items()):
        files = cross_layer(folder / name, wide, latents, 4, seed=number)
        model.dictionaries.load(files, name, show=False)
    for number, (name, act_fn) in enumerate(
        {"crossed": "jumprelu", "crossed-five": "topk"}.items()
    ):
        files = crosscoder(folder / name, wide, 48, hooks, act_fn, seed=number)
        model.dictionaries.load(files, name, show=False)


def told_of_several(model: garcon.RemoteModel) -> Told:
    """As :func:`told`, of dictionaries whose points are those of several layers."""
    found: Told = {}
    points = model.probe_points
    clean = model.forward(IDS, probes=[])
    several = [name for name, sae in model.dictionaries.items() if sae.points.several]
    for error in ("live", "frozen"):
        with model.spliced(*several, error=error):
            assert torch.equal(model.forward(IDS, probes=[]), clean)
    for name in several:
        of = model.dictionaries[name].points
        model.forward(IDS, probes=[points[one].probe(save) for one in of.names()])
        recordings = model.recordings()
        found |= {one: recordings[one].value for one in of.names()}
        hosts = of.hosts if of.kind == "cross-layer" else of.hosts[-1:]
        for host in hosts:
            for word in of.words:
                probe = points[of.point(word, host)].probe(edit)
                found[f"{name} {word} edited at {host}"] = model.forward(IDS, probes=[probe])
        edits = [points[of.point("latents", host)].probe(half) for host in hosts]
        looks = [points[of.point("reconstruction", host)].probe(save) for host in of.hosts]
        found[f"{name} halved"] = model.forward(IDS, probes=[*edits, *looks])
        recordings = model.recordings()
        found |= {f"halved {p.point}": recordings[p.point].value for p in looks}
        read = [points[one] for one in (*of.names(), "embed.out")]
        for error in ("live", "frozen", "none"):
            with model.spliced(name, error=error, bypass=[0]):
                probes = [point.probe(save_gradient, grad=True) for point in read]
                model.backward(IDS, a_logit, probes=probes)
                found[f"{name} {error}"] = model.forward(IDS, probes=edits)
                only = [points["embed.out"].probe(save_gradient, grad=True, name="only")]
                model.backward(IDS, a_logit, probes=only)
            recordings = model.recordings()
            found |= {f"{name} {error} {p.name}": recordings[p.name].gradient for p in read}
            found[f"{name} {error} embed alone"] = recordings["embed.out", "only"].gradient
        text = model.generate(IDS, max_new_tokens=4, probes=edits)
        found[f"{name} generated"] = text.ids.float()
    return found


def told(model: garcon.RemoteModel) -> Told:
    """What is read, edited and differentiated."""
    found: Told = {}
    clean = model.forward(IDS, probes=[])
    with model.spliced(*model.dictionaries):
        assert torch.equal(model.forward(IDS, probes=[]), clean)
    for name, sae in model.dictionaries.items():
        if sae.points.several:
            continue
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
    load_several(model, folder)
    yield folder, told(model) | told_of_several(model)
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
    load_several(model, folder)
    if "tp" in layout:  # each rank has a half, of those that can be cut
        cut = {name for name, sae in model.dictionaries.items() if sae.points.split}
        alone = {"stream", "competing", "heads", "neurons", "across"}
        assert cut == {*alone, "layered", "crossed"}
    found = told(model) | told_of_several(model)
    model.shutdown()
    assert found.keys() == wanted.keys()
    for what, value in wanted.items():
        far = float((found[what] - value).abs().max() / value.abs().max().clamp(min=1e-6))
        assert far < (1e-4 if "layers" in what or "embed" in what else 2e-5), what


def test_over_three_stages_in_bfloat16(path: Path, tmp_path: Path) -> None:
    """The stage between has no point of the crosscoder, and hands on what the first sends; the stream stays what it is to the last bit."""
    told: list[Told] = []
    bytes_of: list[int] = []
    here = garcon.connect(open_here(path, dtype="bfloat16"))
    model = garcon.connect(
        garcon.launch(path, name="three", progress=quiet, pp=3, dtype="bfloat16").name
    )
    wide = here.catalog.sizes["D"]
    hooks = ["blocks.0.hook_resid_post", "blocks.3.hook_resid_post"]
    files = crosscoder(tmp_path / "ends", wide, 48, hooks)
    layered = cross_layer(tmp_path / "layered", wide, 48, 4)
    for one in (here, model):
        ends = one.dictionaries.load(files, "ends", show=False)
        clt = one.dictionaries.load(layered, "layered", show=False)
        bytes_of.append(clt.points.nbytes)
        clean = one.forward(IDS, probes=[])
        with one.spliced("ends", "layered", error="frozen"):
            assert torch.equal(one.forward(IDS, probes=[]), clean)
        looks = [*ends.error.probes(save), *clt.error.probes(save)]
        edits = [ends.latents.probe(half), clt.point("latents", layer=0).probe(half)]
        told.append({"edited": one.forward(IDS, probes=[*edits, *looks])})
        told[-1] |= {probe.point: one.recordings()[probe.point].value for probe in looks}
    model.shutdown()
    here.close()
    assert bytes_of[0] <= bytes_of[1] < 1.2 * bytes_of[0]  # each stage holds its own layers'
    for what, value in told[0].items():
        assert torch.allclose(told[1][what].float(), value.float(), rtol=0.05, atol=0.1), what


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
    layered = model.dictionaries.load(cross_layer(tmp_path / "layered", wide, 32, 4), show=False)
    probes = [sae.latents.probe(half), *layered.latents.probes(half)]
    before = model.forward(IDS, probes=probes)
    kill_idle(server, 0)
    until(server.file.exists)
    assert torch.equal(model.forward(IDS, probes=probes), before)
    assert [*model.dictionaries] == ["kept", "layered"]
    model.shutdown()
