"""Jacobian lenses fitted on the server, by batched vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import need
from garcon_jupyter.experiments.lenses.jacobian_lens import JacobianLens
from garcon_jupyter.experiments.lenses.texts import Progress, layers_of, token_rows
from garcon_jupyter.wire import requests as wire

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

BACKWARDS = 24
"""Backwards through all layers that a request takes at least as long as: beside so many its forward costs little."""


def fit_jacobian_lens(
    rmodel: Client,
    texts: Any,
    layers: int | Sequence[int] | None = None,
    *,
    length: int = 128,
    skip: int = 16,
    tokens: int = 128,
    start: JacobianLens | None = None,
    progress: bool = True,
) -> JacobianLens:
    """Fit a Jacobian lens: for each layer the mean derivative of the last stream by the layer's, over texts.

    Of one text, with h[l, t] the stream that leaves layer l at position t, L the last layer, and V the positions that count,

        J[l] = 1/|V| · Σ over t in V, u in V: ∂ h[L, u] / ∂ h[l, t]

    and the lens is its mean over texts; it reads a layer as unembed(norm(J[l] · h[l])). Each row of J is the gradient of one dimension
    of the last stream, so a text takes one backward for every `tokens` / length dimensions. They share a forward, 24 of them or
    more, and its graph begins at the earliest layer that is asked for. What comes back is the matrix.

    A request is a part of one text, and between two of them other clients of the server take their turn. Replicas share out the
    rows of a text, and over ranks and stages the numbers are those of one process. An interrupt ends the fit: what
    is returned is the mean of the texts that were done, if there are any. Fits to other texts are put together by ``lens.merge(other)``.

    Args:
        texts: texts, or tokens. Such that have no position that counts are left out.
        layers: which; all but the last by default.
        length: tokens of a text at most.
        skip: positions at the beginning that do not count, as attention rests on them; the last one does not count either.
        tokens: of a batch at most: copies of the text, each for a row of its own. More is quicker on a GPU, and takes memory:
            about tokens × layers × (4 D + 3 M / tp) numbers.
        start: a lens to go on with, of other texts.
        progress: a line that says how far it is, where it takes more than a moment.

    Returns:
        The lens, float32 [D, D] for each layer, as the published ones are (Gurnee et al. 2026, *Verbalizable representations form a
        global workspace in language models*): ``lens.save("lens.safetensors")``, or ``"lens.pt"`` in their form.

    Raises:
        BadRequest: no text has a position that counts; layers that there are not; `start` has other layers or settings.
        PointUnavailable: the model has no residual stream.
        DoesNotFit: a batch does not fit into the server's memory; give fewer `tokens`.
        Interrupted: before the first text was done.

    Examples:
        >>> lens = experiments.fit_jacobian_lens(rmodel, "The capital of France is", 28, skip=3)
        >>> lens
        <Jacobian lens: 1 layers, 28 to 28 of [576]>
        >>> lens.jacobians[28].diagonal().mean()
        tensor(...)
    """
    need(rmodel, "A Jacobian lens", "layers.{i}.resid_post")
    last = rmodel.catalog.n_layers - 1
    chosen = layers_of(layers, 0, last - 1)
    if length < 2 or skip < 0 or tokens < 1:
        raise BadRequest(
            f"length={length}, skip={skip}, tokens={tokens} leave nothing to fit.",
            "Give a length of at least 2, a skip of at least 0, and at least 1 token of a batch.",
        )
    rows = [row[:length] for row in token_rows(rmodel, texts)]
    fitted = [row for row in rows if len(row) > skip + 1]
    if not fitted:
        raise BadRequest(
            f"The longest text has {max(map(len, rows), default=0)} tokens, and the first {skip} and the last do not count.",
            "Give longer texts, or a smaller skip.",
        )
    facts = {
        "model": rmodel.facts["model"]["architecture"],
        "skip": skip,
        "length": length,
        "target_layer": last,
    }
    fit = _Fit(rmodel, chosen, last, skip, tokens, Progress(len(fitted), "texts", progress))
    made = fit.over(fitted)
    lens = JacobianLens.of(made, fit.done, facts)
    return lens if start is None else start.merge(lens)


class _Fit:
    """Sums over the texts that are done.

    Attributes:
        done: how many there are.
    """

    def __init__(
        self,
        rmodel: Client,
        layers: Sequence[int],
        last: int,
        skip: int,
        tokens: int,
        progress: Progress,
    ) -> None:
        self.done = 0
        self._rmodel, self._layers, self._last = rmodel, layers, last
        self._skip, self._tokens, self._progress = skip, tokens, progress
        self._width = rmodel.catalog.sizes["D"]
        self._pace = Pace(1, self._width)
        self._least = BACKWARDS * (last + 1) // (last - layers[0])

    def over(self, rows: Sequence[Sequence[int]]) -> dict[int, Tensor]:
        """The mean over texts, or over those that were done when an interrupt came.

        Raises:
            Interrupted: none was.
        """
        import torch

        shape = (len(self._layers), self._width, self._width)
        total = torch.zeros(shape, dtype=torch.float64)
        try:
            for row in rows:
                total += self._of_text(row)
                self.done += 1
        except KeyboardInterrupt:
            if not self.done:
                raise
        self._progress.end(self.done)
        return dict(zip(self._layers, (total / self.done).float(), strict=True))

    def _of_text(self, row: Sequence[int]) -> Tensor:
        """The matrices of one text, [layer, D, D], a request after the other."""
        import torch

        copies, parts, start = max(1, self._tokens // len(row)), [], 0
        while start < self._width:
            stop = min(start + max(self._pace.size, self._least * copies), self._width)
            with self._pace.piece(stop - start):
                parts.append(self._rows(row, copies, start, stop))
            start = stop
            self._progress.at(self.done + start / self._width)
        return torch.cat(parts, 1)

    def _rows(self, row: Sequence[int], copies: int, start: int, stop: int) -> Tensor:
        """Some rows of them, [layer, row, D]."""
        import torch

        found: Tensor = self._rmodel._run(
            wire.Jacobian(
                batch=wire.Batch(torch.tensor([row])),
                target=f"layers.{self._last}.resid_post",
                sources=tuple(f"layers.{layer}.resid_post" for layer in self._layers),
                positions=(self._skip, len(row) - 1),
                dims=(start, stop),
                rows=copies,
                adapter=self._rmodel.adapter,
            )
        )
        return found
