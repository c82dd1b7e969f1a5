"""Cross-layer transcoders and crosscoders in a model, beside their formats' own formulas by plain hooks on plain transformers in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadRequest, PointUnavailable, UnknownPoint, WrongDictionary
from garcon_jupyter.client.dictionaries import ServedDictionary
from tests.backend.probing.probes import IDS, save, save_gradient
from tests.dictionaries import fixtures
from tests.dictionaries.making import cross_layer, crosscoder
from tests.dictionaries.several_by_hand import CltByHand, CrosscoderByHand, PlainModel, a_logit

LATENTS, LAYERS = 96, 4
HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post")


def higher(save_ctx, tensor):
    return tensor + 0.5


@pytest.fixture(scope="module")
def clt_files(tmp_path_factory: pytest.TempPathFactory, width: int) -> Path:
    return cross_layer(tmp_path_factory.mktemp("clt"), width, LATENTS, LAYERS)


@pytest.fixture(scope="module")
def crosscoder_files(tmp_path_factory: pytest.TempPathFactory, width: int) -> Path:
    return crosscoder(tmp_path_factory.mktemp("crosscoder"), width, LATENTS, HOOKS)


@pytest.fixture
def clt(exact: garcon.RemoteModel, clt_files: Path) -> Iterator[ServedDictionary]:
    found = exact.dictionaries.load(clt_files, "clt", show=False)
    yield found
    found.unload()


@pytest.fixture
def crossed(exact: garcon.RemoteModel, crosscoder_files: Path) -> Iterator[ServedDictionary]:
    found = exact.dictionaries.load(crosscoder_files, "crossed", show=False)
    yield found
    found.unload()


# -- cross-layer transcoders ---------------------------------------------------------------------


def test_a_cross_layer_transcoder_has_latents_of_each_layer(
    exact: garcon.RemoteModel, clt: ServedDictionary, clt_files: Path, plain: PlainModel
) -> None:
    by_hand = CltByHand(clt_files)
    plain(by_hand.hooked(plain))
    words = ("pre_activation", "latents", "reconstruction", "error")
    assert clt.latents.name == f"layers.{{0-{LAYERS - 1}}}.mlp.in.sae.clt.latents"
    assert len(clt.latents.addresses) == LAYERS
    assert clt.latents.shape == ("b", "p", LATENTS)
    exact.forward(IDS, probes=[p for word in words for p in clt.point(word).probes(save)])
    found = exact.recordings()
    values = (by_hand.pre, by_hand.latents, by_hand.rebuilt, by_hand.lacking)
    for word, wanted in zip(words, values, strict=True):
        for layer in range(LAYERS):
            got = found[clt.point(word, layer=layer).name].value
            assert torch.allclose(got, wanted[layer], atol=1e-5), (word, layer)
    # By the layer that is read, decoders are others, of the same shape where there are as many.
    wrong = by_hand.latents[0] @ by_hand.tensors["W_dec_0"][:, LAYERS - 1]
    right = by_hand.latents[0] @ by_hand.tensors["W_dec_0"][:, 1]
    assert not torch.allclose(wrong, right, atol=1e-2)
    assert "latents of each layer" in repr(clt) and "layers.{0-3}.mlp.in → " in repr(clt)


def test_an_edit_reaches_its_layer_and_all_later_ones(
    exact: garcon.RemoteModel, clt: ServedDictionary, clt_files: Path, plain: PlainModel
) -> None:
    changed = clt.point("latents", layer=1).probe(higher)
    reads = clt.point("reconstruction").probes(save)
    logits = exact.forward(IDS, probes=[changed, *reads])
    found = exact.recordings()
    by_hand = CltByHand(clt_files)
    wanted, _ = plain(
        by_hand.hooked(plain, change=lambda latents, i: latents + 0.5 if i == 1 else latents)
    )
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert not torch.allclose(logits, exact.forward(IDS, probes=[]), atol=1e-2)
    for layer in range(LAYERS):
        told = found[clt.point("reconstruction", layer=layer).name].value
        new = by_hand.decode(by_hand.latents, layer)
        assert torch.allclose(told, new, atol=1e-5)
        assert (layer == 0) == torch.allclose(told, by_hand.rebuilt[layer], atol=1e-2)
    only = exact.forward(IDS, probes=[changed])  # without tensors of their own
    assert torch.allclose(only, wanted, atol=1e-5)
    pre = exact.forward(IDS, probes=clt.pre_activation.probes(higher))

    def again(latents: Tensor, i: int) -> Tensor:
        more = by_hand.pre[i] + 0.5
        return more * (more > by_hand.tensors[f"threshold_{i}"])

    assert torch.allclose(pre, plain(by_hand.hooked(plain, change=again))[0], atol=1e-5)


def test_a_cross_layer_splice(
    exact: garcon.RemoteModel, clt: ServedDictionary, clt_files: Path, plain: PlainModel
) -> None:
    clean = exact.forward(IDS, probes=[])
    embedded = exact.probe_points["embed.out"].probe(save_gradient, grad=True)
    _, bare = plain([])
    below = {}
    for error in ("live", "frozen", "none"):
        by_hand = CltByHand(clt_files)
        logits, gradient = plain(by_hand.hooked(plain, error))
        with exact.spliced("clt", error=error, bypass=[]):
            got = exact.forward(IDS, probes=[])
            reads = clt.latents.probes(save_gradient, grad=True)
            exact.backward(IDS, a_logit, probes=[embedded, *reads])
        below[error] = exact.recordings()["embed.out"].gradient
        assert torch.allclose(got, logits, atol=1e-5)  # norms are float32 there, too
        assert torch.allclose(below[error], gradient, rtol=1e-4, atol=1e-5)
        assert (error == "none") == (not torch.equal(got, clean))
    assert torch.allclose(below["live"], bare, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(below["frozen"], bare, rtol=0.1, atol=0.1)


def test_the_gradient_of_a_latent_goes_by_all_layers_that_it_writes(
    exact: garcon.RemoteModel, clt: ServedDictionary
) -> None:
    point = clt.point("latents", layer=1)
    exact.backward(IDS, a_logit, probes=[point.probe(save_gradient, grad=True)])
    gradient = exact.recordings()[point.name].gradient
    place = (
        0,
        *(
            int(n)
            for n in torch.unravel_index(gradient[0, 1:].abs().argmax(), gradient[0, 1:].shape)
        ),
    )
    place = (0, place[1] + 1, place[2])

    def measured(by: float) -> float:
        def more(save_ctx, tensor):
            tensor[place] += by

        return float(a_logit(exact.forward(IDS, probes=[point.probe(more)])))

    slope = (measured(1e-2) - measured(-1e-2)) / 2e-2
    assert slope == pytest.approx(float(gradient[place]), rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_edited_changes_no_bit(
    path: Path, tmp_path: Path, clt_files: Path, crosscoder_files: Path, dtype: str
) -> None:
    model = garcon.connect(open_here(path, dtype=dtype))
    model.dictionaries.load(clt_files, "clt", show=False)
    model.dictionaries.load(crosscoder_files, "crossed", show=False)
    wide = model.catalog.sizes["D"]
    five = crosscoder(tmp_path / "five", wide, LATENTS, HOOKS[1:], "topk")
    model.dictionaries.load(five, "five", show=False)
    clean = model.forward(IDS, probes=[])
    text = model.generate(IDS, max_new_tokens=8, probes=[])
    for error in ("live", "frozen"):
        with model.spliced("clt", "crossed", "five", error=error):
            assert torch.equal(model.forward(IDS, probes=[]), clean)
            assert torch.equal(model.generate(IDS, max_new_tokens=8, probes=[]).ids, text.ids)
    reads = [
        probe
        for name in model.catalog.dictionary_names()
        for probe in model.probe_points[name].probes(save)
    ]
    assert len(reads) == 4 * LAYERS + (3 * 3 + 1) + (2 * 3 + 1)
    assert torch.equal(model.forward(IDS, probes=reads), clean)
    model.close()


def test_while_generating_each_step_is_edited(
    exact: garcon.RemoteModel, clt: ServedDictionary, crossed: ServedDictionary
) -> None:
    probes = [*clt.latents.probes(higher), crossed.latents.probe(higher)]
    told = [
        exact.generate(IDS, max_new_tokens=5, probes=probes, output_logits=True, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(told[0].ids, told[1].ids)
    assert torch.allclose(told[0].logits, told[1].logits, atol=1e-4)


def test_positions_go_past_at_every_layer(
    exact: garcon.RemoteModel, clt: ServedDictionary, clt_files: Path, plain: PlainModel
) -> None:
    by_hand = CltByHand(clt_files)

    def hook(i: int, args: tuple, out: Tensor) -> Tensor:
        by_hand.latents[i] = by_hand.encode(args[0], i)
        new = by_hand.decode(by_hand.latents, i)
        new[:, 0] = out[:, 0]
        return new

    hooks = [
        layer.mlp.register_forward_hook(lambda m, args, out, i=i: hook(i, args, out))
        for i, layer in enumerate(plain.layers())
    ]
    wanted, _ = plain(hooks)
    with exact.spliced("clt", error="none", bypass=[0]):
        assert torch.allclose(exact.forward(IDS, probes=[]), wanted, atol=1e-5)
    with exact.spliced("clt", error="none"):  # as circuit-tracer has it, by default
        assert torch.allclose(exact.forward(IDS, probes=[]), wanted, atol=1e-5)


def test_latents_of_layers_are_patched(
    exact: garcon.RemoteModel, clt: ServedDictionary, clt_files: Path
) -> None:
    """In one request as by a forward for each cell: the latents of one text in another, layer by layer."""
    clean, corrupted = [*range(5, 12)], [5, 6, 40, *range(8, 12)]
    exact.forward([clean], probes=clt.latents.probes(save), logits="none")
    recorded = exact.recordings()

    def metric(logits: Tensor) -> float:
        return float(logits[0, -1, 7] - logits[0, -1, 9])

    low, high = (metric(exact.forward([ids], probes=[])) for ids in (corrupted, clean))
    wanted = torch.zeros(LAYERS, len(clean))
    for layer in range(LAYERS):
        point = clt.point("latents", layer=layer)
        for position in range(2, len(clean)):

            def put(save_ctx, tensor, position=position):
                tensor[:, position] = save_ctx.source.value[:, position]

            probe = point.probe(put, source=recorded[point.name])
            wanted[layer, position] = metric(exact.forward([corrupted], probes=[probe])) - low
    wanted /= high - low
    assert wanted.abs().max() > 0.05
    for one_by_one in (True, False):
        found = exact.experiments.patch(
            clean, corrupted, clt.latents.name, answers=(7, 9), exact=one_by_one, progress=False
        )
        assert torch.allclose(torch.as_tensor(found.values), wanted, atol=1e-4)


# -- crosscoders -----------------------------------------------------------------------------------


def test_a_crosscoder_has_its_latents_where_it_reads_last(
    exact: garcon.RemoteModel, crossed: ServedDictionary, crosscoder_files: Path, plain: PlainModel
) -> None:
    by_hand = CrosscoderByHand(crosscoder_files)
    plain(by_hand.hooked(plain))
    assert crossed.latents.name == "layers.2.resid_post.sae.crossed.latents"
    assert len(crossed.reconstruction.addresses) == 3
    names = exact.catalog.dictionary_names()
    exact.forward(IDS, probes=[exact.probe_points[name].probe(save) for name in names])
    found = exact.recordings()
    assert torch.allclose(found[crossed.pre_activation.name].value, by_hand.pre, atol=1e-5)
    for h, x in enumerate(by_hand.xs):
        rebuilt = by_hand.decode(by_hand.latents[h], h)
        wanted = {"latents": by_hand.latents[h], "reconstruction": rebuilt, "error": x - rebuilt}
        for word, value in wanted.items():
            got = found[crossed.point(word, layer=h).name].value
            assert torch.allclose(got, value, atol=1e-5), (word, h)
    # Which latents pass depends on the norms of each point's decoder.
    assert any(not torch.equal(one != 0, by_hand.latents[0] != 0) for one in by_hand.latents)
    with pytest.raises(UnknownPoint, match="one pre_activation"):
        exact.probe_points["layers.0.resid_post.sae.crossed.pre_activation"]


def test_a_crosscoder_writes_its_last_point(
    exact: garcon.RemoteModel, crossed: ServedDictionary, crosscoder_files: Path, plain: PlainModel
) -> None:
    by_hand = CrosscoderByHand(crosscoder_files)
    logits = exact.forward(IDS, probes=[crossed.latents.probe(higher)])
    wanted, _ = plain(by_hand.hooked(plain, change=lambda latents: latents + 0.5))
    assert torch.allclose(logits, wanted, atol=1e-5)
    embedded = exact.probe_points["embed.out"].probe(save_gradient, grad=True)
    for error in ("live", "frozen", "none"):
        logits, gradient = plain(by_hand.hooked(plain, error))
        with exact.spliced("crossed", error=error, bypass=[]):
            assert torch.allclose(exact.forward(IDS, probes=[]), logits, atol=1e-5)
            exact.backward(IDS, a_logit, probes=[embedded])
        got = exact.recordings()["embed.out"].gradient
        assert torch.allclose(got, gradient, rtol=1e-4, atol=1e-5), error


def test_what_a_pass_has_left_is_read_alone(
    exact: garcon.RemoteModel, crossed: ServedDictionary
) -> None:
    for word in ("latents", "reconstruction", "error"):
        point = crossed.point(word, layer=0)
        with pytest.raises(PointUnavailable, match=r"has left layers\.0\.resid_post behind"):
            exact.forward(IDS, probes=[point.probe(higher)])
        # A gradient there is that of nothing that follows; a loss of its own has one.
        exact.backward(IDS, a_logit, probes=[point.probe(save_gradient, grad=True)])
        assert not exact.recordings()[point.name].gradient.any()
    with pytest.raises(PointUnavailable, match="behind"):
        exact.experiments.patch(
            [5, 6, 7, 8], [5, 9, 7, 8], crossed.point("latents", layer=0).name, by="position",
            answers=(7, 9), progress=False,
        )  # fmt: skip
    point = crossed.point("reconstruction", layer=0)
    first = exact.probe_points["layers.0.resid_post"]
    exact.backward(
        IDS,
        lambda logits, values: values[0].pow(2).sum(),
        probes=[first.probe(save_gradient, grad=True)],
        values=[point.name],
    )
    assert exact.recordings()[first.name].gradient.abs().max() > 1e-3


# -- every class of every library ----------------------------------------------------------------

SEVERAL = [n for n in fixtures.names() if any(word in n for word in ("clt", "crosscoder"))]


@pytest.mark.parametrize("name", [name for name in SEVERAL if "layertopk" not in name])
def test_any_class_is_a_point(narrow: garcon.RemoteModel, name: str) -> None:
    expected = fixtures.expected(name)
    at = [f"layers.{layer}.resid_pre" for layer in range(expected.x.shape[-2])]
    sae = narrow.dictionaries.load(expected.path, "any", at, show=False)
    wide = len(expected.x) // 8
    given = expected.x[: wide * 8].unflatten(0, (wide, 8))

    def instead(layer: int):
        value = given[..., layer, :].clone()
        return lambda save_ctx, tensor: value

    probes = [narrow.probe_points[point].probe(instead(layer)) for layer, point in enumerate(at)]
    words = ("latents", "reconstruction")
    names = [sae.points.point(word, host) for host in at for word in words]
    ids = torch.arange(4, 4 + wide * 8).view(wide, 8) % 60
    narrow.forward(ids, probes=[*probes, *(narrow.probe_points[n].probe(save) for n in names)])
    found = narrow.recordings()
    for layer, host in enumerate(at):
        for word, wanted in zip(words, (expected.codes, expected.reconstruction), strict=True):
            got = found[sae.points.point(word, host)].value.flatten(0, 1)
            assert torch.allclose(got, wanted[: wide * 8, layer], atol=1e-5), (word, layer)
    sae.unload()


# -- what is refused -----------------------------------------------------------------------------


def test_what_cannot_be_is_refused(
    exact: garcon.RemoteModel, clt_files: Path, width: int, tmp_path: Path
) -> None:
    load = exact.dictionaries.load
    joint = fixtures.expected("llama_scope-clt-layertopk").path
    with pytest.raises(BadRequest, match="of all layers together"):
        load(joint, "joint")
    with pytest.raises(BadRequest, match="names 3 points, of a dictionary that reads 4"):
        load(clt_files, "few", [f"layers.{i}.mlp.in" for i in range(3)])
    with pytest.raises(BadRequest, match="in that order"):
        load(clt_files, "back", [f"layers.{i}.mlp.in" for i in (3, 2, 1, 0)])
    more = cross_layer(tmp_path / "more", width, 8, LAYERS + 1)
    with pytest.raises(WrongDictionary, match=r"layers\.4\.mlp\.in"):
        load(more, "more")
    clt = load(clt_files, "clt", ["layers.*.mlp.in", "layers.*.mlp.out"], show=False)
    try:
        assert clt.points.several[1] == ("layers.1.mlp.in", "layers.1.mlp.out")
        with pytest.raises(BadRequest, match="loaded already"):
            load(clt_files, "clt")
        with pytest.raises(UnknownPoint, match="nothing of layer 9"):
            clt.point("latents", layer=9)
        with pytest.raises(UnknownPoint, match=r"layers\.\{0-3\}\.mlp\.in"):
            exact.probe_points["layers.1.resid_pre.sae.clt.latents"]
    finally:
        clt.unload()
