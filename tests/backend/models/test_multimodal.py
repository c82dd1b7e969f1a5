"""Models that read images beside text: their text part is that of the model alone, and images are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from garcon_backend.models import loading
from garcon_backend.models.config import read_config
from garcon_backend.models.fit import check_degrees, needed_bytes, tensor_bytes
from garcon_backend.models.pipeline_parallel import find_layers
from garcon_jupyter.errors import (
    BadDegrees,
    BadRequest,
    BadTokens,
    MissingModule,
    NotAModel,
    PointUnavailable,
)
from garcon_jupyter.model_files.degrees import possible_tp
from garcon_jupyter.model_files.multimodal import WRAPPERS, placeholders, text_config
from garcon_jupyter.model_files.snapshots import check_architecture
from garcon_jupyter.wire.launch_spec import Degrees
from tests import by_hand, checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK, NO_PLAN, apart
from tests.multimodal import TEXT_PARTS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each."""
    folder = tmp_path_factory.mktemp("multimodal")
    return {name: checkpoints.make(name, folder / name) for name in checkpoints.MULTIMODAL}


@pytest.fixture(scope="module")
def gemma(made: dict[str, Path]) -> BareRank:
    return BareRank(made["gemma3"])


# -- the text part ---------------------------------------------------------------------------


def test_the_text_part_is_the_model_alone(made: dict[str, Path], gemma: BareRank) -> None:
    """The same weights in the class for text alone: same logits, though that one has other masks and other names."""
    whole: Any = checkpoints.auto_class("gemma3").from_pretrained(made["gemma3"])
    alone: Any = AutoModelForCausalLM.from_config(
        whole.config.text_config, attn_implementation="eager"
    )
    alone.model.load_state_dict(whole.model.language_model.state_dict())
    alone.lm_head.load_state_dict(whole.lm_head.state_dict())
    positions = (MASK.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = alone(IDS, attention_mask=MASK, position_ids=positions).logits
    seen = MASK[:, :, None]
    assert apart(gemma.forward(IDS, MASK) * seen, logits * seen) <= 1e-5


def test_layers_are_those_that_read_text(gemma: BareRank) -> None:
    """There are as many in the other part, and they come first."""
    holder, name = find_layers(gemma.model)
    assert getattr(holder, name) is gemma.model.get_submodule("model.language_model.layers")
    assert gemma.catalog.n_layers == 4


def test_only_the_text_part_attends_by_the_houses_function(gemma: BareRank) -> None:
    model: Any = gemma.model
    assert model.config.text_config._attn_implementation == "garcon"
    assert model.config.vision_config._attn_implementation != "garcon"


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llama4", "gemma4"])
def test_a_generation_leaves_no_positions_behind(name: str, made: dict[str, Path]) -> None:
    """The model itself notes by how much positions of images differ, for all rows of the last generation."""
    ours = BareRank(made[name])
    before = ours.forward(IDS[:, :6])
    plain: Any = checkpoints.auto_class(name).from_pretrained(made[name]).eval()
    asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 2}
    theirs = plain.generate(IDS, attention_mask=MASK.flip(1), **asked)
    found = ours.generated(IDS, MASK.flip(1), max_new_tokens=6)
    assert found is not None and torch.equal(found.ids, theirs)
    assert apart(ours.forward(IDS[:1, :6]), before[:1]) <= 1e-5


@pytest.mark.parametrize("name", TEXT_PARTS)
def test_generations_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """With keys that layers share, chunks, and layers that transformers leaves positions out of."""
    ours = BareRank(checkpoints.make(name, tmp_path))
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 2}
    theirs = plain.eval().generate(IDS, attention_mask=MASK.flip(1), **asked)
    found = ours.generated(IDS, MASK.flip(1), max_new_tokens=8)
    assert found is not None and torch.equal(found.ids, theirs)


def test_a_tokenizer_is_found_beside_the_wrapper(made: dict[str, Path]) -> None:
    tokenizer = loading.load_tokenizer(made["gemma3"])
    assert tokenizer is not None and tokenizer.decode(tokenizer("Paris")["input_ids"]) == "Paris"


def test_a_family_that_is_not_mapped_yet_is_loaded_by_its_own_class(tmp_path: Path) -> None:
    """Its text part attends as transformers has it, and its modules have names."""
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    eyes = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
    config = AutoConfig.for_model(
        "qwen3_5", text_config=text, vision_config={**eyes, "out_hidden_size": 32}
    )
    plain = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    plain.save_pretrained(tmp_path)
    ours, ids = BareRank(tmp_path), torch.arange(10).view(2, 5)
    assert type(ours.model) is type(plain)
    with torch.no_grad():
        assert apart(ours.forward(ids), plain(ids).logits) <= 1e-5


def test_columns_of_a_long_text_scale_queries_of_llama_4(tmp_path: Path) -> None:
    """In layers without positions, beyond so many tokens; what attention is given has that scale."""
    config = {"floor_scale": 2, "attn_scale": 0.7}
    ours = BareRank(checkpoints.make("llama4_text", tmp_path, **config))
    theirs = by_hand.by_hand("llama4_text", tmp_path).run(IDS)
    names = ["layers.3.attn.q", "layers.3.attn.q_rot", "logits"]
    values = ours.values(IDS, None, names)
    assert all(apart(values[name], theirs.values[name]) <= 1e-5 for name in names)
    assert apart(values[names[1]], values[names[0]]) > 0.1
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    with torch.no_grad():
        assert apart(values["logits"], plain(IDS).logits) <= 1e-5


