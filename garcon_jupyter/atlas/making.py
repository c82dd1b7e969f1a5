"""Making an atlas: recorders on all points, one pass over the data, and the summary of each point to disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from garcon_jupyter import recorders
from garcon_jupyter.atlas.files import FORMAT, INDEX, VOCABULARY, Atlas, open_atlas
from garcon_jupyter.atlas.logits import to_the_logits
from garcon_jupyter.errors import BadData
from garcon_jupyter.recorders.covariance import strongest
from garcon_jupyter.recordings import Recording

if TYPE_CHECKING:
    from garcon_jupyter.probes import Probe
    from garcon_jupyter.remote_model import RemoteModel
    from garcon_jupyter.runs import Run

NAME = "atlas"
"""Name of the probes, whose save contexts are the atlas's own."""

_NEURONS = "mlp.post_activation"
_AT_ONCE = 256
"""Units whose correlations with all others are computed at a time."""

INTERVALS = 5
CORRELATED = 10
SUMS = 1024
"""In the sketch of a unit, by which units of different points are correlated."""

_CERTAIN = 5
"""Standard errors by which a correlation must differ from 0 to be kept: chance alone gives one unit of two
million as much."""


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
    return units * (slots * (16 + 8 * window) + 8 * bins + 16 + 48 + 32 + 8 * widest) + sketches


