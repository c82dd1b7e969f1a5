"""Models that read images beside text: their text part is that of the model alone, and images are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from garcon_backend.models import loading
from garcon_backend.models.config import read_config
from garcon_backend.models.fit import check_degrees, needed_bytes, tensor_bytes
from garcon_backend.models.pipeline_parallel import find_layers
from garcon_jupyter.errors import BadDegrees, BadRequest, BadTokens, NotAModel
from garcon_jupyter.model_files.degrees import possible_tp
from garcon_jupyter.model_files.multimodal import WRAPPERS, placeholders, text_config
from garcon_jupyter.model_files.snapshots import check_architecture
from garcon_jupyter.wire.launch_spec import Degrees
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK, apart


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


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_generation_leaves_no_positions_behind(name: str, made: dict[str, Path]) -> None:
    """The model itself notes by how much positions of images differ, for all rows of the last generation."""
    ours = BareRank(made[name])
    before = ours.forward(IDS[:, :6])
    plain: Any = checkpoints.auto_class(name).from_pretrained(made[name]).eval()
    asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 2}
    theirs = plain.generate(IDS, attention_mask=MASK.flip(1), **asked)
    found = ours.generated(IDS, MASK.flip(1), max_new_tokens=6)
    assert found is not None and torch.equal(found.ids, theirs)
    assert torch.equal(ours.forward(IDS[:1, :6]), before[:1])


def test_a_tokenizer_is_found_beside_the_wrapper(made: dict[str, Path]) -> None:
    tokenizer = loading.load_tokenizer(made["gemma3"])
    assert tokenizer is not None and tokenizer.decode(tokenizer("Paris")["input_ids"]) == "Paris"


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


@pytest.mark.parametrize("name", checkpoints.MULTIMODAL)
def test_degrees_are_those_of_the_text_part(name: str, made: dict[str, Path]) -> None:
    config = read_config(made[name])
    assert possible_tp(config) == [1, 2, 4]
    check_degrees(config, Degrees(2, 2))
    with pytest.raises(BadDegrees, match="it has 4 heads, 2 key/value heads and 80 neurons"):
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
