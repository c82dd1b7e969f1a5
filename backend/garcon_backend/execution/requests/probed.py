"""What requests have in common that run the model with probes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.execution.row_chunks import RowChunk
from garcon_backend.probing.user_calls import LoadedProbe
from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.wire import requests as wire

P = TypeVar("P", wire.Forward, wire.Backward, wire.Generate)


class ProbedRequestHandler(RequestHandler[P]):
    """A request with a batch of tokens and with probes.

    Attributes:
        probes: ready to run, once :meth:`admit_probes` has let them in.
    """

    probes: list[LoadedProbe]

    def admit_probes(self, chunks: Sequence[RowChunk] = ()) -> None:
        """Load the probes of a pass that fits, whole or in chunks. Called by :meth:`prepare`.

        Raises:
            DoesNotFit: the pass does not, or what its recorders will keep.
            UnknownName: the server has no adapter, or no dictionary, of that name.
        """
        if self.request.adapter is not None:
            self.rank.adapters.check(self.request.adapter)
        self._check_splices()
        self.tools.admission.check(self.request, chunks)
        self.probes = self.tools.probes.load(self.request.probes)
        with self.rank.interrupts.user_code("preparing"):
            self.tools.recorder_admission.check(self.request.session, self.probes)

    def _check_splices(self) -> None:
        there = self.rank.dictionaries.by_name
        for splice in self.request.splices:
            if splice.dictionary not in there:
                raise UnknownName.among(
                    "dictionary",
                    splice.dictionary,
                    there,
                    "rmodel.dictionaries.load(PATH) loads one.",
                )
            if splice.error not in wire.SPLICE_ERRORS:
                raise BadRequest(
                    f"There is no error={splice.error!r} of a splice.",
                    f"There are {', '.join(wire.SPLICE_ERRORS)}.",
                )

    def run(self) -> Any:
        """With the adapter that was asked for, give the probes what they asked for, then run the pass."""
        with self.rank.adapters.on(self.request.adapter):
            self.tools.probes.supply(self.request.session, self.probes)
            return self.run_pass()

    @abstractmethod
    def run_pass(self) -> Any:
        """Run the model, and return this rank's part of the answer. Called by :meth:`run`, on every rank."""