@pytest.mark.parametrize("name", ["gemma4_text", "gemma3n_text"])
def test_keys_that_later_layers_share_are_changed_for_all(name: str, tmp_path: Path) -> None:
    """In a forward as in a generation, where they come from the cache; and all positions of a prompt are seen."""
    ours = BareRank(checkpoints.make(name, tmp_path))
    with pytest.raises(PointUnavailable):
        ours.catalog.point("layers.3.attn.k_rot")
    point = "layers.1.attn.k_rot"
    at_once = ours.forward(IDS, None, {point: lambda keys: keys * 0.3})
    shapes: list[tuple[int, ...]] = []

    def less(context: Any, keys: torch.Tensor) -> torch.Tensor:
        return keys * 0.3

    def note(context: Any, value: torch.Tensor) -> None:
        shapes.append(tuple(value.shape[:2]))

    probes = {point: less, "layers.3.mlp.in": note}
    found = ours.generated(IDS, None, probes, max_new_tokens=2, output_logits=True)
    assert found is not None and found.logits is not None
    assert apart(found.logits[0], at_once[:, -1]) <= 1e-5
    assert shapes == [(2, 9), (2, 1)]


def test_what_few_neurons_depends_on_all_is_not_cut(tmp_path: Path) -> None:
    """Gemma 3n cuts off what is below a share of all that a gate puts out: half of a layer has another share."""
    config = read_config(checkpoints.make("gemma3n_text", tmp_path))
    assert possible_tp(config) == [1]
    with pytest.raises(BadDegrees, match="There is no plan to cut 'gemma3n_text'"):
        check_degrees(config, Degrees(2))


def test_experts_that_are_turned_round_while_they_are_read_are_not_cut(
    made: dict[str, Path],
) -> None:
    with pytest.raises(BadDegrees, match="There is no plan to cut 'qwen3_vl_moe'"):
        check_degrees(read_config(made["qwen3_vl_moe"]), Degrees(2))


def test_a_package_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3n"}))
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingModule, match="is built by timm and PIL, which cannot be imported"):
        BareRank(tmp_path)


# -- images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", checkpoints.MULTIMODAL)
def test_a_token_in_the_place_of_an_image_is_refused(name: str, made: dict[str, Path]) -> None:
    config = read_config(made[name])
    ours, found = BareRank(made[name]), placeholders(config)
    assert "image" in found.values()
    for token, kind in found.items():
        ids = IDS.clone()
        ids[0, 3] = token
        with pytest.raises(BadTokens, match=f"Token {token} stands for a piece of an? {kind}"):
            ours.forward(ids)
        ids[0, 3], ids[1, 8] = 5, token  # as padding it stands for nothing
        ours.forward(ids, MASK)


def test_pixels_are_refused(gemma: BareRank) -> None:
    with pytest.raises(BadRequest, match="takes no pixel_values: it is not text"):
        gemma.generated(IDS, None, pixel_values=torch.zeros(1, 3, 28, 28))


def test_a_probe_on_what_sees_images_says_why_it_never_ran(
    gemma: BareRank, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "model.vision_tower.encoder.layers.0.mlp"
    assert gemma.values(IDS, None, [f"module:{path}.output"]) == {}
    [why] = gemma.rank.contexts.silent("test").values()
    assert "it is no part of what reads text, and a served model is given text alone" in why


# -- what can be loaded ----------------------------------------------------------------------


def test_a_wrapper_that_nothing_is_known_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(NotAModel, match="'llava' is a multimodal model"):
        read_config(tmp_path)


def test_all_that_are_declared_pass_the_notebooks_check(tmp_path: Path) -> None:
    for kind in WRAPPERS:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        check_architecture(tmp_path)


# -- degrees and memory ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in checkpoints.MULTIMODAL if n not in NO_PLAN])
def test_degrees_are_those_of_the_text_part(name: str, made: dict[str, Path]) -> None:
    config = read_config(made[name])
    assert possible_tp(config)[:2] == [1, 2]
    check_degrees(config, Degrees(2, 2))
    with pytest.raises(BadDegrees, match="it has 4 heads, 2 key/value heads and .*80 neurons"):
        check_degrees(config, Degrees(3))
    with pytest.raises(BadDegrees, match="than the model has layers, 4"):
        check_degrees(config, Degrees(1, 5))
    assert text_config(config).num_hidden_layers == 4


def test_every_rank_needs_room_for_what_sees_images(made: dict[str, Path]) -> None:
    tensors = tensor_bytes(made["gemma3"])
    text = sum(size for name, size in tensors.items() if "language_model" in name)
    beside = sum(tensors.values()) - text
    assert beside > 0 and text > 0
    assert needed_bytes(made["gemma3"], None, Degrees()) == pytest.approx(
        1.1 * (text + beside), abs=1
    )
    halved = needed_bytes(made["gemma3"], None, Degrees(2))
    assert halved == pytest.approx(1.1 * (text / 2 + beside), abs=1)
