"""Layers that are cut over ranks, held against the same layers whole.

A part of the check at launch (:mod:`garcon_backend.execution.launch_check`), for tensor parallelism.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from garcon_backend.execution.check_readings import ALONE, Readings
from garcon_backend.execution.first_difference import Difference, Trace, first_difference
from garcon_backend.models.first_layers import first_of_each_kind, load_first_layers
from garcon_backend.models.pipeline_parallel import find_layers
from garcon_backend.models.sharding import module_layout
from garcon_jupyter.errors import PointUnavailable


def differing_layer(
    readings: Readings, directory: Path, tolerance: float
) -> tuple[Difference | None, str]:
    """Where the first layers of a cut model part from those of the whole one; every rank calls this.

    Returns:
        The difference, on the rank that compares, the first; and what is said of it where there is none.
    """
    model, mesh = readings.model, readings.mesh
    holder, name = find_layers(model)
    prefix = next(path for path, module in model.named_modules() if module is holder)
    count = first_of_each_kind(model)
    layers = tuple(f"{prefix}.{name}.{index}".lstrip(".") for index in range(count))
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]

    def watched(path: str) -> bool:
        inside = path.startswith(tuple(f"{layer}." for layer in layers))
        return path in layers or inside or model.get_submodule(path) is embedding

    with (cut := Trace()).of(model, watched if mesh.rank == 0 else lambda path: False):
        readings.served(ALONE)
    found: Difference | None = None
    said = f"the first {count} of its cut layers equal to the whole ones"
    if mesh.rank == 0:
        try:
            whole: Any = load_first_layers(model, directory, count, mesh.device)
            with (own := Trace()).of(whole, watched), torch.no_grad():
                ids = readings.texts.ids[:1].to(mesh.device)
                whole(input_ids=ids, use_cache=False)
        except Exception as error:  # noqa: BLE001 - configurations of so few layers may make no sense
            lines = str(error).strip().splitlines() or [""]
            said = (
                f"its cut was not compared with whole layers ({type(error).__name__}: {lines[0]})"
            )
        else:
            _drop_parts(cut, model, mesh)
            found = first_difference(cut, own, tolerance, readings.real(ALONE))
    return found, said


def _drop_parts(trace: Trace, model: Any, mesh: Any) -> None:
    """Leave in a trace what is whole on this rank: what lies in parts is no value of the whole model."""
    for key in list(trace.values):
        path, side, _ = key
        try:
            layout = module_layout(model, mesh, path, side)
        except PointUnavailable:
            whole = False
        else:
            whole = layout.chunks == 1 and not layout.partial
        if not whole:
            del trace.values[key]
