"""Recording beneath the trainers of others: callbacks for transformers' Trainer, and for Lightning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.training.recording.starting import record
from garcon_jupyter.training.records.files import MANIFEST

if TYPE_CHECKING:
    from torch.nn import Module

    from garcon_jupyter.training.recording.context import TrainingRecorder

IDS = "datum"
"""The column of a dataset, or the entry of a batch, that has the ids of its data."""


class RecordingUnderTrainer:
    """What both callbacks do: begin and end a recording, and name the data of each backward.

    Attributes:
        recorder: the recording, while there is one.
    """

    def __init__(self, path: str | Path, ids: str, options: dict[str, Any]) -> None:
        self.path, self.ids, self.options = Path(path).expanduser(), ids, options
        self.recorder: TrainingRecorder | None = None

    def begin(self, model: Module, step: int) -> None:
        """Begin to record, or go on where the trainer's checkpoint stands."""
        start = step if step or (self.path / MANIFEST).exists() else None
        recorder = record(model, self.path, **{"step": start, **self.options})
        self.recorder = recorder.__enter__()

    def name(self, ids: Any) -> None:
        """Name the data of the batch that just ran backward."""
        if self.recorder is None:
            return
        if ids is None:
            raise BadData(
                f"The batch has no {self.ids!r}, which would name its data.",
                f"Give the dataset a column {self.ids!r} of whole numbers, and with transformers' Trainer remove_unused_columns=False.",
            )
        self.recorder.data(ids)

    def end(self, failed: bool = False) -> None:
        """End the recording."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.__exit__(RuntimeError if failed else None)


def for_trainer(path: str | Path, ids: str = IDS, **options: Any) -> Any:
    """A callback for transformers' ``Trainer`` that records its training.

        Trainer(model, args, train_dataset=data, callbacks=[training.for_trainer("run.record")])

    The dataset has a column of whole numbers that names each datum, and the arguments say ``remove_unused_columns=False``, so that it reaches
    the batch; it is taken out before the model sees it. Accumulation, clipping, mixed precision and resuming from a
    checkpoint are the Trainer's own.

    Args:
        path: the record's directory.
        ids: name of the column.
        options: of :func:`garcon_jupyter.training.record`.
    """
    from transformers import TrainerCallback

    class RecordingCallback(TrainerCallback):
        """Records a training under transformers' Trainer."""

        def __init__(self) -> None:
            self.recording = RecordingUnderTrainer(path, ids, options)
            self._seen: Any = None
            self._hook: Any = None

        def _take(self, _: Any, inputs: Any, given: dict[str, Any]) -> Any:
            seen = given.pop(ids, None)
            if self.recording.recorder is not None and given:
                self._seen = seen
            return inputs, given

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            model = more["model"]
            # Before the recording's own hooks: what is no input of the model is gone when they look.
            self._hook = model.register_forward_pre_hook(self._take, with_kwargs=True)
            if args.world_size > 1:
                self.recording.options.setdefault("data_parallel", True)
            self.recording.begin(model, state.global_step)

        def _named(self) -> None:
            seen, self._seen = self._seen, None
            self.recording.name(seen)

        def on_substep_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self._named()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self._named()

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if self._hook is not None:
                self._hook.remove()
            self.recording.end()

    return RecordingCallback()


def for_lightning(
    path: str | Path,
    ids: str | Callable[[Any], Any] = IDS,
    model: Callable[[Any], Module] = lambda module: module,
    **options: Any,
) -> Any:
    """A callback for Lightning's ``Trainer`` that records its training.

        Trainer(callbacks=[training.for_lightning("run.record", model=lambda module: module.model)])

    Args:
        path: the record's directory.
        ids: the entry of a batch that names its data, or a function that finds it.
        model: gives of the LightningModule the part that is called with tokens; by default the module itself.
        options: of :func:`garcon_jupyter.training.record`.

    Raises:
        BadRequest: Lightning is not installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        raise BadRequest("Lightning is not installed.", "pip install lightning.") from None

    class RecordingCallback(Callback):  # type: ignore[misc] # it may be absent
        """Records a training under Lightning's Trainer."""

        def __init__(self) -> None:
            name = ids if isinstance(ids, str) else "ids"
            self.recording = RecordingUnderTrainer(path, name, options)
            self._batch: Any = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.recording.begin(model(pl_module), trainer.global_step)

        def on_train_batch_start(
            self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
        ) -> None:
            self._batch = batch

        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            batch = self._batch
            if callable(ids):
                self.recording.name(ids(batch))
            else:
                self.recording.name(batch.get(ids) if hasattr(batch, "get") else None)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.recording.end()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self.recording.end(failed=True)

    return RecordingCallback()
