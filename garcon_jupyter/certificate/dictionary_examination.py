"""Dictionaries that are loaded: their points held against their files, and what editing and going through them does to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from garcon_jupyter.certificate.closeness import (
    apart,
    is_rough,
    loss_noise,
    slope_tolerance,
    tolerance,
)
from garcon_jupyter.certificate.dictionary_identities import DICTIONARY_IDENTITIES, scaled_change
from garcon_jupyter.certificate.dictionary_values import DictionaryValues
from garcon_jupyter.certificate.edits import FAINT, LOST, SIGN, SLOPE
from garcon_jupyter.certificate.passes import SIZE
from garcon_jupyter.certificate.probes import Added, Enlarged
from garcon_jupyter.certificate.result import NOTHING, CertificateFinding, CertificateRow
from garcon_jupyter.certificate.values import Missing
from garcon_jupyter.experiments.clean_passes import contexts

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.certificate.passes import CertificatePasses

FACTOR = 1.5
"""By which latents are enlarged to see what an edit does."""

_EDIT = {False: 0.02, True: 0.5}
"""How far the change of the logits by an edit of latents may be from that by what they write, by whether the dtype is rough."""


class DictionaryExamination:
    """One dictionary of a served model.

    Args:
        passes: run them.
        dictionary: a :class:`~garcon_jupyter.client.dictionaries.ServedDictionary`.
        dtype: of the model.
        logits: of a pass without probes, [1, p, V].
    """

    def __init__(
        self, passes: CertificatePasses, dictionary: Any, dtype: str, logits: Tensor
    ) -> None:
        self._passes, self._of, self._dtype, self._logits = passes, dictionary, dtype, logits
        self._points = dictionary.points
        self._names = self._points.names()
        ends = [*dict.fromkeys(end for both in self._points.ends for end in both)]
        found, self._looked_at = passes.read([*ends, *self._names])
        self._found = found.points
        self._values: DictionaryValues | None = None
        several = bool(self._points.several)
        if not several and all(name in self._found for name in (*ends, *self._names)):
            self._values = DictionaryValues(
                dictionary.description,
                {word: self._found[self._points.point(word)] for word in self._points.words},
                self._found[self._points.reads].flatten(2),
                self._found[self._points.writes].flatten(2),
                dictionary.weight,
            )

    # -- the whole ---------------------------------------------------------------------------

    def checks(self) -> Mapping[str, CertificateFinding]:
        """What looking, equal edits and going through it do to the logits: nothing, to the last bit."""
        import torch

        again, put_back = self._passes.read(
            [name for name in self._names if name in self._found], put_back=True
        )
        kept = all(torch.equal(value, self._found[name]) for name, value in again.points.items())
        rmodel = self._passes.rmodel
        with rmodel.spliced(self._of.name, error="live"):
            through = self._passes.logits()
        same = {
            "looking changes nothing": torch.equal(self._looked_at, self._logits),
            "an edit that changes nothing is no edit": kept and torch.equal(put_back, self._logits),
            "going through it with its error changes nothing": torch.equal(through, self._logits),
        }
        return {
            f"dictionary {self._of.name}: {what}": CertificateFinding(holds, "to the last bit")
            for what, holds in same.items()
        }

    # -- its points --------------------------------------------------------------------------

    def rows(self) -> Iterator[CertificateRow]:
        """A row for each of its points."""
        if self._points.several:
            yield from self._rows_of_several()
            return
        gradients = self._gradients()
        for word in self._points.words:
            name = self._points.point(word)
            edit = self._edit() if word == "latents" else NOTHING
            yield CertificateRow(name, "", self._value(word), edit, gradients.get(name, NOTHING))

    def _rows_of_several(self) -> Iterator[CertificateRow]:
        """Of one that reads several points: the sum of reconstruction and error at each, and nothing of what these are made of."""
        for reads, writes in self._points.ends:
            for word in self._points.words_at(reads):
                name = self._points.point(word, reads)
                value = CertificateFinding(None, "what several points make is not computed here")
                if word == "error":
                    rebuilt = self._found[self._points.point("reconstruction", reads)]
                    total = (rebuilt + self._found[name]).flatten(2)
                    error = float(apart(total, self._found[writes].flatten(2)).max())
                    says = DICTIONARY_IDENTITIES["error"].says
                    value = CertificateFinding(error <= self._allowed("product"), says, error)
                yield CertificateRow(name, "", value)

    def _allowed(self, rounding: str) -> float:
        """What rounding may do: dictionaries compute in float32, whatever the model's dtype is, but beside float64 ones."""
        return tolerance(rounding, "float64" if self._dtype == "float64" else "float32")

    def _value(self, word: str) -> CertificateFinding:
        identity = DICTIONARY_IDENTITIES[word]
        if self._values is None:
            failure = self._passes.failed.get(self._points.point(word))
            return CertificateFinding(False, getattr(failure, "problem", "it could not be read"))
        try:
            found = float(apart(*identity.formula(self._values)).max())
        except Missing as missing:
            return CertificateFinding(None, str(missing))
        allowed = self._allowed(identity.rounding)
        error = found if found < float("inf") else None
        return CertificateFinding(found <= allowed, identity.says, error)

    def _edit(self) -> CertificateFinding:
        """Latents enlarged, held against what these write added to the point that is written."""
        if self._values is None or self._values.form.kind == "context":
            return NOTHING
        says = "an edit adds what the latents write of the change, and nothing else"
        change = (FACTOR - 1) * self._written_of(self._values)
        added = Added(change.view(self._found[self._points.writes].shape).float())
        edited = self._logits_by(self._points.point("latents"), Enlarged(FACTOR))
        wanted = self._logits_by(self._points.writes, added)
        size = float((wanted - self._logits).double().norm())
        if size <= FAINT * loss_noise(self._logits, self._dtype):
            return CertificateFinding(None, f"{LOST}, as these latents write next to nothing")
        error = float((edited - wanted).double().norm()) / size
        return CertificateFinding(error <= _EDIT[is_rough(self._dtype)], says, error)

    def _logits_by(self, point: str, edit: Any) -> Tensor:
        """The logits of the text with an edit at a point."""
        rmodel = self._passes.rmodel
        with contexts(rmodel, "certify edits") as label:
            probe = rmodel.probe_points[point].probe(edit, name=label)
            found: Tensor = rmodel.forward(self._passes.ids, probes=[probe])
        return found

    def _written_of(self, n: DictionaryValues) -> Tensor:
        """What its latents write, without what does not depend on them."""
        latents = n["latents"]
        if n.form.decoder_norms == "latents":
            latents = latents / n.decoder_norms
        change: Tensor = scaled_change(n.written(latents), n.x, n.form.norm_out)
        return change

    def _gradients(self) -> dict[str, CertificateFinding]:
        """Of the points whose value may be moved a little without a latent going on or off."""
        names = [name for name in self._names if not name.endswith("pre_activation")]
        if self._values is None or self._values.form.kind == "context":
            return {}
        size = SIZE.get(self._dtype, SIZE["bfloat16"])
        noise = loss_noise(self._logits, self._dtype)
        found = {}
        for nudged in self._passes.nudged(names, [], size):
            for name, change in nudged.found.items():
                expected = nudged.expected.get(name)
                found[name] = self._slope(change, expected, noise)
        return found

    def _slope(self, change: float, expected: float | None, noise: float) -> CertificateFinding:
        """Whether a loss changed by what the gradient says."""
        if expected is None:
            return CertificateFinding(False, "no gradient came to it")
        largest = max(abs(expected), abs(change))
        if largest < FAINT * noise:
            return CertificateFinding(None, "it changes a loss by less than rounding")
        error = max(0.0, abs(change - expected) - noise) / largest
        allowed = SIGN if is_rough(self._dtype) else slope_tolerance(self._dtype)
        return CertificateFinding(error <= allowed, SLOPE, error)
