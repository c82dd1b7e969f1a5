"""Any sharding gives the numbers of one process: every family, point and parameter, at every layout.

The other side is written by hand over plain transformers modules, in float64 (``tests/by_hand``), and
imports nothing of ours. Tolerances are of max|a−b| / max|b| per tensor in float32: values and edited logits
1e-5, gradients 1e-4. In bfloat16, whose numbers have eight bits, 0.05 of the largest value.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import by_hand, checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import (
    CUT_AS_OTHERS,
    EVERY,
    IDS,
    MASK,
    NO_PLAN,
    NO_STAGES,
    NORMALISED_AGAIN,
    Case,
    changed,
    edited_points,
    gradient_of,
    loss,
)
from tests.backend.cases import wrong as differing
from tests.backend.copies import copies
from tests.backend.parity_run import NEW, Found, compute_all, label
from tests.backend.ranks import run_on_ranks

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(900),
]  # a layout computes all families at once

LAYOUTS: list[dict[str, int]] = [
    {"tp": 2},
    {"tp": 4},
    {"pp": 2},
    {"tp": 2, "pp": 2},
    {"dp": 2},
]
DIVIDES: dict[str, dict[str, Any]] = {"llama": {"num_attention_heads": 8}}
"""Sizes that four ranks divide, where those of the other tests do not."""

FEW: list[dict[str, int]] = [{"tp": 2}, {"pp": 2}]
"""Layouts of families whose modules are cut as those of others are."""

IN_PLACE = ({"tp": 2}, {"pp": 2})
"""Where edits in place are made as well: how a probe edits is the leader's affair, whatever the layout."""

