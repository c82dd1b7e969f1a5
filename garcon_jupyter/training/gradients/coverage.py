"""Whether what was seen at the modules is all of a batch's gradient.

Each parameter that a backward reaches has to have been seen at a module, and u·G·v of the sum over data has to be that of
the batch's own gradient, for fixed u and v: a weight that is also used behind its module's back is noticed, for the price of
reading the gradient once. That is done at the first batches, and at every fiftieth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from garcon_jupyter.training.gradients.sites import DenseSite, Site

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


class Coverage:
    """Follows the gradients as they arrive at the parameters.

    Attributes:
        norms: of each parameter's gradient, when a backward last added to it; nothing has clipped it then.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = parameters
        self._reached: dict[str, float] = {}
        self.norms: dict[str, float] = {}
        self._handles: list[Any] = []
        self._batches = 0

    def install(self) -> None:
        """Put the hooks on."""
        for name, each in self._parameters.items():
            hook = self._arrived(name)
            self._handles.append(each.register_post_accumulate_grad_hook(hook))

    def remove(self) -> None:
        """Take them off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def look_again(self) -> None:
        """Take the norms of the gradients that are there now: ranks have made one of theirs since they arrived."""
        for name in self.norms:
            gradient = self._parameters[name].grad
            if gradient is not None:
                self.norms[name] = float(gradient.norm())

    def take(self) -> dict[str, float]:
        """u·G·v of each parameter that was reached since this was last asked for."""
        reached, self._reached = self._reached, {}
        return reached

    @property
    def _due(self) -> bool:
        return self._batches < 3 or self._batches % 50 == 0

    def _arrived(self, name: str) -> Callable[[Tensor], None]:
        def arrived(parameter: Tensor) -> None:
            gradient = parameter.grad
            if gradient is not None:
                self.norms[name] = float(gradient.norm())
                self._reached[name] = seen_from(gradient) if self._due else 0.0

        return arrived

    def lacking(
        self,
        sites: Mapping[str, list[Site]],
        reached: Mapping[str, float],
        fresh: bool,
        rounded: bool,
    ) -> dict[str, str]:
        """Parameters whose gradient is not, or not wholly, that of their sites, with the reason.

        Args:
            sites: of each parameter.
            reached: what :meth:`take` gave.
            fresh: whether the batch began with empty gradients: only then are they its own.
            rounded: whether products were taken in half precision.
        """
        found, compared = {}, self._due and fresh
        from torch import finfo

        largest = max((self.norms[name] for name in reached), default=0.0)
        self._batches += 1
        for name, expected in reached.items():
            parameter = self._parameters[name]
            if name not in sites:
                found[name] = "no module that uses it was seen"
            elif compared:
                total = sum(_total_from(site, parameter) for site in sites[name])
                exact = parameter.element_size() > 4
                loose = 5e-2 if rounded or parameter.element_size() < 4 else 1e-6 if exact else 2e-3
                # A sum may cancel down to its rounding, as that of a bias of keys does, which softmax takes no notice of.
                rounding = 64 * finfo(parameter.dtype).eps * largest
                if abs(total - expected) > loose * self.norms[name] + rounding:
                    found[name] = "it is also used where no module shows it"
        return found


def seen_from(gradient: Tensor) -> float:
    """u·G·v of a gradient, whose dimensions after the first count as one."""
    left, right = _directions(gradient)
    if gradient.dim() < 2:
        return float(left @ gradient.reshape(-1))
    return float(left @ (gradient.flatten(1) @ right))


def _total_from(site: Site, parameter: Tensor) -> float:
    if isinstance(site, DenseSite):
        return seen_from(site.values.sum(0))
    left, right = _directions(parameter.detach())
    return float((site.left(left[None])[:, 0] @ right).sum())


def _directions(like: Tensor) -> tuple[Tensor, Tensor]:
    """Two fixed vectors, whose entries have squares of mean one and repeat in no step of whole numbers."""
    import torch

    rows = like.shape[0] if like.dim() else 1
    columns = like.numel() // max(1, rows)
    made = torch.arange(max(rows, columns), dtype=torch.float64)
    left = (made[:rows] * 1.234567 + 0.3).cos() * 2**0.5
    right = (made[:columns] * 2.345678 + 0.7).cos() * 2**0.5
    return left.to(like), right.to(like)
