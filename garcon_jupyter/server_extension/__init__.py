"""What the side bar asks of the Jupyter server: a few URLs below ``garcon/``.

The side bar runs in a browser, which can neither read the registry nor speak ZMQ. These handlers do it in its
place: they list the servers (:mod:`~garcon_jupyter.server_extension.watching`), launch them
(:mod:`~garcon_jupyter.server_extension.launching`), and tell the points of a model
(:mod:`~garcon_jupyter.server_extension.points_tree`). Nothing here opens a session that stays, or resets an idle
clock unless the user says so, but for operations, which are asked by a client with a session of its own. What notebooks do with the model
is done by their own kernels.

==========  =================================  ==================================================
GET         garcon/servers                     running servers with what they do, fleets, jobs, and launches
GET         garcon/models                      models that can be launched without a download, or by name
GET         garcon/launch-fields               what a launch can be asked for, as fields of a form
POST        garcon/launches                    launch a server; answers at once
DELETE      garcon/launches/ID                 stop a launch, or forget how it ended
DELETE      garcon/servers/NAME?force=1        end a server
DELETE      garcon/fleets/NAME?force=1         end all members of a fleet
POST        garcon/jobs/WORD                   pause, resume or cancel a job, ``{"job": NAME}``
POST        garcon/servers/NAME/keep-alive     start its idle time anew
POST        garcon/servers/NAME/cancel         stop one request, ``{"request": ID}``
GET         garcon/servers/NAME/points         the probe points of its model
POST        garcon/servers/NAME/v1/OPERATION   one of the table of operations (:mod:`garcon_jupyter.operations`)
==========  =================================  ==================================================

All need Jupyter's own authentication, and its authorization for the resource ``garcon``. An error is JSON: its
``kind``, the ``problem`` and the ``remedy``, one sentence each.

Not here: what operations there are (``operations``), and how they wait (``http_door``).

``handlers``       the URLs
``watching``       what runs, told to any number of browsers at the price of one
``watching_jobs``  what takes long and needs no notebook, and steering it
``launching``      launches that the side bar asked for
``launch_form``    the fields of the launch dialog, and what comes back when it is filled in
``worker``         one launch in a process of its own
``models``         models that the launch dialog offers
``points_tree``    the probe points of a server's model
``kernel_report``  what a notebook's kernel tells the side bar
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What `jupyter server` looks for in a module that is named as an extension."""
    return [{"module": "garcon_jupyter.server_extension"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from garcon_jupyter.server_extension.handlers import add_handlers

    add_handlers(app.web_app)
    app.log.info("Garçon: the side bar is served.")
