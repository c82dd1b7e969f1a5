"""One rank without anybody around it: the executor, driven by plain functions that never travel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.execution.executor import Executor
from garcon_backend.execution.generation import generate
from garcon_backend.hook_sites import attention
from garcon_backend.models import loading
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import LoadedProbe
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.requests import Code, ProbeSpec

See = Callable[[Tensor], Any]
"""What a probe does with the value of its point; what it returns replaces the value."""

_NO_CODE = Code(b"", "", "test")


class BareRank:
    """One model, loaded and probed as a rank does it, or any module of one's own."""

    def __init__(
        self, source: Path | nn.Module, dtype: str | None = None, mesh: Mesh | None = None
    ) -> None:
        attention.register()
        mesh = mesh or Mesh.solo()
        model = source if isinstance(source, nn.Module) else loading.load(source, mesh, dtype)
        self.model = model
        self.rank = Rank.around(model, mesh)
        self.bound = self.rank.bound
        self.catalog = self.bound.catalog
        self.executor = Executor(self.rank)
        self.tools = self.executor.tools
        self.untouched = self.installed()
        self.token_index: dict[str, Tensor] = {}

    def forward(
        self, ids: Tensor, mask: Tensor | None = None, see: Mapping[str, See] | None = None
    ) -> Tensor:
        """The logits, with these probes."""
        passes = self.tools.passes
        batch = passes.batch(wire.Batch(ids, mask))
        try:
            return passes.forward(wire.Forward("test"), batch, self._probes(see or {}), None)
        finally:
            assert self.installed() == self.untouched, "a request left something behind"

    def run(self, request: wire.Request) -> Any:
        """The answer to a request, by its handler, as a single rank comes to it."""
        handler = self.executor.handler(request)
        return handler.combine([self.executor.prepare(handler)()])

    def generate(self, ids: Tensor, new: int) -> Tensor | None:
        """Greedy continuations, [b, p + new], on the rank that answers."""
        found = self.generated(ids, max_new_tokens=new)
        return None if found is None else found.ids

    def generated(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        probes: Mapping[str, Callable[[Any, Tensor], Any]] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> wire.GeneratedTokens | None:
        """What a generation answers, on the rank that answers; probes are given their context, too."""
        passes = self.tools.passes
        request = wire.Generate("test", options=options, seed=seed)
        chosen = [
            LoadedProbe(ProbeSpec(name, _NO_CODE), self.catalog.point(name), function)
            for name, function in (probes or {}).items()
        ]
        try:
            return generate(passes, request, passes.batch(wire.Batch(ids, mask)), chosen)
        finally:
            assert self.installed() == self.untouched, "a request left something behind"

    def values(self, ids: Tensor, mask: Tensor | None, names: Sequence[str]) -> dict[str, Tensor]:
        """The values of many points in one forward."""
        found: dict[str, Tensor] = {}
        self.forward(ids, mask, {name: _keep(found, name) for name in names})
        return found

    def backward(
        self,
        loss: Callable[..., Tensor],
        ids: Tensor,
        mask: Tensor | None = None,
        see: Mapping[str, See] | None = None,
        gradients: Mapping[str, See] | None = None,
        values: Sequence[str] = (),
        parameters: Sequence[str] = (),
        sharded: bool = False,
    ) -> dict[str, Tensor]:
        """The gradients of these parameters, with probes of values and of gradients."""
        passes = self.tools.passes
        batch = passes.batch(wire.Batch(ids, mask))
        probes = self._probes(see or {}, sharded=sharded)
        probes += self._probes(gradients or {}, grad=True)
        wanted = [self.catalog.point(name) for name in values]
        request = wire.Backward("test", parameters=tuple(parameters))
        try:
            _, found = passes.backward(request, batch, probes, loss, wanted, self.tools.parameters)
            return found
        finally:
            assert self.installed() == self.untouched, "a request left something behind"

    def gradients(
        self, loss: Callable[..., Tensor], ids: Tensor, mask: Tensor | None, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """The gradients at many points in one backward."""
        found: dict[str, Tensor] = {}
        self.backward(loss, ids, mask, gradients={name: _keep(found, name) for name in names})
        return found

    def parameter(self, name: str) -> Tensor:
        value = self.tools.parameters.get(name)
        assert value is not None
        return value

    def floating_points(self, layers: Sequence[int] | None = None) -> list[str]:
        """Names of the points that have gradients; of some layers only, and those of none."""
        found = []
        for name in self.catalog.names():
            address = self.catalog.point(name)
            differentiable = getattr(address.spec, "differentiable", True)
            if differentiable and (layers is None or address.layer in (*layers, None)):
                found.append(name)
        return found

    def installed(self) -> list[str]:
        """Everything on the model's modules that a request could have put there."""
        found = []
        for name, module in self.model.named_modules():
            for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
                found += [f"{name} {kind}"] * len(getattr(module, kind))
            found += [f"{name} {key}" for key in vars(module) if "garcon" in key]
            found += [f"{name} forward"] if "forward" in vars(module) else []
        return found

    def _probes(
        self, see: Mapping[str, See], grad: bool = False, sharded: bool = False
    ) -> list[LoadedProbe]:
        return [
            LoadedProbe(
                ProbeSpec(name, _NO_CODE, grad=grad, sharded=sharded),
                self.catalog.point(name),
                self._function(look),
            )
            for name, look in see.items()
        ]

    def _function(self, look: See) -> Callable[[Any, Tensor], Any]:
        def function(context: Any, tensor: Tensor) -> Any:
            if context.here.token_index is not None:
                self.token_index[context.here.point] = context.here.token_index
            return look(tensor)

        return function


def _keep(found: dict[str, Tensor], name: str) -> See:
    def look(tensor: Tensor) -> None:
        found[name] = tensor.detach().clone()

    return look
