"""Where a point is visited on this rank, and how its value lies on the ranks that share it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from garcon_backend.distributed.collectives import Layout
from garcon_backend.hook_sites.sites import HookSite, LogitsOf
from garcon_backend.models.sharding import StandIn, module_layout
from garcon_backend.probing.rank import Rank
from garcon_jupyter.points import MODULE_PREFIX, Address, PointSpec
from garcon_jupyter.points.dictionary_points import taken_apart


def site_here(rank: Rank, address: Address) -> tuple[HookSite, nn.Module] | None:
    """Where a point is visited on this rank, and the module that it is installed on; None where another stage has it.

    A dictionary's point is where the point is that the dictionary reads; of a crosscoder, the last that it reads.
    """
    if (found := taken_apart(address.name)) is not None and address.dictionary:
        points = rank.dictionaries[address.dictionary].points
        address = rank.bound.catalog.point(points.visited_at(found.host))
    site, module = rank.bound.site(address)
    if module is None or isinstance(module, StandIn):
        return None
    # The whole model puts out logits on every stage; those of the last one are real.
    if isinstance(site, LogitsOf) and not rank.mesh.last_stage:
        return None
    return site, module


def layout_of(rank: Rank, address: Address) -> Layout:
    """How the value of a point lies on the tensor-parallel ranks."""
    spec = address.spec
    if address.name.startswith(MODULE_PREFIX):
        return _module_layout(rank, address.name)
    split = spec.split if isinstance(spec, PointSpec) else ""
    if address.dictionary:
        return rank.dictionaries[address.dictionary].layout if split else Layout()
    layout = rank.layouts[split]
    if not split or layout.chunks == 1:
        return layout
    assert spec is not None
    return replace(layout, dim=spec.dims.index(split))


def _module_layout(rank: Rank, name: str) -> Layout:
    path, _, side = name[len(MODULE_PREFIX) :].rpartition(".")
    try:
        rank.model.get_submodule(path)
    except AttributeError:  # of another stage
        return Layout()
    return module_layout(rank.model, rank.mesh, path, side)
