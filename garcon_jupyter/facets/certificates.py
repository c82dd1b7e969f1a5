"""The certificate of a served model: made, kept with the server, found again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.client import Client
from garcon_jupyter.wire import requests as wire

if TYPE_CHECKING:
    from garcon_jupyter.certificate.result import Certificate


class Certifying(Client):
    """What a :class:`~garcon_jupyter.RemoteModel` says of the correctness of its own points."""

    def certify(self, anew: bool = False, every_layer: bool = False) -> Certificate:
        """Hold every named point of this model against what must hold between points and parameters.

        Values are held against identities (the stream is the sum of its parts, the mix of values is pattern × values,
        logits are the final norm through the unembedding, …), edits must reach what comes after them and nothing else, and
        gradients must be what a finite difference says. All of it is computed from ordinary passes over a few tokens, of this
        model as it is served now: this checkpoint, cut like this, in this dtype, with these versions.

        The certificate is kept with the server until the server ends; recordings name it. Probes of yours do not run, and
        nothing of it is left in your recordings. Dictionaries that are loaded are held against their files; one that is loaded or let
        go of later makes another certificate due.

        Args:
            anew: make one, though one is kept.
            every_layer: read all layers, not two of each kind.

        Returns:
            The certificate; :attr:`~garcon_jupyter.certificate.result.Certificate.holds` says whether nothing is broken.

        Raises:
            BadRequest: no family maps this architecture, so the model has no named points.

        Examples:
            >>> certificate = rmodel.certify()
            >>> certificate.holds, [*certificate.not_covered()]
            (True, [])
            >>> certificate.row("layers.{i}.attn.z").value.says
            'pattern × values, repeated'
        """
        from garcon_jupyter.certificate.examination import examine
        from garcon_jupyter.certificate.result import Certificate

        kept = None if anew else self._run(wire.KeepCertificate())
        if kept is not None:
            found = Certificate.of_json(kept)
            loaded = found.facts.get("dictionaries", {}) == self._loaded_dictionaries
            if loaded and (not every_layer or found.facts["every_layer"]):
                return found
        made = examine(self, self._certified(every_layer), every_layer)
        self._run(wire.KeepCertificate(certificate=made.as_json()))
        return made

    @property
    def _loaded_dictionaries(self) -> dict[str, str]:
        """Where the dictionaries that are loaded have their files, by name."""
        return {name: each.path for name, each in self.catalog.dictionaries.items()}

    def _certified(self, every_layer: bool) -> dict[str, Any]:
        """What a certificate is of."""
        facts, model = self.facts, self.facts["model"]
        return {
            "name": facts["name"],
            "path": facts["path"],
            "architecture": model["architecture"],
            "dtype": model["dtype"],
            "degrees": facts["degrees"],
            "versions": model["versions"],
            "launched": facts["launched"],
            "made": time.time(),
            "every_layer": every_layer,
            "dictionaries": self._loaded_dictionaries,
        }