TOLERANCES = {"gradients": 1e-4, "gradients of parameters": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each case, under its name."""
    folder = tmp_path_factory.mktemp("parity")
    for name, (family, config) in EVERY.items():
        checkpoints.make(family, folder / name, **{**config, **DIVIDES.get(name, {})})
    return folder


@pytest.fixture(scope="module")
def written_out(folder: Path) -> dict[str, tuple[by_hand.ByHand, by_hand.Taps]]:
    """Each case by hand, and what that computes of the texts."""
    models = {name: by_hand.by_hand(EVERY[name][0], folder / name) for name in EVERY}
    return {name: (theirs, theirs.run(IDS, MASK)) for name, theirs in models.items()}


@pytest.fixture(scope="module")
def edited(folder: Path, written_out: dict[str, Any]) -> dict[str, list[str]]:
    """For each case the points to edit: those of a layer or two, and those of none."""
    return {
        name: edited_points(Case(name, folder / name, BareRank(folder / name), *by_hand_too))
        for name, by_hand_too in written_out.items()
    }


@pytest.fixture(scope="module")
def expected(
    folder: Path, written_out: dict[str, Any], edited: dict[str, list[str]]
) -> dict[str, Found]:
    """The same by hand."""
    found = {}
    for name, (theirs, clean) in written_out.items():
        loss(clean.values["logits"]).backward()
        stored = theirs.parameters()
        plain = theirs.auto.from_pretrained(folder / name, dtype=torch.float32)
        ids = plain.generate(IDS, max_new_tokens=NEW, do_sample=False, pad_token_id=2)
        found[name] = {
            "generated": {"ids": ids.double()},
            "values": {n: v.detach() for n, v in clean.values.items()},
            "gradients": {n: gradient_of(v).clone() for n, v in clean.values.items()},
            "parameters": {n: s.value.clone() for n, s in stored.items()},
            "gradients of parameters": {n: s.gradient.clone() for n, s in stored.items()},
        }
        logits: dict[str, Tensor] = {}
        for one in copies(edited[name]):
            with torch.no_grad():
                changed_runs = theirs.run(one.ids, one.mask, **one.edits(changed))
            logits |= one.of_each(changed_runs.values["logits"])
        found[name]["edited"] = found[name]["edited in place"] = logits
    return found


@pytest.fixture(scope="module", params=LAYOUTS, ids=label)
def layout(
    request: pytest.FixtureRequest, folder: Path, edited: dict[str, list[str]]
) -> Iterator[dict[str, int]]:
    """One group of ranks has computed everything at this layout."""
    world = 1
    for degree in request.param.values():
        world *= degree
    in_place = request.param in IN_PLACE
    here = {name: points for name, points in edited.items() if serves(name, request.param)}
    run_on_ranks(world, compute_all, str(folder), request.param, here, None, in_place)
    yield request.param


def serves(name: str, layout: dict[str, int]) -> bool:
    """Whether a case is computed at a layout."""
    if (name in NO_PLAN and "tp" in layout) or (name in NO_STAGES and "pp" in layout):
        return False
    if name in NO_STAGES and "pp" in layout:
        return False
    return layout in FEW or name not in CUT_AS_OTHERS


def told(folder: Path, name: str, layout: dict[str, int]) -> Found:
    """What the ranks found, each of the part that it leads."""
    together: Found = {}
    for file in sorted(folder.glob(f"{name}-{label(layout)}-*.pt")):
        for kind, values in torch.load(file, weights_only=False).items():
            mine = {n: v for n, v in values.items() if v is not None}
            together.setdefault(kind, {}).update(mine)
    return together


def off(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> dict[str, float]:
    """What is missing or too far apart."""
    missing = dict.fromkeys(set(theirs) - set(ours), float("inf"))
    return missing | differing(ours, theirs, tolerance)


@pytest.mark.parametrize("name", EVERY)
def test_every_number_at_every_layout(
    name: str, layout: dict[str, int], folder: Path, expected: dict[str, Found]
) -> None:
    if not serves(name, layout):
        assert told(folder, name, layout) == {}
        return
    ours, theirs = told(folder, name, layout), expected[name]
    for kind, values in theirs.items():
        if kind == "edited in place" and layout not in IN_PLACE:
            continue
        wanted = dict(values)
        if kind == "gradients":  # indices have none
            wanted = {n: v for n, v in wanted.items() if not n.endswith(".indices")}
            if name == "bitnet":  # see `cancelled`
                wanted = {n: v for n, v in wanted.items() if not n.endswith("mlp.norm.scale")}
        if name in NORMALISED_AGAIN:
            wanted = {n: v for n, v in wanted.items() if not n.endswith("attn.norm.scale")}
        if kind == "gradients of parameters":  # softmax cancels what is added to all keys
            wanted = {n: v for n, v in wanted.items() if v.abs().max() > 1e-9}
        found = {n: v for n, v in ours[kind].items() if n in wanted}
        # A recurrence adds up what ranks round otherwise.
        recurrent = "layers.0.mixer.state_out" in expected[name]["values"]
        tolerance = TOLERANCES.get(kind, 1e-5) * (5 if recurrent else 1)
        assert off(found, wanted, tolerance) == {}, kind


def test_the_comparison_tells_wrong_answers(expected: dict[str, Found]) -> None:
    """A half-width value, a shard's edit on every shard, one shard's gradient: all would be seen."""
    right = expected["llama"]["values"]
    name = "layers.1.mlp.post_activation"
    half = {name: right[name].chunk(2, -1)[0]}
    assert off(half, {name: right[name]}, 1e-5)
    edited = expected["llama"]["edited"]
    assert off({name: edited[name]}, {name: right["logits"]}, 1e-4)
    gradient = expected["llama"]["gradients of parameters"]["embed.weight"]
    assert off({"w": gradient * 0.5}, {"w": gradient}, 1e-4)


def test_bfloat16(folder: Path, expected: dict[str, Found]) -> None:
    names = {name: [] for name in ("llama", "gpt2")}
    half = folder / "bfloat16"
    half.mkdir()
    for name in names:
        (half / name).symlink_to(folder / name)
    run_on_ranks(2, compute_all, str(half), {"tp": 2}, names, "bfloat16")
    for name in names:
        values = told(half, name, {"tp": 2})["values"]
        assert values["layers.1.resid_mid"].dtype == torch.bfloat16
        wanted = {n: v for n, v in expected[name]["values"].items() if "scores" not in n}
        assert off({n: values[n] for n in wanted}, wanted, 0.05) == {}
