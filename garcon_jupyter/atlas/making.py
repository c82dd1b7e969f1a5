"""Making an atlas: recorders on all points, one pass over the data, and the summary of each point to disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from garcon_jupyter import recorders
from garcon_jupyter.array_files import prepare
from garcon_jupyter.atlas.correlations import CORRELATED, SUMS, across
from garcon_jupyter.atlas.files import INDEX, Atlas, open_atlas
from garcon_jupyter.atlas.logits import of_latents, to_the_logits, writes_to_the_stream
from garcon_jupyter.atlas.merging import columns, put_sketches, widened
from garcon_jupyter.atlas.writing import writing
from garcon_jupyter.client.recordings import Recording
from garcon_jupyter.errors import BadData
from garcon_jupyter.points.dictionary_points import taken_apart
from garcon_jupyter.wire.tokenizer_messages import Strings

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.dictionaries import ServedDictionary
    from garcon_jupyter.client.probes import Probe
    from garcon_jupyter.client.run import Run

NAME = "atlas"
"""Name of the probes, whose save contexts are the atlas's own."""

_NEURONS = "mlp.post_activation"

INTERVALS = 5

CORRELATED_UNITS = 4096
"""Units of a point up to which they are correlated unless it is said: pairs are as many as the square of that, and for the latents
of a dictionary would take gigabytes, and most of the time."""


def memory(
    units: int, widest: int, k: int = 20, window: int = 16, each: int = 4, points: int = 0
) -> int:
    """Bytes that the recorders of an atlas hold on the server, over all ranks.

    Args:
        units: of all points.
        widest: units of one point; pairs of them are correlated. 0 for no correlations.
        k: examples of each unit.
        window: tokens of an example.
        each: examples of each interval.
        points: how many they are; units of several are correlated too. 0 for no correlations.
    """
    slots = k + INTERVALS * each
    bins = recorders.Histogram().bins
    sketches = units * (4 * SUMS + 8) + points * 8 * SUMS if points > 1 else 0
    pairs = 8 * widest + 32 if widest else 0  # a sum for each pair, and four numbers for each unit
    return units * (slots * (16 + 8 * window) + 8 * bins + 16 + 48 + pairs) + sketches


@dataclass(frozen=True)
class Wanted:
    """What an atlas is to hold.

    Attributes:
        k: examples of each unit.
        before: tokens of an example before its own.
        after: and after it.
        each: examples of each interval of the sample.
        correlated: whether to correlate units, of each point and of different points; None for where no point has more than
            :data:`CORRELATED_UNITS`.
        logits: whether to follow neurons and latents to the logits; None for where all units are some that write to the stream.
        mergeable: whether to keep all correlations, from which those of several atlases are put together.
        of: what makes the units of each point's tensor; None for the tensor's own.
        without: tokens that are not recorded.
    """

    k: int
    before: int
    after: int
    each: int
    correlated: bool | None
    logits: bool | None
    mergeable: bool
    of: recorders.Transform | None
    without: Sequence[str | int]


