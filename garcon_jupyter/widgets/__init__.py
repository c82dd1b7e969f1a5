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
:class:`MembersWidget` (several models side by side), :class:`DotsWidget` (a map, each dot with a text),
:class:`NeuronWidget` (one unit's dashboard), :class:`MovesWidget` (what moved one in a training), :class:`LiveWidget` (text and sliders),
:class:`ServerCard`, :class:`RunWidget` (how far a run is), :class:`ShardingPicture` (which rank holds what) and :func:`distribution` (a
plotly histogram). :func:`link` lets several select one token, or maps the same dots; :func:`static_html` is the still picture.

Not here: servers, models, and what a value means.

``view``              what :func:`show` returns
``picture``           what all live widgets share
``activations``       tokens × units, or tokens × heads
``values``            the plain numbers of a picture, with names for their axes
``attention``         which key tokens each query token looks at
``attention_scales``  its masked cells, thumbnails and colours
``tokens``            a text as it was written, coloured by any value per token
``grid``              named rows and columns
``sheet``             one heatmap of a grid
``members``           the same of several models side by side, and one value over all of them
``lens``              what each layer would predict
``patching``          where in the model the difference between two texts lives
``neuron``            the dashboard of one unit
``moves``             which data moved a neuron, and when
``live``              a text and a few edits of the model
``card``              what a server is doing
``run``               how far a run is
``curves``            curves of a training
``sharding``          which rank holds what
``distribution``      a histogram of any array
``dots``              dots on a map, each with a text, which are selected
``figure``            a plotly figure that leaves a still picture
``overview``          all heads of all layers at a glance
``still``             the still pictures
``still_grid``        that of a grid
``still_members``     that of several models
``still_neuron``      that of a neuron
``still_moves``       that of what moved one
``still_text``        that of a text
``svg``               the few marks a still picture is made of
``png``               colour codes to a PNG
``arrays``            from any array to the few numbers that can be seen
``sources``           where frames come from
``bins``              counting values into bins
``numbers``           numbers in words, as the browser writes them
``labels``            token strings made visible
``colours``           one palette for everything
``bundle``            the browser side, read from the files beside the Python
``headless``          notebooks that run where nobody looks
``worker``            work that a widget asks for, beside the kernel
"""

from __future__ import annotations

from garcon_jupyter.widgets.activations import ActivationsWidget
from garcon_jupyter.widgets.attention import AttentionWidget
from garcon_jupyter.widgets.card import ServerCard
from garcon_jupyter.widgets.distribution import distribution
from garcon_jupyter.widgets.dots import DotsWidget
from garcon_jupyter.widgets.grid import GridWidget
from garcon_jupyter.widgets.lens import LensWidget, Readouts
from garcon_jupyter.widgets.live import Edit, LiveWidget, Outcome
from garcon_jupyter.widgets.members import MembersWidget
from garcon_jupyter.widgets.moves import Flip, MovesWidget, NeuronMoves
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
    "DotsWidget",
    "Edit",
    "FetchingView",
    "Flip",
    "GridView",
    "GridWidget",
    "LensWidget",
    "LiveWidget",
    "MembersWidget",
    "MovesWidget",
    "NeuronMoves",
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
