"""Pictures of activations: live widgets, and a still picture for the saved notebook.

Everything here takes plain arrays (numpy or torch, any real dtype) and knows nothing of servers::

    from garcon_jupyter.widgets import show

    show(activations, ("b", "p", "M"), tokens=[["The", " cat"]], title="layers.4 neurons")

:func:`show` chooses a view by the letters of the probe-point table and returns a :class:`View`,
which draws itself as the last value of a cell: an interactive widget while a kernel is there, a
still picture in the saved notebook, its HTML export, and after the kernel has gone.

The parts can be used alone: :class:`ActivationsWidget` (tokens × units, tokens × heads),
:class:`AttentionWidget` (query tokens × key tokens for every head), :func:`distribution` (a plotly
histogram), :func:`static_html` (the still picture) and
:class:`ShardingPicture` (which rank holds what).
"""

from __future__ import annotations

from garcon_jupyter.widgets.activations import ActivationsWidget
from garcon_jupyter.widgets.attention import AttentionWidget
from garcon_jupyter.widgets.distribution import distribution
from garcon_jupyter.widgets.sharding import ShardingPicture
from garcon_jupyter.widgets.view import View, show, static_html

__all__ = [
    "ActivationsWidget",
    "AttentionWidget",
    "ShardingPicture",
    "View",
    "distribution",
    "show",
    "static_html",
]
