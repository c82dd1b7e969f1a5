"""Layers that are cut over ranks, held against the same layers whole.

A part of the check at launch (:mod:`garcon_backend.execution.launch_check.check`), for tensor parallelism.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from garcon_backend.execution.launch_check.first_difference import (
    Difference,
    Trace,
    first_difference,
)
from garcon_backend.execution.launch_check.readings import ALONE, Readings
from garcon_backend.models.first_layers import first_of_each_kind, load_first_layers
from garcon_backend.models.pipeline_parallel import find_layers
from garcon_backend.models.sharding import module_layout
from garcon_jupyter.errors import PointUnavailable


class CutCheck:
    """The first layers of a cut model, traced while it reads a text alone, and what they should have put out.

    Args:
        readings: of the model; the first rank compares.
        directory: of the checkpoint, from which the whole layers are read.
    """

    def __init__(self, readings: Readings, directory: Path) -> None:
        self.readings, self.directory = readings, directory
        self.model, self.mesh = readings.model, readings.mesh
        self.cut = Trace()
        self.count = 0
        self._watched: set[str] = set()
        if self.mesh.degrees.tp > 1:
            self.count = first_of_each_kind(self.model)
            self._watched = set(self._paths()) if self.mesh.rank == 0 else set()

    def _paths(self) -> list[str]:
        """Of the first layers, all in them, and the embedding."""
        holder, name = find_layers(self.model)
        prefix = next(path for path, module in self.model.named_modules() if module is holder)
        layers = [f"{prefix}.{name}.{index}".lstrip(".") for index in range(self.count)]
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]

        def watched(path: str, module: nn.Module) -> bool:
            inside = any(f"{path}.".startswith(f"{layer}.") for layer in layers)
            return inside or module is embedding

        return [path for path, module in self.model.named_modules() if watched(path, module)]

    def watching(self) -> AbstractContextManager[Trace]:
        """While this lasts, the served model reads the text that is to be compared."""
        return self.cut.of(self.model, self._watched.__contains__)

    def differing_layer(self, tolerance: float) -> tuple[Difference | None, str]:
        """Where the cut layers part from whole ones.

        Returns:
            The difference, on the rank that compares, and what is said of it where there is none.
        """
        said = f"the first {self.count} of its cut layers equal to the whole ones"
        if self.mesh.rank != 0:
            return None, said
        try:
            own = self._whole()
        except Exception as error:  # noqa: BLE001 - configurations of so few layers may make no sense
            lines = str(error).strip().splitlines() or [""]
            return (
                None,
                f"its cut was not compared with whole layers ({type(error).__name__}: {lines[0]})",
            )
        self._drop_parts()
        return first_difference(self.cut, own, tolerance, self.readings.real(ALONE)), said

    def _whole(self) -> Trace:
        whole: Any = load_first_layers(self.model, self.directory, self.count, self.mesh.device)
        with (own := Trace()).of(whole, self._watched.__contains__), torch.no_grad():
            ids = self.readings.texts.ids[:1].to(self.mesh.device)
            whole(input_ids=ids, use_cache=False)
        return own

    def _drop_parts(self) -> None:
        """Leave in the trace what is whole on this rank: what lies in parts is no value of the whole model."""
        for key in list(self.cut.values):
            path, side, _ = key
            try:
                layout = module_layout(self.model, self.mesh, path, side)
            except PointUnavailable:
                whole = False
            else:
                whole = layout.chunks == 1 and not layout.partial
            if not whole:
                del self.cut.values[key]
