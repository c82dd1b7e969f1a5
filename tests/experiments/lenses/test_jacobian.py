"""Jacobian lenses against torch's own Jacobian of plain transformers, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, experiments
from garcon_jupyter.experiments.lenses.jacobian_lens import JacobianLens, merge_jacobian_lenses
from garcon_jupyter.wire import requests as wire
from tests.experiments.lenses.by_hand import divergences, doubled, jacobian
from tests.oracle import Plain, close

SKIP = 2
ROWS = torch.randint(3, 259, (3, 8), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model(plain: Plain) -> Any:
    return doubled(plain)


@pytest.fixture(scope="module")
def truth(model: Any) -> dict[int, Tensor]:
    """The mean over the texts, by layer."""
    return {
        layer: torch.stack([jacobian(model, row, layer, SKIP) for row in ROWS]).mean(0)
        for layer in range(3)
    }


@pytest.fixture(scope="module")
def lens(truth: dict[int, Tensor]) -> JacobianLens:
    return JacobianLens.of(truth, len(ROWS), {"skip": SKIP, "target_layer": 3})


def test_it_is_the_mean_of_torchs_own(either: garcon.RemoteModel, truth: dict[int, Tensor]) -> None:
    found = experiments.fit_jacobian_lens(either, ROWS, skip=SKIP, tokens=56)
    assert found.texts == 3 and sorted(found.maps) == [0, 1, 2]
    for layer, wanted in truth.items():
        assert close(found.jacobians[layer], wanted, 1e-5)
        assert not close(found.jacobians[layer], wanted.T, 0.1)
    assert len(either.recordings()) == 0
    shorter = experiments.fit_jacobian_lens(either, ROWS[:1], 1, skip=0, tokens=8)
    assert not close(shorter.jacobians[1], truth[1], 0.01)


def test_halves_merge_to_the_whole(rmodel: garcon.RemoteModel) -> None:
    def fitted(rows: Tensor, **more: Any) -> JacobianLens:
        options: dict[str, Any] = {"skip": SKIP, "tokens": 512, **more}
        lens: JacobianLens = experiments.fit_jacobian_lens(rmodel, rows, [0, 2], **options)
        return lens

    whole, one, other = fitted(ROWS), fitted(ROWS[:1]), fitted(ROWS[1:])
    for merged in (
        one.merge(other),
        merge_jacobian_lenses([other, one]),
        fitted(ROWS[1:], start=one),
    ):
        assert merged.texts == 3
        assert all(close(merged.jacobians[n], whole.jacobians[n], 1e-6) for n in (0, 2))
    unweighted = (one.jacobians[0] + other.jacobians[0]) / 2
    assert not close(unweighted, whole.jacobians[0], 1e-3)
    with pytest.raises(
        BadRequest, match=r"layers of one Jacobian lens is \[0, 2\], and of another"
    ):
        whole.merge(experiments.fit_jacobian_lens(rmodel, ROWS[:1], 1, skip=SKIP))
    with pytest.raises(BadRequest, match="skip of one Jacobian lens is 2, and of another 3"):
        whole.merge(experiments.fit_jacobian_lens(rmodel, ROWS[:1], [0, 2], skip=3))


def test_a_text_is_read_by_it(
    either: garcon.RemoteModel, model: Any, lens: JacobianLens, truth: dict[int, Tensor]
) -> None:
    read = experiments.read_lens(either, ROWS[:1], lens)
    found = read.at(statistic="KL to the last")
    right = divergences(model, ROWS[0], lambda layer, x: x @ truth[layer].T)
    assert close(found[:3], right, 1e-4) and float(found[3].abs().max()) < 1e-5
    wrong: list[tuple[Callable[[int, Tensor], Tensor], bool]] = [
        (lambda layer, x: x @ truth[layer], True),
        (lambda layer, x: x, True),
        (lambda layer, x: x @ truth[layer].T, False),
    ]
    for of, normed in wrong:
        assert not close(found[:3], divergences(model, ROWS[0], of, normed), 1e-2)


def test_layers_without_a_map_are_not_read(rmodel: garcon.RemoteModel, lens: JacobianLens) -> None:
    some = JacobianLens.of({1: lens.jacobians[1]}, 3, {})
    read = experiments.read_lens(rmodel, ROWS[:1], some)
    assert read.values[:, [0, 2]].isnan().all() and (read.more["ids"][[0, 2]] == -1).all()
    whole = experiments.read_lens(rmodel, ROWS[:1], lens)
    assert torch.equal(read.values[:, [1, 3]], whole.values[:, [1, 3]])
    widget = rmodel.lens(ROWS[:1], lens=some)
    assert widget.worker.wait() and not widget.trouble and "Jacobian lens" in repr(widget.title)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_files_come_back(
    rmodel: garcon.RemoteModel, lens: JacobianLens, tmp_path: Path, ending: str
) -> None:
    path = lens.save(tmp_path / f"lens.{ending}")
    again = experiments.load_lens(rmodel, path)
    assert isinstance(again, JacobianLens) and (again.texts, again.facts) == (3, lens.facts)
    exact = ending == "safetensors"
    for layer, one in lens.jacobians.items():
        kept = one if exact else one.half().float()
        assert torch.equal(again.jacobians[layer], kept)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_published_files_are_read(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    """As Anthropic's reference and TransformerLens 4.3 write them, by their documentation."""
    matrices = {n: torch.randn(48, 48) for n in range(3)}
    content = {
        "J": {n: one.half() for n, one in matrices.items()},
        "n_prompts": 7,
        "source_layers": [0, 1, 2],
        "d_model": 48,
    }
    torch.save(content, tmp_path / "published.pt")
    lens = experiments.load_lens(rmodel, tmp_path / "published.pt")
    assert isinstance(lens, JacobianLens) and lens.texts == 7
    assert torch.equal(lens.jacobians[1], matrices[1].half().float())
    sums = {"jacobian_sum": {n: one * 5 for n, one in matrices.items()}, "n_done": 5}
    torch.save({**sums, "next_idx": 5, "target_layer": 3}, tmp_path / "sums.pt")
    lens = experiments.load_lens(rmodel, tmp_path / "sums.pt")
    assert isinstance(lens, JacobianLens) and close(lens.jacobians[2], matrices[2], 1e-6)


