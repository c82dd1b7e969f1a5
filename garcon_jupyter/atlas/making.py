"""Making an atlas: recorders on all points, one pass over the data, and the summary of each point to disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from garcon_jupyter import recorders
from garcon_jupyter.atlas.files import FORMAT, INDEX, Atlas, open_atlas
from garcon_jupyter.errors import BadData

if TYPE_CHECKING:
    from garcon_jupyter.probes import Probe
    from garcon_jupyter.recordings import Recording
    from garcon_jupyter.remote_model import RemoteModel
    from garcon_jupyter.runs import Run

NAME = "atlas"
"""Name of the probes, whose save contexts are the atlas's own."""

_NEURONS = "mlp.post_activation"
_AT_ONCE = 256
"""Units whose logits are computed at a time."""

INTERVALS = 5
CORRELATED = 10
LOGITS = 10


def memory(units: int, widest: int, k: int = 20, window: int = 16, each: int = 4) -> int:
    """Bytes that the recorders of an atlas hold on the server, over all ranks.

    Args:
        units: of all points.
        widest: units of one point; pairs of them are correlated. 0 for no correlations.
        k: examples of each unit.
        window: tokens of an example.
        each: examples of each interval.
    """
    slots = k + INTERVALS * each
    bins = recorders.Histogram().bins
    return units * (slots * (16 + 8 * window) + 8 * bins + 16 + 48 + 32 + 8 * widest)


class Making:
    """One atlas in the making.

    Args:
        names: of the points.
        path: the directory to write.
        k: examples of each unit.
        before: tokens of an example before its own.
        after: and after it.
        each: examples of each interval of the sample.
        correlated: whether to correlate the units of each point.
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
        self._files: dict[str, Any] = {}

    def probes(self) -> list[Probe]:
        """The recorders, as probes."""
        window: dict[str, Any] = {"before": self._before, "after": self._after}
        together = recorders.Together(
            [
                recorders.TopK(self._k, **window),
                recorders.EqualCountReservoir(INTERVALS, self._each, **window),
                recorders.Histogram(),
                recorders.Firing(),
                recorders.Moments(),
            ]
        )
        made = []
        for name in self._names:
            point = self._model.probe_points[name]
            made.append(point.probe(together, name=NAME))
            if self._correlated:
                made.append(point.probe(recorders.Covariance(), name=NAME))
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
            BadData: the disk is full; what was recorded is still on the server.
        """
        recordings = run.recordings()
        units = self._units()
        total = sum(units.values())
        try:
            first = 0
            for name in self._names:
                for what, rows in self._arrays(name, recordings[name, NAME]):
                    file = self._file(what, total, rows)
                    file[first : first + len(rows)] = rows
                first += units[name]
            for file in self._files.values():
                file.flush()
            self._write_index(run, units)
        except OSError as error:
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

    def _file(self, what: str, units: int, rows: np.ndarray) -> np.ndarray:
        if what not in self._files:
            self._files[what] = np.lib.format.open_memmap(
                self._path / f"{what}.npy", "w+", rows.dtype, (units, *rows.shape[1:])
            )
        return self._files[what]

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
            units, values = _strongest(found.covariance.correlation)
            yield "correlated", units
            yield "correlations", values
        if self._logits:
            yield from _to_the_logits(self._model, name)

    def _write_index(self, run: Run, units: dict[str, int]) -> None:
        vocabulary = self._model.catalog.sizes.get("V", 0)
        strings = self._model.token_strings([list(range(vocabulary))])[0] if vocabulary else []
        (self._path / "vocabulary.json").write_text(json.dumps(strings))
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
            "edges": [str(edge) for edge in recorders.Histogram().edges.tolist()],
            "arrays": {
                what: [str(file.dtype), list(file.shape)] for what, file in self._files.items()
            },
        }
        (self._path / INDEX).write_text(json.dumps(index, indent=1))  # last: it says all is there


def _strongest(correlation: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The units most correlated with each, and how much; −1 where there are fewer."""
    values = correlation.float().nan_to_num(0.0)
    values.fill_diagonal_(0.0)
    k = min(CORRELATED, max(0, len(values) - 1))
    order = values.abs().topk(k, 1).indices
    units = torch.full((len(values), CORRELATED), -1, dtype=torch.int32)
    strongest = torch.full((len(values), CORRELATED), torch.nan)
    units[:, :k], strongest[:, :k] = order.int(), values.gather(1, order)
    return units.numpy(), strongest.numpy()


def _to_the_logits(model: RemoteModel, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """The tokens that each neuron's output weights point to, and away from, through the unembedding."""
    unembed = model.get_parameter("unembed.weight").float()
    out = model.get_parameter(name.replace(_NEURONS, "mlp.down_proj")).float()
    k = min(LOGITS, len(unembed))
    found: dict[str, list[Tensor]] = {}
    for part in out.T.split(_AT_ONCE):
        scores = part @ unembed.T
        for what, largest in (("up", True), ("down", False)):
            best = scores.topk(k, 1, largest=largest)
            found.setdefault(f"logits_{what}", []).append(best.indices.int())
            found.setdefault(f"logits_{what}_values", []).append(best.values)
    for what, parts in found.items():
        yield what, torch.cat(parts).numpy()


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
