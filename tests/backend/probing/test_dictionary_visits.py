"""Latents as points: their values, what edits of them do, and gradients, beside the same by plain hooks on plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.dictionaries import Dictionary, describe, load
from garcon_backend.in_process import open_here
from garcon_jupyter.client.dictionaries import ServedDictionary
from tests.backend.probing.probes import IDS, save, save_gradient
from tests.dictionaries import fixtures
from tests.dictionaries.fixtures import names
from tests.dictionaries.making import saelens
from tests.dictionaries.several_by_hand import PlainModel, a_logit

WIDTH = 64
BLOCK, HOST = 1, "layers.1.resid_post"


def without_five(save_ctx, tensor):
    """Latent 5 of position 3 is off."""
    tensor[:, 3, 5] = 0


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[garcon.RemoteModel]:
    found = garcon.connect(open_here(path))
    yield found
    found.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, width: int) -> Path:
    return saelens(tmp_path_factory.mktemp("sae"), width, WIDTH, "blocks.1.hook_resid_post")


@pytest.fixture
def sae(model: garcon.RemoteModel, files: Path) -> Iterator[ServedDictionary]:
    found = model.dictionaries.load(files, name="one")
    yield found
    found.unload()


KINDS = {
    "standard": {},
    "topk": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {},
    "normed": {"normalize_activations": "layer_norm"},
}
WHERE = ("resid_post", "attn.contribution", "mlp.contribution", "attn.z", "mlp.post_activation")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_splice_changes_no_bit(path: Path, tmp_path: Path, dtype: str) -> None:
    model = garcon.connect(open_here(path, dtype=dtype))
    sizes = model.catalog.sizes
    widths = {"attn.z": sizes["H"] * sizes["d"], "mlp.post_activation": sizes["M"]}
    for kind, more in KINDS.items():
        architecture = kind if kind in ("topk", "jumprelu") else "standard"
        for where in WHERE:
            wide = widths.get(where, sizes["D"])
            folder = saelens(tmp_path / f"{kind}-{where}", wide, WIDTH, "", architecture, **more)
            model.dictionaries.load(
                folder, f"{kind}-{where.replace('.', '-')}", f"layers.1.{where}"
            )
    clean = model.forward(IDS, probes=[])
    texts = model.generate(IDS, max_new_tokens=16, probes=[])
    for error in ("live", "frozen"):
        with model.spliced(*model.dictionaries, error=error):
            assert torch.equal(model.forward(IDS, probes=[]), clean)
            assert torch.equal(model.generate(IDS, max_new_tokens=16, probes=[]).ids, texts.ids)
    reads = [each.latents.probe(save) for each in model.dictionaries.values()]
    reads += [each.error.probe(save) for each in model.dictionaries.values()]
    assert torch.equal(model.forward(IDS, probes=reads), clean)
    # The usual order, a reconstruction and then its error, rounds.
    found = load(tmp_path / "standard-resid_post")

    def the_usual_order(save_ctx, tensor):
        reconstruction = found.reconstruction(tensor).to(tensor.dtype)
        return reconstruction + (tensor - reconstruction)

    rounded = model.forward(IDS, probes=[model.probe_points[HOST].probe(the_usual_order)])
    assert not torch.equal(rounded, clean)
    model.close()


def test_points_are_what_the_dictionary_computes(
    model: garcon.RemoteModel, sae: ServedDictionary, files: Path, plain: PlainModel
) -> None:
    streams: list[Tensor] = []
    plain.changed(BLOCK, lambda stream: streams.append(stream) or stream)
    x, tensors = streams[0], load(files, dtype=torch.float64).tensors
    pre = (x - tensors["output_bias"]) @ tensors["encoder"].T + tensors["encoder_bias"]
    latents = pre.relu()
    reconstruction = latents @ tensors["decoder"] + tensors["output_bias"]
    wanted = dict(
        zip(
            ("pre_activation", "latents", "reconstruction", "error"),
            (pre, latents, reconstruction, x - reconstruction),
            strict=True,
        )
    )
    model.forward(IDS, probes=[sae.point(word).probe(save) for word in wanted])
    found = model.recordings()
    for word, value in wanted.items():
        assert sae.point(word).shape == ("b", "p", *value.shape[2:])
        assert torch.allclose(found[sae.point(word).name].value.double(), value, atol=1e-5), word


def test_a_latent_that_is_put_out_takes_away_its_direction_there_alone(
    model: garcon.RemoteModel, sae: ServedDictionary, files: Path, plain: PlainModel
) -> None:
    host = model.probe_points[HOST]
    model.forward(IDS, probes=[host.probe(save), sae.latents.probe(save)])
    before = {name: recording.value for name, recording in model.recordings().items()}
    assert (before[sae.latents.name][:, 3, 5] > 0).any()
    logits = model.forward(
        IDS,
        probes=[
            sae.latents.probe(without_five),
            model.probe_points["layers.2.resid_pre"].probe(save),
        ],
    )
    change = model.recordings()["layers.2.resid_pre"].value - before[HOST]
    decoder = load(files).decoder
    wanted = torch.zeros_like(change)
    wanted[:, 3] = -before[sae.latents.name][:, 3, 5, None] * decoder[5]
    assert torch.allclose(change, wanted, atol=1e-5)
    assert torch.equal(change[:, :3], wanted[:, :3])  # nothing before it is touched
    by_hand, _ = plain.changed(BLOCK, lambda stream: stream + wanted.double())
    assert torch.allclose(logits.double(), by_hand, atol=1e-4)
    clean = model.forward(IDS, probes=[])
    assert torch.equal(logits[:, :3], clean[:, :3])


def test_other_parts_are_edited_too(
    model: garcon.RemoteModel, sae: ServedDictionary, files: Path, plain: PlainModel
) -> None:
    found = load(files, dtype=torch.float64)

    def higher(save_ctx, tensor):
        return tensor + 0.5

    def by_hand(stream: Tensor, part: str) -> Tensor:
        pre = found.pre_activation(stream)
        if part == "pre_activation":
            return stream + found.decode(found.activated(pre + 0.5)) - found.reconstruction(stream)
        if part == "latents":
            return stream + found.decode(found.encode(stream) + 0.5) - found.reconstruction(stream)
        return stream + 0.5

    for part in ("pre_activation", "latents", "reconstruction", "error"):
        logits = model.forward(IDS, probes=[sae.point(part).probe(higher)])
        wanted, _ = plain.changed(BLOCK, lambda stream, part=part: by_hand(stream, part))
        assert torch.allclose(logits.double(), wanted, atol=2e-4), part


def through(kind: str, found: Dictionary) -> Callable[[Tensor], Tensor]:
    """A stream as it goes on through a dictionary, by the definition of each error."""

    def at(stream: Tensor) -> Tensor:
        reconstruction = found.reconstruction(stream)
        if kind == "none":
            return reconstruction
        lacks = stream - reconstruction
        return reconstruction + (lacks.detach() if kind == "frozen" else lacks)

    return at


def test_gradients_by_what_the_error_is(
    exact: garcon.RemoteModel, files: Path, plain: PlainModel
) -> None:
    sae = exact.dictionaries.load(files, name="one")
    embedded = exact.probe_points["embed.out"].probe(save_gradient, grad=True)
    below = {}
    for kind in ("live", "frozen", "none"):
        with exact.spliced("one", error=kind):
            logits = exact.forward(IDS, probes=[])
            exact.backward(
                IDS, a_logit, probes=[embedded, sae.latents.probe(save_gradient, grad=True)]
            )
        below[kind] = exact.recordings()["embed.out"].gradient
        wanted, gradient = plain.changed(BLOCK, through(kind, load(files, dtype=torch.float64)))
        assert torch.allclose(logits, wanted, rtol=1e-5, atol=1e-5)  # norms are float32 there, too
        assert torch.allclose(below[kind], gradient, rtol=1e-4, atol=1e-5)
    # Live, they are the model's own; and what is frozen is something else.
    _, bare = plain()
    assert torch.allclose(below["live"], bare, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(below["frozen"], bare, rtol=0.1, atol=0.1)


def test_activation_times_gradient_adds_up(exact: garcon.RemoteModel, files: Path) -> None:
    sae = exact.dictionaries.load(files, name="one")
    host = exact.probe_points[HOST]
    probes = [
        point.probe(function, grad=grad)
        for point in (sae.latents, sae.error, host)
        for function, grad in ((save, False), (save_gradient, True))
    ]
    with exact.spliced("one", error="frozen"):
        exact.backward(IDS, a_logit, probes=probes)
    found = exact.recordings()

    def product(name: str) -> Tensor:
        return (found[name].value * found[name].gradient).sum((-1, -2))

    # The gradient at the host is that of what enters the dictionary; of what leaves it, the error has it.
    leaving = found[sae.error.name].gradient
    bias = (leaving * load(files, dtype=torch.float64).tensors["output_bias"]).sum((-1, -2))
    whole = (found[HOST].value * leaving).sum((-1, -2))
    parts = product(sae.latents.name) + product(sae.error.name) + bias
    assert torch.allclose(parts, whole, rtol=1e-9, atol=1e-12)


def test_a_gradient_is_what_a_small_change_does(exact: garcon.RemoteModel, files: Path) -> None:
    sae = exact.dictionaries.load(files, name="one")
    exact.backward(IDS, a_logit, probes=[sae.latents.probe(save_gradient, grad=True)])
    gradient = exact.recordings()[sae.latents.name].gradient
    row, position, latent = torch.unravel_index(
        gradient[:, 1:-1].abs().argmax(), gradient[:, 1:-1].shape
    )
    place = (int(row), int(position) + 1, int(latent))
    step = 1e-2  # norms of the model compute in float32

    def measured(by: float) -> float:
        def more(save_ctx, tensor):
            tensor[place] += by

        return float(a_logit(exact.forward(IDS, probes=[sae.latents.probe(more)])))

    slope = (measured(step) - measured(-step)) / (2 * step)
    assert slope == pytest.approx(float(gradient[place]), rel=1e-3)


def test_a_transcoder_reads_one_point_and_writes_another(
    exact: garcon.RemoteModel, tmp_path: Path, width: int
) -> None:
    folder = saelens(tmp_path / "skip", width, WIDTH, "", "skip_transcoder", d_out=width)
    sae = exact.dictionaries.load(folder, "skip", ("layers.1.mlp.in", "layers.1.mlp.contribution"))
    assert (sae.points.reads, sae.points.writes) == ("layers.1.mlp.in", "layers.1.mlp.contribution")
    found, ends = load(folder, dtype=torch.float64), (sae.points.reads, sae.points.writes)
    reads = [exact.probe_points[end].probe(save) for end in ends]
    clean = exact.forward(IDS, probes=[*reads, sae.error.probe(save)])
    recorded = exact.recordings()
    x, y = (recorded[end].value for end in ends)
    assert torch.allclose(recorded[sae.error.name].value, y - found.reconstruction(x), atol=1e-9)
    assert not torch.allclose(
        found.decode(found.encode(x), x * 0), found.reconstruction(x)
    )  # the skip

    def instead(save_ctx, tensor):
        return save_ctx.source.value

    def reconstructed(save_ctx, tensor):
        save_ctx.value = found.reconstruction(tensor)

    exact.forward(IDS, probes=[exact.probe_points[ends[0]].probe(reconstructed, name="there")])
    source = exact.recordings()[ends[0], "there"]
    wanted = exact.forward(IDS, probes=[exact.probe_points[ends[1]].probe(instead, source=source)])
    with exact.spliced("skip", error="none"):
        assert torch.allclose(exact.forward(IDS, probes=[]), wanted, atol=1e-9)
    with exact.spliced("skip"):
        assert torch.equal(exact.forward(IDS, probes=[]), clean)
    sae.unload()


def test_chosen_positions_go_past(
    model: garcon.RemoteModel, sae: ServedDictionary, files: Path, plain: PlainModel
) -> None:
    found = load(files, dtype=torch.float64)

    def past_the_first(stream: Tensor) -> Tensor:
        new = found.reconstruction(stream)
        new[:, 0] = stream[:, 0]
        return new

    wanted, _ = plain.changed(BLOCK, past_the_first)
    with model.spliced("one", error="none", bypass=[0]):
        logits = model.forward(IDS, probes=[])
        # Behind padding the first token has another column, and is the first still.
        padded = model.forward(
            garcon.Tokens(
                torch.cat([torch.zeros(2, 2, dtype=torch.long), IDS], 1),
                torch.arange(9).expand(2, 9) >= 2,
            ),
            probes=[],
        )
    assert torch.allclose(logits.double(), wanted, atol=2e-4)
    assert torch.allclose(padded[:, 2:].double(), wanted, atol=2e-4)


def test_while_generating_each_step_is_edited(
    model: garcon.RemoteModel, sae: ServedDictionary, plain: PlainModel
) -> None:
    def half(save_ctx, tensor):
        return tensor * 0.5

    probes = [sae.latents.probe(half)]
    cached = model.generate(IDS, max_new_tokens=6, probes=probes, output_logits=True)
    anew = model.generate(IDS, max_new_tokens=6, probes=probes, output_logits=True, use_cache=False)
    assert torch.equal(cached.ids, anew.ids)
    assert torch.allclose(cached.logits, anew.logits, atol=1e-4)
    clean = model.generate(IDS, max_new_tokens=6, probes=[], output_logits=True)
    assert not torch.allclose(cached.logits[1], clean.logits[1], atol=1e-2)


def test_two_at_one_point_are_gone_through_in_turn(
    model: garcon.RemoteModel,
    sae: ServedDictionary,
    files: Path,
    tmp_path: Path,
    width: int,
    plain: PlainModel,
) -> None:
    other = saelens(tmp_path / "other", width, WIDTH, "", seed=7)
    second = model.dictionaries.load(other, "two", HOST)
    one, two = (load(each, dtype=torch.float64) for each in (files, other))
    wanted, _ = plain.changed(BLOCK, lambda stream: two.reconstruction(one.reconstruction(stream)))
    with model.spliced("one", "two", error="none"):
        logits = model.forward(IDS, probes=[])
    assert torch.allclose(logits.double(), wanted, atol=2e-4)
    second.unload()


def test_a_point_of_its_host_is_seen_before_it(
    model: garcon.RemoteModel, sae: ServedDictionary, files: Path
) -> None:
    def doubled(save_ctx, tensor):
        save_ctx.value = tensor * 2
        return tensor * 2

    model.forward(IDS, probes=[model.probe_points[HOST].probe(doubled), sae.latents.probe(save)])
    found = model.recordings()
    wanted = load(files).encode(found[HOST].value)
    assert torch.equal(found[sae.latents.name].value, wanted)


# -- every class of every library --------------------------------------------------------------------


SEVERAL = ("clt", "crosscoder")
"""What reads several points at once: see ``test_several_points.py``."""


@pytest.mark.parametrize("name", [n for n in names() if not any(word in n for word in SEVERAL)])
def test_any_class_is_a_point(narrow: garcon.RemoteModel, name: str) -> None:
    expected = fixtures.expected(name)
    writes = HOST if describe(expected.path).d_out == 16 else "layers.1.mlp.post_activation"
    sae = narrow.dictionaries.load(expected.path, "any", ("layers.1.resid_pre", writes), show=False)
    host = narrow.probe_points["layers.1.resid_pre"]
    wide = expected.x.numel() // 16 // 8
    given = expected.x.reshape(-1, 16)[: wide * 8].view(wide, 8, 16)

    def given_instead(save_ctx, tensor):
        return given

    probes = [host.probe(given_instead), sae.latents.probe(save), sae.reconstruction.probe(save)]
    ids = torch.arange(4, 4 + wide * 8).view(wide, 8) % 60
    clean = narrow.forward(ids, probes=probes[:1])
    assert torch.equal(narrow.forward(ids, probes=probes), clean)
    found = narrow.recordings()
    latents, reconstruction = (found[p.spec.point].value for p in probes[1:])
    if not expected.path.name.startswith(
        "saelens-temporal"
    ):  # which reads texts, and these are others
        want = expected.codes.reshape(-1, latents.shape[-1])[: wide * 8]
        assert torch.allclose(latents.flatten(0, 1), want, atol=1e-5)
        out = expected.reconstruction.reshape(-1, reconstruction.shape[-1])[: wide * 8]
        assert torch.allclose(reconstruction.flatten(0, 1), out, atol=1e-5)
    sae.unload()
