"""What fits and what divides, against numbers worked out by hand and the loaded model's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

from garcon_backend.models.fit import (
    GIB,
    MARGIN,
    check_degrees,
    check_fits,
    choose_degrees,
    needed_bytes,
    possible_tp,
    tensor_bytes,
)
from garcon_backend.models.tensor_parallel import OWN_PLANS
from garcon_jupyter.errors import BadDegrees, DoesNotFit, NotAModel
from garcon_jupyter.model_files import degrees
from garcon_jupyter.wire.launch_spec import Degrees
from tests.checkpoints import FAMILIES, make

SMOLLM2 = LlamaConfig(
    num_hidden_layers=30,
    hidden_size=576,
    num_attention_heads=9,
    num_key_value_heads=3,
    intermediate_size=1536,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("llama", tmp_path_factory.mktemp("llama"))


# -- degrees ---------------------------------------------------------------------------------


def test_degrees_that_divide() -> None:
    assert possible_tp(SMOLLM2) == [1, 3]
    one_key_head = LlamaConfig(num_attention_heads=8, num_key_value_heads=1, intermediate_size=96)
    assert possible_tp(one_key_head) == [1, 2, 4, 8]
    # Four ranks can hold two key heads twice; eight heads cannot be cut in six.
    two_key_heads = LlamaConfig(num_attention_heads=8, num_key_value_heads=2, intermediate_size=96)
    assert possible_tp(two_key_heads) == [1, 2, 4, 8]
    # 12 heads and 12 neurons divide by six, but six ranks cannot share four key heads evenly.
    four_key_heads = LlamaConfig(
        hidden_size=48, num_attention_heads=12, num_key_value_heads=4, intermediate_size=12
    )
    assert possible_tp(four_key_heads) == [1, 2, 4, 12]
    assert possible_tp(GPT2Config()) == [1, 2, 3, 4, 6, 12]


def test_degree_that_does_not_divide() -> None:
    with pytest.raises(BadDegrees) as caught:
        check_degrees(SMOLLM2, Degrees(tp=2))
    assert str(caught.value) == (
        "tp=2 does not divide the model: it has 9 heads, 3 key/value heads and 1536 neurons. "
        "Degrees that do: 1, 3."
    )
    check_degrees(SMOLLM2, Degrees(tp=3, pp=30))


def test_more_stages_than_layers() -> None:
    with pytest.raises(BadDegrees, match=r"pp=31 .* 30\. Use pp up to 30"):
        check_degrees(SMOLLM2, Degrees(pp=31))


def test_replicas_divide_anything() -> None:
    check_degrees(SMOLLM2, Degrees(dp=5))


def test_architecture_without_a_plan() -> None:
    config = OPTConfig()
    assert possible_tp(config) == [1]
    with pytest.raises(BadDegrees, match="no plan to cut 'opt' by tensor parallelism"):
        check_degrees(config, Degrees(tp=2))
    check_degrees(config, Degrees(pp=2))


def test_degrees_count_from_one() -> None:
    with pytest.raises(BadDegrees, match="less than one"):
        Degrees(tp=0)


# -- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_of_a_checkpoint_are_those_of_the_model(family: str, tmp_path: Path) -> None:
    directory = make(family, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(directory)
    saved = [*model.parameters(), *(b for n, b in model.named_buffers() if n in model.state_dict())]
    whole = sum(tensor.numel() for tensor in saved) * 4
    assert sum(tensor_bytes(directory).values()) == whole
    assert sum(tensor_bytes(directory, "bfloat16").values()) == whole // 2
    assert needed_bytes(directory, None, Degrees()) == pytest.approx(whole * MARGIN, abs=1)


def test_stored_dtype_counts(tmp_path: Path, llama: Path) -> None:
    narrow = make("llama", tmp_path, dtype=torch.bfloat16)
    assert needed_bytes(narrow, None, Degrees()) == pytest.approx(
        needed_bytes(llama, None, Degrees()) / 2, abs=1
    )
    assert needed_bytes(narrow, "float32", Degrees()) == needed_bytes(llama, None, Degrees())


def test_share_of_a_rank(llama: Path) -> None:
    """D 48, H·d 96, K·d 32, M 80, V 263, four layers; embedding and unembedding are two."""
    layer = 96 * 48 + 2 * 32 * 48 + 48 * 96 + 3 * 80 * 48 + 2 * 48
    outside = 2 * 263 * 48 + 48

    def share(degrees: Degrees) -> int:
        return round(needed_bytes(llama, None, degrees) / MARGIN / 4)

    assert share(Degrees()) == 4 * layer + outside
    assert share(Degrees(tp=2)) == (4 * layer + outside) // 2
    assert share(Degrees(pp=2)) == 2 * layer + outside
    assert share(Degrees(pp=3)) == 2 * layer + outside
    assert share(Degrees(pp=4)) == layer + outside


def test_broken_weights(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="holds no weights"):
        needed_bytes(tmp_path, None, Degrees())
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(NotAModel, match="is no safetensors file"):
        needed_bytes(tmp_path, None, Degrees())


def test_model_that_does_not_fit(llama: Path) -> None:
    needed = needed_bytes(llama, None, Degrees())
    check_fits(llama, None, Degrees(), "cpu", available=needed)
    with pytest.raises(DoesNotFit):
        check_fits(llama, None, Degrees(), "cpu", available=needed - 1)
    with pytest.raises(DoesNotFit, match=r"on cuda"):
        check_fits(llama, None, Degrees(), "cuda", available=needed - 1)


def test_message_has_both_numbers(tmp_path: Path) -> None:
    header = b'{"w": {"dtype": "F32", "shape": [1024, 1024, 512], "data_offsets": [0, 2147483648]}}'
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DoesNotFit, match=r"needs 2\.2 GiB on cpu .* only 1\.5 GiB are free"):
        check_fits(tmp_path, None, Degrees(), "cpu", available=3 * GIB // 2)
    check_fits(tmp_path, "bfloat16", Degrees(), "cpu", available=3 * GIB // 2)


def test_ranks_on_one_cpu_share_its_memory(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    each = needed_bytes(llama, None, Degrees(tp=2))
    check_fits(llama, None, Degrees(tp=2), "cpu", available=2 * each)
    with pytest.raises(DoesNotFit):
        check_fits(llama, None, Degrees(tp=2), "cpu", available=2 * each - 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    check_fits(llama, None, Degrees(tp=2), "cpu", available=each)


# -- choosing --------------------------------------------------------------------------------


def test_fewest_devices_and_tensor_parallelism_first(llama: Path) -> None:
    def choose(count: int, degrees: Degrees, spare: int = 0) -> Degrees:
        return choose_degrees(llama, count, needed_bytes(llama, None, degrees) + spare)

    assert choose(8, Degrees()) == Degrees()
    assert choose(8, Degrees(), -1) == Degrees(tp=2)
    assert choose(8, Degrees(tp=2)) == Degrees(tp=2)
    # Six heads cannot be cut in four; two stages of two ranks each are the next that fit.
    assert choose(8, Degrees(tp=2, pp=2)) == Degrees(tp=2, pp=2)
    with pytest.raises(DoesNotFit, match=r"2 × 0\.0 GiB"):
        choose(2, Degrees(tp=2), -1)


def test_config_is_read_where_it_is_not_given(llama: Path) -> None:
    config = AutoConfig.from_pretrained(llama)
    assert choose_degrees(llama, 1, GIB) == choose_degrees(llama, 1, GIB, config=config)


@pytest.mark.processes
def test_as_a_program(llama: Path) -> None:
    """The client asks in another process, since only the server's packages know."""
    bytes_ = needed_bytes(llama, None, Degrees(tp=2))
    command = [sys.executable, "-m", "garcon_backend.models.fit", str(llama), "4", str(bytes_)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == {"tp": 2, "pp": 1}
    command[-1] = "1"
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 1
    assert json.loads(told.stdout)["class"] == "DoesNotFit"


def test_the_notebook_knows_which_architectures_have_a_plan_of_ours() -> None:
    assert set(degrees.OWN_PLANS) == set(OWN_PLANS)
