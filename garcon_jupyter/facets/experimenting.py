"""The experiments on a served model, as methods of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from garcon_jupyter import experiments
from garcon_jupyter.client.client import Client


class BoundExperiments:
    """The experiments of :mod:`garcon_jupyter.experiments`, on one model: ``rmodel.experiments.patch(clean, corrupted, …)``."""

    def __init__(self, rmodel: Client) -> None:
        self._rmodel = rmodel

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in experiments.EXPERIMENTS:
            raise AttributeError(
                f"There is no experiment {name!r}; there are {', '.join(dir(self))}."
            )
        function = getattr(experiments, name)
        bound = functools.partial(function, self._rmodel)
        functools.update_wrapper(bound, function)
        return bound

    def __dir__(self) -> list[str]:
        return sorted(experiments.EXPERIMENTS)

    def __repr__(self) -> str:
        return f"<experiments: {', '.join(dir(self)) or 'none'}>"


class Experimenting(Client):
    """What a :class:`~garcon_jupyter.RemoteModel` has of experiments."""

    @property
    def experiments(self) -> BoundExperiments:
        """Experiments on this model; each is a function of :mod:`garcon_jupyter.experiments` without its first argument."""
        return BoundExperiments(self)
