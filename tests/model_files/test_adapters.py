"""What a launch says of adapters, and what a directory of one may ask for: known before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.errors import BadRequest, NotAnAdapter
from garcon_jupyter.model_files.adapters import named, read_config
from tests.lora import CONFIG


def adapter(directory: Path, weights: str = "adapter_model.safetensors", **config: Any) -> Path:
    """Files of an adapter, as far as they are looked at here."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    (directory / weights).write_bytes(b"")
    return directory


def test_every_way_to_name_adapters(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert named(None) == {} and named([]) == {}
    assert named(one) == named(Path(one)) == named([one]) == {"one": one}
    assert named([one, f"b={two}"]) == {"one": one, "b": two}
    assert named({"a": one, "b": Path(two)}) == {"a": one, "b": two}
    odd = tmp_path / "lr=1e-4"
    odd.mkdir()
    with pytest.raises(BadRequest, match="is no name"):  # it gives no name that can be
        named(odd)
    assert named(f"x={odd}") == {"x": str(odd)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "adapter=5 is no adapter"),
        ([5], "adapter=5 is no directory of an adapter"),
        ({"a": 5}, "adapter=5 is no directory"),
        ({"a b": "x"}, "'a b' is no name of an adapter"),
        (["x/a", "y/a"], "Two adapters are called 'a'"),
        ("", "is no directory of an adapter"),
    ],
)
def test_what_names_none(given: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        named(given)


def test_a_whole_adapter(tmp_path: Path) -> None:
    assert read_config(adapter(tmp_path / "a"))["r"] == CONFIG["r"]
    assert read_config(adapter(tmp_path / "b", "adapter_model.bin", use_dora=True))["use_dora"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "of the kind IA3, and only LORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changed the base model"),
        ({"alora_invocation_tokens": [1, 2]}, r"alora_invocation_tokens=\[1, 2\], which is not"),
        ({"target_parameters": ["experts.w"]}, "target_parameters"),
        ({"trainable_token_indices": [7]}, "trainable_token_indices"),
        ({"a_field_of_a_later_peft": True}, "a_field_of_a_later_peft=True"),
    ],
)
def test_what_is_not_computed_is_refused_by_its_name(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(NotAnAdapter, match=said):
        read_config(adapter(tmp_path, **config))


def test_what_is_none_says_what_it_is(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(NotAnAdapter) as error:
            read_config(path)
        return str(error.value)

    assert "does not exist" in refusal(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(tmp_path / "file")
    assert "has no adapter_config.json" in refusal(tmp_path)
    inner = adapter(tmp_path / "checkpoint-500")
    assert f"holds 1 of them. Give one: {inner}" in refusal(tmp_path)
    (inner / "adapter_model.safetensors").unlink()
    assert "but no weights" in refusal(inner)
    (inner / "adapter_config.json").write_text("{")
    assert "is not JSON" in refusal(inner)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert "holds a whole model" in refusal(model)


def test_a_launch_refuses_it_before_anything_is_begun(llama_path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAnAdapter, match="does not exist"):
        garcon.launch(llama_path, name="never", adapter=tmp_path / "none")
    with pytest.raises(BadRequest, match="no adapter"):
        garcon.launch(llama_path, name="never", adapter=5)  # type: ignore[arg-type]
