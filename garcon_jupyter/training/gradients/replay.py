"""Modules without a rule are run again, on what they read, and asked for the gradient of each datum.

Three ways, the first that gives what the module gave: all rows at once (``vmap``), each row alone, and the whole batch
with the gradients of one datum at a time. The last is right for whatever a module does, and takes as many backwards
through it as there are data. A module that draws random numbers gets the state that the generator had.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.gradients.capture import own
from garcon_jupyter.training.gradients.sites import DenseSite, Site

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from garcon_jupyter.training.gradients.capture import Capture, Passage
    from garcon_jupyter.training.gradients.layouts import DataLayout

Gradients = dict[str, "Tensor"]
"""[data, *shape] for each parameter of a module."""


class Replay:
    """Runs modules again, and remembers which way was right for each.

    Args:
        capture: whose hooks are silent meanwhile.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._ways: dict[Module, int] = {}

    def sites_of(self, seen: Passage, layout: DataLayout) -> dict[str, Site]:
        """The sites of a module, by the names of its parameters in it.

        Raises:
            BadRequest: run again, it gives something else.
        """
        ways = (_rows_at_once, _row_by_row, _datum_by_datum)
        start = 2 if layout.packed or seen.call.rows_at else self._ways.get(seen.module, 0)
        with self._capture.silent():
            if len(seen.outputs) > 1:
                self._tried(_from_outside, seen, layout)
            for number in range(start, len(ways)):
                found = self._tried(ways[number], seen, layout)
                if found is not None:
                    if start < 2 or not layout.packed:
                        self._ways[seen.module] = number
                    return {name: DenseSite(each) for name, each in found.items()}
        raise BadRequest(
            f"{seen.name} ({type(seen.module).__name__}) gives something else when it is run again on what it read.",
            f"Freeze its parameters, or give uncovered=('{seen.name}.*',): they are listed then, and not recorded.",
        )

    @staticmethod
    def _tried(way: Any, seen: Passage, layout: DataLayout) -> Gradients | None:
        import torch

        device = seen.outputs[0].device.type
        cast = (
            torch.autocast(device, dtype=seen.autocast)
            if seen.autocast is not None
            else nullcontext()
        )
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), cast, _no_words():
            if seen.randomness is not None:
                torch.set_rng_state(seen.randomness)
            try:
                found: Gradients | None = way(seen, layout)
            except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError):
                return None  # e.g. control flow that depends on data; the next way does without
        return found


