"""The ranks of a training whose data are parted over several processes: each finds the gradients of its own data, the first writes them.

The gradient that the optimizer takes is the mean over ranks, so that a datum's share is that of its rank's loss over the number of ranks. Whatever
fails on one rank is told to the first with the next step, so that none waits for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadData, BadRequest, GarconError

if TYPE_CHECKING:
    from torch.nn import Module


class TrainingRanks:
    """One process of some; by itself where the training has only one.

    Args:
        group: of torch.distributed; None for the default one.
        alone: whether there are no others.

    Attributes:
        number: of this process; the first writes.
        count: how many there are.
    """

    def __init__(self, group: Any = None, alone: bool = False) -> None:
        self._group, self.number, self.count = group, 0, 1
        if not alone:
            from torch import distributed

            self.number = distributed.get_rank(group)
            self.count = distributed.get_world_size(group)

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    def gathered(self, own: Any) -> list[Any]:
        """What every rank has, in their order, where this one writes; empty on the others. All of them call it."""
        if self.count == 1:
            return [own]
        from torch import distributed

        found: list[Any] | None = [None] * self.count if self.writes else None
        first = 0 if self._group is None else distributed.get_global_rank(self._group, 0)
        distributed.gather_object(own, found, dst=first, group=self._group)
        return found or []

    def agree(self, error: GarconError | None) -> None:
        """Raise on all ranks what the first failed with, if it did. All of them call it.

        Raises:
            GarconError: the first rank's own, or what it said.
        """
        if self.count > 1:
            from torch import distributed

            told = [None if error is None else (error.problem, error.remedy)]
            first = 0 if self._group is None else distributed.get_global_rank(self._group, 0)
            distributed.broadcast_object_list(told, src=first, group=self._group)
            if told[0] is not None and error is None:
                raise BadData(*told[0])
        if error is not None:
            raise error


def parted(model: Module, data_parallel: bool | None) -> tuple[Module, TrainingRanks]:
    """The plain model, and the ranks that train it.

    Args:
        model: plain, or in a :class:`torch.nn.parallel.DistributedDataParallel`.
        data_parallel: whether its data are parted over all ranks of torch.distributed; None where the model tells it.

    Raises:
        BadRequest: there are no ranks.
    """
    wrapped = type(model).__name__ == "DistributedDataParallel"
    if wrapped and data_parallel is not False:
        plain: Any = model.module
        return plain, TrainingRanks(model.process_group)
    if data_parallel:
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            raise BadRequest(
                "There are no ranks over which data could be parted.",
                "Call torch.distributed.init_process_group first, or leave data_parallel out.",
            )
        return model, TrainingRanks()
    return model, TrainingRanks(alone=True)
