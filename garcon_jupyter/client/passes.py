"""Passes through a served model: forward, backward and generation, with the probes that they apply."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from garcon_jupyter.client import shipping
from garcon_jupyter.client.function_checks import check_call
from garcon_jupyter.client.probes import Probe, ProbePoints, as_names, checked
from garcon_jupyter.client.tokenizing import TokenizerClient
from garcon_jupyter.client.tokens import Generated, Tokens, generated
from garcon_jupyter.connection import background
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.errors import BadProbe, BadRequest, UnknownName
from garcon_jupyter.wire import requests as wire

if TYPE_CHECKING:
    from torch import Tensor

LOGITS = ("all", "last", "none")

AttachedKey = tuple[str, bool, str | None]
"""(point, on the gradient, name)"""


class PassClient(TokenizerClient):
    """What a connection has the model do.

    Attributes:
        probe_points: the points as a mapping.
        attached: probes that apply to every pass that is not given `probes`, in order of attachment.
        attached_once: those that apply to the next such pass only.
        last_tokens: what the last pass read.
        tokens_at: what the last pass read that had a probe on a point, by (point, name of the probe).
        adapter: that is on in passes that name none; None for the base model.
        splices: the dictionaries that passes go through; see :meth:`garcon_jupyter.client.dictionaries.DictionaryClient.spliced`.
    """

    adapter: str | None = None
    splices: tuple[wire.Splice, ...] = ()

    def __init__(
        self,
        server: Endpoint,
        session: str | None = None,
        prefer: str | None = None,
        lasting: bool = True,
    ) -> None:
        super().__init__(server, session, prefer, lasting)
        self.probe_points = ProbePoints(self.catalog)
        self.attached: dict[AttachedKey, Probe] = {}
        self.attached_once: dict[AttachedKey, Probe] = {}
        self.last_tokens: Tokens | None = None
        self.tokens_at: dict[tuple[str, str | None], Tokens] = {}

    def forward(
        self,
        tokens: Any,
        probes: Iterable[Probe] | None = None,
        logits: str | Callable[[Tensor], Any] = "all",
        seed: int | None = None,
        batch_tokens: int | str | None = None,
        adapter: str | None = None,
    ) -> Any:
        """Run the model forward.

        Args:
            tokens: Tokens, a tensor [b, p], lists of integers, or a text.
            probes: probes of this pass, instead of the attached ones; [] for a clean pass.
            logits: what to answer with: "all" [b, p, V], "last" (of each row's last real token) [b, V],
                "none", or a function that is run on the logits on the server and whose result travels.
            seed: of the randomness inside probes; the same seed gives the same, whatever the sharding.
            batch_tokens: read the rows in pieces of so many tokens at most, or, with "auto", of as many as fit
                into memory. Rows of about one length are read together, without the padding that they do not
                need. Numbers are those of one pass, and logits at padding are zeros; but a probe sees one piece
                after the other, so one that saves ``save_ctx.x = tensor`` keeps the last.
                ``save_ctx.here.document`` and ``.offset`` say which rows and tokens it sees.
            adapter: of those that the server was launched with, the one that is on in this pass; None for the base
                model. See :meth:`adapted`.

        Returns:
            The logits as asked for.

        Raises:
            BadTokens, BadProbe, UnknownPoint: nothing has run.
            UnknownName: there is no such adapter.
            ProbeError: a probe raised; an instance of the original type too.
            Interrupted: the pass was interrupted.

        Examples:
            >>> tokens = rmodel.encode("The capital of France is")
            >>> rmodel.forward(tokens).shape  # [b, p, V]
            torch.Size([1, 5, 49152])
            >>> rmodel.decode(rmodel.forward(tokens, logits="last")[0].argmax())
            ' Paris'
            >>> rmodel.forward(tokens, logits=lambda logits: logits[0, -1].softmax(-1).topk(2).indices)
            tensor([7042,  260])
            >>> rmodel.forward([[49152]])
            Traceback (most recent call last):
            garcon_jupyter.errors.BadTokens: ...
        """
        tokens = self._tokens(tokens)
        if isinstance(logits, str) and logits not in LOGITS:
            raise BadRequest(
                f"There are no logits {logits!r}.", f"Use {', '.join(LOGITS)} or a function."
            )
        if batch_tokens not in (None, "auto") and not _is_count(batch_tokens):
            raise BadRequest(
                f"batch_tokens={batch_tokens!r} is no number of tokens.",
                'Give at least 1, or "auto" for as many as fit.',
            )
        if not isinstance(logits, str):
            check_call(logits, "logits", "logits")
        wanted: str | wire.Code = (
            logits if isinstance(logits, str) else shipping.pack(logits, "logits function")
        )
        return self._run_pass(
            wire.Forward(
                batch=_batch(tokens),
                probes=self._probes(probes, "forward"),
                logits=wanted,
                seed=_seed(seed),
                batch_tokens=batch_tokens,
                adapter=self._adapter(adapter),
                splices=self.splices,
            ),
            tokens,
        )

    def backward(
        self,
        tokens: Any,
        loss_fn: Callable[..., Tensor],
        probes: Iterable[Probe] | None = None,
        values: Sequence[str] = (),
        parameters: Sequence[str] = (),
        seed: int | None = None,
        adapter: str | None = None,
        *,
        logits: str = "all",
        each_row: bool = False,
    ) -> Any:
        """Run forward, a loss, and backward; gradient probes see the gradients.

        Args:
            tokens: as for :meth:`forward`.
            loss_fn: ``loss_fn(logits)``, or ``loss_fn(logits, values)`` where `values` are asked for;
                returns a scalar. Runs on the server.
            probes: probes of this pass, forward and gradient; instead of the attached ones.
            values: points whose values the loss is given, whole and on the graph.
            parameters: parameters whose gradients to return, by the names of the table.
            seed: as for :meth:`forward`.
            adapter: as for :meth:`forward`. Gradients of parameters are those of the model's own, beside which it
                stands, and of those that it has whole.
            logits: what the loss is given: "all" [b, p, V], or "last" [b, 1, V], of each row's last real token. No others are
                computed then, where the model can do so, unless a probe sees them.
            each_row: the loss is a number for each row, [b]; gradients are of their sum.

        Returns:
            The loss, a scalar tensor, or [b] of each row; with `parameters`, (loss, {name: gradient}). A parameter upstream
            of a value that a probe detached gets zeros, or is missing where no gradient reached it.
        """
        tokens = self._tokens(tokens)
        if logits not in ("all", "last"):
            raise BadRequest(f"A loss is given no logits {logits!r}.", 'Use "all" or "last".')
        names = [a.name for v in as_names(values, "values") for a in self.catalog.select(v)]
        wanted = as_names(parameters, "parameters")
        for name in wanted:
            self.catalog.parameter(name)
        check_call(loss_fn, "loss", "logits", *(["values"] if names else []))
        loss, gradients = self._run_pass(
            wire.Backward(
                batch=_batch(tokens),
                loss=shipping.pack(loss_fn, "loss"),
                probes=self._probes(probes),
                values=tuple(names),
                parameters=wanted,
                seed=_seed(seed),
                adapter=self._adapter(adapter),
                logits=logits,
                each_row=bool(each_row),
                splices=self.splices,
            ),
            tokens,
        )
        return (loss, gradients) if wanted else loss

    def generate(
        self,
        tokens: Any,
        max_new_tokens: int | None = None,
        probes: Iterable[Probe] | None = None,
        seed: int | None = None,
        adapter: str | None = None,
        **options: Any,
    ) -> Generated:
        """Generate; probes run on every step and see the new positions.

        The first step reads the prompt, each later one a single new token (so attention is
        [b, H, 1, p_key] there); ``save_ctx.here`` says what a step was given: its number, tokens, mask and
        positions, of beams and samples their own. Edits reach the key-value cache; with ``use_cache=False`` there
        is none, and each step reads everything anew.

        Args:
            tokens: the prompt, as for :meth:`forward`. Unequal rows are padded on the left.
            max_new_tokens: how many at most; 20 where no other option says it.
            probes: as for :meth:`forward`.
            seed: of sampling and of the randomness inside probes.
            adapter: as for :meth:`forward`.
            options: as for transformers' ``generate``: do_sample, temperature, num_beams, stop_strings, …; also
                processors and criteria of your own, which run on the server, once for all ranks. The checkpoint's
                ``generation_config.json`` says the rest, but what is not asked to be sampled is not.

        Returns:
            Generated: prompt and continuation, [b, p + new]. The mask leaves out padding, also that after an early
            end; with ``output_scores=True`` or ``output_logits=True`` it has those of every step.

        Raises:
            BadRequest: an option makes no sense; where it is the checkpoint's setting, says so.
        """
        tokens = self._tokens(tokens)
        if max_new_tokens is not None:
            options["max_new_tokens"] = max_new_tokens
        request = wire.Generate(
            batch=_batch(tokens),
            probes=self._probes(probes, "generate"),
            options=options,
            seed=_seed(seed),
            adapter=self._adapter(adapter),
            splices=self.splices,
        )
        return generated(self._run_pass(request, tokens))

    # -- adapters ----------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that the server was launched with."""
        return tuple(self.facts["model"].get("adapters", {}))

    def adapted(self, adapter: str | None) -> Self:
        """The same model in the same session, with an adapter on in all that is asked of it and names none.

        So everything that takes a model takes one with an adapter: pictures, lenses, atlases, looks.

        Args:
            adapter: its name; None for the base model.

        Returns:
            A connection beside this one, with probes and recordings of the same session; attached probes are its own.

        Raises:
            UnknownName: there is no such adapter.
        """
        name = None if adapter is None else self._adapter(adapter)
        beside = type(self)(self.server, session=self.session)
        beside.adapter = name
        return beside

    def _adapter(self, given: str | None) -> str | None:
        """The adapter of a request: the one given, else that of all requests.

        Raises:
            UnknownName: there is no such adapter.
        """
        if given is None:
            return self.adapter
        if given not in self.adapters:
            raise UnknownName.among(
                "adapter",
                str(given),
                self.adapters,
                "Adapters are given at launch: adapter=DIRECTORY.",
            )
        return given

    # -- probes ------------------------------------------------------------------------------

    def attach(self, *probes: Probe, once: bool = False) -> None:
        """Apply probes to every later pass that is not given `probes`.

        A probe on the same point, of the same kind and name, is replaced.

        Args:
            once: only to the next such pass, in place of those that are attached for longer.
        """
        chosen = self.attached_once if once else self.attached
        for probe in checked(probes):
            chosen[probe.spec.point, probe.spec.grad, probe.spec.name] = probe

    def detach(self, pattern: str | None = None) -> list[Probe]:
        """Detach the probes of these points, or all; those that were detached."""
        points = (
            None if pattern is None else {address.name for address in self.catalog.select(pattern)}
        )
        return [
            chosen.pop(key)
            for chosen in (self.attached, self.attached_once)
            for key in list(chosen)
            if points is None or key[0] in points
        ]

    def _probes(
        self, probes: Iterable[Probe] | None, without_gradients: str = ""
    ) -> tuple[wire.ProbeSpec, ...]:
        """What a pass applies: `probes`, or the attached ones, whose turn is over if it was one.

        Args:
            without_gradients: the pass, where it has none.
        """
        if probes is None:
            probes = [*{**self.attached, **self.attached_once}.values()]
            self.attached_once = {}
            return tuple(probe.spec for probe in probes)
        chosen = checked(probes)
        useless = [probe for probe in chosen if without_gradients and probe.spec.grad]
        if useless:
            raise BadProbe(
                f"{useless[0]!r} would never run: {without_gradients} has no gradients.",
                "rmodel.backward(tokens, loss_fn, probes) has.",
            )
        return tuple(probe.spec for probe in chosen)

    def _run_pass(
        self, request: wire.Forward | wire.Backward | wire.Generate, tokens: Tokens
    ) -> Any:
        probed = {(spec.point, spec.name) for spec in request.probes}
        for key in probed:  # a pass that fails leaves it unknown what was read there
            self.tokens_at.pop(key, None)
        value = self._run(request)
        self.tokens_at |= dict.fromkeys(probed, tokens)
        if not background.is_beside():
            self.last_tokens = tokens
        return value


def _batch(tokens: Tokens) -> wire.Batch:
    return wire.Batch(tokens.ids, tokens.mask if tokens.padded else None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbits(31)
    try:
        return operator.index(seed)
    except TypeError:
        raise BadRequest(f"seed={seed!r} is no integer.", "Give one, such as seed=0.") from None
