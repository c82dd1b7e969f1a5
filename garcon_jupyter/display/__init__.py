"""How things show themselves: as text, as HTML, as a picture.

Importing this room registers what it draws, so that a recording's table and a run's picture are found
(:mod:`garcon_jupyter.client.display_hooks`).

Not here: what is shown, and how it is computed (``client``, ``experiments``, ``atlas``).

``registration``  what draws what
``listings``      the one look of lists, in notebooks and on the command line
``html``          models, points and recordings as small tables
``points``        from a point to a picture
``attention``, ``lens``, ``patching``, ``live``, ``neuron``, ``tokens``, ``run``, ``atlas``, ``sharding``, ``server_card``
                  a picture each, of what was computed
``frames``        frames of a recording that stays on the server
"""

from __future__ import annotations

from garcon_jupyter.display import registration

registration.register()
