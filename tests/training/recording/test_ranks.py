"""A training on two processes, by torch's own DistributedDataParallel: the record is that of one process with the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from garcon_jupyter import training
from garcon_jupyter.errors import BadRequest

pytestmark = pytest.mark.processes

PROGRAM = """
import sys
import torch
from pathlib import Path
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from garcon_jupyter import training
from garcon_jupyter.errors import GarconError

folder, rank, world, mode = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 12), nn.ReLU(), nn.LayerNorm(12), nn.Linear(12, 30))
if world > 1:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    model = DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
rows, name = 6 // world, "4.weight"
options = {"k": 50, "chunk": 2, "units": ["*weight"], "projection": 3, "full": ["3.*"], "moves": True, "shares": [name]}
try:
    with training.record(model, folder / "record", **options) as record:
        for step in range(5):
            ids = torch.randint(0, 30, (6, 7), generator=torch.Generator().manual_seed(step))
            mine = slice(rank * rows, rank * rows + rows)
            batch, data = ids[mine], list(range(6 * step, 6 * step + 6))[mine]
            if mode == "twice" and step == 2:
                data = list(range(rows))
            logits = model(batch[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            if not (mode == "none" and rank and step == 2):
                record.data(data, loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.3)
            optimizer.step()
            optimizer.zero_grad()
            if rank == 0 and mode == "ok":
                told = record.shares(name)
                assert told.apart < 1e-4 and told.data == list(range(6 * step, 6 * step + 6)), told.apart
except GarconError as error:
    print(type(error).__name__, error)
torch.save({key.removeprefix("module."): each for key, each in model.state_dict().items()}, folder / f"end-{rank}.pt")
"""


def run(folder: Path, world: int, mode: str = "ok") -> list[str]:
    """What each rank prints."""
    folder.mkdir(exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                PROGRAM,
                str(folder),
                str(rank),
                str(world),
                mode,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [each.communicate(timeout=120) for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    assert all(each.returncode == 0 for each in ranks), said
    return [out for out, _ in said]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run(folder, 1)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    assert run(folder, 2) == ["", ""]
    return folder


def test_the_record_of_two_ranks_is_that_of_one(one: Path, two: Path) -> None:
    whole, parts = (training.open_record(each / "record") for each in (one, two))
    assert whole.tokens == parts.tokens and whole.manifest == parts.manifest
    assert [*whole.steps] == [*parts.steps] == [0, 1, 2, 3, 4] and not parts.notes
    for step in whole:
        mine, theirs = whole.steps[step], parts.steps[step]
        assert mine["data"] == theirs["data"] and mine["optimizer"] == theirs["optimizer"]
        assert theirs["factor"] == pytest.approx(mine["factor"], rel=1e-4) and mine["factor"] < 1
        assert np.mean(theirs["losses"]) == pytest.approx(mine["losses"][0], rel=1e-5)
        for datum in mine["data"]:
            found = {(u, p): v for u, p, v in whole.outliers(step, datum)}
            other = {(u, p): v for u, p, v in parts.outliers(step, datum)}
            least = min(map(abs, found.values()))
            for key in found.keys() | other.keys():
                if max(abs(found.get(key, 0)), abs(other.get(key, 0))) > least * 1.001:
                    assert other[key] == pytest.approx(found[key], rel=1e-3, abs=1e-7)
        for name, norms in whole.norms(step).items():
            assert parts.norms(step)[name] == pytest.approx(norms, rel=1e-3, abs=1e-7)
        assert np.allclose(whole.projections(step), parts.projections(step), rtol=1e-3, atol=1e-6)
        gradient = [each.gradient(step, 6 * step + 4, "3.weight") for each in (whole, parts)]
        assert np.allclose(*gradient, rtol=1e-3, atol=1e-7)
        moves = [each.of_step(step).moves for each in (whole, parts)]
        assert np.abs(moves[0]).sum() == pytest.approx(np.abs(moves[1]).sum(), rel=1e-3)


def test_the_training_is_unchanged(two: Path, tmp_path: Path) -> None:
    bare = PROGRAM.replace("training.record(", "Bare(").replace(
        "folder, rank,", "import contextlib\nfolder, rank,", 1
    )
    stand_in = (
        "class Bare(contextlib.nullcontext):\n"
        "    def __init__(self, *a, **b): super().__init__(self)\n"
        "    def data(self, *a): pass\n"
    )
    bare = bare.replace("torch.manual_seed(0)", stand_in + "torch.manual_seed(0)", 1)
    command = [sys.executable, "-c", bare, str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank), "2", "bare"]) for rank in range(2)]
    assert [each.wait(120) for each in ranks] == [0, 0]
    for rank in range(2):
        with_, without = (torch.load(each / f"end-{rank}.pt") for each in (two, tmp_path))
        assert all(with_[key].equal(without[key]) for key in without)


@pytest.mark.parametrize(
    ("mode", "said", "steps"), [("twice", "Datum 0 is on two ranks", 2), ("none", "", 5)]
)
def test_what_goes_wrong_on_a_rank_keeps_none_waiting(
    mode: str, said: str, steps: int, tmp_path: Path
) -> None:
    first, second = run(tmp_path, 2, mode)
    assert said in first and second == ""
    found = training.open_record(tmp_path / "record")
    assert len(found.steps) == steps
    if mode == "none":  # the other rank had no data in step 2
        assert found.steps[2]["data"] == [12, 13, 14]
    ends = [torch.load(tmp_path / f"end-{rank}.pt") for rank in range(2)]
    assert all(ends[0][key].equal(ends[1][key]) for key in ends[0])


def test_a_record_that_is_there_is_refused_on_all_ranks(two: Path) -> None:
    assert all("holds a record already" in each for each in run(two, 2))


def test_without_ranks_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no ranks over which"):
        training.record(nn.Linear(2, 2), tmp_path / "a", data_parallel=True)
