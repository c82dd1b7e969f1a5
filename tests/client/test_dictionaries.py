"""Dictionaries on a server, as a client has them: loaded, refused, gone through, fitted, let go of."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import garcon_jupyter as garcon
from garcon_backend.dictionaries import describe, load
from garcon_backend.in_process import open_here
from garcon_jupyter import recorders
from garcon_jupyter.errors import (
    BadRequest,
    GarconError,
    NotADictionary,
    PointUnavailable,
    UnclearPoint,
    UnknownName,
    UnknownPoint,
    WrongDictionary,
)
from garcon_jupyter.wire import protocol
from tests import checkpoints
from tests.dictionaries.fixtures import root
from tests.dictionaries.making import saelens

HOOK = "blocks.1.hook_resid_post"
ROWS = [
    torch.randint(4, 60, (11,), generator=torch.Generator().manual_seed(s)).tolist()
    for s in range(12)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[garcon.RemoteModel]:
    path = checkpoints.make("llama", tmp_path_factory.mktemp("llama"))
    found = garcon.connect(open_here(path))
    yield found
    found.close()


@pytest.fixture(scope="module")
def width(model: garcon.RemoteModel) -> int:
    return model.catalog.sizes["D"]


@pytest.fixture
def files(tmp_path: Path, width: int) -> Path:
    return saelens(tmp_path / "wide-64", width, 64, HOOK)


@pytest.fixture(autouse=True)
def _none_is_left(model: garcon.RemoteModel) -> Iterator[None]:
    yield
    for name in list(model.dictionaries):
        model.dictionaries.unload(name)


def test_a_dictionary_has_the_name_of_its_folder(
    model: garcon.RemoteModel, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = model.dictionaries.load(files)
    assert sae.name == "wide-64"
    assert "f = relu(pre), pre = (x - b_dec) W_enc + b_enc" in capsys.readouterr().out
    assert sae.latents.name == "layers.1.resid_post.sae.wide-64.latents"
    assert sae.latents.shape == ("b", "p", 64)
    assert sae.points.nbytes == load(files).nbytes
    assert "wide-64" in model.dictionaries
    assert repr(sae).startswith("<dictionary wide-64: 64 latents at layers.1.resid_post")
    again = model.dictionaries.load(files)
    assert (again.points.reads, len(model.dictionaries)) == ("layers.1.resid_post", 1)
    assert capsys.readouterr().out == ""


def test_names_complete_and_are_selected(model: garcon.RemoteModel, files: Path) -> None:
    sae = model.dictionaries.load(files, "one")
    model.dictionaries.load(files, "two")
    assert sae.latents.name in model.probe_points._ipython_key_completions_()
    chosen = model.probe_points["layers.*.resid_post.sae.*.latents"]
    assert [a.dictionary for a in chosen.addresses] == ["one", "two"]
    # A pattern of the model's own points selects none of them.
    assert len(model.probe_points["layers.*.resid_post"].addresses) == model.catalog.n_layers


def test_whoever_connects_later_has_it(model: garcon.RemoteModel, files: Path) -> None:
    sae = model.dictionaries.load(files, "one")
    other = garcon.connect(model.server)
    assert other.dictionaries["one"].points.reads == sae.points.reads
    other.close()


def test_whoever_is_connected_already_asks_for_a_name_that_he_does_not_know(
    model: garcon.RemoteModel, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = garcon.connect(model.server)
    asked: list[str] = []
    ask = other._channel.ask

    def counted(kind: str, *more: Any) -> Any:
        asked.append(kind)
        return ask(kind, *more)

    monkeypatch.setattr(other._channel, "ask", counted)
    sae = model.dictionaries.load(files, "later")
    assert other.probe_points[sae.latents.name].shape == ("b", "p", 64)
    assert asked == [protocol.DICTIONARIES]
    assert other.dictionaries["later"].points == sae.points
    with other.spliced("later"):
        other.forward(ROWS[:1], probes=[])
    assert asked == [protocol.DICTIONARIES]  # what is known is not asked for again
    second = model.dictionaries.load(files, "second")
    chosen = other.probe_points["layers.*.resid_post.sae.second.latents"]
    assert [address.name for address in chosen.addresses] == [second.latents.name]
    assert asked == [protocol.DICTIONARIES] * 2
    with pytest.raises(UnknownPoint, match="those that are: later, second"):
        other.probe_points["layers.1.resid_post.sae.third.latents"]
    assert asked == [protocol.DICTIONARIES] * 3
    with pytest.raises(UnknownName, match="third"), other.spliced("third"):
        pass
    for name in ("later", "second"):
        model.dictionaries.unload(name)
    assert list(other.dictionaries) == [] and "no dictionary" in repr(other.dictionaries)
    model.dictionaries.load(files, "third")
    assert "layers.1.resid_post.sae.third.latents" in other.probe_points._ipython_key_completions_()
    model.dictionaries.load(files, "fourth")
    assert other.dictionaries._ipython_key_completions_() == ["third", "fourth"]
    other.close()
    assert pickle.loads(pickle.dumps(other.catalog)).dictionaries.keys() == {"third", "fourth"}
    with pytest.raises(UnknownPoint, match="fifth"):  # nobody is there to ask
        other.probe_points["layers.1.resid_post.sae.fifth.latents"]


def test_loading_what_another_has_loaded_is_told_as_new(
    model: garcon.RemoteModel, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = garcon.connect(model.server)
    model.dictionaries.load(files, "shared", show=False)
    other.dictionaries.load(files, "shared")
    assert "shared: SAELens standard" in capsys.readouterr().out
    other.close()


def test_what_it_was_not_trained_on_goes_past_by_default(
    model: garcon.RemoteModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = saelens(tmp_path / "later", model.catalog.sizes["D"], 32, "blocks.1.hook_resid_post")
    whole = model.dictionaries.load(files, "whole")
    assert (
        "not trained on" not in capsys.readouterr().out and "by" not in repr(whole).split(";")[-1]
    )
    config = json.loads((files / "cfg.json").read_text())
    config["metadata"]["exclude_special_tokens"] = True
    (files / "cfg.json").write_text(json.dumps(config))
    later = model.dictionaries.load(files, "later")
    assert "It was not trained on position 0 of a text" in capsys.readouterr().out
    assert repr(later).endswith("; splices let position 0 by>")
    found = {}
    for name, bypass in (("later", None), ("later", []), ("whole", None), ("whole", [0])):
        with model.spliced(name, error="none", bypass=bypass):
            found[name, str(bypass)] = model.forward(ROWS, probes=[])
    assert torch.equal(found["later", "None"], found["whole", "[0]"])
    assert torch.equal(found["later", "[]"], found["whole", "None"])
    assert not torch.allclose(found["later", "None"], found["later", "[]"], atol=1e-2)


def test_unload_lets_go(model: garcon.RemoteModel, files: Path) -> None:
    sae = model.dictionaries.load(files, "one")
    probe = sae.latents.probe(lambda save_ctx, tensor: None)
    sae.unload()
    assert not model.dictionaries
    with pytest.raises(UnknownPoint, match="No dictionary 'one' is loaded"):
        model.forward([[5, 6]], probes=[probe])
    with pytest.raises(UnknownName, match="There is no dictionary 'one'"):
        model.dictionaries.unload("one")


def test_recorders_and_runs_take_latents(model: garcon.RemoteModel, files: Path) -> None:
    sae = model.dictionaries.load(files, "one")
    host = model.probe_points["layers.1.resid_post"]
    model.run(ROWS, [sae.latents.probe(recorders.TopK(3)), host.probe(recorders.Moments())])
    best = model.recordings()[sae.latents.name].topk.values

    def keep(save_ctx, tensor):
        save_ctx.value = tensor

    model.forward(ROWS, probes=[host.probe(keep, name="values")])
    latents = load(files).encode(model.recordings()[host.name, "values"].value)
    wanted = latents.flatten(0, 1).T.topk(3).values
    assert torch.allclose(best, wanted, atol=1e-5)


def test_an_atlas_of_latents(model: garcon.RemoteModel, files: Path, tmp_path: Path) -> None:
    sae = model.dictionaries.load(files, "one")
    atlas = model.atlas(sae.latents.name, ROWS, tmp_path / "atlas")
    assert len(atlas) == 64
    best = [record.examples[0].value if record.examples else 0.0 for record in atlas]
    # Of latents that are off everywhere there is no example with a value.
    model.run(ROWS, [sae.latents.probe(recorders.TopK(1))])
    wanted = model.recordings()[sae.latents.name].topk.values[:, 0].tolist()
    assert best == pytest.approx(wanted, rel=2e-3, abs=1e-6)


# -- where it belongs ------------------------------------------------------------------------------


def planted(folder: Path, values: torch.Tensor, hook: str) -> Path:
    """A dictionary that explains these values [n, D] well, and others not at all: their principal directions, both signs."""
    mean, n = values.mean(0), 12
    directions = torch.linalg.svd(values - mean, full_matrices=False).Vh[:n]
    both = torch.cat([directions, -directions])
    path = saelens(folder, values.shape[1], 2 * n, hook)
    tensors = load_file(path / "sae_weights.safetensors")
    tensors |= {
        "W_enc": both.T.contiguous(),
        "b_enc": torch.zeros(2 * n),
        "W_dec": both.contiguous(),
    }
    save_file(tensors | {"b_dec": mean.contiguous()}, path / "sae_weights.safetensors")
    return path


def test_fit_finds_the_point(model: garcon.RemoteModel, tmp_path: Path) -> None:
    def keep(save_ctx, tensor):
        save_ctx.value = tensor

    host = "layers.1.mlp.contribution"
    model.forward(ROWS, probes=[model.probe_points[host].probe(keep)])
    values = model.recordings()[host].value
    path = planted(tmp_path / "planted", values.flatten(0, 1), "blocks.1.hook_resid_post")
    sae = model.dictionaries.load(path)
    fits = sae.fit(ROWS)
    assert fits[0].reads in (host, "layers.1.mlp.out")  # the same in this architecture
    own = next(fit for fit in fits if fit.reads == "layers.1.resid_post")
    assert own.unexplained > 2 * fits[0].unexplained
    dictionary = load(path, dtype=torch.float64)
    for tokens, found in ((values, fits[0].unexplained), (values[:, 1:], fits[0].without_first)):
        x = tokens.flatten(0, 1).double()
        lacks, spread = dictionary.error(x).pow(2).sum(), (x - x.mean(0)).pow(2).sum()
        assert found == pytest.approx(float(lacks / spread), rel=1e-4)
    assert "UNEXPLAINED" in repr(fits)
    assert [*model.dictionaries] == ["planted"]
    assert {fit.reads for fit in model.dictionaries.fit(path, ROWS, [host])} == {host}


# -- refusals --------------------------------------------------------------------------------------


def without(path: Path, *keys: str) -> Path:
    config = json.loads((path / "cfg.json").read_text())
    (path / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if k not in keys}))
    return path


def not_finite(path: Path) -> Path:
    tensors = load_file(path / "sae_weights.safetensors")
    tensors["W_enc"][3, 4] = float("nan")
    save_file(tensors, path / "sae_weights.safetensors")
    return path


@pytest.mark.parametrize(
    ("broken", "error", "says"),
    [
        (lambda t, d: t / "nowhere", NotADictionary, "There is no"),
        (
            lambda t, d: without(saelens(t / "a", d, 32, HOOK, "topk", k=4), "k"),
            NotADictionary,
            "k",
        ),
        (lambda t, d: saelens(t / "a", d, 32, HOOK, "of_tomorrow"), NotADictionary, "of_tomorrow"),
        (
            lambda t, d: saelens(
                t / "a", d, 32, HOOK, normalize_activations="expected_average_only_in"
            ),
            NotADictionary,
            "expected_average_only_in",
        ),
        (lambda t, d: saelens(t / "a", d, 32, "blocks.99.hook_resid_post"), WrongDictionary, "99"),
        (lambda t, d: saelens(t / "a", d + 2, 32, HOOK), WrongDictionary, "numbers"),
        (lambda t, d: saelens(t / "a", d, 32, ""), UnclearPoint, "at="),
        (lambda t, d: not_finite(saelens(t / "a", d, 32, HOOK)), NotADictionary, "not finite"),
    ],
    ids=["path", "no-k", "architecture", "unfolded", "depth", "width", "nowhere", "nan"],
)
def test_what_cannot_be_loaded_leaves_nothing(
    model: garcon.RemoteModel, tmp_path: Path, width: int, broken, error, says: str
) -> None:
    path = broken(tmp_path, width)
    began = time.monotonic()
    with pytest.raises(error, match=says) as raised:
        model.dictionaries.load(path)
    assert time.monotonic() - began < 1
    assert raised.value.remedy
    assert not model.dictionaries


@pytest.mark.parametrize("kind", ["crosscoder", "cross-layer"])
def test_dictionaries_of_several_points_are_refused(model: garcon.RemoteModel, kind: str) -> None:
    names = {"crosscoder": "llama_scope-crosscoder", "cross-layer": "circuit_tracer-clt-relu"}
    path = root() / names[kind]
    with pytest.raises(GarconError):
        model.dictionaries.load(path, "several", "layers.1.resid_post")
    assert not model.dictionaries


def test_names_and_words_are_checked(
    model: garcon.RemoteModel, files: Path, tmp_path: Path, width: int
) -> None:
    with pytest.raises(BadRequest, match=r"'a\.b' is no name"):
        model.dictionaries.load(files, "a.b")
    sae = model.dictionaries.load(files, "one")
    with pytest.raises(BadRequest, match="'one' is loaded already"):
        model.dictionaries.load(saelens(tmp_path / "other", width, 32, HOOK), "one")
    with pytest.raises(UnknownPoint, match="reads layers.1.resid_post, not layers.0"):
        model.probe_points["layers.0.resid_post.sae.one.latents"]
    with pytest.raises(UnknownPoint):
        sae.point("latent")
    with pytest.raises(BadRequest, match="error='dead'"), model.spliced("one", error="dead"):
        pass
    with pytest.raises(UnknownName, match="oen"), model.spliced("oen"):
        pass
    with pytest.raises(BadRequest, match="bypass"), model.spliced("one", bypass=[-1]):
        pass


def test_one_that_reads_whole_texts_is_refused_while_generating(
    model: garcon.RemoteModel, tmp_path: Path
) -> None:
    path = root() / "saelens-temporal"
    told = describe(path)
    small = garcon.connect(
        open_here(
            checkpoints.make(
                "llama", tmp_path / "m", hidden_size=told.d_in, head_dim=8, num_attention_heads=2
            )
        )
    )
    sae = small.dictionaries.load(path, "temporal", "layers.1.resid_post")
    probe = sae.latents.probe(lambda save_ctx, tensor: tensor * 0)
    clean = small.forward([[5, 6, 7]], probes=[])
    with small.spliced("temporal"):
        assert torch.equal(small.forward([[5, 6, 7]], probes=[]), clean)
    assert not torch.allclose(small.forward([[5, 6, 7]], probes=[probe]), clean)
    with pytest.raises(PointUnavailable, match="use_cache=False"):
        small.generate([[5, 6, 7]], max_new_tokens=2, probes=[probe])
    small.generate([[5, 6, 7]], max_new_tokens=2, probes=[probe], use_cache=False)
    small.close()
