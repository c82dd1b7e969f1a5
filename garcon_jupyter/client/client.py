"""A served model as an object in a program: what a session is, without anything that draws."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client import display_hooks, out_buffers
from garcon_jupyter.client.dictionaries import DictionaryClient
from garcon_jupyter.client.recordings import Handle, Recordings
from garcon_jupyter.client.server_questions import ServerClient
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire import requests as wire

if TYPE_CHECKING:
    from torch import Tensor


class Client(DictionaryClient, ServerClient):
    """A connection to a served model: tokens, passes, probes, and what they saved.

    A notebook has a :class:`~garcon_jupyter.RemoteModel`, which is one, and draws.
    """

    def recordings(self, fetch: bool = True) -> Recordings:
        """A snapshot of what probes saved in this session, by point name.

        Nothing is fetched until an attribute is touched; with ``fetch=False``, touching gives handles,
        which can be cut and reduced on the server.

        Examples:
            >>> def save(save_ctx, tensor):
            ...     save_ctx.pattern = tensor

            >>> point = rmodel.probe_points["layers.4.attn.pattern"]
            >>> rmodel.forward(rmodel.encode("Hello, world"), probes=[point.probe(save)], logits="none")
            >>> before = rmodel.recordings()
            >>> before["layers.4.attn.pattern"].pattern.shape  # [b, head, query, key]
            torch.Size([1, 9, 3, 3])

            A snapshot stays as it was, whatever runs later.

            >>> rmodel.clear_recordings()
            >>> len(before), len(rmodel.recordings())
            (1, 0)
        """
        return Recordings(
            self, self._run(wire.Snapshot(number=secrets.randbits(62))), lazy=not fetch
        )

    def fetch(self, *handles: Handle, dtype: Any = None, out: Tensor | None = None) -> Any:
        """Fetch several handles in one go; a list, or the value of a single one.

        Args:
            dtype: floating dtype to travel in, e.g. torch.float16.
            out: of a single one, where to put it: a contiguous tensor of its shape and dtype. Between hosts it is
                received right there, which spares the time that fresh memory takes.

        Raises:
            BadRequest: `out` is another tensor than the value; what is in it then is undefined.
        """
        for handle in handles:
            if not isinstance(handle, Handle):
                raise BadRequest(
                    f"{type(handle).__name__} {handle!r} is no handle.",
                    "A recording gives them: recording.handle(attribute).",
                )
        wanted = tuple((h._ref, h._attribute, h._steps) for h in handles)
        name = None if dtype is None else _floating(dtype)
        into = None if out is None else out_buffers.memory_of(out, len(handles))
        values = self._run(wire.Fetch(wanted=wanted, dtype=name), into=into)
        if out is not None:
            return out_buffers.put(values[0], out)
        return values[0] if len(handles) == 1 else values

    def clear_recordings(self, pattern: str | None = None, name: str | None = None) -> None:
        """Forget recordings of this session on the server.

        Args:
            pattern: only those of these points.
            name: only those of probes of this name.
        """
        points = None if pattern is None else tuple(a.name for a in self.catalog.select(pattern))
        self._run(wire.Clear(points=points, name=name))
        for key in list(self.tokens_at):
            if (points is None or key[0] in points) and name in (None, key[1]):
                self.tokens_at.pop(key, None)

    def get_parameter(self, name: str, index: Any = None, adapter: str | None = None) -> Tensor:
        """A parameter by its name in the table, oriented [out, in]; cut by `index` on the server.

        Args:
            adapter: with what this adds to it, as if it were merged; as for :meth:`forward`.

        Raises:
            UnknownParameter: names the nearest ones.
            UnknownName: there is no such adapter.
        """
        self.catalog.parameter(name)
        request = wire.GetParameter(name=name, index=index, adapter=self._adapter(adapter))
        value: Tensor = self._run(request)
        return value

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return self.catalog.parameters

    @property
    def modules(self) -> tuple[str, ...]:
        """Dotted paths of all modules, for ``module:{path}.input`` and ``.output``."""
        return self.catalog.modules

    def __repr__(self) -> str:
        model, degrees = self.facts["model"], self.facts["degrees"]
        sharding = ", ".join(f"{word}={n}" for word, n in degrees.items() if n > 1) or "one process"
        catalog = self.catalog
        points = (
            f"{catalog.n_layers} layers"
            if catalog.mapped
            else f"{len(catalog.paths)} modules to probe, such as {catalog.a_module()!r}"
        )
        adapters = f"; adapters {', '.join(self.adapters)}" if self.adapters else ""
        on = f"; adapter {self.adapter} is on" if self.adapter else ""
        notes = "".join(f"; note: {note}" for note in model.get("notes", ()))
        return (
            f"<{type(self).__name__} {self.server.name}: {model['architecture']}, {points}, "
            f"{model['dtype']}, {sharding}{adapters}{on}; session {self.session!r}{notes}>"
        )

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)


def _floating(dtype: Any) -> str:
    """Name of a floating-point dtype, given as torch.float16 or "float16"."""
    import torch

    name = str(dtype).removeprefix("torch.")
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise BadRequest(f"{name!r} is no floating dtype.", "Use float32, float16 or bfloat16.")
    return name
