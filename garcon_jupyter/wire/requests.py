"""The requests: one dataclass for each thing that a client can ask of the model.

Every request reaches every rank, which runs it in unison. Functions travel as *shipped code*:
pickled when the client makes them, so that what a probe captured is what it had at that moment.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from garcon_jupyter.wire.dictionary_requests import KeepTraining as KeepTraining
from garcon_jupyter.wire.dictionary_requests import LoadDictionary as LoadDictionary
from garcon_jupyter.wire.dictionary_requests import MeasureTraining as MeasureTraining
from garcon_jupyter.wire.dictionary_requests import ReadDictionary as ReadDictionary
from garcon_jupyter.wire.dictionary_requests import TrainDictionary as TrainDictionary
from garcon_jupyter.wire.dictionary_requests import TrainingProgress as TrainingProgress
from garcon_jupyter.wire.dictionary_requests import UnloadDictionary as UnloadDictionary
from garcon_jupyter.wire.request_parts import SPLICE_ERRORS as SPLICE_ERRORS
from garcon_jupyter.wire.request_parts import AdaptedRequest as AdaptedRequest
from garcon_jupyter.wire.request_parts import Batch as Batch
from garcon_jupyter.wire.request_parts import Code as Code
from garcon_jupyter.wire.request_parts import ProbeSet as ProbeSet
from garcon_jupyter.wire.request_parts import ProbeSpec as ProbeSpec
from garcon_jupyter.wire.request_parts import RecordingRef as RecordingRef
from garcon_jupyter.wire.request_parts import Request as Request
from garcon_jupyter.wire.request_parts import Splice as Splice


@dataclass
class Forward(AdaptedRequest):
    """Run the model; answer with logits [b, p, V] ("all"), [b, V] ("last"), nothing ("none"), or
    what a function makes of them on the server.

    Attributes:
        batch_tokens: read it in pieces of so many tokens at most, or, with "auto", of what fits; None for all
            at once.
    """

    batch: Batch = dataclasses.field(default_factory=lambda: Batch(None))
    probes: tuple[ProbeSpec, ...] = ()
    probe_set: ProbeSet | None = None
    logits: str | Code = "all"
    seed: int = 0
    batch_tokens: int | str | None = None
    splices: tuple[Splice, ...] = ()


@dataclass
class Backward(AdaptedRequest):
    """Run forward, a loss, and backward; answer with the loss and the named gradients.

    Attributes:
        loss: ``loss(logits)``, or ``loss(logits, values)`` where `values` were asked for.
        logits: what the loss is given: "all" [b, p, V], or "last" [b, 1, V], those of each row's last real token.
        each_row: the loss is a number for each row, [b], which are answered; gradients are of their sum.
        values: points whose values, on the graph, the loss is given.
        parameters: parameters whose gradients are answered, by the names of the table.
    """

    batch: Batch = dataclasses.field(default_factory=lambda: Batch(None))
    loss: Code | None = None
    probes: tuple[ProbeSpec, ...] = ()
    probe_set: ProbeSet | None = None
    values: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    seed: int = 0
    logits: str = "all"
    each_row: bool = False
    splices: tuple[Splice, ...] = ()


@dataclass
class Generate(AdaptedRequest):
    """Generate tokens, probes running on every step; answer with :class:`GeneratedTokens`."""

    batch: Batch = dataclasses.field(default_factory=lambda: Batch(None))
    probes: tuple[ProbeSpec, ...] = ()
    probe_set: ProbeSet | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    splices: tuple[Splice, ...] = ()


@dataclass(frozen=True)
class GeneratedTokens:
    """What a generation answers: prompts and continuations, r rows of a prompt or of its samples.

    Attributes:
        ids: int64 [r, p + new], the prompt's padding on the left.
        mask: bool [r, p + new], False at padding, also at that after the end of a text.
        scores: where asked for, of each step what the next tokens were chosen by, [step, rows read, V].
        logits: where asked for, the model's own logits before any of it was changed, as `scores`.
        sequences_scores: where scores of beams are asked for, that of each text, [r].
        beam_indices: and for each new token the row of `scores` that it is from, −1 after the end, [r, new].
    """

    ids: Any
    mask: Any
    scores: Any = None
    logits: Any = None
    sequences_scores: Any = None
    beam_indices: Any = None


@dataclass
class Snapshot(Request):
    """Take a snapshot of the session's recordings; answer with its table of contents.

    Attributes:
        number: what the client calls the snapshot from now on.
    """

    number: int = 0


@dataclass
class Fetch(Request):
    """Answer with attributes of recordings.

    Attributes:
        wanted: ``(recording, attribute, steps)``: steps are applied on the server, in order, each
            ``("item", index)`` or ``("call", method, args, kwargs)``.
        dtype: name of the floating dtype to travel in; None to keep.
    """

    wanted: tuple[tuple[RecordingRef, str, tuple[Any, ...]], ...] = ()
    dtype: str | None = None


@dataclass
class Clear(Request):
    """Forget recordings of the session: those of `points` and of probes called `name`, or all."""

    points: tuple[str, ...] | None = None
    name: str | None = None


@dataclass
class Checkpoint(Request):
    """Write what contexts of the session hold into files, one for each rank.

    Attributes:
        contexts: (point, name of the probe) of each.
        directory: on every host; made where it is not there.
    """

    contexts: tuple[tuple[str, str | None], ...] = ()
    directory: str = ""


@dataclass
class Restore(Request):
    """Let contexts of the session hold what a checkpoint has, or nothing.

    Attributes:
        contexts: (point, name of the probe) of each.
        directory: of the checkpoint; None to empty them.
    """

    contexts: tuple[tuple[str, str | None], ...] = ()
    directory: str | None = None


@dataclass
class Conclude(Request):
    """Tell what contexts of the session hold that the run which it is of is over, where that wants to know.

    Attributes:
        contexts: (point, name of the probe) of each.
    """

    contexts: tuple[tuple[str, str | None], ...] = ()


@dataclass
class Drop(Request):
    """Forget the session whole, with its snapshots: what the server asks of its ranks when the client of a
    session is gone for good."""


@dataclass
class Patch(AdaptedRequest):
    """Run cells of activation patching together; answer with :class:`PatchedMetrics`.

    A *cell* is one of the texts, in which some places of some points are given the values of another.

    Attributes:
        texts: int64 [n, p], their tokens; all are of one length.
        sources: of each text, those whose values its cells are given: of several their mean.
        cells: of each cell, the text that it is patched in.
        points: names of the points.
        patches: int64 [m, 3 + d]: which cell; which of the points; whose values, −1 for the sources of its text, else the number of
            a text, or, counted on, of a cell before it; and the place: an index along each dimension of the point's value but the
            first, −1 for all of it. Points have d such dimensions at most.
        answers: int64 [n, 2], for each text two tokens: the metric is the first one's logit, less the second's.
        metric: a function of the logits [row, p, V] instead, which gives a number for each row.
        exact: each text and each cell in a whole forward of its own, as a loop of forwards would do it.
    """

    texts: Any = None
    sources: tuple[tuple[int, ...], ...] = ()
    cells: tuple[int, ...] = ()
    points: tuple[str, ...] = ()
    patches: Any = None
    answers: Any = None
    metric: Code | None = None
    exact: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PatchedMetrics:
    """What a request for cells of activation patching answers.

    Attributes:
        texts: float32 [n], the metric of each text as it is.
        cells: float32 [c], that of each cell.
        whole: why cells were run from the first layer on; "" where each began at its own.
    """

    texts: Any
    cells: Any
    whole: str = ""


@dataclass
class Jacobian(AdaptedRequest):
    """Rows of the Jacobian of one point's stream by those of others; answer with float32 [source, row, D].

    A row is the gradient of one dimension of the target, summed over positions, at a source, averaged over the same positions.

    Attributes:
        batch: one text.
        target: the point whose stream is differentiated.
        sources: the points that it is differentiated by, in the order of the layers.
        positions: first and last, less one, of those that count.
        dims: first and last, less one, of the target's dimensions that are rows.
        rows: copies of the text that are read together, each for a dimension of its own.
    """

    batch: Batch = dataclasses.field(default_factory=lambda: Batch(None))
    target: str = ""
    sources: tuple[str, ...] = ()
    positions: tuple[int, int] = (0, 0)
    dims: tuple[int, int] = (0, 0)
    rows: int = 1
    seed: int = 0


@dataclass
class GetParameter(AdaptedRequest):
    """Answer with a parameter, [out, in], cut by `index` on the server."""

    name: str = ""
    index: Any = None


@dataclass
class ReadWeights(AdaptedRequest):
    """Call a function of the weights on every rank; answer with what it returned on each, in their order.

    Attributes:
        function: its argument has the model's ``catalog``, ``get_parameter(name, index=None)``, which gives a parameter [out, in] whole on
            every rank, and ``rank`` of ``world``, by which ranks divide the work. All ranks ask for the same parameters in the same order.
    """

    function: Code | None = None


@dataclass
class ExchangeWeights(Request):
    """Have the model compute with the weights of another checkpoint of its architecture; answer with
    ``{"path", "exchanged"}``, the latter False where they were loaded already.

    Attributes:
        path: directory of the checkpoint, on the server's hosts.
        sharing: sessions whose clients know of it. While another one is connected, it is refused.
    """

    path: str = ""
    sharing: tuple[str, ...] = ()


@dataclass
class KeepCertificate(Request):
    """Keep a certificate with the model, and answer with the one that is kept; None where none is.

    Attributes:
        certificate: plain data, with its "id" and "summary"; None to ask.
    """

    certificate: dict[str, Any] | None = None


@dataclass
class RunOnRanks(Request):
    """Run code on every rank with ``model``, ``rank`` and ``world_size`` in scope."""

    source: str = ""
    filename: str = "<garcon>"


REQUESTS: dict[str, type[Request]] = {
    kind.__name__: kind
    for kind in (
        Forward,
        Backward,
        Generate,
        Patch,
        Jacobian,
        TrainDictionary,
        MeasureTraining,
        KeepTraining,
        Snapshot,
        Fetch,
        Clear,
        Drop,
        Checkpoint,
        Restore,
        Conclude,
        GetParameter,
        ReadWeights,
        ExchangeWeights,
        LoadDictionary,
        UnloadDictionary,
        ReadDictionary,
        KeepCertificate,
        RunOnRanks,
    )
}
"""The one table of requests: executor, documentation and tests read it."""


@dataclass(frozen=True)
class AttributeInfo:
    """What a handle knows of a value on the server: enough to decide whether to fetch it.

    Attributes:
        origin: where it was brought back after a lost rank, the finished request that left it.
    """

    kind: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    device: str | None = None
    nbytes: int | None = None
    preview: str = ""
    origin: str = ""


@dataclass(frozen=True)
class SnapshotIndex:
    """Table of contents of a snapshot: for each (point, name), its attributes.

    Attributes:
        silent: why probes at (point, name) did not run, where their module was not called.
        adapters: which adapters were on when something was saved at (point, name), in order, "" for the base
            model; nothing of contexts that the base model alone filled.
        certificates: of the model, when probes at (point, name) last ran: its id, where there was one.
    """

    snapshot: int
    contexts: dict[tuple[str, str | None], dict[str, AttributeInfo]]
    silent: dict[tuple[str, str | None], str] = field(default_factory=dict)
    adapters: dict[tuple[str, str | None], tuple[str, ...]] = field(default_factory=dict)
    certificates: dict[tuple[str, str | None], str] = field(default_factory=dict)