SQUARE = torch.eye(48)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({"J": {}}, "neither J nor jacobian_sum"),
        ({"J": {0: SQUARE}, "d_model": 64}, r"J\[0\] is \[48, 48\], not \[64, 64\]"),
        ({"J": {0: SQUARE[:40]}, "d_model": 48}, r"J\[0\] is \[40, 48\]"),
        ({"J": {0: SQUARE / 0}, "d_model": 48}, r"J\[0\] holds infinities or NaN"),
        ({"J": {0: torch.eye(40)}, "d_model": 40}, "streams of 40 numbers, and those .* have 48"),
        ({"J": {3: SQUARE}, "d_model": 48}, "a map of layer 3, and .* are 0 to 2"),
        ({"J": {0: SQUARE}, "d_model": 48, "source_layers": [1]}, r"source_layers is \[1\]"),
        ({"jacobian_sum": {0: SQUARE}, "n_done": 0}, "n_done is 0"),
        (
            {"jacobian_sum": {0: SQUARE}, "n_done": 1, "target_layer": 2},
            "target_layer of this Jacobian lens is 2, and the model's last layer is 3",
        ),
        ([1, 2], "holds a list, no dictionary"),
    ],
)
def test_files_that_contradict_are_refused(
    rmodel: garcon.RemoteModel, tmp_path: Path, content: Any, wrong: str
) -> None:
    torch.save(content, tmp_path / "wrong.pt")
    with pytest.raises(BadRequest, match=wrong):
        experiments.load_lens(rmodel, tmp_path / "wrong.pt")


def test_no_code_of_a_file_is_run(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    torch.save({"J": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(BadRequest, match="cannot be read without running code"):
        experiments.load_lens(rmodel, tmp_path / "code.pt")
    with pytest.raises(BadRequest, match="cannot be read: No such file"):
        experiments.load_lens(rmodel, tmp_path / "none.safetensors")


def test_what_cannot_be_fitted_is_refused(rmodel: garcon.RemoteModel) -> None:
    fit = experiments.fit_jacobian_lens
    with pytest.raises(BadRequest, match="longest text has 8 tokens, and the first 7 and the last"):
        fit(rmodel, ROWS, skip=7)
    with pytest.raises(BadRequest, match="no map of 3"):
        fit(rmodel, ROWS, 3, skip=1)
    with pytest.raises(BadRequest, match="leave nothing to fit"):
        fit(rmodel, ROWS, length=1)
    asked = wire.Jacobian(
        batch=wire.Batch(ROWS[:1]),
        target="layers.3.resid_post",
        sources=("layers.0.resid_post",),
        positions=(0, 7),
        dims=(0, 49),
    )
    with pytest.raises(BadRequest, match="of places that there are"):
        rmodel._run(asked)
    asked.dims, asked.sources = (0, 4), ("layers.0.mlp.out",)
    with pytest.raises(BadRequest, match="no residual stream between layers"):
        rmodel._run(asked)


def test_an_interrupt_leaves_the_texts_that_were_done(
    rmodel: garcon.RemoteModel, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = rmodel._run, [0]

    def interrupted(request: Any, *more: Any, **options: Any) -> Any:
        asked[0] += isinstance(request, wire.Jacobian)
        if asked[0] == 2:
            raise KeyboardInterrupt
        return run(request, *more, **options)

    monkeypatch.setattr(rmodel, "_run", interrupted)
    found = experiments.fit_jacobian_lens(rmodel, ROWS, 1, skip=SKIP, tokens=512)
    assert found.texts == 1
    assert close(found.jacobians[1], jacobian(model, ROWS[0], 1, SKIP), 1e-5)
    asked[0] = 1
    with pytest.raises(KeyboardInterrupt):
        experiments.fit_jacobian_lens(rmodel, ROWS, 1, skip=SKIP)