class Making:
    """One atlas in the making.

    Args:
        names: of the points.
        path: the directory to write.

    Raises:
        BadData: units are to be followed to the logits that do not write to the stream.
    """

    def __init__(self, model: Client, names: list[str], path: str | Path, wanted: Wanted) -> None:
        self._model, self.path, self._wanted = model, Path(path).expanduser(), wanted
        without = wanted.without
        self._without = (without,) if isinstance(without, (str, int)) else tuple(without)
        self._names = list(dict.fromkeys(names))
        self._correlated = self._few_enough() if wanted.correlated is None else wanted.correlated
        self._across = self._correlated and len(self._names) > 1
        write = wanted.of is None and all(map(self._writes, self._names))
        self._logits = write if wanted.logits is None else wanted.logits
        if self._logits and not write:
            raise BadData(
                "Only neurons of an MLP, and latents of dictionaries that write to the stream, have output weights.",
                "Give logits=False.",
            )

    def _writes(self, name: str) -> bool:
        """Whether each unit of a point writes along a direction into the stream, whose way to the logits can be followed."""
        if (latents := self._latents(name)) is not None:
            return not latents.points.several and writes_to_the_stream(latents.points.writes)
        return name.endswith(_NEURONS) and ".experts." not in name and not taken_apart(name)

    def _latents(self, name: str) -> ServedDictionary | None:
        """The dictionary whose latents a point is; None where it is none of any."""
        found = taken_apart(name)
        if found is None or found.part.word != "latents":
            return None
        return self._model.dictionaries[found.name]

    def _few_enough(self) -> bool:
        """Whether no point has more units than are correlated unasked."""
        if (of := self._wanted.of) is not None:
            return of.units <= CORRELATED_UNITS
        catalog = self._model.catalog
        shapes = [catalog.shape(catalog.point(name))[2:] for name in self._names]
        units = [math.prod(size for size in shape if isinstance(size, int)) for shape in shapes]
        return max(units, default=0) <= CORRELATED_UNITS

    def probes(self) -> list[Probe]:
        """The recorders, as probes."""
        wanted = self._wanted
        window: dict[str, Any] = {"before": wanted.before, "after": wanted.after}
        chosen: list[recorders.Recorder[Any]] = [
            recorders.TopK(wanted.k, **window),
            recorders.EqualCountReservoir(INTERVALS, wanted.each, **window),
            recorders.Histogram(),
            recorders.Firing(),
            recorders.Moments(),
        ]
        if self._across:
            chosen.append(recorders.Sketch(SUMS))
        together = recorders.Together(chosen).without(*self._without)
        made = []
        for name in self._names:
            point = self._model.probe_points[name]
            made.append(point.probe(self._made(together), name=NAME))
            if self._correlated:
                pairs = recorders.Covariance(double=False).without(*self._without)
                made.append(point.probe(self._made(pairs), name=NAME))
        return made

    def _made(self, recorder: recorders.Recorder[Any]) -> recorders.Recorder[Any]:
        return recorder if self._wanted.of is None else recorder.of(self._wanted.of)

    def write(self, run: Run) -> Atlas:
        """Bring the summaries here, point by point, and write them.

        Raises:
            BadData: there was nothing to record, or the disk is full; what was recorded is on the server.
        """
        run.wait(show=False)  # of one that was begun with blocking=False
        if not run.status.tokens:
            raise BadData(
                "The data has no tokens.", "Give at least one document that is not empty."
            )
        recordings = run.recordings()
        kept = f"what was recorded is on the server, under the name {NAME!r}"
        with writing(self.path, self._units(), kept) as files:
            for name in self._names:
                for what, rows in self._arrays(name, recordings[name, NAME]):
                    files.put(name, what, rows)
            if self._across:
                sketches = {name: recordings[name, NAME].sketch for name in self._names}
                for name, what, rows in across(sketches):
                    files.put(name, what, rows)
                if self._wanted.mergeable:
                    put_sketches(files, sketches)
            files.finish(vocabulary(self._model), self._facts(run))
        return open_atlas(self.path)

    def _units(self) -> dict[str, int]:
        found = {}
        for name in self._names:
            if self._wanted.of is not None:
                found[name] = self._wanted.of.units
                continue
            size = 1
            for letter in self._model.probe_points[name].shape[2:]:
                size *= int(letter)
            found[name] = size
        return found

    @cached_property
    def _unembed(self) -> torch.Tensor:
        return self._model.get_parameter("unembed.weight").float()

    # -- one point -------------------------------------------------------------------------------

    def _arrays(self, name: str, found: Recording) -> Iterator[tuple[str, np.ndarray]]:
        for kind, examples in (("top", found.topk), ("sample", found.equal_count)):
            for what in ("values", "places", "tokens", "around"):
                yield f"{kind}_{what}", getattr(examples, what).numpy()
        yield "histogram", found.histogram.counts.numpy()
        yield "fired", found.firing.fired.numpy()
        yield "moments", columns(found.moments)
        if self._correlated:
            products = Recording.handle(found, "covariance")
            # Found on the server: all pairs are much to bring here.
            others, values = products.strongest(CORRELATED).fetch()
            yield "correlated", others.int().numpy()
            yield "correlations", values.numpy()
            if self._wanted.mergeable:
                yield "pairs", widened(products.fetch(), max(self._units().values()))
        if self._logits and (latents := self._latents(name)) is not None:
            yield from of_latents(self._model, latents, self._unembed)
        elif self._logits:
            yield from to_the_logits(self._model, name.removesuffix(_NEURONS), self._unembed)

    def _facts(self, run: Run) -> dict[str, Any]:
        wanted, of = self._wanted, self._wanted.of
        return {
            "model": self._model.facts["path"],
            "tokens": run.status.tokens,
            "documents": run.status.documents,
            "parts": [[run.status.first_document, run.status.documents]],
            "k": wanted.k,
            "before": wanted.before,
            "after": wanted.after,
            "without": list(self._without),
            "intervals": INTERVALS,
            "sums": SUMS if self._across else 0,
            "edges": [str(edge) for edge in recorders.Histogram().edges.tolist()],
        } | ({"of": of.name, "labels": list(of.labels)} if of else {})


def vocabulary(model: Client) -> list[str]:
    """The texts of all tokens of a model; none where it came without a tokenizer."""
    size = model.catalog.sizes.get("V", 0)
    question = Strings([list(range(size))], halves=True)
    return model._ask_tokenizer(question)[0] if size else []


def make(
    model: Client,
    points: str | list[str],
    data: Any,
    path: str | Path,
    wanted: Wanted,
    run: Callable[..., Run],
) -> Atlas:
    """Make an atlas; see :meth:`garcon_jupyter.RemoteModel.atlas`."""
    patterns = [points] if isinstance(points, str) else list(points)
    names = [a.name for pattern in patterns for a in model.probe_points[pattern].addresses]
    making = Making(model, names, path, wanted)
    prepare(making.path, INDEX)
    return making.write(run(data, making.probes()))
