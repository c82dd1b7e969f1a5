"""A model that lives on a server, as an object in the notebook."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import os
import secrets
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from garcon_jupyter.client import encoding, out_buffers, preload, resuming, shipping
from garcon_jupyter.client.function_checks import check_call
from garcon_jupyter.client.probe_cache import Installing
from garcon_jupyter.client.probes import Probe, ProbePoints, as_names, checked
from garcon_jupyter.client.recordings import Handle, Recordings
from garcon_jupyter.client.tokens import Generated, Tokens, as_tokens, generated
from garcon_jupyter.connection import background, prints
from garcon_jupyter.connection.channel import Channel
from garcon_jupyter.connection.lines import Lines
from garcon_jupyter.errors import BadProbe, BadRequest, CannotTravel, ProbesUnknown
from garcon_jupyter.facets.data_runs import Running
from garcon_jupyter.facets.pictures import Looking
from garcon_jupyter.points import Address, Catalog
from garcon_jupyter.servers.registry import Server, stop
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire import tokenizer_messages as ask

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.look import Look
    from garcon_jupyter.display.points import Shown
    from garcon_jupyter.widgets import AttentionWidget, View

LOGITS = ("all", "last", "none")
AttachedKey = tuple[str, bool, str | None]
"""(point, on the gradient, name)"""


class RemoteModel(Looking, Running):
    """A connection to a served model, with a session of its own.

    Attributes:
        server: the server it is connected to.
        session: name of the session; save contexts are kept under it.
        resumed: whether the session was there already.
        catalog: the points and parameters of the model.
        probe_points: the points as a mapping.
        attached: probes that apply to every pass that is not given `probes`, in order of attachment.
        attached_once: those that apply to the next such pass only.
        last_tokens: what the last pass read.
        tokens_at: what the last pass read that had a probe on a point, by (point, name of the probe).
        requests: how many requests were sent: where it has not changed, nothing has.
    """

    def __init__(
        self,
        server: Server,
        session: str | None = None,
        prefer: str | None = None,
        lasting: bool = True,
    ) -> None:
        resuming.check_name(session)
        preload.begin()
        self.server = server
        self._released: list[int] = []
        self._channel = Channel(server.file, server.why_gone, server.tunnel)
        self._channel.warn = partial(_warn, server.name)
        self._lines = Lines(
            self._channel, partial(Channel, server.file, server.why_gone, server.tunnel)
        )
        try:
            self._channel.follow(prints.notice)
            self._greet(session, prefer, lasting)
        except BaseException:
            self._channel.close()
            raise
        self.probe_points = ProbePoints(self.catalog)
        self.attached: dict[AttachedKey, Probe] = {}
        self.attached_once: dict[AttachedKey, Probe] = {}
        self.last_tokens: Tokens | None = None
        self.tokens_at: dict[tuple[str, str | None], Tokens] = {}
        self.requests = 0
        self._installing = Installing()
        _HOLDING[self._channel.info["key"], self.session] += 1
        self._close = weakref.finalize(self, _hang_up, self._channel, self.session)
        weakref.finalize(self, self._lines.close)
        self._channel.wait_for_prints()

    def _greet(self, session: str | None, prefer: str | None = None, lasting: bool = True) -> None:
        """Open or resume a session."""
        protocol.check_versions(self._channel.facts, protocol.client_facts())
        asked = {"session": session, "prefer": prefer, "lasting": lasting}
        hello = self._channel.ask(protocol.HELLO, {**self._channel.client_facts(), **asked})
        self.session: str = hello["session"]
        self.resumed: bool = hello["resumed"]
        self._lasting: bool = hello["lasting"]
        self.facts: dict[str, Any] = hello["facts"]
        self.catalog: Catalog = transport.unpack(hello, hello["buffers"])

    # -- tokens ------------------------------------------------------------------------------

    def encode(
        self,
        text: Any,
        chat: bool = False,
        padding: str = "right",
        special: bool | None = None,
        continue_final: bool = False,
        header: bool | None = None,
    ) -> Tokens:
        """Text to tokens.

        Args:
            text: a text, a list of texts, or, with `chat`, a list of messages ``{"role", "content"}``
                (or several such lists), written out by the model's chat template.
            chat: `text` is messages.
            padding: the side on which shorter texts of a list are filled up, "right" or "left"; the mask
                says where, and each text gets the numbers that it has alone.
            special: whether the tokenizer adds its special tokens, such as a beginning-of-sequence token.
                None is its own habit for texts, and no for chats, whose template writes them.
            continue_final: leave a chat's last message open, so that the model goes on with its words.
            header: whether a chat ends with the header of an answer, which the model then writes. None is yes,
                unless the last message is the assistant's.

        Returns:
            Tokens, [b, p].
        """
        if padding not in ("right", "left"):
            raise BadRequest(f"There is no padding side {padding!r}.", "Use right or left.")
        if continue_final and header:
            raise BadRequest(
                "A message that goes on has no header after it.",
                "Leave out header or continue_final.",
            )
        if (continue_final or header is not None) and not chat:
            raise BadRequest("continue_final and header are of chats.", "Give chat=True too.")
        question = ask.Encode(
            texts=() if chat else encoding.texts_of(text),
            chats=encoding.chats_of(text) if chat else (),
            special=None if special is None else bool(special),
            left=padding == "left",
            continued=bool(continue_final),
            header=None if header is None else bool(header),
        )
        encoded = self._ask_tokenizer(question)
        return Tokens(encoded.ids, encoded.mask, encoded.strings)

    def decode(self, ids: Any) -> str | list[str]:
        """Token ids to text: [p] or a list of integers to one text, [b, p] to a list of them."""
        rows, alone = encoding.rows_of(ids, self.catalog.sizes.get("V", 1 << 31))
        texts = self._ask_tokenizer(ask.Decode(rows))
        return texts[0] if alone else texts

    def token_strings(self, tokens: Any, alone: bool = False) -> list[list[str]]:
        """The text of each single token: b lists of p strings. Joined, those of a row are its text.

        Args:
            alone: the rows are no texts but tokens of any kind, each as it is in the midst of a text.
        """
        tokens = self._tokens(tokens)
        if tokens.strings and not alone:
            return tokens.strings
        mask = tokens.mask.tolist() if tokens.padded else None
        return self._ask_tokenizer(ask.Strings(tokens.tolist(), mask, alone))

    def _ask_tokenizer(self, question: Any) -> Any:
        content, buffers = transport.pack(question)
        reply = self._channel.ask(protocol.TOKENIZE, content, buffers)
        return transport.unpack(reply, reply["buffers"])

    def _tokens(self, tokens: Any) -> Tokens:
        if isinstance(tokens, str) or (
            isinstance(tokens, (list, tuple)) and tokens and isinstance(tokens[0], str)
        ):
            return self.encode(tokens)
        return as_tokens(tokens)

    # -- passes ------------------------------------------------------------------------------

    def forward(
        self,
        tokens: Any,
        probes: Iterable[Probe] | None = None,
        logits: str | Callable[[Tensor], Any] = "all",
        seed: int | None = None,
        batch_tokens: int | str | None = None,
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

        Returns:
            The logits as asked for.

        Raises:
            BadTokens, BadProbe, UnknownPoint: nothing has run.
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

        Returns:
            The loss, a scalar tensor; with `parameters`, (loss, {name: gradient}). A parameter upstream
            of a value that a probe detached gets zeros, or is missing where no gradient reached it.
        """
        tokens = self._tokens(tokens)
        names = [a.name for v in as_names(values, "values") for a in self._select(v)]
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
        )
        return generated(self._run_pass(request, tokens))

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

    def _run(
        self,
        request: wire.Request,
        show: prints.Show = prints.plain,
        into: memoryview | None = None,
    ) -> Any:
        self._follow()
        request.session = self.session
        request.released = self._take_released()
        if not background.is_behind():  # what a picture asks for leaves nothing behind
            self.requests += 1
        try:
            return self._send(request, show, into)
        except BaseException:
            self._released += request.released  # nobody may have been told of them
            raise

    def _take_released(self) -> tuple[int, ...]:
        """The snapshots that nobody holds any more, each for one request to tell of, whichever thread sends it."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._released.pop())
        return tuple(taken)

    def _send(self, request: Any, show: prints.Show, into: memoryview | None) -> Any:
        """The answer to a request, whose probes travel once."""
        line, behind = self._lines.here(), background.is_behind()
        about = {"session": self.session, "kind": type(request).__name__.lower(), "behind": behind}
        probes = getattr(request, "probes", ())
        if not probes or not hasattr(request, "probe_set"):
            return line.request(about, request, show, into)
        named = dataclasses.replace(request, probes=(), probe_set=self._installing.named(probes))
        try:
            return line.request(about, named, show, into)
        except ProbesUnknown:
            named.probe_set = self._installing.named(probes, again=True)
            return line.request(about, named, show, into)

    def _follow(self) -> None:
        """Where the server was started anew, greet it in the same session."""
        self._channel.follow(prints.notice)
        if self._channel.facts["launched"] != self.facts["launched"]:
            self._greet(self.session, lasting=self._lasting)
            self._channel.wait_for_prints()
            prints.notice(
                "the server is back; recordings() tells of which request each saved value is"
            )

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
        points = None if pattern is None else {address.name for address in self._select(pattern)}
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

    def _select(self, pattern: str) -> list[Address]:
        return self.catalog.select(pattern)

    # -- state -------------------------------------------------------------------------------

    def recordings(self, fetch: bool = True) -> Recordings:
        """A snapshot of what probes saved in this session, by point name.

        Nothing is fetched until an attribute is touched; with ``fetch=False``, touching gives handles,
        which can be cut and reduced on the server.

        Examples:
            >>> def save(save_ctx, tensor):
            ...     save_ctx.pattern = tensor

            >>> point = rmodel.probe_points["layers.4.attn.pattern"]
            >>> rmodel.forward(rmodel.encode("Hello, world"), probes=[point.probe(save)], logits="none")
            >>> before = rmodel.recordings()
            >>> before["layers.4.attn.pattern"].pattern.shape  # [b, head, query, key]
            torch.Size([1, 9, 3, 3])

            A snapshot stays as it was, whatever runs later.

            >>> rmodel.clear_recordings()
            >>> len(before), len(rmodel.recordings())
            (1, 0)
        """
        return Recordings(
            self, self._run(wire.Snapshot(number=secrets.randbits(62))), lazy=not fetch
        )

    def fetch(self, *handles: Handle, dtype: Any = None, out: Tensor | None = None) -> Any:
        """Fetch several handles in one go; a list, or the value of a single one.

        Args:
            dtype: floating dtype to travel in, e.g. torch.float16.
            out: of a single one, where to put it: a contiguous tensor of its shape and dtype. Between hosts it is
                received right there, which spares the time that fresh memory takes.

        Raises:
            BadRequest: `out` is another tensor than the value; what is in it then is undefined.
        """
        for handle in handles:
            if not isinstance(handle, Handle):
                raise BadRequest(
                    f"{type(handle).__name__} {handle!r} is no handle.",
                    "A recording gives them: recording.handle(attribute).",
                )
        wanted = tuple((h._ref, h._attribute, h._steps) for h in handles)
        name = None if dtype is None else _floating(dtype)
        into = None if out is None else out_buffers.memory_of(out, len(handles))
        values = self._run(wire.Fetch(wanted=wanted, dtype=name), into=into)
        if out is not None:
            return out_buffers.put(values[0], out)
        return values[0] if len(handles) == 1 else values

    def clear_recordings(self, pattern: str | None = None, name: str | None = None) -> None:
        """Forget recordings of this session on the server.

        Args:
            pattern: only those of these points.
            name: only those of probes of this name.
        """
        points = None if pattern is None else tuple(a.name for a in self._select(pattern))
        self._run(wire.Clear(points=points, name=name))
        for key in list(self.tokens_at):
            if (points is None or key[0] in points) and name in (None, key[1]):
                self.tokens_at.pop(key, None)

    def get_parameter(self, name: str, index: Any = None) -> Tensor:
        """A parameter by its name in the table, oriented [out, in]; cut by `index` on the server.

        Raises:
            UnknownParameter: names the nearest ones.
        """
        self.catalog.parameter(name)
        return self._run(wire.GetParameter(name=name, index=index))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return self.catalog.parameters

    @property
    def modules(self) -> tuple[str, ...]:
        """Dotted paths of all modules, for ``module:{path}.input`` and ``.output``."""
        return self.catalog.modules

    # -- looking -----------------------------------------------------------------------------

    def look(self, text: Any) -> Look:
        """One context as it passes through the model; see :func:`garcon_jupyter.easy_garcon`."""
        from garcon_jupyter.client.look import Look

        return Look(self, text)

    def show(
        self,
        what: Shown,
        text: Any = None,
        attribute: str | None = None,
        rows: str | Sequence[str] | None = None,
        columns: str | Sequence[str] | None = None,
        title: str = "",
    ) -> View | AttentionWidget:
        """A picture of a point: what was recorded there, or, with `text`, of a clean pass over it.

        Args:
            what: name of the point, or (point, name of the probe); or a probe point, a recording, or a
                handle itself. "layers.*.attn.pattern" is all layers at a glance. Or an array of your own.
            text: tokens or text to run; None to show the recording.
            attribute: which saved tensor to show; by default the first of the point's shape.
            rows, columns: what the axes of an array are: ``rmodel.show(scores, rows="layer", columns="head")``.
            title: of an array.
        """
        from garcon_jupyter.display.points import show

        return show(self, what, text, attribute, rows, columns, title)

    def show_sharding(self) -> Any:
        """A picture of which rank holds what, and how much memory it uses."""
        from garcon_jupyter.widgets import ShardingPicture

        sizes = self.catalog.sizes
        shared = {"heads": sizes.get("H", 0), "neurons": sizes.get("M", 0)}
        return ShardingPicture(
            self.server.name,
            self.facts["degrees"],
            self.status()["ranks"],
            {what: size for what, size in shared.items() if size},
        )

    # -- the server --------------------------------------------------------------------------

    def run_on_ranks(self, source: str, filename: str = "<garcon>") -> None:
        """Run code on every rank, with ``model``, ``rank`` and ``world_size`` in scope.

        What it prints is shown line by line, each with its rank.

        Args:
            source: Python statements.
            filename: what tracebacks call them.

        Raises:
            SyntaxError: `source` does not compile; nothing has run.
            ProbeError: it raised on a rank.
        """
        if not isinstance(source, str):
            raise BadRequest(
                f"run_on_ranks takes the text of Python statements, not a {type(source).__name__}.",
                'Give a text: rmodel.run_on_ranks("print(rank)").',
            )
        compile(source, filename, "exec", dont_inherit=True)
        show = prints.ByRank()
        try:
            self._run(wire.RunOnRanks(source=source, filename=filename), show)
        finally:
            show.end()

    def pending(self) -> list[dict[str, Any]]:
        """The requests of this session that wait, run, or ended while nobody waited for them.

        Each as ``{"request", "kind", "state", "since"}``: a restarted notebook finds what it left behind.
        """
        asked = {"session": self.session}
        return self._channel.ask(protocol.REQUESTS, asked)["requests"]

    def result(self, request: str | None = None) -> Any:
        """Wait for a request of this session that was sent before; its answer, as it came from the server.

        What it printed is shown again. Answers are kept of requests that took more than a few seconds or
        from which you detached by a second interrupt, until they are received.

        Args:
            request: its id, of :meth:`pending`; by default the last one.

        Raises:
            BadRequest: there is none.
            GarconError: what the request failed with.
        """
        if request is None:
            found = self.pending()
            if not found:
                raise BadRequest(
                    f"Session {self.session!r} has no request that is unfinished or unread.",
                    "The answers of short requests are not kept.",
                )
            request = found[-1]["request"]
        kind, value = self._channel.outcome(self.session, request, prints.plain)
        return generated(value) if kind == "generate" else value

    def cancel(self, request: str | None = None) -> None:
        """Stop requests of this session that wait or run, also those that an earlier notebook sent.

        Args:
            request: its id, of :meth:`pending`; by default all. One that has ended is left as it is.

        Raises:
            BadRequest: the session has no such request.
        """
        found = {row["request"]: row["state"] for row in self.pending()}
        if request is not None and request not in found:
            raise BadRequest(
                f"Session {self.session!r} has no request {request!r}.",
                f"It has {', '.join(found)}." if found else "Nothing of it waits or runs.",
            )
        for each in found if request is None else [request]:
            if found[each] != "ended":
                self._channel.ask(protocol.CANCEL, {"request": each})

    def status(self) -> dict[str, Any]:
        """What runs, what waits, who is there, and the seconds left of the idle time."""
        return self._channel.ask(protocol.STATUS, {})

    def keep_alive(self) -> float | None:
        """Start the idle time anew, as a request does; the seconds it has now, None for ever."""
        return self._channel.ask(protocol.KEEP_ALIVE, {})["idle_left"]

    def shutdown(self, force: bool = False) -> None:
        """End the server; with `force` even while others use it.

        Raises:
            BadRequest: others use it; names them.
            ServerGone: it does not answer; with `force` it is killed then.
        """
        stop(self.server, force)

    def close(self) -> None:
        """Let go of the session, which stays on the server, and hang up."""
        self._lines.close()
        self._close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return not self._close.alive

    def __reduce__(self) -> NoReturn:
        raise CannotTravel(
            f"The connection to {self.server.name!r} cannot be pickled: it belongs to this process.",
            f'Where it is needed, connect: garcon.connect("{self.server.name}"). '
            "A probe is given what it needs by save_ctx, params= and source=.",
        )

    def __repr__(self) -> str:
        model, degrees = self.facts["model"], self.facts["degrees"]
        sharding = ", ".join(f"{word}={n}" for word, n in degrees.items() if n > 1) or "one process"
        catalog = self.catalog
        points = (
            f"{catalog.n_layers} layers"
            if catalog.mapped
            else f"{len(catalog.paths)} modules to probe, such as {catalog.a_module()!r}"
        )
        notes = "".join(f"; note: {note}" for note in model.get("notes", ()))
        return (
            f"<RemoteModel {self.server.name}: {model['architecture']}, {points}, "
            f"{model['dtype']}, {sharding}; session {self.session!r}{notes}>"
        )

    def _repr_html_(self) -> str:
        from garcon_jupyter.display import html

        return html.model(self)


_HOLDING: Counter[tuple[str, str]] = Counter()
"""Open connections of this process by (key of the server, session): the last one says goodbye."""
os.register_at_fork(after_in_child=_HOLDING.clear)


def _warn(server: str, seconds: float) -> None:
    prints.plain(
        0,
        "stderr",
        f"Server {server} ends in {seconds:.0f} seconds, as nobody uses it. A request or "
        "rmodel.keep_alive() keeps it.\n",
    )


def _hang_up(channel: Channel, session: str) -> None:
    """Let go of a session, if nobody else in this process has it. A fork has nothing to let go of: the session is
    its parent's."""
    if not channel.mine:
        return
    _HOLDING[channel.info["key"], session] -= 1
    if _HOLDING[channel.info["key"], session]:
        channel.close()
        return
    with contextlib.suppress(Exception):
        if channel.same_host:
            channel._check_alive()
        channel.ask(protocol.GOODBYE, {**channel.client_facts(), "session": session})
    channel.close()


def _floating(dtype: Any) -> str:
    """Name of a floating-point dtype, given as torch.float16 or "float16"."""
    import torch

    name = str(dtype).removeprefix("torch.")
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise BadRequest(f"{name!r} is no floating dtype.", "Use float32, float16 or bfloat16.")
    return name


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
