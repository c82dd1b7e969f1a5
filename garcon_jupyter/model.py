"""The class that users see: a client of a served model that draws, runs over data, and certifies its points."""

from __future__ import annotations

from garcon_jupyter.facets.certificates import Certifying
from garcon_jupyter.facets.experimenting import Experimenting
from garcon_jupyter.facets.pictures import Pictures
from garcon_jupyter.facets.training_dictionaries import TrainsDictionaries
from garcon_jupyter.facets.unit_features import UnitFeatures

VARIABLE = "rmodel"
"""The variable of a notebook that holds the model which magics and side bar mean."""


class RemoteModel(Pictures, TrainsDictionaries, UnitFeatures, Certifying, Experimenting):
    """A connection to a served model, with a session of its own.

    Attributes:
        server: the server it is connected to.
        session: name of the session; save contexts are kept under it.
        resumed: whether the session was there already.
        catalog: the points and parameters of the model.
        probe_points: the points as a mapping.
        attached: probes that apply to every pass that is not given `probes`, in order of attachment.
        attached_once: those that apply to the next such pass only.
        last_tokens: what the last pass read.
        tokens_at: what the last pass read that had a probe on a point, by (point, name of the probe).
        requests: how many requests were sent: where it has not changed, nothing has.
    """
