"""A dictionary is trained beside the layer: on what plain transformers computes, stopped, killed and gone on with, and read back."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.dictionaries import describe, load
from garcon_backend.dictionaries.training import Trainer
from garcon_jupyter import RemoteModel
from garcon_jupyter.client.dictionary_training import CHECKPOINTS, DictionaryTraining
from garcon_jupyter.servers import control, registry
from tests.oracle import Plain

RESID, IN, OUT = "layers.1.resid_post", "layers.1.mlp.in", "layers.1.mlp.out"
NEURONS = "layers.1.mlp.post_activation"
DATA = [np.random.default_rng(n).integers(3, 250, 20 + n % 9) for n in range(40)]
WIDTH = 56
OPTIONS: dict[str, Any] = {
    "k": 4, "lr": 2e-3, "batch": 64, "buffer": 4 * 64 * 48 * 4, "measured": 4, "warm_up": 2, "batch_tokens": 120, "show": False,
}  # fmt: skip


def train(model: RemoteModel, out: Path, point: Any = RESID, **changed: Any) -> DictionaryTraining:
    return model.train_dictionary(
        point, changed.pop("data", DATA), WIDTH, out=out, **{**OPTIONS, **changed}
    )


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "sae_weights.safetensors")


@pytest.fixture(scope="module")
def rows(plain: Plain) -> Tensor:
    """What plain transformers computes, but for the first token of each document."""
    return torch.cat([plain.output("model.layers.1", [row.tolist()])[0, 1:] for row in DATA])


def test_it_is_trained_on_what_plain_transformers_computes(
    either: RemoteModel, rows: Tensor, tmp_path: Path
) -> None:
    """As a trainer that is given plain rows; over two ranks each of which has half of the latents."""
    found = train(either, tmp_path / "sae")
    alone = Trainer(found.settings, 48, 48)
    alone.take(rows)
    while alone.finish():
        pass
    stored = weights(tmp_path / "sae")
    for name, value in alone.folded().items():
        mine = {
            "encoder": "W_enc",
            "encoder_bias": "b_enc",
            "decoder": "W_dec",
            "output_bias": "b_dec",
        }[name]
        given = stored[mine].T if name == "encoder" else stored[mine]
        torch.testing.assert_close(given, value, atol=2e-3, rtol=2e-3, msg=name)
    assert [p.steps for p in found.curves] == [p.steps for p in alone.curve.points]
    ours = [p.unexplained for p in found.curves]
    assert ours == pytest.approx([p.unexplained for p in alone.curve.points], rel=1e-2)
    assert found.status.state == "done" and found.told.written
    assert not (tmp_path / "sae" / CHECKPOINTS).exists()


@pytest.mark.parametrize(
    ("kind", "point", "architecture"),
    [
        ("topk", RESID, "topk"),
        ("batchtopk", RESID, "jumprelu"),
        ("matryoshka", NEURONS, "jumprelu"),
        ("jumprelu", RESID, "jumprelu"),
        ("standard", RESID, "standard"),
        ("gated", RESID, "gated"),
        ("transcoder", (IN, OUT), "jumprelu_transcoder"),
        ("jumprelu", (IN, OUT), "jumprelu_transcoder"),
        ("standard", (IN, OUT), "transcoder"),
    ],
)
def test_what_is_written_is_read_back(
    kind: str,
    point: Any,
    architecture: str,
    rmodel: RemoteModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Our reader of SAELens's layout makes of the files what the trainer made of rows; points are those that were trained on."""
    made: list[tuple[Tensor, Tensor]] = []
    folded = Trainer.folded

    def watched(self: Trainer) -> dict[str, Tensor]:
        rows = torch.randn(31, self.d_in) / self.scales[0]
        made.append((rows, self.reconstruction(rows)))
        return folded(self)

    monkeypatch.setattr(Trainer, "folded", watched)
    train(rmodel, tmp_path, point, kind=kind)
    (given, wanted), read = made[-1], load(tmp_path)
    torch.testing.assert_close(read.reconstruction(given), wanted, atol=2e-5, rtol=1e-4)
    names = (point, point) if isinstance(point, str) else point
    told = describe(tmp_path)
    assert (told.reads[0].point, told.writes[0].point) == names
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == architecture and config["apply_b_dec_to_input"] is isinstance(
        point, str
    )


