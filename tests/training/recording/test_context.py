"""A recording: training is the same to the last bit, what is stored is exact, and it goes on after a death."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from garcon_jupyter import training
from garcon_jupyter.errors import BadData, UnknownName, UnknownParameter
from tests.training.by_backwards import apart, losses, tiny, tokens, truth


class Loop:
    """A training of a few steps, with or without a recording around it."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float = 1e9
    ) -> None:
        self.model, self.optimizer, self.clip = model, optimizer, clip

    def step(self, number: int, record: Any = None, parts: int = 1) -> Tensor:
        ids = tokens(seed=number)
        for part in range(parts):
            rows = slice(part * 4 // parts, (part + 1) * 4 // parts)
            (losses(self.model, ids[rows]).sum() / parts).backward()
            if record is not None:
                record.data([10 * number + row for row in range(rows.start, rows.stop)])
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return ids


OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.5),
    "momentum": lambda p: SGD(p, lr=0.5, momentum=0.9, dampening=0.2, weight_decay=0.01),
    "nesterov": lambda p: SGD(p, lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.01),
    "maximize": lambda p: SGD(p, lr=0.01, maximize=True, weight_decay=0.1),
    "adam": lambda p: Adam(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_training_is_the_same_to_the_last_bit(family: str, tmp_path: Path) -> None:
    dropout = {"gpt2": {"resid_pdrop": 0.1}}.get(family, {"attention_dropout": 0.1})
    found = []
    for recorded in (False, True):
        model = tiny(family, torch.float32, **dropout)
        loop = Loop(model, AdamW(model.parameters(), lr=0.01), clip=0.5)
        torch.manual_seed(5)
        everything = {"dots": True, "projection": 4, "moves": True, "shares": ("*",)}
        if recorded:
            with training.record(model, tmp_path / "a", **everything) as record:
                for number in range(3):
                    loop.step(number, record)
        else:
            for number in range(3):
                loop.step(number)
        found.append({name: each.detach().clone() for name, each in model.named_parameters()})
    assert all(found[0][name].equal(found[1][name]) for name in found[0])


@pytest.mark.parametrize("clip", [1e9, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_shares_carried_and_decay_are_the_step(optimizer: str, clip: float, tmp_path: Path) -> None:
    model = tiny("gpt2", n_layer=2)
    loop = Loop(model, OPTIMIZERS[optimizer](model.parameters()), clip)
    with training.record(model, tmp_path / "a", shares=("*",)) as record:
        for number in range(3):
            before = {name: each.detach().clone() for name, each in model.named_parameters()}
            loop.step(number, record)
            factor = record.record.steps[number]["factor"]
            assert factor < 0.9 if clip < 1 else abs(factor - 1) < 1e-6
            for name, each in model.named_parameters():
                told = record.shares(name)
                assert told.step.equal(each.detach() - before[name])
                assert told.apart < 1e-6, (name, told.apart)
    name = "transformer.h.0.mlp.c_fc.weight"
    told, bare = record.shares(name), record.batch.gradient(name)
    assert told.shares.shape == (4, *model.get_parameter(name).shape)
    lr = loop.optimizer.param_groups[0]["lr"]
    logged = -lr * bare.sum(0)  # before clipping, whatever the optimizer: not the step
    if optimizer != "sgd" or clip < 1:
        assert apart(logged, told.step) > 0.1
    else:
        assert apart(logged, told.step) < 1e-4
    if optimizer not in ("sgd", "maximize"):
        assert float(told.carried.norm() / told.step.norm()) > 0.05


@pytest.mark.parametrize("clip", [1e9, 0.05])
def test_in_float32_the_identity_holds_to_rounding(clip: float, tmp_path: Path) -> None:
    """θ′ − θ is itself rounded, by half a unit in the last place of θ."""
    model = tiny("qwen3", torch.float32)
    loop = Loop(model, SGD(model.parameters(), lr=1.0), clip)
    with training.record(model, tmp_path / "a", shares=("*",)) as record:
        loop.step(0, record)
    for name, each in model.named_parameters():
        told = record.shares(name)
        rounding = 2**-24 * float(each.norm() / told.step.norm())
        assert told.apart < 1e-6 + 2 * rounding, name


def test_two_micro_batches_are_one_step(tmp_path: Path) -> None:
    found = []
    for parts in (1, 2):
        model = tiny("llama")
        loop = Loop(model, AdamW(model.parameters(), lr=0.01), 0.1)
        with training.record(model, tmp_path / str(parts), k=50, moves=True) as record:
            for number in range(2):
                loop.step(number, record, parts)
        found.append(record.record)
    one, two = found
    assert [line["data"] for line in one.steps.values()] == [[0, 1, 2, 3], [10, 11, 12, 13]]
    for step in (0, 1):
        for datum in one.steps[step]["data"]:
            pairs = zip(one.outliers(step, datum), two.outliers(step, datum), strict=True)
            for (a, i, v), (b, j, w) in pairs:
                assert (a, i) == (b, j) and v == pytest.approx(w, rel=1e-5)
        a, b = one.of_step(step).moves, two.of_step(step).moves
        assert np.allclose(a, b, rtol=1e-4) and np.isfinite(a).all()


def sorted_outliers(
    expected: dict[str, Tensor], names: list[str], row: int, k: int
) -> list[tuple[str, tuple[int, int], float]]:
    """By sorting all of the gradient: the largest first, of equal ones the lower index."""
    flat = np.concatenate([expected[name][row].float().flatten().numpy() for name in names])
    order = np.lexsort((np.arange(len(flat)), -np.abs(flat)))[:k]
    places = [(name, at) for name in names for at in np.ndindex(*expected[name].shape[1:])]
    return [(*places[n], float(flat[n])) for n in order]  # type: ignore[misc]


@pytest.mark.parametrize("k", [1, 1000, 10**9])
def test_outliers_are_those_of_the_sorted_gradient(k: int, tmp_path: Path) -> None:
    model, ids = tiny("gpt2", tie_word_embeddings=True, n_layer=1), tokens(seed=0)
    expected = truth(model, ids)
    names = ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"]
    loop = Loop(model, SGD(model.parameters(), lr=0.1))
    with training.record(model, tmp_path / "a", k=k, units=names) as record:
        loop.step(0, record)
    for row in range(4):
        found = record.outliers(0, row)
        right = sorted_outliers(expected, names, row, k)
        assert len(found) == len(right)
        places = [each[:2] for each in found]
        differing = [n for n, each in enumerate(right) if each[:2] != places[n]]
        for n in differing:  # equal in float32, and not in float64
            assert abs(found[n][2]) == pytest.approx(abs(right[n][2]), rel=1e-6)
        sizes = [[abs(v) for *_, v in each] for each in (found, right)]
        assert np.allclose(*sizes, rtol=1e-6)


def test_by_default_tables_of_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    model = tiny("llama")
    with training.record(model, tmp_path / "a") as record:
        Loop(model, SGD(model.parameters(), lr=0.1)).step(0, record)
    assert not any("embed" in unit or "lm_head" in unit for unit in record.record.units)
    assert len(record.record.units) == 14
    mixtral = tiny("mixtral")
    with training.record(mixtral, tmp_path / "b") as record:
        Loop(mixtral, SGD(mixtral.parameters(), lr=0.1)).step(0, record)
    assert "model.layers.0.mlp.experts.down_proj[3]" in record.record.units
    assert "model.layers.1.mlp.gate.weight" in record.record.units


def test_norms_dots_and_whole_gradients_are_kept(tmp_path: Path) -> None:
    model, ids = tiny("llama"), tokens(seed=0)
    expected = truth(model, ids)
    name = "model.layers.1.self_attn.o_proj.weight"
    with training.record(model, tmp_path / "a", dots=True, full=(name,)) as record:
        assert record.bytes_per_datum[name] == 4 * model.get_parameter(name).numel()
        Loop(model, SGD(model.parameters(), lr=0.1)).step(0, record)
    found = record.record
    for each, gradient in expected.items():
        norms = torch.tensor(list(found.norms(0)[each].values()))
        assert apart(norms, gradient.flatten(1).norm(dim=1)) < 1e-5
    flat = torch.cat([each.flatten(1) for each in expected.values()], 1)
    assert apart(torch.tensor(found.dots(0)), flat @ flat.T) < 1e-5
    assert apart(torch.tensor(found.gradient(0, 2, name)), expected[name][2]) < 1e-6
    with pytest.raises(UnknownName, match="Datum 9 was not in step 0"):
        found.outliers(0, 9)
    with pytest.raises(UnknownName, match="no step 4"):
        found.outliers(4, 0)
    with pytest.raises(UnknownParameter, match="down_proj"):
        training.record(model, tmp_path / "b", full=("model.layers.0.mlp.downproj.weight",))


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def trained(path: Path, steps: range, start: int | None, state: Any = None) -> list[Any]:
    """Train, and give the trainer's checkpoint before each step."""
    model = tiny("llama", torch.float32)
    optimizer = AdamW(model.parameters(), lr=0.01)
    if state is not None:
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
    loop, saved = Loop(model, optimizer), []
    with training.record(model, path, k=40, chunk=3, step=start, projection=2) as record:
        for number in steps:
            copy = {name: each.clone() for name, each in model.state_dict().items()}
            buffers = optimizer.state_dict()
            buffers["state"] = {
                key: {name: each.clone() for name, each in row.items()}
                for key, row in buffers["state"].items()
            }
            saved.append((copy, buffers))
            loop.step(number, record)
    return saved


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A record of eight steps in chunks of three, and the trainer's checkpoints before each."""
    path = tmp_path_factory.mktemp("eight") / "record"
    return path, trained(path, range(8), None)


@pytest.mark.parametrize("back_to", [2, 3, 4, 6])
def test_going_on_from_a_checkpoint_writes_the_same_bytes(
    back_to: int, eight: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    (whole, saved), resumed = eight, tmp_path / "resumed"
    shutil.copytree(whole, resumed)
    trained(resumed, range(back_to, 8), back_to, saved[back_to])
    assert contents(whole) == contents(resumed)
    # Complete and open chunks say the same: of one that has both, all is read.
    found = training.open_record(whole)
    for unit in found.units[:3]:
        for side in ("hidden unit", "residual channel"):
            matrix = found.matrix(unit)
            sizes = (matrix.unit.rows, matrix.unit.columns)
            count = sizes[matrix.axis if side == "hidden unit" else 1 - matrix.axis]
            parts = [len(found.of_neuron(unit, n, side)) for n in range(count)]
            assert sum(parts) == len(found.of_unit(unit))
    assert sum(len(found.of_unit(unit)) for unit in found.units) == 8 * 4 * 40


def test_a_torn_end_is_cut_off(eight: tuple[Path, list[Any]], tmp_path: Path) -> None:
    (whole, saved), torn = eight, tmp_path / "torn"
    trained(torn, range(7), None)
    for name in ("journal.jsonl", "norms.f4", "chunks/000002.open"):
        with (torn / name).open("ab") as stream:
            stream.write(b"12345678 {half")
    assert len(training.open_record(torn).steps) == 7
    trained(torn, range(7, 8), 7, saved[7])
    assert contents(whole) == contents(torn)


def test_a_record_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a"
    trained(path, range(2), None)
    with pytest.raises(BadData, match="holds a record already"):
        trained(path, range(1), None)
    with pytest.raises(BadData, match="ends before step 2, and 5 would follow"):
        trained(path, range(5, 6), 5)
    model = tiny("llama")
    with (
        pytest.raises(BadData, match="other settings: k"),
        training.record(model, path, k=7, chunk=3, step=2, projection=2),
    ):
        pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    with (
        pytest.raises(BadData, match="holds something else"),
        training.record(model, tmp_path / "b"),
    ):
        pass
    with pytest.raises(BadData, match="holds no record of a training"):
        training.open_record(tmp_path / "b")


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    trained(path, range(4), None)
    file = path / "chunks" / "000001.open"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadData, match=r"open is damaged at byte 0"):
        training.open_record(path).of_step(3)


def test_a_step_that_a_scaler_skips_is_a_note(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    optimizer, scaler = SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
    with training.record(model, tmp_path / "a", k=10) as record:
        for number in range(3):
            scaler.scale(losses(model, tokens(seed=number)).sum()).backward()
            if number == 1:
                model.get_parameter("model.norm.weight").grad[0] = torch.inf
            record.data([10 * number + row for row in range(4)])
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1e9)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    found = record.record
    assert [*found.steps] == [0, 2] and [note["step"] for note in found.notes] == [1]
    assert "did not step" in found.notes[0]["text"] and found.notes[0]["data"] == [10, 11, 12, 13]
    assert found.steps[0]["factor"] == pytest.approx(1 / 8) and found.steps[2][
        "factor"
    ] == pytest.approx(1 / 4)


def test_gradients_that_were_changed_one_by_one_have_no_factor(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    optimizer = SGD(model.parameters(), lr=0.1)
    with training.record(model, tmp_path / "a", k=10, shares=("*norm*",)) as record:
        losses(model, tokens()).sum().backward()
        record.data(range(4))
        model.get_parameter("model.layers.0.mlp.up_proj.weight").grad.mul_(3)
        optimizer.step()
    line = record.record.steps[0]
    assert line["factor"] is None and "otherwise than by one factor" in line["note"]
    with pytest.raises(UnknownParameter):
        record.shares("model.norm.weight")


def test_clipping_before_the_data_are_named_is_still_seen(tmp_path: Path) -> None:
    model = tiny("llama")
    optimizer = SGD(model.parameters(), lr=0.1)
    with training.record(model, tmp_path / "a", k=10, shares=("model.norm.weight",)) as record:
        losses(model, tokens()).sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        record.data(range(4))
        optimizer.step()
    assert record.record.steps[0]["factor"] == pytest.approx(0.01 / float(norm), rel=1e-4)
    assert record.shares("model.norm.weight").apart < 1e-6


def test_an_optimizer_without_a_rule_has_records_and_no_shares(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    with training.record(model, tmp_path / "a", k=10) as record:
        Loop(model, optimizer).step(0, record)
    assert record.record.steps[0]["optimizer"] == "RMSprop" and len(record.outliers(0, 0)) == 10


def test_a_disk_that_fills_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full is a file on a disk without room."""
    model, path = tiny("llama", torch.float32), tmp_path / "a"
    loop = Loop(model, SGD(model.parameters(), lr=0.1))
    before = model.get_parameter("model.norm.weight").detach().clone()
    with (
        pytest.raises(BadData, match="No space left"),
        training.record(model, path, k=10) as record,
    ):
        loop.step(0, record)
        (path / "norms.f4").unlink()
        (path / "norms.f4").symlink_to("/dev/full")
        record._writer.files.close()  # so that it is opened again
        with pytest.warns(RuntimeWarning, match="Recording stopped at step 1"):
            loop.step(1, record)
        loop.step(2, record)
    assert [*training.open_record(path).steps] == [0]
    assert not before.equal(model.get_parameter("model.norm.weight"))


def test_without_a_step_nothing_is_recorded(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    with training.record(model, tmp_path / "a") as record:
        losses(model, tokens()).sum().backward()
        record.data(range(4))
        with pytest.raises(BadData, match="Datum 3 is in two batches"):
            losses(model, tokens()).sum().backward()
            record.data([7, 8, 9, 3])
    assert not record.record.steps and "no optimizer stepped" in record.record.notes[0]["text"]
    assert not model.get_parameter("model.norm.weight")._backward_hooks


def test_importing_the_room_imports_no_torch() -> None:
    import ast

    import garcon_jupyter.training as room

    for file in Path(room.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), file


def test_a_step_whose_data_are_not_named_is_none_of_the_next(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    loop = Loop(model, SGD(model.parameters(), lr=0.1))
    with training.record(model, tmp_path / "a", k=10) as record:
        loop.step(0, record)
        losses(model, tokens(seed=5)).sum().backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.step(1, record)
    assert [line["data"] for line in record.record.steps.values()] == [
        record.record.steps[0]["data"],
        record.batch.data,  # type: ignore[union-attr] # there is one
    ]


def test_the_loss_of_any_model_can_be_told(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    optimizer = SGD(model.parameters(), lr=0.1)
    with training.record(model, tmp_path / "a", k=10) as record:
        loss = losses(model, tokens()).sum()
        loss.backward()
        record.data(range(4), loss)
        optimizer.step()
    assert record.record.steps[0]["losses"] == [pytest.approx(float(loss))]
