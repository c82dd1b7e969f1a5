"""Twelve inputs that are broken: each one typed error with a remedy, at once, and nothing is kept or run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from garcon_backend.dictionaries import describe, load
from garcon_jupyter import RemoteModel
from garcon_jupyter.dictionaries import check_belongs
from garcon_jupyter.errors import GarconError, NotADictionary, WrongDictionary
from tests.dictionaries.fixtures import copied, expected, root

Break = Callable[[Path], Path]
RUN: list[str] = []
"""What a pickle had run."""


def config(name: str = "cfg.json", **changed: Any) -> Break:
    def break_it(path: Path) -> Path:
        entries = json.loads((path / name).read_text())
        for key, value in changed.items():
            entries.pop(key) if value is None else entries.update({key: value})
        (path / name).write_text(json.dumps(entries))
        return path

    return break_it


def tensors(name: str = "sae_weights.safetensors", **changed: Any) -> Break:
    def break_it(path: Path) -> Path:
        found = load_file(path / name)
        for key, change in changed.items():
            found[key] = change(found[key]).contiguous()
        save_file(found, path / name)
        return path

    return break_it


def without(name: str) -> Break:
    def break_it(path: Path) -> Path:
        (path / name).unlink()
        return path

    return break_it


class Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return RUN.append, ("run",)


def with_code(path: Path) -> Path:
    torch.save(
        {"encoder.weight": Code()},
        path / "ae.pt",
    )
    return path


def of_objects(path: Path) -> Path:
    file = next(path.rglob("params.npz"))
    with np.load(file) as arrays:
        np.savez(file, **dict(arrays) | {"threshold": np.array([Code()], dtype=object)})
    return path


def nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[3] = float("nan")
    return tensor


GEMMA = "gemma_scope/gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_71"
BROKEN: dict[str, tuple[str, Break, str]] = {
    "F mismatched": ("saelens-standard", tensors(b_enc=lambda b: b[:40]), r"W_enc|d_sae.*48.*b_enc \[40\] says 40"),
    "k missing": ("saelens-topk", config(k=None), "lacks k,"),
    "unknown architecture": ("saelens-standard", config(architecture="sigmoid"), "'sigmoid'.*'standard'"),
    "scale not folded": ("saelens-standard", config(normalize_activations="expected_average_only_in"), "never folded"),
    "no configuration": ("sparsify-topk/layers.3", without("cfg.json"), "lacks cfg.json"),
    "a layer missing": ("circuit_tracer-clt-relu", without("W_dec_1.safetensors"), "lacks W_dec_1.safetensors"),
    "code in a pickle": ("dictionary_learning/AutoEncoder/trainer_0", with_code, "would run code"),
    "array of objects": (GEMMA, of_objects, "threshold .*array of objects"),
    "class of training": ("saelens-batchtopk-training", lambda path: path, "save_inference_model"),
    "NaN": ("saelens-standard", tensors(W_dec=nan), "W_dec .*16 values that are not finite"),
}  # fmt: skip
MORE: dict[str, tuple[str, Break, str]] = {
    "norm never measured": ("llama_scope-unset", lambda path: path, r"hook_resid_post is 2.5e\+17"),
    "norm of 0": ("llama_scope-relu", tensors(**{
        "dataset_average_activation_norm.blocks.3.hook_resid_post": torch.zeros_like}), "is 0,"),
    "norm that is no number": ("llama_scope-relu", tensors(**{
        "dataset_average_activation_norm.blocks.3.hook_resid_post": lambda t: t * float("nan")}), "is nan,"),
    "latents of a batch": ("llama_scope-topk", config("config.json", act_fn="batchtopk"), "depend on the batch"),
    "a transcoder that subtracts": ("saelens-transcoder", config(apply_b_dec_to_input=True), "belongs to what it writes"),
    "a scale that no class uses": ("saelens-5-standard", config(finetuning_scaling_factor=True), "finetuning_scaling_factor"),
    "d_in of the configuration": ("saelens-standard", config(d_in=17), "d_in of cfg.json says the number of .* 17"),
    "a tensor that nobody knows": ("saelens-standard", lambda path: (save_file(
        load_file(path / "sae_weights.safetensors") | {"W_gate": torch.ones(3)}, path / "sae_weights.safetensors"), path)[1],
        "holds W_gate"),
    "weights missing": ("saelens-jumprelu", lambda path: (save_file(
        {k: v for k, v in load_file(path / "sae_weights.safetensors").items() if k != "threshold"},
        path / "sae_weights.safetensors"), path)[1], "lacks the tensor threshold"),
    "a skip that is not there": ("gemma_scope_2", config("config.json", affine_connection=True), "contradicts itself"),
    "no JSON": ("saelens-standard", lambda path: ((path / "cfg.json").write_text("{"), path)[1], "is not JSON"),
    "cut short": ("saelens-standard", lambda path: ((path / "sae_weights.safetensors").write_bytes(
        (path / "sae_weights.safetensors").read_bytes()[:999]), path)[1], "cannot be read"),
    "two classes of k": ("sparsify-groupmax/layers.3.mlp", config(k=7), "k = 7 for 48 latents"),
    "k of both": ("dictionary_learning/AutoEncoderTopK/trainer_0", lambda path: config("config.json", trainer={
        **json.loads((path / "config.json").read_text())["trainer"], "k": 9})(path), "contradicts itself"),
    "unknown class": ("dictionary_learning/AutoEncoder/trainer_0", lambda path: config("config.json", trainer={
        **json.loads((path / "config.json").read_text())["trainer"], "dict_class": "IdentityDict"})(path), "IdentityDict"),
}  # fmt: skip


@pytest.mark.parametrize("case", {**BROKEN, **MORE}.items(), ids=lambda case: case[0])
def test_what_is_broken_is_refused_at_once(
    case: tuple[str, tuple[str, Break, str]], tmp_path: Path
) -> None:
    name, break_it, says = case[1]
    broken = break_it(copied(name, tmp_path))
    begun = time.process_time()
    with pytest.raises(NotADictionary) as caught:
        load(broken)
    assert time.process_time() - begun < 1
    assert re.search(says, str(caught.value)), caught.value
    assert caught.value.remedy
    assert not RUN


def test_all_but_a_nan_is_known_before_a_weight_is_read(tmp_path: Path) -> None:
    for number, (name, break_it, _) in enumerate(BROKEN.values()):
        broken = break_it(copied(name, tmp_path / str(number)))
        if "NaN" not in list(BROKEN)[number]:
            with pytest.raises(NotADictionary):
                describe(broken)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"hook_name": "blocks.30.hook_resid_post"},
            "layers.30.resid_post is out of range.*layers 0 to",
        ),
        (
            {"hook_name": "blocks.1.hook_resid_post"},
            "reads 16 numbers of layers.1.resid_post, where this model has",
        ),
    ],
    ids=["hook of another model's depth", "d_in is not D"],
)
def test_a_dictionary_of_another_model_is_refused(
    changed: dict[str, str], says: str, gemma2: RemoteModel, tmp_path: Path
) -> None:
    path = copied("saelens-standard", tmp_path)
    metadata = json.loads((path / "cfg.json").read_text())["metadata"] | changed
    description = describe(config(metadata=metadata)(path))
    begun = time.process_time()
    with pytest.raises(WrongDictionary, match=says) as caught:
        check_belongs(description, gemma2.catalog)
    assert time.process_time() - begun < 1 and "gpt2" in caught.value.remedy


def test_a_folder_of_many_names_them() -> None:
    with pytest.raises(NotADictionary, match="holds 7 folders with one.*trainer_0"):
        load(root() / "dictionary_learning")
    with pytest.raises(NotADictionary, match="Known are SAELens"):
        load(Path(__file__).parent)
    with pytest.raises(NotADictionary, match="There is no"):
        load("/nowhere/at/all")


def test_transcoders_of_all_layers_are_given_one_by_one(tmp_path: Path) -> None:
    path = copied("circuit_tracer-relu/layer_3.safetensors", tmp_path)
    (path.parent / "layer_4.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(NotADictionary, match=r"2 transcoders.*layer_3.safetensors"):
        load(path.parent)
    assert load(path).description.reads[0].point == "layers.3.mlp.in"


def test_every_refusal_is_an_error_of_garcon_and_of_python() -> None:
    for kind in (NotADictionary, WrongDictionary):
        assert issubclass(kind, GarconError) and issubclass(kind, ValueError)


def test_what_writes_with_its_input_asks_for_it() -> None:
    for name in ("saelens-skip_transcoder", "saelens-layer_norm", "saelens-temporal"):
        want = expected(name)
        dictionary = load(want.path)
        with pytest.raises(GarconError, match="what it read"):
            dictionary.decode(dictionary.encode(want.x))
