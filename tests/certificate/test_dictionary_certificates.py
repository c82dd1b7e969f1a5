"""Certificates of models beside which dictionaries are loaded: they hold, and each of many faults of a dictionary is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.dictionaries import Dictionary
from garcon_backend.probing.dictionary_visits import DictionaryVisits
from garcon_backend.probing.loaded_dictionaries import LoadedDictionaries, LoadedDictionary
from garcon_jupyter.certificate.dictionary_identities import DICTIONARY_IDENTITIES
from garcon_jupyter.certificate.result import Certificate
from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.points.dictionary_points import PARTS
from garcon_jupyter.wire.requests import Splice
from tests import checkpoints
from tests.certificate.faults import Loaded
from tests.dictionaries.fixtures import expected, root
from tests.dictionaries.making import cross_layer, saelens

D = 48
HOOK, MID, OUT = "blocks.1.hook_resid_post", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
TRANSCODES = {"metadata": {"sae_lens_version": "6.54.12", "hook_name": MID, "hook_name_out": OUT}}
KINDS: dict[str, dict[str, Any]] = {
    "standard": {},
    "topk": {"k": 5},
    "abstopk": {"k": 5},
    "over_norms": {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {},
    "standardised": {"architecture": "standard", "normalize_activations": "layer_norm"},
    "skip_transcoder": {"hook": MID, **TRANSCODES},
    "jumprelu_transcoder": {"hook": MID, **TRANSCODES},
}


def files(folder: Path, kind: str, width: int = 96) -> Path:
    options = {"architecture": kind, "hook": HOOK} | KINDS[kind]
    return saelens(folder / kind, D, width, options.pop("hook"), **options)


def rows_of(certificate: Certificate, name: str) -> dict[str, Any]:
    """The rows of a dictionary by the last word of the point."""
    mark = f".sae.{name}."
    return {row.name.rpartition(".")[2]: row for row in certificate.rows if mark in row.name}


def test_each_point_of_a_dictionary_has_an_identity() -> None:
    assert list(DICTIONARY_IDENTITIES) == [part.word for part in PARTS]


def test_dictionaries_are_certified_with_the_model(
    either: garcon.RemoteModel, tmp_path: Path
) -> None:
    """On one rank, and cut by latent over two, where what ranks put together must fit the files."""
    before = either.certify()
    try:
        for kind in KINDS:
            either.dictionaries.load(files(tmp_path, kind), name=kind, show=False)
        certificate = either.certify()
        assert certificate.holds, [*certificate.broken()]
        assert certificate.id != before.id and either.certify().id == certificate.id
        for kind in KINDS:
            rows = rows_of(certificate, kind)
            assert list(rows) == [part.word for part in PARTS]
            assert all(row.value.held is True for row in rows.values())
            assert rows["latents"].edit.held is True
            assert all(rows[word].gradient.held for word in ("latents", "reconstruction", "error"))
            assert sum(name.startswith(f"dictionary {kind}: ") for name in certificate.checks) == 3
        again = Certificate.of_json(certificate.as_json())
        assert again.id == certificate.id and "topk" in repr([row.name for row in again.rows])
    finally:
        for name in list(either.dictionaries):
            either.dictionaries.unload(name)
    assert not any(".sae." in row.name for row in either.certify().rows)


FIXTURES = ("saelens-gated", "sparsify-groupmax/layers.3.mlp", "saelens-matching_pursuit", "llama_scope-glu", "gemma_scope_2-transcoder", "openai-topk/v5_32k/layer_3/resid_post_mlp")  # fmt: skip


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[garcon.RemoteModel]:
    """A model whose stream has the 16 numbers that fixtures have."""
    from garcon_backend.in_process import open_here

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}  # fmt: skip
    path = checkpoints.make("llama", tmp_path_factory.mktemp("narrow"), **sizes)
    model = garcon.connect(open_here(path))
    yield model
    model.close()


@pytest.mark.parametrize("name", [name for name in FIXTURES if (root() / name).exists()])
def test_files_of_other_libraries(narrow: garcon.RemoteModel, name: str) -> None:
    place = "layers.1.resid_post"
    transcodes = expected(name).reconstruction.shape != expected(name).x.shape or "trans" in name
    at = ("layers.1.resid_mid", "layers.1.mlp.contribution") if transcodes else place
    narrow.dictionaries.load(expected(name).path, name="other", at=at, show=False)
    try:
        certificate = narrow.certify()
        assert certificate.holds, [*certificate.broken()]
        rows = rows_of(certificate, "other")
        uncovered = {word for word, row in rows.items() if row.value.held is None}
        assert uncovered == ({"latents"} if "pursuit" in name else set())
    finally:
        narrow.dictionaries.unload("other")


# -- faults ----------------------------------------------------------------------------------------

Fault = Callable[[Dictionary, pytest.MonkeyPatch], None]


def held(dictionary: Dictionary, name: str, new: Callable[[Tensor], Tensor]) -> None:
    """Another tensor in the place of one that a rank holds."""
    value = new(dictionary.tensors[name].clone()).contiguous()
    dictionary.tensors[name] = value
    if hasattr(dictionary, name):
        setattr(dictionary, name, value)


def tensor(name: str, new: Callable[[Tensor], Tensor]) -> Fault:
    return lambda dictionary, patch: held(dictionary, name, new)


def scaled_row(value: Tensor) -> Tensor:
    value[7] *= 1.5
    return value


def swapped_rows(value: Tensor) -> Tensor:
    value[[3, 7]] = value[[7, 3]]
    return value


def method(name: str, new: Any) -> Fault:
    """Another method in a pass."""
    return lambda dictionary, patch: patch.setattr(DictionaryVisits, name, new)


def computing(name: str, new: Callable[[Any], Any]) -> Fault:
    """Another method of the dictionary; `new` is given the right one."""
    return lambda dictionary, patch: patch.setattr(dictionary, name, new(getattr(dictionary, name)))


_write, _rebuilt, _change = (
    getattr(DictionaryVisits, name) for name in ("_write", "_rebuilt", "_change")
)
_visited = DictionaryVisits._visited


def without_error(visits: Any, value: Tensor) -> Any:
    """The model goes on with the reconstruction."""
    visits._splice = Splice(visits._loaded.points.name, "none")
    return _write(visits, value)


def error_shown(changed: Callable[[Tensor], Tensor]) -> Fault:
    def visited(visits: Any, word: str, value: Tensor) -> Any:
        return _visited(visits, word, changed(value) if word == "error" else value)

    return method("_visited", visited)


def usual_order(visits: Any, value: Tensor) -> Any:
    """The error is added to the reconstruction, which rounds."""
    rebuilt = visits._decoded(visits._after)
    return _write(visits, value) if visits._edited else rebuilt + (value - rebuilt)


def other_k(dictionary: Dictionary, patch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    activation = replace(dictionary.form.activation, k=dictionary.form.activation.k + 1)
    dictionary.form = replace(dictionary.form, activation=activation)


FAULTS: dict[str, tuple[str, Fault]] = {
    "a latent's encoder is scaled": ("standard", tensor("encoder", scaled_row)),
    "a latent's decoder is scaled": ("standard", tensor("decoder", scaled_row)),
    "a latent is scaled": ("topk", computing("activated", lambda right: lambda pre: right(pre) * 1.01)),
    "the encoder is transposed": ("standard", tensor("encoder", lambda w: w.T)),
    "the decoder is transposed": ("standard", tensor("decoder", lambda w: w.T)),
    "two rows of the decoder are swapped": ("standard", tensor("decoder", swapped_rows)),
    "rows of the decoder are one too far": ("standard", tensor("decoder", lambda w: w.roll(1, 0))),
    "latents of another rank": ("standard", tensor("encoder", lambda w: w.roll(24, 0))),
    "the encoder's bias is dropped": ("standard", tensor("encoder_bias", lambda b: b * 0)),
    "the output's bias is dropped": ("skip_transcoder", tensor("output_bias", lambda b: b * 0)),
    "the bias that is subtracted is dropped": ("standard", computing("_z", lambda right: lambda x: x)),
    "the skip is dropped": ("skip_transcoder", tensor("skip", lambda w: w * 0)),
    "the skip is transposed": ("skip_transcoder", tensor("skip", lambda w: w.T)),
    "the threshold is another": ("jumprelu", tensor("threshold", lambda t: t + 0.5)),
    "one more passes": ("topk", other_k),
    "what passes is not rectified": ("standard", computing("activated", lambda right: lambda pre: pre)),
    "norms are left out": ("standardised", computing("finished", lambda right: lambda y, x=None: y)),
    "the error is lost in the pass": ("standard", method("_write", without_error)),
    "the error is shown as nothing": ("standard", error_shown(lambda error: error * 0)),
    "the error is shown negated": ("standard", error_shown(lambda error: -error)),
    "the error is added as usual": ("standard", method("_write", usual_order)),
    "an edit is lost": ("standard", method("_change", lambda visits: _change(visits) * 0)),
    "an edit is doubled": ("standard", method("_change", lambda visits: _change(visits) * 2)),
    "an edit is negated": ("standard", method("_change", lambda visits: -_change(visits))),
    "gradients are cut": ("standard", computing("written", lambda right: lambda latents: right(latents.detach()))),
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(checkpoints.make("llama", tmp_path_factory.mktemp("spoilt"), num_hidden_layers=2))


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(
    loaded: Loaded, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, fault = FAULTS[name]
    model = garcon.connect(loaded.through())
    here: list[LoadedDictionary] = []
    put = LoadedDictionaries.put
    monkeypatch.setattr(
        LoadedDictionaries, "put", lambda self, one: put(self, one) or here.append(one)
    )
    model.dictionaries.load(files(tmp_path, kind, width=D), name="one", show=False)
    dictionary = here[0].here
    assert dictionary is not None
    fault(dictionary, monkeypatch)
    certificate = model.certify()
    found = [(what, column) for what, _, column, _ in certificate.broken()]
    model.close()
    assert found, "not found"
    assert all(".sae.one." in what or what.startswith("dictionary one:") for what, _ in found)


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in FAULTS.values()}))
def test_without_a_fault_nothing_is_found(loaded: Loaded, kind: str, tmp_path: Path) -> None:
    model = garcon.connect(loaded.through())
    model.dictionaries.load(files(tmp_path, kind, width=D), name="one", show=False)
    assert model.certify().holds
    model.close()


def test_weights_are_those_of_the_files(either: garcon.RemoteModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = files(tmp_path, "topk")
    sae = either.dictionaries.load(path, name="one", show=False)
    stored = load_file(path / "sae_weights.safetensors")
    try:
        assert torch.equal(sae.weight("decoder"), stored["W_dec"])
        assert torch.equal(sae.weight("encoder", 5, 9), stored["W_enc"].T[5:9])
        assert torch.equal(sae.weight("output_bias"), stored["b_dec"])
        assert sae.description.form.activation.k == 5
        with pytest.raises(UnknownName, match="decoder"):
            sae.weight("decodr")
        with pytest.raises(BadRequest, match="are none of 96"):
            sae.weight("decoder", 90, 97)
    finally:
        sae.unload()
    with pytest.raises(UnknownName, match="one"):
        sae.weight("decoder")


def test_of_several_points_the_sum_is_held(either: garcon.RemoteModel, tmp_path: Path) -> None:
    """At each point that a cross-layer transcoder writes, reconstruction and error are the value; the rest is said not to be held."""
    width, layers = either.catalog.sizes["D"], either.catalog.n_layers
    path = cross_layer(tmp_path / "clt", width, 24, layers)
    either.dictionaries.load(path, name="clt", show=False)
    try:
        certificate = either.certify()
        assert certificate.holds, [*certificate.broken()]
        rows = [row for row in certificate.rows if ".sae.clt." in row.name]
        held = [row.name for row in rows if row.value.held]
        assert len(held) == layers and all(name.endswith(".error") for name in held)
        assert {row.value.says for row in rows if row.value.held is None} == {
            "what several points make is not computed here"
        }
    finally:
        either.dictionaries.unload("clt")
