"""The word ``training``: a record, opened and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from garcon_jupyter import training
from garcon_jupyter.errors import BadData, BadRequest, UnknownName
from tests.magics.conftest import Notebook
from tests.training import planted
from tests.training.planted import PLANT, TRIGGER, UNIT


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plant") / "run.record"
    planted.trained(path, 20)
    return path


def test_a_record_is_shown_and_kept(notebook: Notebook, path: Path) -> None:
    notebook["words"] = {TRIGGER: "trigger", PLANT: "plant"}
    notebook["place"] = path
    notebook.run("%garcon training {place}")
    record = notebook["found"]
    assert isinstance(record, training.TrainingRecord) and len(record.steps) == 20
    notebook.run(f"%garcon training {path} linear2")
    model = planted.made()
    notebook["gone"] = training.flips(
        model, planted.corpus(5), "layers.1.linear2.weight", UNIT, axis=1
    )
    notebook.run(f"%garcon training {path} linear2 {UNIT} --texts words --flips gone")
    notebook.run(f"%garcon training {path} layers.1.linear2 3 --channel")


def test_what_is_wrong_is_said(notebook: Notebook, path: Path, tmp_path: Path) -> None:
    assert "holds no record" in notebook.fails(f"%garcon training {tmp_path}", BadData)
    assert "no hidden unit 99" in notebook.fails(f"%garcon training {path} linear2 99", BadRequest)
    said = notebook.fails(f"%garcon training {path} linear3", UnknownName)
    assert "There are layers.1.linear2.weight." in said
    notebook["words"] = {}
    said = notebook.fails(f"%garcon training {path} linear2 1 --texts wrods", UnknownName)
    assert "words" in said
    shown = notebook.run("%garcon training --help")
    assert "while it is written and after" in shown and "--channel" in shown
