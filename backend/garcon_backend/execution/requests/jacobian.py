"""Rows of the Jacobian of a stream by earlier ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.execution.jacobians import JacobianRows
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.points import Address
from garcon_jupyter.wire import requests as wire


class JacobianHandler(RequestHandler[wire.Jacobian]):
    """The leader of the last stage answers with the rows of all sources."""

    kind = wire.Jacobian

    _prepared: JacobianRows

    def prepare(self) -> None:
        request, catalog = self.request, self.rank.bound.catalog
        self.rank.adapters.check(request.adapter)
        inputs = self.tools.passes.batch(request.batch)
        sources = [self._stream(name) for name in request.sources]
        target = self._stream(request.target)
        rows, length = inputs.ids.shape
        begin, end = request.positions
        start, stop = request.dims
        right = rows == 1 and inputs.mask is None and bool(sources) and request.rows > 0
        if not (right and 0 <= begin < end <= length and 0 <= start < stop <= catalog.sizes["D"]):
            raise BadRequest(
                "A request for rows of a Jacobian is not of one text, or of places that there are.",
                "Give one text without padding, positions and dimensions within it, and sources.",
            )
        copies = inputs.ids.expand(min(request.rows, stop - start), length)
        self.tools.admission.check(replace(request, batch=wire.Batch(copies)))
        self._prepared = JacobianRows(self.tools.passes, request, inputs, target, sources)

    def _stream(self, name: str) -> Address:
        address = self.rank.bound.catalog.point(name)
        if not name.endswith((".resid_pre", ".resid_post")):
            raise BadRequest(
                f"{name} is no residual stream between layers.",
                "Give layers.*.resid_pre or layers.*.resid_post.",
            )
        return address

    def run(self) -> Any:
        with self.rank.adapters.on(self.request.adapter):
            return self._prepared.run()
