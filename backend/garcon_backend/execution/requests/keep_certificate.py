"""The certificate of the model: kept with it, or answered."""

from __future__ import annotations

from typing import Any

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire import requests as wire


class KeepCertificateHandler(RequestHandler[wire.KeepCertificate]):
    """Every rank keeps it, since what probes save is named after it wherever they run."""

    kind = wire.KeepCertificate

    def prepare(self) -> None:
        certificate = self.request.certificate
        words = {} if certificate is None else {w: certificate.get(w) for w in ("id", "summary")}
        if wrong := [word for word, said in words.items() if not isinstance(said, str)]:
            raise BadRequest(
                f"This is no certificate: it has no {' and no '.join(wrong)}.",
                "rmodel.certify() makes one.",
            )

    def run(self) -> dict[str, Any] | None:
        if self.request.certificate is not None:
            self.rank.contexts.certificate = self.request.certificate
        return self.rank.contexts.certificate
