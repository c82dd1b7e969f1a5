"""Scores of heads against patterns of plain transformers, summed in loops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadRequest, PointUnavailable, experiments
from tests import checkpoints

PERIODS = (4, 9)


def in_loops(path: Path, ids: Tensor, periods: list[int], begins: int) -> Tensor:
    """[half, score, layer, head], by what each score is said to be."""
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    with torch.no_grad():
        patterns = torch.stack(model(ids, output_attentions=True).attentions, 1)
    rows, length = len(periods), ids.shape[1]
    halves = []
    for half in (0, rows):
        sums, counts = torch.zeros(3, *patterns.shape[1:3]), [0, 0, 0]
        for row, period in enumerate(periods):
            of_row = patterns[half + row]
            for query in range(begins + 1, length):
                sums[0] += of_row[:, :, query, query - 1]
                counts[0] += 1
                earlier = [key for key in range(begins, query) if (query - key) % period == 0]
                if half == 0:  # there these are the same token
                    assert [
                        k for k in range(begins, query) if ids[row, k] == ids[row, query]
                    ] == earlier
                if earlier:
                    sums[1] += sum(of_row[:, :, query, key] for key in earlier)
                    sums[2] += sum(of_row[:, :, query, key + 1] for key in earlier)
                    counts[1] += 1
                    counts[2] += 1
        halves.append(sums / torch.tensor(counts)[:, None, None])
    return torch.stack(halves)


def test_scores_are_sums_of_the_pattern(either: garcon.RemoteModel, llama_path: Path) -> None:
    found = experiments.head_scores(either, rows=3, periods=PERIODS, seed=4)
    ids, periods = found.more["ids"], found.facts["periods"]
    assert ids.shape == (6, 19) and len(set(periods)) > 1 and not ids[:, 0].any()  # <bos>
    expected = in_loops(llama_path, ids, periods, begins=1)
    assert torch.allclose(found.values, expected[0], atol=1e-5)
    assert torch.allclose(found.more["control"], expected[1], atol=1e-5)
    assert (found.values - found.more["control"]).abs().max() > 0.05
    for row in ids[3:].tolist():
        assert len(set(row)) == len(row)
    assert len(either.recordings()) == 0


def test_the_same_seed_draws_the_same(rmodel: garcon.RemoteModel) -> None:
    first, again, other = (
        experiments.head_scores(rmodel, rows=2, periods=PERIODS, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.more["ids"], other.more["ids"])


def test_chance_is_what_even_attention_scores(rmodel: garcon.RemoteModel) -> None:
    found = experiments.head_scores(rmodel, rows=2, periods=PERIODS)
    periods, length = found.facts["periods"], found.more["ids"].shape[1]
    previous = [1 / (query + 1) for query in range(2, length)]
    copies = [
        sum(1 for key in range(1, query) if (query - key) % period == 0) / (query + 1)
        for period in periods
        for query in range(1 + period, length)
    ]
    expected = [sum(each) / len(each) for each in (previous, copies, copies)]
    assert found.more["chance"].tolist() == pytest.approx(expected, rel=1e-5)


def test_known_heads_of_a_real_model(smollm2: garcon.RemoteModel) -> None:
    """The previous-token head and the induction heads whose composition weights alone show as well."""
    found = experiments.head_scores(smollm2, rows=4)
    assert found.at(score="previous token", layer=16, head=0) > 0.8
    induction, control = found.at(score="induction"), found.more["control"][2]
    for head in ((18, 6), (17, 3)):
        assert induction[head] > 0.6 and control[head] < 0.1
    place, _ = found.strongest(1)[0]
    assert control.max() < 0.2 and place["layer"] in (16, 18)


def test_mistakes_are_told(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"periods=\(9, 4\)"):
        experiments.head_scores(rmodel, periods=(9, 4))
    with pytest.raises(BadRequest, match=r"periods=\(2, 4\)"):
        experiments.head_scores(rmodel, periods=(2, 4))
    with pytest.raises(BadRequest, match="rows=0"):
        experiments.head_scores(rmodel, rows=0)
    with pytest.raises(BadRequest, match=r"Of the 263 tokens \d+ are words, and 400 must differ"):
        experiments.head_scores(rmodel, periods=(6, 200))
    mamba = garcon.connect(open_here(checkpoints.make("mamba", tmp_path)))
    with pytest.raises(PointUnavailable, match="nothing attends here"):
        experiments.head_scores(mamba)
