"""Which of the modules that a request probes its pass has called.

A module can have weights that the model reads without calling it (the convolution of a Mamba layer), or not be
needed for these tokens. A hook on it then never runs, and a probe there saves and edits nothing. That is told,
with what was called beside it, or a person looks for the mistake in the probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from garcon_jupyter.model_files.multimodal import wrapper_of
from garcon_jupyter.points import MODULE_PREFIX

NAMED = 6
"""Modules beside it that a sentence names."""


class CalledModules:
    """The calls of modules that are probed as such, and of those beside them."""

    def __init__(self, model: nn.Module, points: Iterable[str]) -> None:
        self._beside: dict[str, tuple[str, dict[str, nn.Module]]] = {}
        for point in points:
            path = point.removeprefix(MODULE_PREFIX).rpartition(".")[0]
            parent = model.get_submodule(path.rpartition(".")[0])
            self._beside[point] = (
                path,
                {path: model.get_submodule(path), **dict(_children(parent, path))},
            )
        self._called: set[int] = set()
        self._config = getattr(model, "config", None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, calls are noted."""
        modules = {id(m): m for _, family in self._beside.values() for m in family.values()}
        hooks = [m.register_forward_pre_hook(self._note(number)) for number, m in modules.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, number: int) -> Callable[..., None]:
        def note(module: nn.Module, args: Any) -> None:
            self._called.add(number)

        return note

    def silent(self) -> dict[str, str]:
        """Points whose module was not called: what to say of each."""
        return {
            point: self._sentence(path, family)
            for point, (path, family) in self._beside.items()
            if id(family[path]) not in self._called
        }

    def _sentence(self, path: str, family: dict[str, nn.Module]) -> str:
        names = [name for name, module in family.items() if id(module) in self._called]
        more = ", …" if len(names) > NAMED else ""
        beside = f" Called beside it: {', '.join(names[:NAMED])}{more}." if names else ""
        why = "the model uses its weights without calling it, or did not need it"
        wrapper = wrapper_of(self._config)
        if wrapper is not None and not wrapper.holds(path):
            why = "it is no part of what reads text, and a served model is given text alone"
        return f"The module {path} was not called in this pass, so no probe on it has run: {why}.{beside}"


def _children(parent: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    stem = path.rpartition(".")[0]
    for name, child in parent.named_children():
        yield f"{stem}.{name}".lstrip("."), child