class Making:
    """One atlas in the making.

    Args:
        names: of the points.
        path: the directory to write.
        k: examples of each unit.
        before: tokens of an example before its own.
        after: and after it.
        each: examples of each interval of the sample.
        correlated: whether to correlate units, of each point and of different points.
        logits: whether to follow neurons to the logits.
    """

    def __init__(
        self,
        model: RemoteModel,
        names: list[str],
        path: str | Path,
        k: int,
        before: int,
        after: int,
        each: int,
        correlated: bool,
        logits: bool,
    ) -> None:
        self._model, self._path = model, Path(path).expanduser()
        self._k, self._before, self._after, self._each = k, before, after, each
        self._correlated, self._logits = correlated, logits
        self._names = list(dict.fromkeys(names))
        self._across = correlated and len(self._names) > 1
        self._files: dict[str, Any] = {}

    def probes(self) -> list[Probe]:
        """The recorders, as probes."""
        window: dict[str, Any] = {"before": self._before, "after": self._after}
        chosen: list[recorders.Recorder[Any]] = [
            recorders.TopK(self._k, **window),
            recorders.EqualCountReservoir(INTERVALS, self._each, **window),
            recorders.Histogram(),
            recorders.Firing(),
            recorders.Moments(),
        ]
        if self._across:
            chosen.append(recorders.Sketch(SUMS))
        together = recorders.Together(chosen)
        made = []
        for name in self._names:
            point = self._model.probe_points[name]
            made.append(point.probe(together, name=NAME))
            if self._correlated:
                made.append(point.probe(recorders.Covariance(double=False), name=NAME))
        return made

    def prepare(self) -> None:
        """See that the directory can be written.

        Raises:
            BadData: it holds something else, or cannot be made.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            if any(self._path.iterdir()) and not (self._path / INDEX).exists():
                raise BadData(f"{self._path} holds something else.", "Give a new directory.")
            (self._path / INDEX).unlink(missing_ok=True)
        except OSError as error:
            raise BadData(f"{self._path} cannot be written: {error}.", "Give another.") from None

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
        units = self._units()
        try:
            starts = dict(zip(self._names, np.cumsum([0, *units.values()]).tolist(), strict=False))
            for name, first in starts.items():
                for what, rows in self._arrays(name, recordings[name, NAME]):
                    self._put(what, first, rows)
            if self._across:
                sketches = {name: recordings[name, NAME].sketch for name in self._names}
                for name, what, rows in across(sketches):
                    self._put(what, starts[name], rows)
            for file in self._files.values():
                file.flush()
            self._write_index(run, units)
        except OSError as error:
            for file in (*self._path.glob("*.npy"), self._path / VOCABULARY):
                file.unlink(
                    missing_ok=True
                )  # half an atlas takes room, and is in the way of a whole one
            raise BadData(
                f"The atlas in {self._path} could not be written: {error.strerror or error}.",
                f"Make room; what was recorded is on the server, under the name {NAME!r}.",
            ) from None
        return open_atlas(self._path)

    def _units(self) -> dict[str, int]:
        found = {}
        for name in self._names:
            size = 1
            for letter in self._model.probe_points[name].shape[2:]:
                size *= int(letter)
            found[name] = size
        return found

    def _put(self, what: str, first: int, rows: np.ndarray) -> None:
        """Write the rows of some units into a file of all of them."""
        if what not in self._files:
            shape = (sum(self._units().values()), *rows.shape[1:])
            self._files[what] = create(self._path / f"{what}.npy", rows.dtype, shape)
        self._files[what][first : first + len(rows)] = rows

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
        m = found.moments
        columns = (m.mean, m.variance, m.skewness, m.kurtosis, m.low, m.high)
        yield "moments", torch.stack(columns, 1).numpy()
        if self._correlated:
            strongest = Recording.handle(found, "covariance").strongest(CORRELATED)
            others, values = (
                strongest.fetch()
            )  # found on the server: all pairs are much to bring here
            yield "correlated", others.int().numpy()
            yield "correlations", values.numpy()
        if self._logits:
            yield from to_the_logits(self._model, name.removesuffix(_NEURONS), self._unembed)

    def _write_index(self, run: Run, units: dict[str, int]) -> None:
        vocabulary = self._model.catalog.sizes.get("V", 0)
        strings = self._model.token_strings([list(range(vocabulary))])[0] if vocabulary else []
        (self._path / VOCABULARY).write_text(json.dumps(strings))
        index = {
            "format": FORMAT,
            "model": self._model.facts["path"],
            "points": units,
            "tokens": run.status.tokens,
            "documents": run.status.documents,
            "k": self._k,
            "before": self._before,
            "after": self._after,
            "intervals": INTERVALS,
            "sums": SUMS if self._across else 0,
            "edges": [str(edge) for edge in recorders.Histogram().edges.tolist()],
            "arrays": {
                what: [str(file.dtype), list(file.shape)] for what, file in self._files.items()
            },
        }
        (self._path / INDEX).write_text(json.dumps(index, indent=1))  # last: it says all is there


def create(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """A mapped array whose room on the disk is taken at once: a disk that fills under a mapping kills the
    process, and here it is an error.

    Raises:
        OSError: there is no room.
    """
    array = np.lib.format.open_memmap(file, "w+", dtype, shape)
    with file.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    return array


def across(
    sketches: dict[str, recorders.SketchState],
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(point, array, rows): the units of other points that each unit is most correlated with.

    Units are counted over all points in their order; what is not beyond chance is left out.
    """
    directions = {name: state.directions for name, state in sketches.items()}
    everything = torch.cat(list(directions.values()))
    least = _CERTAIN * max(state.error for state in sketches.values())
    first = 0
    for name, mine in directions.items():
        found = []
        for part in mine.split(_AT_ONCE):
            estimates = part @ everything.T
            estimates[:, first : first + len(mine)] = 0.0
            found.append(strongest(estimates, CORRELATED, least))
        first += len(mine)
        units, values = (torch.cat(column) for column in zip(*found, strict=True))
        yield name, "across", units.numpy()
        yield name, "across_correlations", values.clamp(-1, 1).numpy()


def make(
    model: RemoteModel,
    points: str | list[str],
    data: Any,
    path: str | Path,
    *,
    k: int,
    before: int,
    after: int,
    each: int,
    correlated: bool,
    logits: bool | None,
    run: Callable[..., Run],
) -> Atlas:
    """Make an atlas; see :meth:`garcon_jupyter.RemoteModel.atlas`."""
    patterns = [points] if isinstance(points, str) else list(points)
    names = [a.name for pattern in patterns for a in model.probe_points[pattern].addresses]
    neurons = all(name.endswith(_NEURONS) and ".experts." not in name for name in names)
    follow = neurons if logits is None else logits
    if follow and not neurons:
        raise BadData("Only neurons of an MLP have output weights.", "Give logits=False.")
    making = Making(model, names, path, k, before, after, each, correlated, follow)
    making.prepare()
    return making.write(run(data, making.probes()))
