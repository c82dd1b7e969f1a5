"""From the hooks of a batch to its gradients by datum, with a check that nothing is missing."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.training.gradients import rules
from garcon_jupyter.training.gradients.capture import Capture, own, parameters
from garcon_jupyter.training.gradients.coverage import Coverage
from garcon_jupyter.training.gradients.layouts import layout
from garcon_jupyter.training.gradients.per_datum import PerDatum
from garcon_jupyter.training.gradients.replay import Replay
from garcon_jupyter.training.gradients.sites import DenseSite, Site

if TYPE_CHECKING:
    from torch.nn import Module


class Reader:
    """Gives the gradients of each batch by datum.

    Every parameter that a batch's gradient reached has to be found at the sites that were seen, and a projection of
    their sum has to be that of the batch's own gradient: a weight that is also used behind its module's back is
    noticed.

    Args:
        model: of plain torch.
        rows_at: which dimension of its inputs is the batch.
        uncovered: patterns of parameters that may be left out.

    Attributes:
        left_out: parameters that are left out, with the reason.
    """

    def __init__(self, model: Module, rows_at: int, uncovered: Sequence[str]) -> None:
        self.capture = Capture(model, rows_at)
        self.parameters = parameters(model)
        self.names = {each: name for name, each in self.parameters.items()}
        self.aliases = {
            name: self.names[each]
            for name, each in model.named_parameters(remove_duplicate=False)
            if each in self.names
        }
        self.uncovered = tuple(uncovered)
        self.left_out = {
            name: "frozen" for name, each in model.named_parameters() if not each.requires_grad
        }
        self._replay = Replay(self.capture)
        self.coverage = Coverage(self.parameters)
        for name, module in model.named_modules():
            rules.refuse(module, name)

    def install(self) -> None:
        """Put the hooks on."""
        self.capture.install(lambda module: rules.kind_of(module) == "again")
        self.coverage.install()

    def remove(self) -> None:
        """Take them off."""
        self.capture.remove()
        self.coverage.remove()

    def forget(self) -> None:
        """Leave out what ran backward since the last call of :meth:`read`."""
        self.capture.take()
        self.coverage.take()

    def read(self, ids: Any) -> PerDatum:
        """The gradients by datum of what ran backward since the last call.

        Args:
            ids: of the data, [B] or [B, T].

        Raises:
            BadData: no backward was seen, ids do not match, or a parameter is not covered.
        """
        seen, reached = self.capture.take(), self.coverage.take()
        if not seen:
            raise BadData(
                "No backward pass of the model was seen since data were last named.",
                "Call record.data(ids) after loss.backward(), and run the model inside of the recording.",
            )
        calls = {each.call for each in seen}
        if len({(call.rows, call.positions) for call in calls}) > 1 and len(calls) > 1:
            sizes = sorted({f"{call.rows} × {call.positions}" for call in calls})
            raise BadData(
                f"Batches of different shapes ran backward: {', '.join(sizes)}.",
                "Call record.data(ids) after the backward of each.",
            )
        call = seen[-1].call
        of = layout(ids, call)
        sites: dict[str, list[Site]] = {}
        for each in sorted(seen, key=lambda one: one.name):
            if all(self._may_lack(self.names[one]) for one in own(each.module).values()):
                continue
            again = rules.kind_of(each.module) == "again"
            found = (self._replay if again else rules).sites_of(each, of)
            for name, site in found.items():
                at = self.names[each.module.get_parameter(name)]
                sites.setdefault(at, []).append(site)
        rounded = any(each.autocast is not None for each in seen)
        self._refuse_missing(self.coverage.lacking(sites, reached, call.fresh, rounded), sites)
        for name, one in self.parameters.items():  # such as an expert that no token went to
            if name not in sites and name not in self.left_out and name not in reached:
                zeros = one.detach().new_zeros(()).expand(len(of), *one.shape)
                sites[name] = [DenseSite(zeros)]
        ordered = {name: sites[name] for name in self.parameters if name in sites}
        return PerDatum(of.data, of.tokens(call), ordered, self.aliases)

    def _may_lack(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.uncovered)

    def _refuse_missing(self, lacking: dict[str, str], sites: dict[str, list[Site]]) -> None:
        wrong = {name: why for name, why in lacking.items() if not self._may_lack(name)}
        if wrong:
            (name, why), *others = wrong.items()
            more = f"; also {', '.join(each for each, _ in others[:7])}" if others else ""
            raise BadRequest(
                f"{len(wrong)} of {len(self.parameters)} trained parameters are not covered: {name}, as {why}{more}.",
                "Freeze them, or name them in uncovered=(…): then they are listed, and not recorded.",
            )
        self.left_out |= lacking
        for name in lacking:
            sites.pop(name, None)
