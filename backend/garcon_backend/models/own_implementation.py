"""A served model as transformers itself would run it, for a while: what the check at launch compares with.

The module stays where it is; only who computes its attention changes. That is the eager function of the model's
own class, the plainest that transformers has, in place of the house's or of a fast kernel. What is put around a
rotary embedding here (:mod:`garcon_backend.models.rotary`) is taken away too. All is put back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from garcon_backend.models.attending import own_code

SHORT_WINDOW = 4
"""Tokens of a window that is too long to be passed by a short text, while it is checked."""


@contextmanager
def by_own_implementation(model: nn.Module) -> Iterator[None]:
    """While this lasts, a model attends by the eager function of its own class, and turns as transformers turns."""
    former = [(config, config._attn_implementation_internal) for config in _configurations(model)]
    turned = [
        (module, vars(module).pop("forward"))
        for module in model.modules()
        if hasattr(module, "rope_type") and "forward" in vars(module)
    ]
    try:
        for config, _ in former:
            config._attn_implementation_internal = own_code(config)
        yield
    finally:
        for config, implementation in former:
            config._attn_implementation_internal = implementation
        for module, forward in turned:
            module.forward = forward


def window_of(model: nn.Module) -> int:
    """Tokens that the shortest sliding window of a model reaches back; 0 where no layer has one."""
    found = [_window(config) for config in _configurations(model)]
    return min(filter(None, found), default=0)


@contextmanager
def short_windows(model: nn.Module) -> Iterator[None]:
    """While this lasts, sliding windows reach :data:`SHORT_WINDOW` tokens back.

    The numbers are then those of another model, whoever computes them: alike by its own implementation and by
    what serves it, if both hold to windows.
    """
    holders = [*_configurations(model), *model.modules()]
    former = [(one, _window(one)) for one in holders if _window(one) > SHORT_WINDOW]
    try:
        for one, _ in former:
            one.sliding_window = SHORT_WINDOW
        yield
    finally:
        for one, window in former:
            one.sliding_window = window


def _window(holder: Any) -> int:
    own = vars(holder)  # a configuration that differs from layer to layer refuses to be asked
    kinds = own.get("layer_types")
    if own.get("use_sliding_window") is False:
        return 0
    if kinds and not any("sliding" in kind for kind in kinds):
        return 0
    window = own.get("sliding_window")
    return window if isinstance(window, int) else 0


def _configurations(model: nn.Module) -> list[Any]:
    """The configuration of a model, of its parts, and the copies that modules have of them."""
    found: dict[int, Any] = {}

    def add(config: Any) -> None:
        if not hasattr(config, "_attn_implementation_internal") or id(config) in found:
            return
        found[id(config)] = config
        for name in getattr(config, "sub_configs", ()):
            add(getattr(config, name, None))

    for module in model.modules():
        add(vars(module).get("config"))
    return list(found.values())
