"""The lens on a server against float64 arithmetic on plain transformers' hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, widgets
from garcon_jupyter.connection import background
from garcon_jupyter.experiments.lenses.readouts import (
    CHUNK,
    STATISTICS,
    TOGETHER,
    _chunks,
    _first,
    _spans,
    read_by_layers,
    read_layers,
)
from garcon_jupyter.experiments.lenses.unembedding import final_norm
from garcon_jupyter.servers import control
from tests import checkpoints, oracle
from tests.conftest import quiet
from tests.experiments.conftest import TEXT, lens_oracle
from tests.oracle import Plain


@pytest.mark.parametrize("target", ["last", "next"])
def test_statistics_are_the_oracles(
    either: garcon.RemoteModel, plain: Plain, ids: Tensor, target: Any
) -> None:
    readouts = read_layers(either, TEXT, target)
    logs = lens_oracle(plain, ids)
    answers = logs[-1].argmax(-1)
    if target == "next":
        answers[:-1] = ids[0, 1:]
    assert np.array_equal(readouts.answers, answers.numpy())
    of_answer = logs.gather(-1, answers.expand(len(logs), -1)[..., None])
    last = logs[-1]
    expected = [
        logs.exp().amax(-1),
        of_answer[..., 0].exp(),
        (logs > of_answer).sum(-1).double(),
        -(logs.exp() * logs).sum(-1),
        (last.exp() * (last - logs)).sum(-1),
    ]
    assert np.allclose(readouts.statistics, torch.stack(expected, -1).numpy(), atol=2e-5)
    assert np.array_equal(readouts.ids, logs.topk(5).indices.numpy())
    unnormed = plain.output("model.layers.0", ids)[0].double() @ (
        plain.module("lm_head").weight.double().T
    )
    wrong = unnormed.softmax(-1).amax(-1).detach().numpy()
    assert not np.allclose(readouts.statistics[0, :, 0], wrong, atol=1e-3)


def test_it_leaves_nothing_behind_and_runs_no_attached_probe(rmodel: garcon.RemoteModel) -> None:
    point = rmodel.probe_points["layers.1.mlp.out"]
    rmodel.attach(point.probe(lambda save_ctx, tensor: tensor * 100))
    clean = read_layers(rmodel, TEXT)
    rmodel.detach()
    assert np.array_equal(clean.statistics, read_layers(rmodel, TEXT).statistics)
    assert len(rmodel.recordings()) == 0


def test_what_is_read_is_what_the_picture_shows() -> None:
    assert STATISTICS == widgets.lens.STATISTICS


def test_layers_come_from_the_last_one_down_and_long_ones_in_parts() -> None:
    every = _chunks(range(3), 150)
    assert [layer for layer, _ in every] == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert [(span.start, span.stop) for _, span in every[:3]] == [(0, 64), (64, 128), (128, 150)]
    # What is read together of a layer is read as one.
    assert _spans(every[1:4]) == [(2, slice(64, 150)), (1, slice(0, 64))]
    assert _first(12) == 2 and _first(150) == 6 and _first(10**6) == TOGETHER // CHUNK


def test_a_long_text_is_read_in_parts_of_a_layer(
    rmodel: garcon.RemoteModel, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MOMENT", 0.0)  # on a machine that needs a moment for anything
    tokens = torch.randint(3, 259, (1, 100), generator=torch.manual_seed(0))
    growing = read_by_layers(rmodel, rmodel._tokens(tokens), "next")
    filled = [int((~np.isnan(readouts.statistics[..., 0])).sum()) for readouts in growing]
    assert filled == [200, 264, 300, 364, 400]
    readouts = read_layers(rmodel, tokens, "next")
    logs = lens_oracle(plain, tokens)
    assert np.allclose(readouts.statistics[..., 0], logs.exp().amax(-1).numpy(), atol=2e-5)
    following = torch.cat([tokens[0, 1:], logs[-1, -1:].argmax(-1)])
    assert np.array_equal(readouts.answers, following.numpy())
    of_answer = logs.gather(-1, following.expand(len(logs), -1)[..., None])[..., 0].exp()
    assert np.allclose(readouts.statistics[..., 1], of_answer.numpy(), atol=2e-5)


def test_it_fills_from_the_last_layer_down(either: garcon.RemoteModel) -> None:
    whole = read_layers(either, TEXT)
    growing = read_by_layers(either, either.encode(TEXT), "last")
    first = next(growing)
    assert np.array_equal(first.statistics[2:], whole.statistics[2:])
    assert np.array_equal(first.ids[2:], whole.ids[2:])
    assert np.isnan(first.statistics[:2]).all() and (first.ids[:2] == -1).all()
    assert (
        len(either.recordings()) == 5
    )  # four layers' streams and the prediction wait on the server
    growing.close()
    assert len(either.recordings()) == 0


def test_the_text_is_run_once(rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    final_norm(rmodel)
    length, forward = rmodel.encode(TEXT).shape[1], rmodel.forward
    lengths: list[int] = []

    def counted(tokens: Any, **rest: Any) -> Any:
        lengths.append(np.shape(getattr(tokens, "ids", tokens))[1])
        return forward(tokens, **rest)

    monkeypatch.setattr(rmodel, "forward", counted)
    read_layers(rmodel, TEXT)
    assert lengths == [length, 1, 1]  # the text, and a token for each group of layers


def test_the_picture_grows_and_leaves_nothing(rmodel: garcon.RemoteModel) -> None:
    whole = read_layers(rmodel, TEXT, "next")
    widget = rmodel.lens(TEXT, "next")
    assert not np.isnan(widget.readouts.statistics[-1]).any()
    assert widget.worker.wait() and not widget.trouble
    shown = np.frombuffer(widget.sheets[4]["values"], "<f4").reshape(4, -1)
    assert np.array_equal(shown, whole.statistics[..., 4])
    tops = np.frombuffer(widget.tops, "<i4").reshape(whole.ids.shape)
    assert (tops >= 0).all() and max(tops.flat) == len(widget.words) - 1
    assert len(rmodel.recordings()) == 0
    closed = rmodel.lens(TEXT, "next")
    closed.close()  # while it fills
    assert closed.worker.wait() and len(rmodel.recordings()) == 0


def test_the_widget_names_tokens(rmodel: garcon.RemoteModel) -> None:
    widget = rmodel.lens(TEXT, statistic="entropy")
    assert widget.worker.wait()
    first = int(widget.readouts.ids[2, 1, 0])
    shown = widget.words[np.frombuffer(widget.tops, "<i4").reshape(4, -1, 5)[2, 1, 0]]
    assert shown.strip("·") == str(rmodel.decode(first)).strip() or shown
    assert widget.sheets[3]["name"] == "entropy" and widget.sheet == 3
    with pytest.raises(BadRequest, match="one text, and there are 2"):
        rmodel.lens(["a", "b"])


@pytest.fixture(params=["gpt2", "gemma2"])
def other(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[garcon.RemoteModel, Plain]]:
    path = checkpoints.make(request.param, tmp_path)
    server = garcon.launch(path, name=f"lens-{request.param}", progress=quiet)
    rmodel = garcon.connect(server.name)
    yield rmodel, oracle.Plain(path)
    rmodel.close()
    control.stop(server, force=True)


@pytest.mark.processes
def test_another_norm_is_found_out_and_other_logits_are_refused(
    other: tuple[garcon.RemoteModel, Plain],
) -> None:
    rmodel, plain = other
    if rmodel.facts["model"]["model_type"] == "gemma2":  # its logits are soft-capped
        assert not final_norm(rmodel).centred
        with pytest.raises(BadRequest, match="more than its final norm and unembedding"):
            rmodel.lens(TEXT)
        return
    norm = plain.module("transformer.ln_f")
    assert final_norm(rmodel).centred
    assert final_norm(rmodel).epsilon == pytest.approx(norm.eps, rel=1e-4)
    ids = rmodel.encode(TEXT).ids
    x = plain.output("transformer.h.1", ids)[0].double()
    x = torch.nn.functional.layer_norm(
        x, x.shape[-1:], norm.weight.double(), norm.bias.double(), norm.eps
    )
    logs = (x @ plain.module("lm_head").weight.double().T).log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    found = read_layers(rmodel, TEXT).statistics[1, :, 3]
    assert np.allclose(found, entropy.detach().numpy(), atol=2e-5)
