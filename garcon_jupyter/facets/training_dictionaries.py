"""Dictionaries trained beside a served model, begun from the notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.client import Client
from garcon_jupyter.client.run import Run, as_data, ask
from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.facets.data_runs import server_path
from garcon_jupyter.wire import runs as runs_wire

if TYPE_CHECKING:
    from garcon_jupyter.client.dictionary_training import DictionaryTraining


class TrainsDictionaries(Client):
    """What a :class:`~garcon_jupyter.RemoteModel` does about dictionaries in training."""

    def train_dictionary(
        self,
        point: str | Sequence[str],
        data: Any,
        width: int,
        kind: str = "topk",
        *,
        out: str | Path,
        k: int = 32,
        lr: float | None = None,
        batch: int = 2048,
        seed: int = 0,
        tokens: int | None = None,
        buffer: int | str = "128 MB",
        aux: float = 1.0,
        dead_after: int | None = None,
        sparsity: float = 1.0,
        widths: tuple[int, ...] = (),
        warm_up: int = 100,
        without: tuple[str | int, ...] = ("first",),
        measured: int = 100,
        field: str = "",
        documents: str = "line",
        every: float = 120.0,
        blocking: bool = True,
        show: bool = True,
        **options: Any,
    ) -> DictionaryTraining:
        """Train a dictionary on the activations of a point, while data streams past: a sparse autoencoder or a transcoder.

        The trainer lives on the ranks that have the point, each with its part of the latents, and takes what the model computes; nothing is
        stored. Batches take turns with everybody's requests. It goes on when the notebook is closed. Called again after a server was killed,
        it goes on from its last checkpoint, with the same numbers as without.

        Args:
            point: whose activations; ``(reads, writes)`` of a transcoder. Of a crosscoder a pattern that selects several; of a cross-layer
                transcoder two, ``("layers.4-6.mlp.in", "layers.4-6.mlp.out")``.
            data: as for :meth:`run`; or the directory of a store (:meth:`store`) that has the points, in whose place the model is not run.
            width: latents; of a cross-layer transcoder, in each layer.
            kind: "topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated", "transcoder", "crosscoder" or "cross-layer".
            out: a new directory on the server's host; the dictionary is written there as SAELens has it, of several points as Llama Scope's
                library does.
            k: latents that pass for a token, on average; of "standard" and "gated" nothing, of "cross-layer" in each
                layer.
            lr: learning rate of Adam; None for ``2e-4·√(16384/width)``.
            batch: tokens of a step.
            seed: of weights and order.
            tokens: stop after so many; then the learning rate falls to 0 over the last fifth.
            buffer: memory in which tokens are shuffled, such as "128 MB".
            aux: weight of the loss by which dead latents learn.
            dead_after: tokens without passing after which a latent is dead; None for those of 250 batches.
            sparsity: weight of the penalty of "standard" (on the sum of latents), "gated" (on the sum of what its gates read above 0) and
                "jumprelu" (on their number being other than k).
            widths: of "matryoshka", the latents of each part, the last all; () for a sixteenth, a quarter and all.
            warm_up: steps over which the learning rate rises.
            without: tokens that are not trained on: "first" of each row, whose values are often a hundred times those of others, "special",
                or ids.
            measured: batches between two measurements of what the model loses with the dictionary in its place; 0 for none.
            field, documents: as for :meth:`run`.
            every: seconds between two checkpoints.
            blocking: wait for the end; else return at once.
            show: how far it is, while waiting.
            options: as for :meth:`run`: batch_tokens, length, packed, adapter, ….

        Returns:
            The training: its curves, and how to stop it, go on, and write.

        Raises:
            UnknownPoint, UnknownName: there is no such point, kind or option.
            BadRequest: a number makes no sense, a point has no value for each token, or the kind is of other points.
            DoesNotFit: there is no room for weights, moments and buffer, with the numbers.
            BadData: the data cannot be read, or `out` has something else.

        Examples:
            >>> import tempfile
            >>> where = tempfile.mkdtemp() + "/sae"
            >>> texts = ["Paris is the capital of France."] * 40
            >>> sae = rmodel.train_dictionary("layers.4.resid_post", texts, 64, out=where, k=4, batch=64, show=False)
            >>> sae.curves[-1].l0
            4.0
        """
        from garcon_jupyter.client import dictionary_training as training
        from garcon_jupyter.client.storing import refuse_options

        reads, writes = (point, point) if isinstance(point, str) else _two(point)
        sides = [[one.name for one in self.catalog.select(side)] for side in (reads, writes)]
        if len(sides[0]) != len(sides[1]):
            raise BadRequest(
                f"{reads} selects {len(sides[0])} points, and {writes} {len(sides[1])}.",
                "Give patterns that select as many.",
            )
        ends = [*zip(*sides, strict=True)]
        asked = {
            "k": k, "lr": lr, "batch": batch, "seed": seed, "tokens": tokens, "buffer": buffer, "aux": aux, "dead_after": dead_after,
            "sparsity": sparsity, "widths": widths, "warm_up": warm_up, "without": without, "measured": measured,
        }  # fmt: skip
        model = Path(str(self.facts["path"])).name
        settings = training.settings_of(ends, kind, width, model, asked)
        refuse_options(options)
        options.setdefault("batch_tokens", batch)
        told = server_path(self, out)
        if isinstance(data, (str, Path)):
            data = server_path(self, data, must_exist=True)
        documents_ = as_data(data, field, documents)
        checkpoint = f"{told}/{training.CHECKPOINTS}"
        here = Path(told) if self._channel.same_host else None
        if here is not None and training.resumable(here, settings, documents_, options):
            status = ask(self, "resume_from", checkpoint)
        else:
            start = self._start(documents_, settings, checkpoint, every, options)
            status = ask(self, "start", start)
        found = training.DictionaryTraining(self, Run(self, status), settings, told)
        return found.wait(show) if blocking else found

    def _start(
        self,
        data: runs_wire.Data,
        settings: Any,
        checkpoint: str,
        every: float,
        options: dict[str, Any],
    ) -> runs_wire.StartRun:
        adapter = self._adapter(options.pop("adapter", None))
        known = runs_wire.Plan.__dataclass_fields__
        for name in options:
            if name not in known or name == "most_tokens":
                raise UnknownName.among(
                    "option of a training", name, known, "tokens= says after how many it ends."
                )
        plan = runs_wire.Plan(most_tokens=settings.tokens, **options)
        return runs_wire.StartRun(
            data,
            plan=plan,
            seed=settings.seed,
            checkpoint=checkpoint,
            every=every,
            adapter=adapter,
            training=settings,
        )

    def trainings(self) -> list[DictionaryTraining]:
        """The trainings of this session, also those that an earlier notebook began."""
        from garcon_jupyter.client.dictionary_training import DictionaryTraining

        return [
            DictionaryTraining(self, Run(self, status), told.settings, told.out)
            for status in ask(self, "list")
            if (told := status.training) is not None
        ]


def _two(points: Any) -> tuple[str, str]:
    try:
        reads, writes = points
    except (TypeError, ValueError):
        raise BadRequest(
            f"{points!r} is neither a point nor two of them.",
            'Give a name, or ("layers.4.mlp.in", "layers.4.mlp.out").',
        ) from None
    return str(reads), str(writes)
