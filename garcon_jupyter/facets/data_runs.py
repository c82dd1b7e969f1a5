"""Runs and atlases of a served model: data streamed past probes, begun from the notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.client import Client
from garcon_jupyter.client.probes import Probe, checked
from garcon_jupyter.client.run import Run, as_data, ask
from garcon_jupyter.wire import runs as runs_wire

if TYPE_CHECKING:
    from garcon_jupyter.activation_stores import ActivationStore
    from garcon_jupyter.atlas import Atlas
    from garcon_jupyter.recorders import Transform


class DataRuns(Client):
    """What a :class:`~garcon_jupyter.RemoteModel` does with data."""

    def run(
        self,
        data: Any = None,
        probes: Iterable[Probe] = (),
        batch_tokens: int = 2048,
        length: int | None = None,
        packed: bool | None = None,
        long: str = "refuse",
        field: str = "",
        documents: str = "line",
        special: bool | None = None,
        between: int | None = None,
        skip: bool = False,
        most_tokens: int | None = None,
        first_document: int = 0,
        fresh: bool = True,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        every: float = 30.0,
        resume: str | Path | None = None,
        blocking: bool = True,
        show: bool = True,
        adapter: str | None = None,
        conclude: bool = False,
    ) -> Run:
        """Stream data past probes, on the server.

        Batches take turns with the requests of others, and with your own: what is recorded can be read while
        it runs. It goes on when the notebook is closed, and :meth:`runs` finds it again. In probes,
        ``save_ctx.here.document`` and ``.offset`` say where in the data each token is, [b, p].

        Args:
            data: texts; rows of token ids, or an array of them; or the path of a file on the server's host:
                text, JSON lines, Parquet, Arrow, .npy or safetensors tokens, or a data set on disk. A relative path
                starts where the notebook is, if the server is on the same host, and else where the server is.
            probes: recorders, mostly (:mod:`garcon_jupyter.recorders`); attached probes do not run.
            batch_tokens: tokens of a batch at most.
            length: tokens of a row at most; by default 256 where packed, else what the model reads.
            packed: documents one after the other in rows of equal length, or one a row; by default packed where
                they are texts. What stands before a document in its row is seen by attention.
            long: of an unpacked document that is too long: "refuse" it, "cut" it, or "split" it into rows.
            field: the column or key that holds the text or the tokens; by default the usual names.
            documents: what a document of a text file is: "line", "paragraph" or "file".
            special: whether the tokenizer adds its special tokens to each document; None is its own habit.
            between: token after each packed document; None is the tokenizer's end-of-text token, −1 none.
            skip: leave out documents that cannot be read, instead of stopping there.
            most_tokens: stop after so many.
            first_document: number of the first document, where the data is a part of more: so that runs over
                all parts, on any servers, can be merged as if they were one.
            fresh: forget first what is recorded where these probes save; else go on with it.
            seed: of the randomness inside probes.
            checkpoint: directory on the server's hosts for checkpoints that outlive the server.
            every: seconds between two checkpoints. A run that a lost rank cut short goes on from the last.
            resume: a directory of checkpoints to go on from, in place of data and probes.
            blocking: wait for the end; else return at once.
            show: how far it is, while waiting.
            adapter: that is on; as for :meth:`forward`. A run that is resumed keeps its own.
            conclude: tell what the probes keep when the data is over; :meth:`store` does.

        Returns:
            The run: poll, pause, resume, cancel, wait.

        Raises:
            BadData: the data, or a document, cannot be read; what was recorded before it is there.
            ProbeError: a probe raised.
            Interrupted: you interrupted it; what was recorded is there.
        """
        if resume is not None:
            status = ask(self, "resume_from", server_path(self, resume))
        else:
            plan = runs_wire.Plan(
                packed,
                length,
                batch_tokens,
                long,
                special,
                between,
                skip,
                most_tokens,
                first_document,
            )
            if isinstance(data, (str, Path)):
                data = server_path(self, data, must_exist=True)
            asked = runs_wire.StartRun(
                as_data(data, field, documents),
                tuple(probe.spec for probe in checked(probes)),
                plan,
                seed,
                fresh,
                None if checkpoint is None else server_path(self, checkpoint),
                every,
                self._adapter(adapter),
                self.splices,
                conclude,
            )
            status = ask(self, "start", asked)
        run = Run(self, status)
        return run.wait(show) if blocking else run

    def atlas(
        self,
        points: str | list[str],
        data: Any,
        path: str | Path,
        k: int = 20,
        before: int = 10,
        after: int = 5,
        each: int = 4,
        correlated: bool | None = None,
        logits: bool | None = None,
        mergeable: bool = False,
        of: Transform | None = None,
        without: Sequence[str | int] = (),
        **options: Any,
    ) -> Atlas:
        """Record what feature dashboards show, of all units of all these points, in one pass over data.

        Memory on the server is :func:`garcon_jupyter.atlas.making.memory`; what travels here is the summary.

        Args:
            points: a pattern, such as "layers.*.mlp.post_activation", or several.
            data: as for :meth:`run`.
            path: the directory to write, on this side.
            k: examples of largest value of each unit.
            before: tokens of an example before its own.
            after: and after it.
            each: examples of each interval of a uniform sample.
            correlated: whether to correlate the units of each point: 8 bytes for each pair of them; None for where no point
                has more than 4,096 units, as dictionaries have.
            logits: whether to follow neurons, and latents by their rows of the decoder, through the unembedding; None for where all
                points are ``mlp.post_activation``, or latents of dictionaries that write to the stream.
            mergeable: whether to write all correlations, not the strongest only, so that
                :func:`garcon_jupyter.merge_atlases` can put those of several parts of the data together.
            of: ``recorders.Transform(fn, units)``: an atlas of what a function makes of each point's tensor.
            without: tokens that are not recorded, such as ("first", "special"); see
                :meth:`garcon_jupyter.recorders.Recorder.without`. They still stand in the windows of examples.
            options: as for :meth:`run`: batch_tokens, length, checkpoint, adapter, ….

        Returns:
            The atlas; ``garcon.open_atlas(path)`` opens it again, without a server.

        Raises:
            BadData: the data cannot be read, or the directory not be written.
        """
        from garcon_jupyter.atlas import making

        return making.make(
            self,
            points,
            data,
            path,
            making.Wanted(k, before, after, each, correlated, logits, mergeable, of, without),
            lambda data, probes: self.run(data, probes, **options),
        )

    def store(
        self,
        points: str | Sequence[str],
        data: Any,
        directory: str | Path,
        dtype: str | None = None,
        every: float = 30.0,
        file_bytes: int | None = None,
        field: str = "",
        documents: str = "line",
        show: bool = True,
        **options: Any,
    ) -> ActivationStore | None:
        """Store the activations of points, while data streams past: each rank writes what it has.

        Called again after an interrupt, a lost rank or a server that was killed, it goes on from the last checkpoint: no row is twice
        there, and none is lost. Of a store that is complete it opens what there is. Rows are in the order of the data, under any
        tensor, pipeline and data parallelism; :func:`garcon_jupyter.shuffle` puts them in another.

        Args:
            points: of shape [b, p, …]: a name, a pattern, or several, whose rows are then read together.
            data: as for :meth:`run`.
            directory: a new one, on a disk that the server's hosts share.
            dtype: "bfloat16", "float16", "float32", or "int8" with a scale for each row; None for the model's own 16 bits,
                float32 as float16.
            every: seconds between two checkpoints.
            file_bytes: of a whole file; None for 256 MB.
            field, documents: as for :meth:`run`.
            show: how far it is, with bytes and time left.
            options: as for :meth:`run`: batch_tokens, length, packed, most_tokens, seed, adapter, ….

        Returns:
            The store; None where the server is on another host: ``garcon.open_store`` opens it there.

        Raises:
            BadProbe: a point has no value for each token.
            BadData: the directory has something else, or the data cannot be read.
            DoesNotFit: the disk does not suffice, with the numbers: before it starts where that is known, else as soon as it is.
            BadRequest: the directory is an address: files that grow need a disk; ``store.copy(address)`` puts it there.
            Interrupted: you interrupted it; the same call goes on.

        Examples:
            >>> import tempfile
            >>> where = tempfile.mkdtemp() + "/acts"
            >>> store = rmodel.store("layers.4.resid_post", ["Paris is large."], where, show=False)
            >>> store[:2].activations.shape  # rows, units
            torch.Size([2, 576])
        """
        from garcon_jupyter.activation_stores.addresses import need_directory
        from garcon_jupyter.activation_stores.making import COPIED
        from garcon_jupyter.activation_stores.row_files import FILE_BYTES
        from garcon_jupyter.client import storing

        storing.refuse_options(options)
        need_directory(directory, "A store in the making", COPIED)
        told = server_path(self, directory)
        here = Path(told).expanduser() if self._channel.same_host else None
        if isinstance(data, (str, Path)):
            data = server_path(self, data, must_exist=True)
        asked = as_data(data, field, documents)
        one = storing.Storing(
            self, points, asked, told, here, dtype, options, file_bytes or FILE_BYTES
        )
        if (whole := one.whole) is not None:
            return whole
        checkpoints = f"{told}/{storing.CHECKPOINTS}"
        if one.resumable:
            run = self.run(resume=checkpoints, blocking=False)
        else:
            run = self.run(
                asked,
                one.probes(),
                checkpoint=checkpoints,
                every=every,
                blocking=False,
                conclude=True,
                **options,
            )
        return one.wait(run, show)

    def runs(self) -> list[Run]:
        """The runs of this session, also those that an earlier notebook began."""
        return [Run(self, status) for status in ask(self, "list")]


def server_path(client: Client, path: str | Path, must_exist: bool = False) -> str:
    """A path as the server is told it: whole, where both are on one host.

    Args:
        must_exist: else it is left to start where the server is.

    Raises:
        BadRequest: it is going to be written, and is an address.
    """
    from garcon_jupyter.activation_stores.addresses import need_directory

    if not must_exist:
        path = need_directory(path, "What a server writes", "Copy it there when it is complete.")
    mine = Path(path).expanduser().absolute()
    here = client._channel.same_host and (mine.exists() or not must_exist)
    return str(mine) if here else str(path)
