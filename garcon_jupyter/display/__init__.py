"""How things show themselves: as text, as HTML, as a picture.

Importing this room registers what it draws, so that a recording's table and a run's picture are found
(:mod:`garcon_jupyter.client.display_hooks`).

Not here: what is shown, and how it is computed (``client``, ``experiments``, ``atlas``).

``registration``  what draws what
``listings``      the one look of lists, in notebooks and on the command line
``whereabouts``   where points are, how they are computed there, and why others are missing
``html``          models, points and recordings as small tables
``points``        from a point to a picture
``frames``        frames of a recording that stays on the server
``attention``     the attention of all layers, of which one is opened
``lens``          the logit lens, which fills from the last layer down
``patching``      sweeps of activation patching, which fill as they run
``experiments``   any result of an experiment
``effects``       what units of a prompt do to its answer
``attribution_graph``  the nodes of a graph by layer and position
``live``          a text and sliders on a served model
``neuron``        the dashboard of a unit
``tokens``        a text, coloured by how surprising each token was
``directions``    a text, coloured by how far it lies along a direction
``layer_views``   maps of tokens or units
``connectome``    the connections of a unit, as links
``atlas``         a unit of an atlas, and the page on which one is picked
``explanations``  what a unit is said to fire for, with scores
``run``           how far a run is
``dictionary_training``  how the training of a dictionary goes
``training_record``  what a record of a training says
``sharding``      which rank holds what
``server_card``   what a server is doing
``certificate``   what the points of a model were held against
"""

from __future__ import annotations

from garcon_jupyter.display import registration

registration.register()
