"""Activations of a run, stored: what is asked for, whether the disk has room, and how far it is."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from garcon_jupyter.activation_stores import ActivationStore, journal, making, numbers, open_store
from garcon_jupyter.activation_stores.row_files import FILE_BYTES, RowLayout
from garcon_jupyter.activation_stores.writing import MANIFEST
from garcon_jupyter.amounts import sized
from garcon_jupyter.client.client import Client
from garcon_jupyter.client.probes import Probe
from garcon_jupyter.client.run import POLLED, Run, describe
from garcon_jupyter.connection import called_off, progress
from garcon_jupyter.errors import BadData, DoesNotFit, Interrupted
from garcon_jupyter.recorders.storing import NAME, StoreRecorder
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.runs import Data, RunStatus

CHECKPOINTS = ".run"
"""The directory, in that of a store, with the checkpoints of its run; gone when it is complete."""

_SURE = 0.8
"""Of what is left by the data read so far, what is at least expected to come."""


class Storing:
    """One store in the making.

    Args:
        model: whose activations.
        points: names of points, or patterns.
        data: as it travels.
        directory: of the store, as the server is told it.
        here: the same on this side; None where the server is on another host.
        dtype: how to store activations; None for their own 16 bits, float32 as float16.
        options: of the run, which are part of what the store is.
        file_bytes: of a whole file.

    Raises:
        UnknownPoint: there is no such point.
        BadProbe: a point has no value for each token.
        BadData: the directory has something else.
        DoesNotFit: the disk does not have the room that is known to be needed.
    """

    def __init__(
        self,
        model: Client,
        points: str | Sequence[str],
        data: Data,
        directory: str,
        here: Path | None,
        dtype: str | None,
        options: Mapping[str, Any],
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self._model, self.directory, self._here = model, directory, here
        given = str(model.facts["model"]["dtype"])
        stored = numbers.chosen(dtype, given)
        patterns = [points] if isinstance(points, str) else list(points)
        addresses = {
            address.name: address
            for pattern in patterns
            for address in model.probe_points[pattern].addresses
        }
        facts: dict[str, dict[str, Any]] = {}
        for name, address in addresses.items():
            StoreRecorder(directory, {}).check(address.spec.dims if address.spec else (), name)
            shape = [int(size) for size in model.catalog.shape(address)[2:]]
            facts[name] = making.point_facts(shape, given, stored, file_bytes)
        self.row_bytes = sum(RowLayout(f["units"], stored).row_bytes for f in facts.values())
        self._tokens = _tokens_of(data, options)
        about = {"model": _model_said(model), "data": data_said(data), "run": options_said(options)}
        self.manifest = making.manifest(facts, {}, about)
        if here is not None:
            self._begun = making.begin(here, self.manifest)
            self._check_room()

    @property
    def whole(self) -> ActivationStore | None:
        """The store, where it is complete already."""
        if self._here is None or "rows" not in journal.get(self._here / MANIFEST):
            return None
        return open_store(self._here)

    @property
    def resumable(self) -> bool:
        """Whether an earlier call left a checkpoint."""
        return self._here is not None and (self._here / CHECKPOINTS / "position").exists()

    def probes(self) -> list[Probe]:
        """A recorder at each point."""
        return [
            self._model.probe_points[name].probe(
                StoreRecorder(self.directory, self.manifest), name=NAME
            )
            for name in self.manifest["points"]
        ]

    # -- room ------------------------------------------------------------------------------------

    def _check_room(self) -> None:
        """Refuse what is known to need more room than there is."""
        if self._tokens is None or self._here is None:
            return
        needed = self._tokens * self.row_bytes - self._written()
        free = shutil.disk_usage(self._here).free
        if needed > free:
            raise DoesNotFit(
                f"{self._tokens:,} tokens of {self.row_bytes:,} bytes take {sized(needed)}, and "
                f"{sized(free)} are free in {self._here}.",
                "Make room, store fewer points, or give most_tokens=.",
            )

    def _written(self) -> int:
        assert self._here is not None
        return sum(p.stat().st_blocks * 512 for p in self._here.iterdir() if p.is_file())

    def _look(self, run: Run) -> None:
        """Cancel a run whose data will not fit, as soon as so much can be told."""
        status = run.status
        if self._here is None or not status.fraction or status.over:
            return
        left = status.tokens * self.row_bytes * (1 / status.fraction - 1)
        free = shutil.disk_usage(self._here).free
        if left * _SURE > free:
            run.cancel()
            raise DoesNotFit(
                f"After {status.fraction:.1%} of the data about {sized(left)} are to come, and "
                f"{sized(free)} are free in {self._here}; the run is cancelled.",
                "Make room and give the same call again, which goes on; or store fewer points.",
            )

    # -- followed --------------------------------------------------------------------------------

    def wait(self, run: Run, show: bool) -> ActivationStore | None:
        """Wait for a run to end; None where the store is on another host.

        Raises:
            Interrupted: it was cancelled; the same call goes on.
            DoesNotFit: the disk will not suffice, or is full.
            GarconError: what the run failed with.
        """
        line = progress.Line() if show else None
        try:
            while True:
                called_off.check()
                status = run.poll()
                if line:
                    line.show(self.told(status))
                if status.over or status.state == "paused":
                    break
                self._look(run)
                time.sleep(POLLED)
        except KeyboardInterrupt:
            run.cancel()
            raise
        finally:
            if line:
                line.end(self.told(run.status))
        if status.failure:
            raise revive(status.failure)
        if status.state != "done":
            raise Interrupted(
                f"{run.id} is {status.state} after {status.tokens:,} tokens.",
                "The same call goes on from its last checkpoint.",
            )
        return self.finish()

    def told(self, status: RunStatus) -> str:
        """How far a run is, with the bytes that it has written and those to come."""
        written = status.tokens * self.row_bytes
        whole = f" of about {sized(written / status.fraction)}" if status.fraction else ""
        return f"{describe(status)}  {sized(written)}{whole}"

    def finish(self) -> ActivationStore | None:
        """Look at what was written, and put down that it is complete."""
        if self._here is None:
            return None
        store = open_store(self._here)
        making.complete(self._here, store.rows)
        shutil.rmtree(self._here / CHECKPOINTS, ignore_errors=True)
        return open_store(self._here)


def _tokens_of(data: Data, options: Mapping[str, Any]) -> int | None:
    """Tokens that will be stored, where that is known before they are read."""
    most = options.get("most_tokens")
    if data.rows is None:
        return None if most is None or data.texts is not None else int(most)
    there = sum(len(row) for row in data.rows)
    return there if most is None else min(there, int(most))


def _model_said(model: Client) -> dict[str, Any]:
    facts = model.facts["model"]
    said = {name: facts[name] for name in ("architecture", "dtype", "parameters")}
    return {"path": model.facts["path"], **said}


def data_said(data: Data) -> dict[str, Any]:
    """What data is known by: another under the same name is another."""
    if data.path is not None:
        path = Path(data.path).expanduser()
        size = path.stat().st_size if path.is_file() else None
        return {"path": data.path, "bytes": size, "field": data.field, "documents": data.documents}
    digest = hashlib.sha256()
    for item in data.texts if data.texts is not None else data.rows or ():
        content = item.encode() if isinstance(item, str) else item.tobytes()
        digest.update(len(content).to_bytes(8, "little") + content)
    return {"sha256": digest.hexdigest()}


def options_said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""
    plain = (str, int, float, bool, type(None))
    return {name: v if isinstance(v, plain) else repr(v) for name, v in sorted(options.items())}


def refuse_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a run that a store has its own of.

    Raises:
        BadData: names one.
    """
    for name in ("checkpoint", "resume", "fresh", "conclude", "probes"):
        if name in options:
            raise BadData(f"A store has its own {name}=.", "Leave it out.")
