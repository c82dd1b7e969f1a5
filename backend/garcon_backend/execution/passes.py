"""Running the model forward and backward, with the probes of one request installed.

The model runs as transformers wrote it; the leader of the last stage answers.
:mod:`~garcon_backend.execution.generation` repeats forwards by the same means.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.distributed.collectives import Layout
from garcon_backend.distributed.stage_exchange import over_stages
from garcon_backend.execution import losses
from garcon_backend.execution.failing_module import noted
from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.parameters import Parameters
from garcon_backend.execution.row_chunks import RowChunk, Whole
from garcon_backend.libraries.transformers_internals import keeps_state
from garcon_backend.models.sharding import backward_through
from garcon_backend.probing.probed_pass import ProbedPass
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import LoadedProbe, PassFailed
from garcon_backend.process.interrupts import Cancelled
from garcon_backend.process.randomness import kept, seed_of
from garcon_backend.process.user_code import UserFailure
from garcon_backend.tokenization.token_strings import special_ids
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.model_files.multimodal import placeholders
from garcon_jupyter.points import Address
from garcon_jupyter.wire import requests as wire


class Passes:
    """Runs the model of this rank with probes.

    Attributes:
        rank: whose model it is.
        special: ids of its special tokens, [n].
        takes_positions: whether it can be told the position of each token, counted from 0.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.takes_positions = _takes_positions(rank.model)
        self._computes_some_logits = rank.bound.family is not None and _takes(
            rank.model, "logits_to_keep"
        )
        config = getattr(rank.model, "config", None)
        special = special_ids(rank.tokenizer, config)
        self._pieces = placeholders(config)
        self.special = torch.tensor(special, dtype=torch.long, device=rank.mesh.device)

    @property
    def answers(self) -> bool:
        """Whether this rank holds the model's output whole and answers with it."""
        return self.rank.mesh.last_stage and self.rank.mesh.runs_probes

    def batch(self, batch: wire.Batch) -> Inputs:
        """A batch, as this rank reads it.

        Raises:
            BadTokens: empty, out of range, longer than the model reads, or in the place of an image.
        """
        inputs = Inputs.of(batch, self.rank.bound.catalog.sizes, self.rank.mesh.device)
        inputs.refuse_pieces(self._pieces)
        return inputs

    # -- one request's pass ------------------------------------------------------------------

    @contextmanager
    def open(
        self,
        request: Any,
        inputs: Inputs,
        probes: Sequence[LoadedProbe],
        wanted: Sequence[Address] = (),
        **options: bool,
    ) -> Iterator[ProbedPass]:
        """The probes of a request, installed while this lasts.

        Raises:
            UserFailure: afterwards, if user code failed.
        """
        probed = ProbedPass(
            self.rank,
            request.session,
            rows=len(inputs.ids),
            seed=request.seed,
            splices=request.splices,
            **options,
        )
        probed.comes_from(request.batch)
        probed.special = self.special.clone()
        probed.add(probes, wanted)
        with self.installed(probed):
            yield probed

    @contextmanager
    def installed(self, probed: ProbedPass) -> Iterator[None]:
        """A pass whose points are known, installed while this lasts.

        Raises:
            UserFailure: afterwards, if user code failed.
        """
        try:
            with (
                noted(self.rank.model, probed.edits),
                kept(self.rank.mesh.device),
                probed.installed(),
            ):
                yield
            # What comes next may be a collective, so all ranks stop where one must.
            if self.rank.mesh.everyone.any(
                probed.failure is not None or self.rank.interrupts.stop.skipping
            ):
                raise PassFailed("User code failed on another rank, or the pass was stopped.")
            probed.note_silent()
        except PassFailed:
            self._raise_failure(probed)
            raise
        finally:
            probed.close()

    def _raise_failure(self, probed: ProbedPass) -> None:
        if self.rank.interrupts.stop.skipping:
            raise Cancelled
        if probed.failure is not None:
            if isinstance(probed.failure.error, Cancelled):
                raise Cancelled
            raise probed.failure

    def agree_to_go_on(self, probed: ProbedPass) -> None:
        """One word per forward: whether any rank was told to stop."""
        if self.rank.mesh.world == 1:
            self.rank.interrupts.check()
        elif self.rank.mesh.everyone.any(self.rank.interrupts.cancelled):
            raise Cancelled

    def read(self, probed: ProbedPass, inputs: Inputs, keep: Any = 0) -> Any:
        """What the model puts out for a batch.

        Args:
            keep: positions whose logits are computed, where the model can compute some; 0 for all.
        """
        self.agree_to_go_on(probed)
        self.rank.interrupts.phase = "forward"
        shape = (probed.gather_group.local, inputs.ids.shape[1])
        probed.begin(inputs.ids, inputs.mask, inputs.positions, 0, shape)
        inputs = inputs.scattered(probed.gather_group)
        if not hasattr(self.rank.model, "config"):
            return self.rank.model(inputs.ids)
        mapped = self.rank.bound.family is not None
        kwargs: dict[str, Any] = {"use_cache": False}
        mask = inputs.mask
        if self._computes_some_logits:
            kwargs["logits_to_keep"] = keep
        # Else they are the model's own, which it need not look through. One that no family maps counts from the
        # first column by itself, which is right unless that is padding.
        if mask is not None and (mapped or (self.takes_positions and not mask[:, 0].all())):
            kwargs["position_ids"] = inputs.positions
        return self.rank.model(
            input_ids=inputs.ids, attention_mask=None if mask is None else mask.long(), **kwargs
        )

    # -- forward -----------------------------------------------------------------------------

    def forward(
        self,
        request: wire.Forward,
        inputs: Inputs,
        probes: Sequence[LoadedProbe],
        reduce: Callable[..., Any] | None,
    ) -> Any:
        """Logits as the request asked for them, on the rank that answers."""
        keep = self._kept(request, inputs, probes)
        with self.open(request, inputs, probes) as probed, torch.no_grad():
            output = self.read(probed, inputs, keep)
        if request.logits == "none" or not self.rank.mesh.last_stage:
            return None
        logits = probed.gather_group.gather(logits_of(output), Layout())
        if logits is None:
            return None
        if request.logits == "last":
            return _last(logits, inputs, keep)
        if reduce is None:
            return logits
        return self.user(request.seed, reduce, "the logits function", logits)

    def _kept(
        self, request: wire.Forward | wire.Backward, inputs: Inputs, probes: Sequence[LoadedProbe]
    ) -> Any:
        """Positions whose logits are computed, as :meth:`read` takes them: those that are asked for, unless a probe sees them."""
        looked_at = any(p.address.name == "logits" for p in probes)
        if self._computes_some_logits and request.logits in ("last", "none") and not looked_at:
            return inputs.last.unique()
        return 0

    def forward_in_chunks(
        self,
        request: wire.Forward,
        chunks: Sequence[RowChunk],
        probes: Sequence[LoadedProbe],
        reduce: Callable[..., Any] | None,
    ) -> Any:
        """As :meth:`forward`, chunk by chunk; what the logits function is given are the logits of all."""
        rows, length = torch.as_tensor(request.batch.ids).shape
        whole = Whole((rows, length))
        for number, chunk in enumerate(chunks):
            one = replace(
                request,
                batch=chunk.batch,
                logits="all" if reduce else request.logits,
                seed=request.seed + number,
            )
            whole.put(chunk, self.forward(one, self.batch(chunk.batch), probes, None))
        if reduce is None or whole.logits is None:
            return whole.logits
        return self.user(request.seed, reduce, "the logits function", whole.logits)

    def user(self, seed: int, function: Callable[..., Any], what: str, *args: Any) -> Any:
        """Call code of the user: its own random stream, its prints and its errors.

        Args:
            seed: of the request.
            what: what it is, for the error.

        Raises:
            UserFailure: it raised.
        """
        return self.rank.call(what, function, *args, seed=seed_of(seed, what))

    # -- backward ----------------------------------------------------------------------------

    def backward(
        self,
        request: wire.Backward,
        inputs: Inputs,
        probes: Sequence[LoadedProbe],
        loss: Callable[..., Any],
        values: Sequence[Address],
        parameters: Parameters,
    ) -> Any:
        """(loss, gradients of the named parameters): the loss where the logits are, each gradient on
        the leader of the stage that holds the parameter."""
        with _on_the_graph(parameters, request.parameters):
            with (
                self.open(request, inputs, probes, values, grad=True) as probed,
                torch.enable_grad(),
            ):
                keep = self._kept(request, inputs, probes)
                logits = logits_of(self.read(probed, inputs, keep))
                shown = partial(_shown, request, inputs, keep)
                value, gradient = self._loss(probed, loss, logits, values, shown, request.each_row)
                if probed.failure is None or self.rank.mesh.world > 1:
                    self._backward_through(probed, logits, gradient)
            gradients = parameters.gradients(request.parameters)
            return value, gradients

    def _loss(
        self,
        probed: ProbedPass,
        loss: Callable[..., Any],
        logits: Tensor,
        values: Sequence[Address],
        shown: Callable[[Tensor], Tensor],
        each_row: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The loss, and its gradient at the logits; user code on the leader of the last stage.

        Values travel there as leaves, and their gradients back, so that those of other stages are as
        good as its own.

        Args:
            shown: of the logits that were computed, those that the loss is given.
            each_row: the loss is a number for each row.
        """
        leaves = []
        for address in values:
            value = over_stages(self.rank.mesh, _own_value(probed, address))
            leaves.append(None if value is None else value.detach().requires_grad_())
        value, gradient = None, None
        whole = probed.gather_group.gather(logits, Layout()) if self.rank.mesh.last_stage else None
        if whole is not None:
            leaf = whole.clone().requires_grad_()
            given = [shown(leaf), *([leaves] if values else [])]
            value = self._measured(probed, loss, given, each_row)
            leaf.grad = None if value is None else leaf.grad
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for address, leaf_value in zip(values, leaves, strict=True):
            mine = leaf_value.grad if self.answers and leaf_value is not None else None
            asked = over_stages(self.rank.mesh, mine)
            own = probed.value_of(address)
            if own is not None and asked is not None and own.requires_grad:
                torch.autograd.backward(own, asked, retain_graph=True)
        return value, gradient

    def _measured(
        self, probed: ProbedPass, loss: Callable[..., Any], given: list[Any], each_row: bool
    ) -> Tensor | None:
        """The loss, after its own backward; None where it failed and other ranks must go on."""
        try:
            found = self.user(probed.seed, loss, "the loss function", *given)
            value = (
                losses.checked_rows(found, len(given[0]))
                if each_row
                else losses.checked_scalar(found)
            )
            self.user(probed.seed, value.sum().backward, "the loss function")
        except (UserFailure, BadRequest, Cancelled) as error:
            if self.rank.mesh.world == 1:
                raise
            where = getattr(error, "where", "the loss function")
            probed.failure = probed.failure or UserFailure(getattr(error, "error", error), where)
            return None
        return value.detach()

    def _backward_through(
        self, probed: ProbedPass, logits: Tensor, gradient: Tensor | None
    ) -> None:
        self.rank.interrupts.phase = "backward"
        probed.agree_on_joint()
        if self.rank.mesh.last_stage:
            gradient = probed.gather_group.scatter(gradient, logits, Layout(), grad=True)
        backward_through(self.rank.mesh, self.rank.model, logits, gradient)


@contextmanager
def _on_the_graph(parameters: Parameters, names: Sequence[str]) -> Iterator[None]:
    """While the gradients of these parameters are asked for."""
    parameters.require_gradients(names, True)
    try:
        yield
    finally:
        parameters.require_gradients(names, False)


def _own_value(probed: ProbedPass, address: Address) -> Tensor | None:
    value = probed.value_of(address)
    return None if value is None else value.detach()


def _last(logits: Tensor, inputs: Inputs, keep: Any) -> Tensor:
    """The logits of each row's last real token, [b, V], of those that were computed."""
    where = inputs.last if isinstance(keep, int) else torch.searchsorted(keep, inputs.last)
    return logits[torch.arange(len(logits), device=logits.device), where]


def _shown(request: wire.Backward, inputs: Inputs, keep: Any, logits: Tensor) -> Tensor:
    """What the loss is given of the logits that were computed."""
    return logits if request.logits == "all" else _last(logits, inputs, keep)[:, None]


def logits_of(output: Any) -> Tensor:
    """The logits of a model's output; a plain module's output is its own."""
    if isinstance(output, Tensor):
        return output
    logits: Tensor = output.logits if hasattr(output, "logits") else output[0]
    return logits


def _takes_positions(model: nn.Module) -> bool:
    """Whether a model can be told the position of each token, counted from 0.

    RoBERTa and its kin count from the id of padding, which they do by themselves, by looking for that id. What keeps
    states from token to token reads padding by ways of its own, to which positions from 0 would not fit.
    """
    told = _takes(model, "position_ids")
    return (told and not keeps_state(model)) and not any(
        hasattr(module, "create_position_ids_from_input_ids") for module in model.modules()
    )


def _takes(model: nn.Module, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters
