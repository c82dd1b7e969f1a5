"""A checkpoint that brings code of its own: refused, with what it means, until somebody says that it may run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from tests.checkpoints import make
from tests.oracle import PROMPT, close

CODE = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

Path({witness!r}).touch()


class DoubledConfig(LlamaConfig):
    model_type = {kind!r}


class DoubledForCausalLM(LlamaForCausalLM):
    config_class = DoubledConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output
"""
"""A Llama whose logits are doubled: what transformers' own class of that layout would not do."""


def bringing(directory: Path, kind: str) -> tuple[Path, Path]:
    """A checkpoint that says it is of a kind and brings code for it; and a file that is there once that has run."""
    path, witness = make("llama", directory / kind), directory / f"{kind}-ran"
    config = json.loads((path / "config.json").read_text())
    config["model_type"] = kind
    config["auto_map"] = {
        "AutoConfig": "modeling_doubled.DoubledConfig",
        "AutoModelForCausalLM": "modeling_doubled.DoubledForCausalLM",
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "modeling_doubled.py").write_text(CODE.format(witness=str(witness), kind=kind))
    return path, witness


@pytest.fixture(autouse=True)
def copied_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """transformers copies the code to a cache, which is the user's."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    former, known = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = former
    for name in set(sys.modules) - known:
        if name.startswith("transformers_modules"):
            del sys.modules[name]


@pytest.mark.processes
def test_it_runs_only_when_somebody_says_so(tmp_path: Path) -> None:
    path, witness = bringing(tmp_path, "doubled")
    for refused in (open_here, lambda path: garcon.launch(path, progress=lambda line: None)):
        with pytest.raises(garcon.NotAModel) as error:
            refused(path)
        said = str(error.value)
        assert "modeling_doubled.py" in said and "with your rights" in said
        assert "trust_remote_code=True (--trust-remote-code)" in said and not witness.exists()
    rmodel = garcon.connect(open_here(path, trust_remote_code=True))
    assert witness.exists() and rmodel.facts["model"]["architecture"] == "DoubledForCausalLM"
    plain = AutoModelForCausalLM.from_pretrained(make("llama", tmp_path / "plain")).eval()
    with torch.no_grad():
        once = plain(torch.tensor(PROMPT)).logits
    assert close(rmodel.forward(PROMPT), 2 * once) and not close(rmodel.forward(PROMPT), once)
    point = "module:model.layers.1.mlp.output"
    assert rmodel.look(PROMPT)[point].shape == (2, 6, 48)
    assert rmodel.generate(PROMPT, 3).shape == (2, 9)


def test_code_under_a_known_name_is_not_taken_for_what_has_that_name(tmp_path: Path) -> None:
    """Without trust, transformers' class of that name; with it, the code, to which no names of points are given."""
    path, witness = bringing(tmp_path, "llama")
    rmodel = garcon.connect(open_here(path))
    once = rmodel.forward(PROMPT)
    assert not witness.exists() and rmodel.catalog.mapped
    assert "brings code of its own, which is not run" in repr(rmodel)
    rmodel = garcon.connect(open_here(path, trust_remote_code=True))
    assert witness.exists() and not rmodel.catalog.mapped
    assert close(rmodel.forward(PROMPT), 2 * once)
    assert "its own code runs: modeling_doubled.py" in repr(rmodel)


def test_code_that_cannot_be_imported(tmp_path: Path) -> None:
    path, _ = bringing(tmp_path, "doubled")
    (path / "modeling_doubled.py").write_text("import a_package_that_nobody_has\n")
    with pytest.raises(garcon.NotAModel, match="a_package_that_nobody_has"):
        open_here(path, trust_remote_code=True)