SEVERAL: dict[str, Any] = {
    "crosscoder": "layers.{0,1}.resid_post",
    "cross-layer": ("layers.{0,1}.mlp.in", "layers.{0,1}.mlp.out"),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_dictionary_of_several_points_is_trained_where_they_are(
    kind: str, either: RemoteModel, tmp_path: Path
) -> None:
    """It is loaded where it was trained; what it recovers is what going through it costs, which visits of its points compute."""
    found = train(either, tmp_path, SEVERAL[kind], kind=kind, batch_tokens=len(DATA[-1]))
    sae = either.dictionaries.load(tmp_path, "several", show=False)
    try:
        point = SEVERAL[kind] if isinstance(SEVERAL[kind], str) else SEVERAL[kind][0]
        assert list(sae.points.hosts) == [p.name for p in either.catalog.select(point)]
        assert sae.points.ends == found.settings.several
        ids = torch.tensor(DATA[-1])[None]
        with either.spliced("several", error="none", bypass=[0]):
            logits = either.forward(ids, probes=[])
        lost = torch.nn.functional.cross_entropy(logits[0, :-1].float(), ids[0, 1:])
        told = found.measured[-1][1]
        assert told.spliced == pytest.approx(float(lost), rel=1e-3)
        assert told.clean != pytest.approx(told.spliced, rel=1e-3)
        (fit,) = sae.fit([list(map(int, row)) for row in DATA[:1]], [point])
        assert fit.without_first < 1.5 and len(fit.each) == 2
    finally:
        sae.unload()
    with pytest.raises(garcon.BadData, match="a dictionary already"):
        train(either, tmp_path, SEVERAL[kind], kind=kind)


def test_kinds_are_of_one_point_or_of_several(rmodel: RemoteModel, tmp_path: Path) -> None:
    for kind, point, said in (
        ("topk", "layers.{0,1}.resid_post", "of one point, and 2 were given"),
        ("crosscoder", RESID, "of several points, and one was given"),
        ("crosscoder", SEVERAL["cross-layer"], "writes what it reads"),
        ("cross-layer", SEVERAL["crosscoder"], "no others were given"),
        ("cross-layer", ("layers.*.mlp.in", OUT), "selects 4 points, and layers.1.mlp.out 1"),
    ):
        with pytest.raises(garcon.BadRequest, match=re.escape(said)):
            train(rmodel, tmp_path / "none", point, kind=kind)
    assert not (tmp_path / "none").exists()


def test_the_loss_recovered_is_that_of_plain_hooks(
    rmodel: RemoteModel, plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last measurement, with the dictionary as it was written, on the last batch."""
    found = train(rmodel, tmp_path, batch_tokens=len(DATA[-1]))
    read, ids = load(tmp_path), torch.tensor(DATA[-1])[None]

    def loss(stand: Any) -> float:
        with plain.hooked("model.layers.1", stand):
            logits = plain.logits(ids)
        return float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]))

    def spliced(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], read.reconstruction(x[:, 1:])], 1)

    def ablated(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], 1)

    told = found.measured[-1][1]
    assert told.clean == pytest.approx(loss(lambda x: None), rel=1e-5)
    assert told.spliced == pytest.approx(loss(spliced), rel=1e-4)
    assert told.ablated == pytest.approx(loss(ablated), rel=1e-4)
    assert len(found.measured) > 3


def test_stopped_it_waits_and_written_then_is_what_it_had_learnt(
    rmodel: RemoteModel, tmp_path: Path
) -> None:
    """Stopped half-way, others' requests between, written on request, gone on with: the bytes of a training that was left alone."""
    data = DATA * 6
    train(rmodel, tmp_path / "whole", data=data)
    found = train(rmodel, tmp_path / "cut", data=data, blocking=False)
    until(found, lambda status: bool(status.training.points))
    assert rmodel.forward([[5, 6, 7]]).shape == (1, 3, 263)
    assert not found.run.status.over
    found.stop()
    until(found, lambda status: status.state == "paused")
    early = Path(found.write(tmp_path / "early"))
    (same,) = [each for each in rmodel.trainings() if each.run.id == found.run.id]
    assert same.resume().wait(False).status.state == "done"
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    assert not torch.equal(weights(early)["W_dec"], whole["W_dec"])
    with pytest.raises(garcon.BadRequest, match="not in training any longer"):
        found.write(tmp_path / "late")


def until(found: DictionaryTraining, there: Any) -> None:
    limit = time.monotonic() + 60
    while not there(status := found.status):
        assert time.monotonic() < limit and not status.over, status


@pytest.mark.lasting
def test_the_same_call_goes_on_from_where_a_server_was_killed(
    rmodel: RemoteModel, tmp_path: Path
) -> None:
    """A copy of what a checkpoint left on the disk is all that there is."""
    data = DATA * 6
    train(rmodel, tmp_path / "whole", data=data)
    found = train(rmodel, tmp_path / "cut", data=data, blocking=False, every=0)
    until(found, lambda status: (status.checkpointed or 0) > 4)
    found.stop()
    until(found, lambda status: status.state == "paused")
    shutil.copytree(tmp_path / "cut", tmp_path / "left")
    found.discard()
    with pytest.raises(garcon.BadData, match="another training, which was cut short: k was 4"):
        train(rmodel, tmp_path / "left", data=data, k=5)
    again = train(rmodel, tmp_path / "left", data=data)
    assert again.run.id != found.run.id
    whole, left = weights(tmp_path / "whole"), weights(tmp_path / "left")
    assert all(torch.equal(left[name], value) for name, value in whole.items())
    with pytest.raises(garcon.BadData, match="has a dictionary already"):
        train(rmodel, tmp_path / "left")


@pytest.mark.processes
def test_killed_ranks_are_started_anew_and_the_training_goes_on(
    llama_path: Path, tmp_path: Path
) -> None:
    server = garcon.launch(llama_path, "trained-killed", progress=lambda line: None)
    model = garcon.connect(server.name)
    train(model, tmp_path / "whole", every=0)
    found = train(model, tmp_path / "cut", blocking=False, every=0)
    until(found, lambda status: (status.checkpointed or 0) > 1)
    for rank in registry.find(server.name).facts["ranks"]:
        psutil.Process(rank["pid"]).send_signal(signal.SIGKILL)
    assert found.wait(False).status.state == "done"
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    model.close()
    control.stop(registry.find(server.name))


def test_from_a_store_no_model_runs_and_its_order_is_told(
    rmodel: RemoteModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rmodel.store([RESID, IN, OUT], DATA, tmp_path / "acts", dtype="float32", show=False)
    garcon.shuffle(tmp_path / "acts", tmp_path / "mixed", seed=3)
    from garcon_backend.execution.passes import Passes

    monkeypatch.setattr(Passes, "read", None)  # would fail
    ordered = rmodel.train_dictionary(
        RESID, tmp_path / "acts", WIDTH, out=tmp_path / "a", **{**OPTIONS, "show": True}
    )
    assert "in the order of its data" in capsys.readouterr().out
    mixed = rmodel.train_dictionary(
        (IN, OUT), tmp_path / "mixed", WIDTH, "transcoder", out=tmp_path / "b", **OPTIONS
    )
    assert ordered.told.notes and not mixed.told.notes and not mixed.measured
    tokens = sum(len(row) - 1 for row in DATA)
    assert ordered.curves[-1].tokens == mixed.curves[-1].tokens == tokens // 64 * 64
    with pytest.raises(garcon.WrongDictionary, match=f"and not {NEURONS}"):
        rmodel.train_dictionary(NEURONS, tmp_path / "acts", WIDTH, out=tmp_path / "c", **OPTIONS)


@pytest.mark.parametrize(
    ("point", "changed", "error", "said"),
    [
        ("layers.1.resid_pots", {}, garcon.UnknownPoint, "resid_post"),
        ("layers.1.attn.pattern", {}, garcon.BadRequest, "not one value for each token"),
        (RESID, {"kind": "topq"}, garcon.UnknownName, "Did you mean topk"),
        (RESID, {"k": 57}, garcon.BadRequest, "k=57 latents cannot pass of 56"),
        (RESID, {"lr": -1.0}, garcon.BadRequest, r"lr=-1.0 is no such number"),
        (RESID, {"kind": "transcoder"}, garcon.BadRequest, "from one point to another"),
        ((IN, OUT), {"kind": "topk"}, garcon.BadRequest, "no layout in SAELens"),
        ((IN, OUT), {"kind": "gated"}, garcon.BadRequest, "A gated dictionary from one point"),
        ((IN, OUT, IN), {}, garcon.BadRequest, "neither a point nor two"),
        (RESID, {"buffer": "much"}, garcon.BadRequest, "'much' is no number of bytes"),
        (
            RESID,
            {"buffer": "900 TB"},
            garcon.DoesNotFit,
            "in training needs 8.*iB on a rank, of which the buffer",
        ),
        (RESID, {"widths": (3, 56)}, garcon.BadRequest, "A topk dictionary has no parts"),
        (RESID, {"kind": "matryoshka", "widths": (9, 5)}, garcon.BadRequest, "no growing parts"),
        (
            RESID,
            {"pakced": True},
            garcon.UnknownName,
            "no option of a training 'pakced'. Did you mean packed",
        ),
        (RESID, {"batch": 4000}, garcon.BadRequest, "Nothing was trained: .* a step takes 4,000"),
    ],
)
def test_what_makes_no_sense_is_refused(
    point: Any,
    changed: dict[str, Any],
    error: type[Exception],
    said: str,
    rmodel: RemoteModel,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=said):
        train(rmodel, tmp_path / "sae", point, **changed)
    assert not (tmp_path / "sae" / "cfg.json").exists()


def test_it_shows_its_curves_while_it_runs_and_when_it_is_over(
    rmodel: RemoteModel, tmp_path: Path
) -> None:
    import garcon_jupyter.display  # noqa: F401 - registers what draws

    found = train(rmodel, tmp_path, blocking=False)
    widget = found.show()
    widget._hear(widget, {"do": "look"}, [])
    assert widget.worker.wait() and not widget.trouble
    found.wait(False)
    widget.refresh()
    assert widget.worker.wait() and widget.state["state"] == "done"
    last = found.curves[-1]
    assert f"L0 {last.l0:.1f}" in widget.summary and "of the loss recovered" in widget.summary
    assert widget.still().count("<img") == 2 and "56 latents at layers.1.resid_post" in widget.drawn
    assert f"{last.unexplained:.1%} unexplained" in repr(found)
