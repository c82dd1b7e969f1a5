"""A forward in pieces: the numbers of one pass over all rows, whatever their lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.execution import admission
from garcon_backend.execution.row_chunks import cut
from garcon_jupyter.errors import BadRequest, DoesNotFit
from garcon_jupyter.recorders import Moments
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.backend.bare_rank import BareRank

LENGTHS = [7, 2, 12, 1, 7, 3, 12, 5]
WIDTH = max(LENGTHS)


def batch(side: str) -> wire.Batch:
    """Rows of these lengths, padded on one side or on both in turn."""
    torch.manual_seed(0)
    ids, mask = torch.randint(3, 263, (len(LENGTHS), WIDTH)), torch.zeros(len(LENGTHS), WIDTH)
    for row, length in enumerate(LENGTHS):
        free = WIDTH - length
        start = {"right": 0, "left": free, "either": row % 2 * free}[side]
        mask[row, start : start + length] = 1
    return wire.Batch(ids, mask.bool())


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BareRank:
    path: Path = checkpoints.make(request.param, tmp_path_factory.mktemp(request.param))
    return BareRank(path)


def run(model: BareRank, whole: wire.Batch, **options: Any) -> Any:
    return model.run(wire.Forward("test", batch=whole, **options))


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("side", ["right", "left", "either"])
@pytest.mark.parametrize("most", [1, 13, 40, 10**6])
def test_every_row_is_read_once_in_few_tokens(side: str, most: int) -> None:
    whole = batch(side)
    chunks = cut(whole, most)
    assert sorted(int(row) for chunk in chunks for row in chunk.rows) == list(range(len(LENGTHS)))
    for number, chunk in enumerate(chunks):
        rows, width = chunk.shape
        assert rows * width <= most or rows == 1
        assert chunk.batch.step == number and chunk.batch.mask.any(0).all()
        assert torch.equal(chunk.batch.ids, whole.ids[chunk.rows][:, chunk.columns])
        assert chunk.batch.mask.sum() == whole.mask[chunk.rows].sum()
        at = chunk.batch.documents[chunk.batch.mask], chunk.batch.offsets[chunk.batch.mask]
        assert torch.equal(whole.ids[at], chunk.batch.ids[chunk.batch.mask])


def test_rows_of_about_one_length_are_read_together() -> None:
    chunks = cut(batch("right"), 24)
    assert [(len(p.rows), p.shape[1]) for p in chunks] == [(4, 5), (2, 7), (2, 12)]
    assert sum(rows * width for rows, width in (p.shape for p in chunks)) < len(LENGTHS) * WIDTH
    equal = cut(wire.Batch(torch.ones(6, 4, dtype=torch.long)), 8)
    assert [chunk.rows.tolist() for chunk in equal] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("side", ["right", "left", "either"])
@pytest.mark.parametrize("most", [1, 24])
def test_logits_are_those_of_one_pass(model: BareRank, side: str, most: int) -> None:
    whole = batch(side)
    real = whole.mask
    for logits in ("all", "last"):
        one = run(model, whole, logits=logits)
        found = run(model, whole, logits=logits, batch_tokens=most)
        assert found.shape == one.shape
        if logits == "last":
            assert far(found, one) < 1e-5
        else:
            assert far(found[real], one[real]) < 1e-5 and not found[~real].any()
    assert run(model, whole, logits="none", batch_tokens=most) is None
    # Rows that changed places would be far off.
    assert far(found.flip(0), one) > 1e-2


def test_edits_reach_every_row(model: BareRank) -> None:
    whole = batch("right")
    probes = model._probes({"layers.1.mlp.out": lambda value: value * 0.5 + 0.1})
    one = model.tools.passes.forward(
        wire.Forward("test", batch=whole), model.tools.passes.batch(whole), probes, None
    )
    request = wire.Forward("test", batch=whole)
    found = model.tools.passes.forward_in_chunks(request, cut(whole, 20), probes, None)
    clean = run(model, whole)
    assert far(found[whole.mask], one[whole.mask]) < 1e-5
    assert far(clean[whole.mask], one[whole.mask]) > 1e-3


def test_as_many_rows_as_fit(model: BareRank, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batch("right")
    ruler = model.tools.admission
    rows, length = whole.ids.shape
    answer = ruler._logits(wire.Forward(batch=whole), rows, length)
    one_row = sum(need.count for need in ruler._needs(wire.Forward(batch=whole), (1, length)))
    monkeypatch.setattr(admission, "NEGLIGIBLE", 0)
    seen: list[tuple[int, ...]] = []
    probes = {"layers.0.resid_pre": lambda value: seen.append(tuple(value.shape))}
    monkeypatch.setattr(model.tools.probes, "load", lambda specs: model._probes(probes))
    expected = run(model, whole)
    seen.clear()
    request = {"batch_tokens": "auto"}
    monkeypatch.setattr(admission.memory, "left", lambda device: answer + 3 * one_row)
    with pytest.raises(DoesNotFit, match='in pieces: batch_tokens="auto"'):
        run(model, whole)
    assert far(run(model, whole, **request)[whole.mask], expected[whole.mask]) < 1e-5
    assert 1 < len(seen) < rows and all(n * width <= 3 * length for n, width, _ in seen)
    monkeypatch.setattr(admission.memory, "left", lambda device: answer + one_row // 2)
    with pytest.raises(DoesNotFit, match="all logits"):
        run(model, whole, **request)


def test_over_ranks_in_a_notebook(either: garcon.RemoteModel) -> None:
    texts = ["the cat sat on", "a dog", "the cat sat on the mat", "the"]
    tokens = either.encode(texts)
    point = either.probe_points["layers.1.mlp.post_activation"]

    def where(save_ctx: Any, tensor: Tensor) -> None:
        here = save_ctx.here
        seen = getattr(save_ctx, "seen", [])
        save_ctx.seen = [*seen, (here.step, here.document[:, 0].tolist())]

    moments, places = point.probe(Moments()), point.probe(where, name="where", read_only=True)
    one = either.forward(tokens, probes=[moments])
    first = either.recordings()[point.name].moments
    either.clear_recordings()
    most = int(tokens.lengths[0]) * 2
    found = either.forward(tokens, probes=[moments, places], batch_tokens=most)
    recordings = either.recordings()
    assert far(found[tokens.mask], one[tokens.mask]) < 1e-5
    again = recordings[point.name].moments
    for mine, theirs in zip(again.tensors().values(), first.tensors().values(), strict=True):
        assert torch.allclose(mine.double(), theirs.double(), rtol=1e-4, atol=1e-4)
    seen = recordings[point.name, "where"].seen
    assert [step for step, _ in seen] == list(range(len(seen))) and len(seen) > 1
    assert sorted(row for _, rows in seen for row in rows) == [0, 1, 2, 3]
    argmax = either.forward(
        tokens, probes=[], batch_tokens="auto", logits=lambda logits: logits.argmax(-1)
    )
    assert torch.equal(argmax[tokens.mask], one.argmax(-1)[tokens.mask])
    for wrong in (0, -3, True, "all", 2.5):
        with pytest.raises(BadRequest, match="is no number of tokens"):
            either.forward(tokens, probes=[], batch_tokens=wrong)  # type: ignore[arg-type]
