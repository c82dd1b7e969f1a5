"""Pictures of activations: live widgets, and a still picture for the saved notebook.

Everything here takes plain arrays (numpy or torch, any real dtype) and knows nothing of servers::

    from garcon_jupyter.widgets import show

    show(activations, ("b", "p", "M"), tokens=[["The", " cat"]], title="layers.4 neurons")

:func:`show` chooses a view by the letters of the probe-point table and returns a :class:`View`,
which draws itself as the last value of a cell: an interactive widget while a kernel is there, a
still picture in the saved notebook, its HTML export, and after the kernel has gone. What any picture shows are
numbers with named axes, ``picture.wait().values``.

The parts can be used alone, each with plain arrays: :class:`TokensWidget` (a text coloured by a value
per token), :class:`ActivationsWidget` (tokens × units), :class:`AttentionWidget` (query × key tokens of
every head), :class:`LensWidget` (what every layer would predict), :class:`PatchingWidget` (a sweep),
:class:`NeuronWidget` (one unit's dashboard), :class:`LiveWidget` (text and sliders),
:class:`ServerCard`, :class:`RunWidget` (how far a run is), :class:`ShardingPicture` (which rank holds what) and :func:`distribution` (a
plotly histogram). :func:`link` lets several select one token; :func:`static_html` is the still picture.
"""

from __future__ import annotations

from garcon_jupyter.widgets.activations import ActivationsWidget
from garcon_jupyter.widgets.attention import AttentionWidget
from garcon_jupyter.widgets.card import ServerCard
from garcon_jupyter.widgets.distribution import distribution
from garcon_jupyter.widgets.grid import GridWidget
from garcon_jupyter.widgets.lens import LensWidget, Readouts
from garcon_jupyter.widgets.live import Edit, LiveWidget, Outcome
from garcon_jupyter.widgets.neuron import NeuronWidget
from garcon_jupyter.widgets.neuron import record as neuron_record
from garcon_jupyter.widgets.patching import PatchingWidget
from garcon_jupyter.widgets.picture import Picture, link
from garcon_jupyter.widgets.run import RunWidget
from garcon_jupyter.widgets.sharding import ShardingPicture
from garcon_jupyter.widgets.sheet import Sheet
from garcon_jupyter.widgets.sources import Source
from garcon_jupyter.widgets.tokens import TokensWidget
from garcon_jupyter.widgets.view import FetchingView, GridView, View, show, static_html

__all__ = [
    "ActivationsWidget",
    "AttentionWidget",
    "Edit",
    "FetchingView",
    "GridView",
    "GridWidget",
    "LensWidget",
    "LiveWidget",
    "NeuronWidget",
    "Outcome",
    "PatchingWidget",
    "Picture",
    "Readouts",
    "RunWidget",
    "ServerCard",
    "ShardingPicture",
    "Sheet",
    "Source",
    "TokensWidget",
    "View",
    "distribution",
    "link",
    "neuron_record",
    "show",
    "static_html",
]
