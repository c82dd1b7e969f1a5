"""A cut model computes what the whole one does: logits, values, gradients, parameters, next tokens.

Tolerances are relative, per tensor max|a−b| / max|b|, in float32: values 1e-5, gradients 1e-4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_backend.distributed.collectives import Layout
from garcon_backend.models.stages import split_layers
from garcon_backend.models.tensor_parallel import Cut
from tests.backend.ranks import run_on_ranks
from tests.backend.sharded_run import Case, oracle, run_cases
from tests.checkpoints import make

pytestmark = pytest.mark.processes

FAMILIES = ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral"]
OVERRIDES: dict[str, dict[str, Any]] = {"llama_one_key_head": {"num_key_value_heads": 1}}

ON_TWO = [Case(family, family, tp=2) for family in FAMILIES]
ON_TWO += [Case("llama_one_key_head", "llama", tp=2)]
ON_TWO += [Case(family, family, pp=2) for family in FAMILIES]
ON_FOUR = [Case(family, family, tp=2, pp=2) for family in FAMILIES]
ON_FOUR += [Case("mixtral", "mixtral", tp=4), Case("gpt2", "gpt2", tp=4)]
CASES = ON_TWO + ON_FOUR

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-tp{c.tp}-pp{c.pp}")


def off(a: Tensor, b: Tensor) -> float:
    """max|a−b| / max|b|; infinite where the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the ranks wrote down: two groups of ranks run all cases in turn."""
    folder = tmp_path_factory.mktemp("sharding")
    for name, family in {(case.name, case.family) for case in CASES}:
        make(family, folder / name, **OVERRIDES.get(name, {}))
    for world, cases in ((2, ON_TWO), (4, ON_FOUR)):
        run_on_ranks(world, run_cases, [(case, folder / case.name) for case in cases], folder)
    return folder


@pytest.fixture(scope="module")
def oracles(folder: Path) -> dict[str, dict[str, Any]]:
    by_name = {case.name: case for case in CASES}
    return {name: oracle(case, folder / name) for name, case in by_name.items()}


def ranks_of(case: Case, folder: Path) -> list[dict[str, Any]]:
    """What each rank found, by rank."""
    name = f"{case.name}-{case.tp}-{case.pp}"
    files = [folder / f"{name}-{rank}.pt" for rank in range(case.tp * case.pp)]
    return [torch.load(file, weights_only=False) for file in files]


def leaders_of(case: Case, folder: Path) -> list[dict[str, Any]]:
    """What the leader of each stage found."""
    return ranks_of(case, folder)[:: case.tp]


@every_case
def test_logits_of_the_last_stage(case: Case, folder: Path, oracles: Any) -> None:
    for rank in ranks_of(case, folder)[-case.tp :]:
        assert off(rank["logits"], oracles[case.name]["logits"]) < 1e-5


@every_case
@pytest.mark.parametrize(("what", "tolerance"), [("values", 1e-5), ("gradients", 1e-4)])
def test_values_of_every_stage(
    case: Case, what: str, tolerance: float, folder: Path, oracles: Any
) -> None:
    expected = oracles[case.name][what]
    found = {}
    for leader in leaders_of(case, folder):
        found |= leader[what]
    assert set(found) == set(expected)
    assert max(off(found[key], expected[key]) for key in expected) < tolerance


@every_case
def test_whole_parameters_and_their_gradients(case: Case, folder: Path, oracles: Any) -> None:
    expected = oracles[case.name]
    seen: set[str] = set()
    for leader in leaders_of(case, folder):
        seen |= set(leader["parameters"])
        for name, value in leader["parameters"].items():
            assert torch.equal(value, expected["parameters"][name]), name
        for name, value in leader["parameter_gradients"].items():
            assert off(value, expected["parameter_gradients"][name]) < 1e-4, name
    assert seen == set(expected["parameters"])


@every_case
def test_greedy_generation_on_every_rank(case: Case, folder: Path, oracles: Any) -> None:
    for rank in ranks_of(case, folder):
        assert rank["generated"] == oracles[case.name]["generated"]


@every_case
def test_model_is_plain_and_frozen(case: Case, folder: Path) -> None:
    for rank in ranks_of(case, folder):
        assert rank["frozen"] and rank["plain"]
        assert rank["class"][0].startswith(f"transformers.models.{case.family}.")


@pytest.mark.parametrize("case", ON_TWO[:5], ids=lambda c: c.name)
def test_a_half_wide_value_is_noticed(case: Case, folder: Path, oracles: Any) -> None:
    """The comparison above fails when the pieces are not put together."""
    (leader,) = leaders_of(case, folder)
    expected = oracles[case.name]["values"]
    wrong = {k for k, v in leader["half_width"].items() if off(v, expected[k]) > 1e-5}
    split = {k for k, v in leader["values"].items() if v.shape != leader["half_width"][k].shape}
    assert wrong == split and split


@pytest.mark.parametrize("case", [ON_TWO[5], ON_FOUR[-2]], ids=lambda c: f"{c.name}-tp{c.tp}")
def test_copies_of_a_key_head_add_their_gradients(case: Case, folder: Path, oracles: Any) -> None:
    leader = leaders_of(case, folder)[0]
    assert leader["layouts"]["K"] == Layout(-1, case.tp // 2, 2, True)
    keys = [
        key for key in leader["gradients"] if key[1] in ("self_attn.k_proj", "self_attn.v_proj")
    ]
    assert keys
    for key in keys:
        expected = oracles[case.name]["gradients"][key]
        assert off(leader["gradients"][key], expected) < 1e-4
        assert off(leader["copies_not_added"][key], expected) > 1e-2


def test_layouts_by_letter(folder: Path) -> None:
    halves, whole = Layout(-1, 2), Layout()
    expected = {
        "": whole,
        "H": halves,
        "K": halves,
        "M": halves,
        "m": halves,
        "S": whole,
        "V": whole,
        "E": whole,
    }
    assert ranks_of(ON_TWO[0], folder)[0]["layouts"] == expected
    assert set(ranks_of(ON_TWO[6], folder)[0]["layouts"].values()) == {whole}


def test_bytes_that_each_rank_of_llama_holds(folder: Path) -> None:
    """D 48, H·d 96, K·d 32, M 80, V 263, four layers, in float32; the norms are whole."""
    layer = 96 * 48 + 2 * 32 * 48 + 48 * 96 + 3 * 80 * 48
    norms, vocabulary = 2 * 48, 263 * 48
    whole = 4 * (layer + norms) + 48 + 2 * vocabulary
    assert whole == 120_912

    def held(case: Case) -> list[int]:
        return [rank["bytes"] // 4 for rank in ranks_of(case, folder)]

    longer, shorter = 132 * 48, 131 * 48  # rows of the vocabulary, which is odd
    half = 4 * (layer // 2 + norms) + 48
    assert held(ON_TWO[0]) == [half + 2 * longer, half + 2 * shorter]
    stage = 2 * (layer + norms) + vocabulary
    assert held(Case("llama", "llama", pp=2)) == [stage, stage + 48]
    quarter = 2 * (layer // 2 + norms)
    assert held(ON_FOUR[0]) == [
        quarter + longer,
        quarter + shorter,
        quarter + longer + 48,
        quarter + shorter + 48,
    ]


def test_gpt2_ranks_hold_their_own_queries_keys_and_values(folder: Path) -> None:
    for rank in ranks_of(ON_TWO[1], folder):
        assert rank["shapes"]["transformer.h.0.attn.c_attn.weight"] == (48, 3 * 24)
        assert rank["shapes"]["transformer.h.0.attn.c_attn.bias"] == (3 * 24,)
    fused = torch.arange(12)  # q0 q1 q2 q3 k0 … v3
    cut = Cut(0, 12, parts=2, groups=3)
    assert cut.take(fused, 1).tolist() == [2, 3, 6, 7, 10, 11]
    assert cut.take(fused, 1).tolist() != fused.chunk(2)[1].tolist()
    assert torch.equal(cut.join([cut.take(fused, 0), cut.take(fused, 1)]), fused)


def test_layers_are_shared_out_evenly() -> None:
    assert [split_layers(30, 4, stage) for stage in range(4)] == [
        range(0, 8),
        range(8, 16),
        range(16, 23),
        range(23, 30),
    ]


def test_stages_own_their_layers(folder: Path) -> None:
    case = Case("llama", "llama", pp=2)
    assert [rank["owned"] for rank in ranks_of(case, folder)] == [[0, 1], [2, 3]]


def test_layouts_of_modules(folder: Path) -> None:
    whole, halves = Layout(), Layout(-1, 2)
    llama = ranks_of(ON_TWO[0], folder)[0]["modules"]
    assert llama == {
        "self_attn": [whole, whole],
        "self_attn.q_proj": [whole, halves],
        "self_attn.k_proj": [whole, halves],
        "self_attn.v_proj": [whole, halves],
        "self_attn.o_proj": [halves, whole],
        "mlp": [whole, whole],
        "mlp.gate_proj": [whole, halves],
        "mlp.up_proj": [whole, halves],
        "mlp.down_proj": [halves, whole],
        "mlp.act_fn": [None, None],
        "input_layernorm": [whole, whole],
        "post_attention_layernorm": [whole, whole],
    }
    gpt2 = ranks_of(ON_TWO[1], folder)[0]["modules"]
    assert gpt2["attn.c_attn"] == [whole, None]
    mixtral = ranks_of(ON_TWO[4], folder)[0]["modules"]
    assert mixtral["mlp.gate"] == mixtral["mlp.experts"] == [whole, whole]
    assert mixtral["mlp.experts.act_fn"] == [None, None]
    one_key_head = ranks_of(ON_TWO[5], folder)[0]["modules"]
    assert one_key_head["self_attn.k_proj"] == [whole, Layout(-1, 1, 2, True)]
    uncut = ranks_of(Case("llama", "llama", pp=2), folder)[0]["modules"]
    assert all(layout == whole for sides in uncut.values() for layout in sides)


@pytest.mark.parametrize("case", [c for c in CASES if c.pp > 1], ids=lambda c: f"{c.name}-tp{c.tp}")
def test_first_stage_gets_zeros_where_nothing_depends_on_it(case: Case, folder: Path) -> None:
    """And none of the stages waits for the other."""
    for rank in ranks_of(case, folder)[: case.tp]:
        assert rank["below_a_detached_layer"] == 0.0
