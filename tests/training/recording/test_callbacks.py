"""Recording beneath transformers' own Trainer, and Lightning's where it is installed: the same as a loop by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from garcon_jupyter import training
from garcon_jupyter.errors import BadData
from tests.training.by_backwards import losses, tiny, tokens

DATA = [{"input_ids": row, "labels": row, "datum": 100 + n} for n, row in enumerate(tokens(8, 9))]


def arguments(folder: Path, **changed: Any) -> Any:
    from transformers import TrainingArguments

    options: dict[str, Any] = {
        **{"per_device_train_batch_size": 2, "max_steps": 2, "learning_rate": 0.01},
        **{"gradient_accumulation_steps": 2, "max_grad_norm": 0.1, "lr_scheduler_type": "constant"},
        **{"remove_unused_columns": False, "report_to": [], "use_cpu": True, "disable_tqdm": True},
        **{"save_strategy": "no", "weight_decay": 0.1, "logging_strategy": "no", "seed": 1},
    }
    return TrainingArguments(str(folder), **{**options, **changed})


def trained(
    folder: Path, model: nn.Module, callbacks: list[Any], resume: Any = None, **changed: Any
) -> None:
    from transformers import Trainer

    # A model of the Trainer's own making, as one that is being trained.
    trainer = Trainer(model, arguments(folder, **changed), train_dataset=DATA, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)


@pytest.mark.lasting
def test_transformers_trainer_is_recorded_and_unchanged(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    path, name = tmp_path / "record", "model.layers.1.mlp.down_proj.weight"
    callback = training.for_trainer(path, moves=True, shares=(name,), k=50)
    trained(tmp_path, model, [callback])
    plain = tiny("llama", torch.float32)

    class Strip:
        def __init__(self) -> None:
            plain.register_forward_pre_hook(self.take, with_kwargs=True)

        def take(self, _: Any, inputs: Any, given: Any) -> Any:
            given.pop("datum", None)
            return inputs, given

    Strip()
    trained(tmp_path, plain, [])
    both = zip(model.parameters(), plain.parameters(), strict=True)
    assert all(one.equal(other) for one, other in both)
    found = training.open_record(path)
    assert [len(line["data"]) for line in found.steps.values()] == [4, 4]
    assert {each for line in found.steps.values() for each in line["data"]} <= set(range(100, 108))
    line = found.steps[0]
    assert line["optimizer"] == "AdamW" and line["factor"] < 0.9 and len(line["losses"]) == 2
    for datum, told in found.tokens.items():
        assert told == DATA[datum - 100]["input_ids"].tolist()  # type: ignore[union-attr] # a tensor
    # The gradients of the first step, by a loop of one's own over the same data.
    fresh = tiny("llama", torch.float32)
    ids = torch.stack([DATA[datum - 100]["input_ids"] for datum in line["data"]])  # type: ignore[misc]
    for row, datum in enumerate(line["data"]):
        fresh.zero_grad()
        losses(fresh, ids)[row].backward()
        unit, place, value = found.outliers(0, datum)[0]
        assert float(fresh.get_parameter(unit).grad[place]) == pytest.approx(value, rel=1e-4)


@pytest.mark.lasting
def test_a_resumed_trainer_goes_on_in_its_record(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    save = {
        "save_strategy": "steps",
        "save_steps": 1,
        "gradient_accumulation_steps": 1,
        "max_steps": 3,
    }
    trained(
        tmp_path / "one", tiny("llama", torch.float32), [training.for_trainer(whole, k=20)], **save
    )
    trained(
        tmp_path / "two", tiny("llama", torch.float32), [training.for_trainer(parts, k=20)], **save
    )
    again = tiny("llama", torch.float32)
    checkpoint = str(tmp_path / "two" / "checkpoint-2")
    trained(tmp_path / "two", again, [training.for_trainer(parts, k=20)], checkpoint, **save)
    files = [
        {f.relative_to(p): f.read_bytes() for f in p.rglob("*") if f.is_file()}
        for p in (whole, parts)
    ]
    assert files[0] == files[1]


def test_without_ids_the_remedy_is_told(tmp_path: Path) -> None:
    callback = training.for_trainer(tmp_path / "record")
    with pytest.raises(BadData, match="remove_unused_columns=False"):
        trained(tmp_path, tiny("llama", torch.float32), [callback], remove_unused_columns=True)


def test_lightnings_trainer_is_recorded(tmp_path: Path) -> None:
    """Its backward runs in the closure of the optimizer's step."""
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny("llama", torch.float32)

        def training_step(self, batch: Any, _: int) -> Tensor:
            return losses(self.model, batch["ids"]).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)

    rows = [{"ids": row, "datum": n} for n, row in enumerate(tokens(8, 9))]
    name = "model.norm.weight"
    callback = training.for_lightning(
        tmp_path / "record", model=lambda module: module.model, shares=(name,), k=20, moves=True
    )
    trainer = lightning.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False},
        **{"enable_progress_bar": False, "gradient_clip_val": 0.05, "accumulate_grad_batches": 2},
        **{"callbacks": [callback], "default_root_dir": tmp_path, "enable_model_summary": False},
    )
    shares = []
    callback.on_train_batch_end = lambda *_: shares.append(
        callback.recording.recorder._shares.get(name)
    )
    module = Module().train()
    trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=2))  # type: ignore[arg-type]
    found = training.open_record(tmp_path / "record")
    assert [line["data"] for line in found.steps.values()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(line["factor"] < 0.9 for line in found.steps.values())
    assert shares[-1].apart < 1e-4 and shares[-1].data == [4, 5, 6, 7]
