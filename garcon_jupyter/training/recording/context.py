"""The recording of a training: a context around any loop, in which every step is recorded as it is taken."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadData, BadRequest, GarconError, UnknownParameter
from garcon_jupyter.training.gradients.per_datum import PerDatum
from garcon_jupyter.training.gradients.reading import Reader
from garcon_jupyter.training.opened import TrainingRecord, open_record
from garcon_jupyter.training.questions.neurons import NeuronTable
from garcon_jupyter.training.recording.keeping import Keeping
from garcon_jupyter.training.recording.ranks import parted
from garcon_jupyter.training.recording.steps import BeforeStep, StepShares, kind_of
from garcon_jupyter.training.records.writing import RecordWriter

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

Array = np.ndarray[Any, Any]

_Named = tuple[PerDatum, list[Array], dict[str, Array]]
"""A batch, its outliers, and other numbers of it."""


@dataclass(frozen=True, eq=False)
class _OfRank:
    """What one process has of a step.

    Attributes:
        named: of each batch the ids, their tokens, outliers and other numbers.
        gradients: of the parameters with shares, as the optimizer used them, [data, *shape].
        losses: of each batch.
    """

    named: list[tuple[list[int], list[list[int]], list[Array], dict[str, Array]]]
    gradients: dict[str, Tensor]
    losses: list[float]


class TrainingRecorder:
    """A recording that is under way; made by :func:`garcon_jupyter.training.record`.

    Attributes:
        path: the record's directory.
        step: number of the step that is being taken.
        batch: the gradients of the batch that was named last.
    """

    def __init__(self, model: Module, path: Path, options: Mapping[str, Any]) -> None:
        self.path, self._options = path, dict(options)
        self.model, self._ranks = parted(model, options["data_parallel"])
        model = self.model
        if self._ranks.count > 1 and options["dots"]:
            raise BadRequest(
                "Dot products of data on several ranks are not worked out.", "Leave dots out."
            )
        self.step: int = options["step"] or 0
        self.batch: PerDatum | None = None
        self._reader = Reader(model, options["batch_dim"], options["uncovered"])
        self._keeping = Keeping(model, self._reader, options)
        self._wanted_shares = self._keeping.matching(options["shares"])
        self._writer: RecordWriter | None = None
        self._pending: list[_Named] = []
        self._before: dict[str, BeforeStep] = {}
        self._shares: dict[str, StepShares] = {}
        self._stepped: set[str] = set()
        self._facts: dict[str, Any] = {}
        self._lr: list[float] = []
        self._failed: GarconError | None = None
        self._handles: list[Any] = []

    # -- the context -------------------------------------------------------------------------

    def __enter__(self) -> TrainingRecorder:
        from torch.optim import optimizer

        failed: GarconError | None = None
        if self._ranks.writes:
            options, forms = self._options, self._keeping.forms
            manifest = self._keeping.manifest()
            try:
                self._writer = RecordWriter(
                    self.path, manifest, forms, options["chunk"], options["step"]
                )
            except GarconError as error:
                failed = error
        self._ranks.agree(failed)
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

    @property
    def bytes_per_datum(self) -> dict[str, int]:
        """How many bytes on disk each datum takes, by what is kept of it; without its tokens."""
        return self._keeping.bytes_per_datum

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
        if self._ranks.count > 1:  # gradients are the mean over ranks
            batch = batch.scaled(1 / self._ranks.count)
            self._reader.coverage.look_again()
        self.batch = batch
        if self._failed is None:
            self._pending.append(
                (batch, self._keeping.largest(batch), self._keeping.numbers(batch))
            )
            loss = (
                self._reader.capture.loss
                if loss is None
                else float(getattr(loss, "detach", lambda: loss)())
            )
            if loss is not None:
                self._facts.setdefault("losses", []).append(loss)
        return batch

    def keep(self, **facts: Any) -> None:
        """Write what was named as a step of its own, which no optimizer took: of gradients alone.

        Args:
            facts: what else the journal says of it.
        """
        self._facts |= {"optimizer": None, "lr": [], "factor": 1.0, **facts}
        self._commit()

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
        moved = (
            ours & {u.parameter for u in self._keeping.units} if self._options["moves"] else set()
        )
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
        alone = self._ranks.count == 1
        if ours and not self._pending:  # what ran backward is of this step, and not of the next
            self._reader.forget()
        if not ours or (alone and not self._pending):
            return
        factor, note = self._factor(ours)
        self._facts |= {"optimizer": _kind(optimizer), "lr": self._lr, "factor": factor}
        if note:
            self._facts["note"] = note
        self._stepped |= set(ours)
        seen = {name for batch, _, _ in self._pending for name in batch.sites}
        # Ranks come to a step together, though one may have no data in it: they know it by all parameters.
        if (seen if alone else set(self._reader.parameters)) <= self._stepped:
            self._commit()

    def _commit(self) -> None:
        """Write the step that was taken; of several ranks the first does, what all of them have."""
        pending, self._pending = self._pending, []
        facts, self._facts, self._stepped = self._facts, {}, set()
        own: _OfRank | GarconError = _OfRank([], {}, [])
        try:
            if self._failed is None:
                own = self._of_rank(pending, facts)
        except GarconError as error:  # a training is not stopped by its recording
            self._fail(error)
        every = self._ranks.gathered(self._failed or own)
        if not self._ranks.writes:
            self._keep_shares([own] if isinstance(own, _OfRank) else [], facts)
        elif self._failed is None and self._writer is not None:
            try:
                self._write(every, facts)
            except GarconError as error:
                self._fail(error)
        self._before.clear()
        if pending or any(isinstance(one, _OfRank) and one.named for one in every):
            self.step += 1

    def _of_rank(self, pending: list[_Named], facts: Mapping[str, Any]) -> _OfRank:
        """What this rank has of a step."""
        import torch

        gradients = {}
        for name in self._wanted_shares:
            if name in self._before and facts["factor"] is not None and pending:
                found = torch.cat([batch.gradient(name) for batch, _, _ in pending])
                gradients[name] = found * facts["factor"]
        if self._options["moves"]:
            for _, entries, _ in pending:
                for each in entries:
                    each["move"] = self._moves(each, facts)
        named = [(batch.data, batch.tokens, entries, more) for batch, entries, more in pending]
        return _OfRank(named, gradients, facts.get("losses", []))

    def _keep_shares(self, every: Sequence[_OfRank], facts: Mapping[str, Any]) -> None:
        import torch

        self._shares.clear()
        data = [datum for one in every for named, *_ in one.named for datum in named]
        for name in self._wanted_shares:
            used = [one.gradients[name] for one in every if name in one.gradients]
            if used and name in self._before:
                self._shares[name] = self._before[name].shares(name, data, torch.cat(used))

    def _write(self, every: Sequence[_OfRank | GarconError], facts: dict[str, Any]) -> None:
        assert self._writer is not None
        for number, one in enumerate(every):
            if isinstance(one, GarconError):
                raise BadData(f"Rank {number}: {one.problem}", one.remedy)
        ranks = [one for one in every if isinstance(one, _OfRank)]
        self._keep_shares(ranks, facts)
        named = [each for one in ranks for each in one.named]
        if not named:
            return
        if losses := [loss for one in ranks for loss in one.losses]:
            facts["losses"] = losses
        data = [datum for ids, *_ in named for datum in ids]
        if len(set(data)) < len(data):
            twice = next(each for each in data if data.count(each) > 1)
            raise BadData(
                f"Datum {twice} is on two ranks in step {self.step}.",
                "Give what belongs to one step ids of their own.",
            )
        pairs = [pair for ids, tokens, *_ in named for pair in zip(ids, tokens, strict=True)]
        if changed := [each for each, told in pairs if not self._writer.tokens(each, told)]:
            facts["other_tokens"] = changed
        streams = named[0][3]
        self._writer.step(
            self.step,
            data,
            [each for _, _, entries, _ in named for each in entries],
            {name: np.concatenate([n[name].reshape(-1) for *_, n in named]) for name in streams},
            facts,
        )

    def _moves(self, entries: Array, facts: Mapping[str, Any]) -> Array:
        """How far a datum's outliers moved their weights: its share of the step there."""
        import torch

        found = np.full(len(entries), np.nan, np.float32)
        index = entries["index"].astype(np.int64)
        for unit in self._keeping.units:
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
        if self._stepped and self._ranks.count > 1:
            left = next(each for each in self._reader.parameters if each not in self._stepped)
            self._pending, self._stepped = [], set()
            self._fail(
                BadRequest(
                    f"No optimizer that stepped has {left}.",
                    "On several ranks, freeze what is not trained before the recording.",
                )
            )
        elif self._stepped:
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
