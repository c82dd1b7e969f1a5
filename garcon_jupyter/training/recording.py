"""The recording of a training: a context around any loop, in which every step is recorded as it is taken."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadData, BadRequest, GarconError, UnknownParameter
from garcon_jupyter.training.axes import hidden_axes, stream_width
from garcon_jupyter.training.chunks import Forms, matrices_of
from garcon_jupyter.training.neurons import NeuronTable
from garcon_jupyter.training.opened import TrainingRecord, open_record
from garcon_jupyter.training.outliers import Outliers, Unit, units_of
from garcon_jupyter.training.per_datum import PerDatum
from garcon_jupyter.training.projections import Projections
from garcon_jupyter.training.reading import Reader
from garcon_jupyter.training.steps import BeforeStep, StepShares, kind_of
from garcon_jupyter.training.writing import RecordWriter

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

Array = np.ndarray[Any, Any]


class TrainingRecorder:
    """A recording that is under way; made by :func:`garcon_jupyter.training.record`.

    Attributes:
        path: the record's directory.
        step: number of the step that is being taken.
        batch: the gradients of the batch that was named last.
    """

    def __init__(self, model: Module, path: Path, options: Mapping[str, Any]) -> None:
        self.model, self.path, self._options = model, path, dict(options)
        self.step: int = options["step"] or 0
        self.batch: PerDatum | None = None
        self._reader = Reader(model, options["batch_dim"], options["uncovered"])
        self._units = units_of(self._shapes(options["units"]))
        forms = Forms(
            tuple(matrices_of(self._units, hidden_axes(model, self._units, options["hidden"]))),
            options["moves"],
        )
        self._forms, self._outliers = forms, Outliers(self._units, options["k"])
        self._projections = Projections(self._units, options["projection"], options["seed"])
        self._full = self._matching(options["full"])
        self._wanted_shares = self._matching(options["shares"])
        self._writer: RecordWriter | None = None
        self._pending: list[tuple[PerDatum, list[Array], dict[str, Array]]] = []
        self._before: dict[str, BeforeStep] = {}
        self._shares: dict[str, StepShares] = {}
        self._stepped: set[str] = set()
        self._facts: dict[str, Any] = {}
        self._lr: list[float] = []
        self._failed: GarconError | None = None
        self._handles: list[Any] = []

    def _shapes(self, wanted: Sequence[str] | None) -> dict[str, Sequence[int]]:
        """The matrices among the trained parameters: those outside of tables and heads, or those that patterns name."""
        from torch import nn

        parameters = self._reader.parameters
        matrices = {name: each for name, each in parameters.items() if each.dim() >= 2}
        if wanted is None:
            tables = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
            rows = {m.num_embeddings for m in self.model.modules() if isinstance(m, nn.Embedding)}
            width = stream_width(self.model)
            return {
                name: tuple(each.shape)
                for name, each in matrices.items()
                if id(each) not in tables and not (each.shape[0] in rows and each.shape[1] == width)
            } or {name: tuple(each.shape) for name, each in matrices.items()}
        chosen = self._matching(wanted)
        return {name: tuple(matrices[name].shape) for name in chosen if name in matrices}

    def _matching(self, patterns: Sequence[str]) -> list[str]:
        known = [*self._reader.parameters]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise UnknownParameter.among("trained parameter", pattern, known)
        return [name for name in known if any(fnmatchcase(name, p) for p in patterns)]

    # -- the context -------------------------------------------------------------------------

    def __enter__(self) -> TrainingRecorder:
        from torch.optim import optimizer

        manifest = self._manifest()
        self._writer = RecordWriter(
            self.path, manifest, self._forms, self._options["chunk"], self._options["step"]
        )
        self._reader.install()
        self._reader.capture.before_pass.append(self._notice_skipped)
        self._handles = [
            optimizer.register_optimizer_step_pre_hook(self._about_to_step),
            optimizer.register_optimizer_step_post_hook(self._has_stepped),
        ]
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._reader.remove()
        for handle in self._handles:
            handle.remove()
        if self._pending and self._failed is None:
            self._drop("no optimizer stepped before the recording ended")
        if self._writer is not None:
            self._writer.close()
        if self._failed is not None and kind is None:
            raise self._failed

    def _manifest(self) -> dict[str, Any]:
        options, parameters = self._options, self._reader.parameters
        return {
            "model": type(self.model).__name__,
            "parameters": {name: [*each.shape] for name, each in parameters.items()},
            "units": [
                [m.unit.name, m.unit.rows, m.unit.columns, m.axis] for m in self._forms.matrices
            ],
            "k": options["k"],
            "moves": options["moves"],
            "norms": options["norms"],
            "dots": options["dots"],
            "projection": [options["projection"], options["seed"]],
            "full": self._full,
            "left_out": dict(self._reader.left_out),
            "uncovered": list(options["uncovered"]),
            "says": "gradient of each datum's share of the batch's loss, summed over its tokens, before clipping",
        }

    @property
    def bytes_per_datum(self) -> dict[str, int]:
        """How many bytes on disk each datum takes, by what is kept of it; without its tokens."""
        numbers = {
            "outliers": self._outliers.k * self._forms.sealed(1).itemsize,
            "norms": 4 * len(self._reader.parameters) * self._options["norms"],
            "projections": 4 * self._projections.size,
        }
        sizes = {name: 4 * self._reader.parameters[name].numel() for name in self._full}
        return {**{name: each for name, each in numbers.items() if each}, **sizes}

    # -- what a loop calls -------------------------------------------------------------------

    def data(self, ids: Any, loss: Any = None) -> PerDatum:
        """Name the data of the batch whose backward was just done; before the optimizer steps.

        Args:
            ids: a whole number for each row, [B], or for each position, [B, T], where several data are packed into a
                row; negative ones are padding.
            loss: of the batch, for the journal; by default that which the model returned, if any.

        Returns:
            The gradients of the batch by datum; good until the next batch.

        Raises:
            BadData: they do not match the batch, one is there twice, or no backward was seen.
            BadRequest: a parameter is not covered.
        """
        batch = self._reader.read(ids)
        named = {datum for each, _, _ in self._pending for datum in each.data}
        if twice := sorted(named & set(batch.data)):
            raise BadData(
                f"Datum {twice[0]} is in two batches of step {self.step}.",
                "Give what belongs to one step ids of their own.",
            )
        self.batch = batch
        if self._failed is None:
            self._pending.append((batch, self._largest(batch), self._numbers(batch)))
            loss = self._reader.capture.loss if loss is None else float(loss)
            if loss is not None:
                self._facts.setdefault("losses", []).append(loss)
        return batch

    def forget(self) -> None:
        """Leave out what was named since the last step: nothing will be recorded of it."""
        self._pending, self._facts, self.batch = [], {}, None

    def shares(self, parameter: str) -> StepShares:
        """The last step of a parameter, as the sum of the data's shares, what was carried, and decay.

        Raises:
            UnknownParameter: it is not among those that ``shares`` asked for, or no step was taken.
        """
        if parameter not in self._shares:
            raise UnknownParameter.among(
                "parameter with shares", parameter, self._shares, "Name it in shares=(…)."
            )
        return self._shares[parameter]

    @property
    def record(self) -> TrainingRecord:
        """What is recorded so far."""
        return open_record(self.path)

    def outliers(self, step: int, datum: int) -> list[tuple[str, tuple[int, ...], float]]:
        """(parameter, index, gradient) of a datum's outliers, the largest first: :meth:`TrainingRecord.outliers`."""
        return self.record.outliers(step, datum)

    def neurons(self, pattern: str = "*", side: str = "hidden unit") -> NeuronTable:
        """The neurons of some weights that have outliers so far: :meth:`TrainingRecord.neurons`."""
        return self.record.neurons(pattern, side)

    # -- a batch -----------------------------------------------------------------------------

    def _largest(self, batch: PerDatum) -> list[Array]:
        found = []
        for places, values in self._outliers.of(batch):
            entries = np.zeros(len(places), self._forms.open)
            entries["index"], entries["value"] = places, values
            found.append(entries)
        return found

    def _numbers(self, batch: PerDatum) -> dict[str, Array]:
        import torch

        found: dict[str, Array] = {}
        if self._options["norms"]:
            rows = [
                batch.squares(name).sqrt().float()
                if name in batch.sites
                else torch.full((len(batch.data),), float("nan"))
                for name in self._reader.parameters
            ]
            found["norms.f4"] = torch.stack(rows, 1).numpy()
        if self._options["dots"]:
            found["dots.f4"] = batch.dots().float().numpy()
        if self._projections.size:
            found["projections.f4"] = self._projections.of(batch).float().numpy()
        for number, name in enumerate(self._full):
            found[f"full-{number}.f4"] = batch.gradient(name).float().numpy()
        return found

    # -- a step ------------------------------------------------------------------------------

    def _ours(self, optimizer: Optimizer) -> list[str]:
        groups = optimizer.param_groups
        names = self._reader.names
        return [names[each] for group in groups for each in group["params"] if each in names]

    def _about_to_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Keep what a step is worked out from. A closure may still run the backward, so that gradients are looked at after it."""
        ours = set(self._ours(optimizer))
        if not ours or self._failed is not None:
            return
        self._lr = [float(group["lr"]) for group in optimizer.param_groups]
        whole = ours & set(self._wanted_shares)
        moved = ours & {u.parameter for u in self._units} if self._options["moves"] else set()
        try:
            for name in whole | moved:
                parameter = self._reader.parameters[name]
                self._before[name] = BeforeStep(optimizer, parameter, name in whole)
        except BadRequest as error:
            self._fail(error)

    def _factor(self, names: Sequence[str]) -> tuple[float | None, str]:
        """What clipping and scaling made of the gradients, and what is to be said where it is not one factor."""
        before, after = [], []
        for name in names:
            gradient = self._reader.parameters[name].grad
            if gradient is not None and name in self._reader.coverage.norms:
                before.append(self._reader.coverage.norms[name])
                after.append(float(gradient.norm()))
        one, two = np.array(before, np.float64), np.array(after, np.float64)
        if not np.isfinite([*one, *two]).all():
            return None, "gradients are not finite"
        if not one.any():
            return 1.0, ""
        factor = float(np.sqrt((two**2).sum() / (one**2).sum()))
        if np.abs(two - factor * one).max() > 2e-3 * factor * np.abs(one).max():
            return None, "gradients were changed otherwise than by one factor before the step"
        return factor, ""

    def _has_stepped(self, optimizer: Optimizer, *_: Any) -> None:
        ours = self._ours(optimizer)
        if not self._pending or not ours:
            return
        factor, note = self._factor(ours)
        self._facts |= {"optimizer": _kind(optimizer), "lr": self._lr, "factor": factor}
        if note:
            self._facts["note"] = note
        self._stepped |= set(ours)
        if {name for batch, _, _ in self._pending for name in batch.sites} <= self._stepped:
            self._commit()

    def _commit(self) -> None:
        """Write the step that was taken."""
        pending, self._pending = self._pending, []
        facts, self._facts, self._stepped = self._facts, {}, set()
        if self._failed is None and self._writer is not None:
            try:
                self._tell_shares([batch for batch, _, _ in pending], facts)
                self._write(pending, facts)
            except GarconError as error:  # a training is not stopped by its recording
                self._fail(error)
        self._before.clear()
        self.step += 1

    def _tell_shares(self, batches: list[PerDatum], facts: Mapping[str, Any]) -> None:
        import torch

        self._shares.clear()
        for name in self._wanted_shares:
            if name in self._before and facts["factor"] is not None:
                each = torch.cat([batch.gradient(name) for batch in batches])
                data = [datum for batch in batches for datum in batch.data]
                used = each * facts["factor"]
                self._shares[name] = self._before[name].shares(name, data, used)

    def _write(
        self, pending: list[tuple[PerDatum, list[Array], dict[str, Array]]], facts: dict[str, Any]
    ) -> None:
        assert self._writer is not None
        changed = []
        for batch, entries, _ in pending:
            for datum, tokens in zip(batch.data, batch.tokens, strict=True):
                if not self._writer.tokens(datum, tokens):
                    changed.append(datum)
            if self._options["moves"]:
                for each in entries:
                    each["move"] = self._moves(each, facts)
        if changed:
            facts["other_tokens"] = changed
        names = pending[0][2]
        self._writer.step(
            self.step,
            [datum for batch, _, _ in pending for datum in batch.data],
            [each for _, entries, _ in pending for each in entries],
            {name: np.concatenate([n[name].reshape(-1) for _, _, n in pending]) for name in names},
            facts,
        )

    def _moves(self, entries: Array, facts: Mapping[str, Any]) -> Array:
        """How far a datum's outliers moved their weights: its share of the step there."""
        import torch

        found = np.full(len(entries), np.nan, np.float32)
        index = entries["index"].astype(np.int64)
        for unit in self._units:
            before = self._before.get(unit.parameter)
            if before is None or facts["factor"] is None:
                continue
            here = (index >= unit.first) & (index < unit.first + unit.size)
            scale: Any = before.scale()
            if isinstance(scale, torch.Tensor):
                at = index[here] - unit.first + (unit.part or 0) * unit.size
                scale = scale.flatten()[torch.from_numpy(at)].numpy()
            found[here] = entries["value"][here] * facts["factor"] * scale
        return found

    # -- what goes otherwise -----------------------------------------------------------------

    def _notice_skipped(self) -> None:
        """Before a pass: whether gradients were thrown away, or a part of the parameters took no step."""
        if not self._pending:
            return
        if self._stepped:
            self._facts["note"] = "some parameters belong to no optimizer that stepped"
            self._commit()
        elif all(
            each.grad is None or not each.grad.any() for each in self._reader.parameters.values()
        ):
            self._drop("the optimizer did not step, and the gradients were thrown away")

    def _drop(self, why: str) -> None:
        data = [datum for batch, _, _ in self._pending for datum in batch.data]
        self._pending, self._facts = [], {}
        if self._failed is None and self._writer is not None:
            try:
                self._writer.note(self.step, why, data=data)
            except GarconError as error:
                self._fail(error)
        self.step += 1

    def _fail(self, error: GarconError) -> None:
        """Record no more; training goes on, and the end of the recording raises the error."""
        self._failed = error
        warnings.warn(
            f"Recording stopped at step {self.step}: {error}", RuntimeWarning, stacklevel=2
        )


def _kind(optimizer: Optimizer) -> str:
    """What a step's line calls the optimizer."""
    try:
        return kind_of(optimizer)
    except BadRequest:
        return type(optimizer).__name__


__all__ = ["TrainingRecorder", "Unit"]