@contextmanager
def _no_words() -> Iterator[None]:
    """Without the warning that vmap has no rule of its own for an operation, and is slower there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def _same(one: Tensor, two: Tensor, intact: bool) -> bool:
    """Whether a module gave what it gave before; what was changed in place since cannot be compared, and the check of
    the sum (:mod:`garcon_jupyter.training.gradients.coverage`) has to do."""
    import torch

    if one.shape != two.shape:
        return False
    if not intact:
        return True
    loose = {torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(one.dtype, 1e-5)
    within = loose * float(two.nan_to_num().abs().max() if two.numel() else 0)
    return torch.allclose(one, two, rtol=loose, atol=within, equal_nan=True)


def _outputs(output: Any) -> list[Tensor]:
    from garcon_jupyter.training.gradients.capture import _tensors

    return [each for each in _tensors(output) if each.requires_grad]


def _cotangents(seen: Passage) -> list[Tensor]:
    import torch

    pairs = zip(seen.gradients, seen.outputs, strict=True)
    return [torch.zeros_like(out) if each is None else each for each, out in pairs]


def _from_outside(seen: Passage, _: DataLayout) -> Gradients | None:
    """Take from the gradient of each output what reached it by another: a router's logits, of which its weights are made.

    The hook of a tensor sees all of its gradient, and running the module again would count that part twice.
    """
    import torch

    outputs = _outputs(seen.module(*seen.inputs, **seen.options))
    if len(outputs) != len(seen.outputs):
        return None
    gradients = _cotangents(seen)
    feeds: dict[int, set[int]] = {}
    for number, later in enumerate(outputs):
        others = [n for n in range(len(outputs)) if n != number]
        found = torch.autograd.grad(
            later.sum(), [outputs[n] for n in others], retain_graph=True, allow_unused=True
        )
        feeds[number] = {n for n, each in zip(others, found, strict=True) if each is not None}
    for number in sorted(feeds, key=lambda n: len(feeds[n]), reverse=True):  # the last made first
        for earlier in feeds[number]:
            (back,) = torch.autograd.grad(
                outputs[number], outputs[earlier], gradients[number], retain_graph=True
            )
            gradients[earlier] = gradients[earlier] - back
    seen.gradients = list(gradients)
    return None


def _sliced(value: Any, seen: Passage, index: Any) -> Any:
    """An argument for one row: what has the batch in its first dimension is cut, all else stays."""
    import torch

    call = seen.call
    if isinstance(value, torch.Tensor) and value.dim():
        if value.shape[0] == call.rows:
            return value[index : index + 1]
        if value.shape[0] == call.rows * call.positions and call.positions > 1:
            return value[index * call.positions : (index + 1) * call.positions]
    if type(value) in (tuple, list):
        return type(value)(_sliced(each, seen, index) for each in value)
    return value


def _rows_at_once(seen: Passage, layout: DataLayout) -> Gradients | None:
    """For a module of one tensor: all rows by ``vmap``."""
    import torch
    from torch.func import functional_call, vjp, vmap

    call = seen.call
    if len(seen.inputs) != 1 or seen.options or not isinstance(seen.read, torch.Tensor):
        return None
    own_parameters = {name: each.detach() for name, each in own(seen.module).items()}
    rows = [call.by_row_first(each) for each in (seen.read, *_cotangents(seen))]
    if any(each is None for each in rows):
        return None

    def of_row(read: Tensor, *cotangents: Tensor) -> Any:
        def run(values: Gradients) -> tuple[Tensor, ...]:
            output = functional_call(seen.module, values, (read,))
            return tuple(_floating(output))

        made: Any = vjp(run, own_parameters)
        values, back = made
        return values, back(tuple(cotangents))[0]

    both: Any = vmap(of_row)(*[each for each in rows if each is not None])
    values, found = both
    if len(values) != len(seen.outputs):
        return None
    given = zip(values, seen.outputs, seen.intact, strict=True)
    if not all(_same(each.reshape(out.shape), out, intact) for each, out, intact in given):
        return None
    return dict(found)


def _floating(output: Any) -> list[Tensor]:
    from garcon_jupyter.training.gradients.capture import _tensors

    return list(_tensors(output))


def _row_by_row(seen: Passage, layout: DataLayout) -> Gradients | None:
    """Each row alone, in a pass of its own."""
    import torch

    call, found = seen.call, dict[str, list["Tensor"]]()
    named = own(seen.module)
    cotangents = _cotangents(seen)
    for row in range(len(layout)):
        inputs = [_sliced(each, seen, row) for each in seen.inputs]
        options = {key: _sliced(each, seen, row) for key, each in seen.options.items()}
        outputs = _outputs(seen.module(*inputs, **options))
        expected = [_sliced(each, seen, row) for each in seen.outputs]
        if len(outputs) != len(expected) or call.rows == 0:
            return None
        triples = zip(outputs, expected, seen.intact, strict=True)
        if not all(_same(a.detach(), b, intact) for a, b, intact in triples):
            return None
        given = torch.autograd.grad(
            outputs,
            list(named.values()),
            [_sliced(each, seen, row) for each in cotangents],
            allow_unused=True,
        )
        for name, gradient in zip(named, given, strict=True):
            zero = torch.zeros_like(named[name])
            found.setdefault(name, []).append(zero if gradient is None else gradient)
    return {name: torch.stack(each) for name, each in found.items()}


def _datum_by_datum(seen: Passage, layout: DataLayout) -> Gradients | None:
    """The whole batch, and the gradients of one datum at a time."""
    import torch

    named = own(seen.module)
    outputs = _outputs(seen.module(*seen.inputs, **seen.options))
    if len(outputs) != len(seen.outputs):
        return None
    triples = zip(outputs, seen.outputs, seen.intact, strict=True)
    if not all(_same(a.detach(), b, intact) for a, b, intact in triples):
        return None
    masked = [
        layout.masked(each, seen.call, _vectors(each, seen), seen.name)
        for each in _cotangents(seen)
    ]
    found = dict[str, list["Tensor"]]()
    for datum in range(len(layout)):
        given = torch.autograd.grad(
            outputs,
            list(named.values()),
            [each[datum] for each in masked],
            allow_unused=True,
            retain_graph=True,
        )
        for name, gradient in zip(named, given, strict=True):
            zero = torch.zeros_like(named[name])
            found.setdefault(name, []).append(zero if gradient is None else gradient)
    return {name: torch.stack(each) for name, each in found.items()}


def _vectors(tensor: Tensor, seen: Passage) -> int:
    """How many of an output's last dimensions are no place of the batch: all after rows and positions."""
    call = seen.call
    flat = tensor.shape[0] == call.rows * call.positions and tensor.shape[0] != call.rows
    return tensor.dim() - 1 if flat else min(1, tensor.dim() - 1)
