"""Hooks on a model that keep, of each module with parameters, what it read and the gradient of what it wrote.

They only look: no value, no gradient, no random number and no order of sums changes, so that a step is the same to
the last bit. A module that runs again during the backward (activation checkpointing) leaves nothing twice: only a tensor
that the gradient really reaches tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.gradients.layouts import Call

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter


@dataclass(eq=False)
class Passage:
    """A module in one forward pass, and the gradients that reached what it wrote.

    Attributes:
        name: the module's, in the model.
        module: itself.
        call: the pass.
        inputs: its positional arguments, detached.
        options: its keyword arguments, detached.
        outputs: the floating-point tensors that it returned, detached; where it may be run again.
        gradients: of each output; None where none came.
        versions: how often each output had been changed in place then.
        autocast: dtype of an autocast that was on; None where none was.
        randomness: the state of the generator before it ran; kept where it may be run again.
    """

    name: str
    module: Module
    call: Call
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    outputs: list[Tensor]
    gradients: list[Tensor | None] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    autocast: Any = None
    randomness: Tensor | None = None

    @property
    def intact(self) -> list[bool]:
        """Whether each output still holds what the module returned."""
        pairs = zip(self.outputs, self.versions, strict=True)
        return [each._version == version for each, version in pairs]

    @property
    def read(self) -> Tensor:
        """Its first argument."""
        first = self.inputs[0] if self.inputs else next(iter(self.options.values()))
        return first  # type: ignore[no-any-return] # whatever a module is given


def parameters(model: Module) -> dict[str, Parameter]:
    """The parameters that are trained, each once, by its first name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def owners(model: Module) -> Iterator[tuple[str, Module]]:
    """The modules that hold trained parameters themselves, those of a :class:`torch.nn.MultiheadAttention` with it: it
    uses its output projection's without calling that."""
    from torch import nn

    inside = {
        child
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for child in module.modules()
        if child is not module
    }
    for name, module in model.named_modules():
        if module not in inside and any(True for _ in own(module).values()):
            yield name, module


def own(module: Module) -> dict[str, Parameter]:
    """The trained parameters that a module uses itself, by their names in it."""
    from torch import nn

    recurse = isinstance(module, nn.MultiheadAttention)
    found = module.named_parameters(recurse=recurse, remove_duplicate=False)
    return {name: each for name, each in found if each.requires_grad}


class Capture:
    """The hooks on one model.

    Args:
        model: a model of plain torch.
        rows_at: which dimension of its inputs is the batch.

    Raises:
        BadRequest: it is compiled, sharded, or mixes the data of a batch.
    """

    def __init__(self, model: Module, rows_at: int = 0) -> None:
        refuse_what_hooks_do_not_see(model)
        self.model, self.rows_at = model, rows_at
        self.seen: list[Passage] = []
        self.before_pass: list[Callable[[], None]] = []
        self.loss: float | None = None
        self._call: Call | None = None
        self._quiet = False
        self._handles: list[Any] = []
        self._random: dict[Module, Tensor] = {}

    def install(self, run_again: Callable[[Module], bool]) -> None:
        """Put the hooks on.

        Args:
            run_again: whether a module's gradients are found by running it again.
        """
        put = self._handles.append
        put(self.model.register_forward_pre_hook(self._begin, with_kwargs=True))
        put(self.model.register_forward_hook(self._end))
        for name, module in owners(self.model):
            again = run_again(module)
            if again:
                put(module.register_forward_pre_hook(self._keep_randomness))
            put(module.register_forward_hook(self._hook(name, again), with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.seen.clear()

    def take(self) -> list[Passage]:
        """What was seen since this was last asked for."""
        seen, self.seen = self.seen, []
        return seen

    class _Silence:
        def __init__(self, capture: Capture) -> None:
            self.capture = capture

        def __enter__(self) -> None:
            self.capture._quiet = True

        def __exit__(self, *raised: object) -> None:
            self.capture._quiet = False

    def silent(self) -> _Silence:
        """While it lasts, modules that are run leave nothing."""
        return self._Silence(self)

    # -- hooks -------------------------------------------------------------------------------

    def _begin(self, _: Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        import torch

        if self._quiet or not torch.is_grad_enabled():
            return
        for each in self.before_pass:
            each()
        fresh = all(
            each.grad is None or not each.grad.any() for each in parameters(self.model).values()
        )
        self._call = call_of(inputs, options, fresh, self.rows_at)

    def _end(self, _: Module, __: Any, output: Any) -> None:
        loss: Any = output.get("loss") if isinstance(output, Mapping) else None
        if loss is None or not loss.requires_grad:
            return
        self.loss = float(loss.detach()) if loss.numel() == 1 else None

    def _keep_randomness(self, module: Module, _: Any) -> None:
        import torch

        if not self._quiet and module.training:
            self._random[module] = torch.get_rng_state()

    def _hook(self, name: str, again: bool) -> Callable[..., Any]:
        from torch import nn

        def saw(module: Module, inputs: Any, options: Any, output: Any) -> Any:
            import torch

            if self._quiet or self._call is None or not torch.is_grad_enabled():
                return None
            instead = None
            if isinstance(module, nn.Embedding) and _shared_by_rows(output, self._call):
                # The same numbers for each row, so that their gradient comes by row, too, and is summed after.
                instead = output = output.expand(self._call.rows, *output.shape[1:])
            outputs = [each for each in _tensors(output) if each.requires_grad]
            if outputs:
                self._watch(name, module, inputs, options, outputs, again)
            return instead

        return saw

    def _watch(
        self,
        name: str,
        module: Module,
        inputs: Any,
        options: Any,
        outputs: list[Tensor],
        again: bool,
    ) -> None:
        import torch

        assert self._call is not None
        device = outputs[0].device.type
        seen = Passage(
            name,
            module,
            self._call,
            tuple(_detached(each) for each in inputs),
            {key: _detached(each) for key, each in options.items()},
            [each.detach() for each in outputs] if again else [],
            [None] * len(outputs),
            [each._version for each in outputs] if again else [],
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
            self._random.pop(module, None),
        )
        for number, each in enumerate(outputs):
            each.register_hook(self._reached(seen, number))

    def _reached(self, seen: Passage, number: int) -> Callable[[Tensor], None]:
        def reached(gradient: Tensor) -> None:
            if all(each is None for each in seen.gradients):
                self.seen.append(seen)
            seen.gradients[number] = gradient.detach()

        return reached


def call_of(inputs: Any, options: Mapping[str, Any], fresh: bool, rows_at: int) -> Call:
    """Rows, positions and tokens of a forward pass, from what the model was given."""
    given = [
        *inputs,
        *(options.get(name) for name in ("input_ids", "inputs_embeds")),
        *options.values(),
    ]
    tensors = [each for each in given if _is_tensor(each)]
    tokens = next((t for t in tensors if t.dim() == 2 and not t.dtype.is_floating_point), None)
    first = tokens if tokens is not None else next(iter(tensors), None)
    if first is None or first.dim() < 1:
        raise BadRequest(
            "The model was given no tensor that has the data of the batch as a dimension.",
            "Give it token ids of shape [B, T].",
        )
    shape = first.shape
    rows = shape[rows_at] if len(shape) > rows_at else shape[0]
    positions = shape[1 - rows_at] if len(shape) > 1 else 1
    mask: Any = options.get("attention_mask")
    mask = mask if _is_tensor(mask) and mask.dim() == 2 else None
    return Call(rows, positions, None if tokens is None else tokens.detach(), mask, fresh, rows_at)


def refuse_what_hooks_do_not_see(model: Module) -> None:
    """Raise for a model whose gradients cannot be told apart by hooks.

    Raises:
        BadRequest: with the module, and what to do.
    """
    from torch import nn

    norms_of_batches = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    plain = "Record the plain model, with torch.compile and sharding left out."
    for name, module in model.named_modules():
        kind, shown = type(module).__name__, name or "the model"
        if kind == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise BadRequest(f"{shown} is compiled: hooks do not see what runs in it.", plain)
        if kind in ("DataParallel", "DistributedDataParallel"):
            raise BadRequest(
                f"{shown} spreads its data over several devices ({kind}).",
                "Record on one, or a DistributedDataParallel that is the whole model.",
            )
        if "FSDP" in kind or "FullyShardedDataParallel" in kind:
            raise BadRequest(f"{shown} is sharded ({kind}).", plain)
        if isinstance(module, norms_of_batches):
            raise BadRequest(
                f"{shown} ({kind}) mixes the data of a batch: a datum has no gradient of its own.",
                "Use a norm of single positions, such as nn.LayerNorm.",
            )
    for name, parameter in model.named_parameters():
        if type(parameter.data).__name__ == "DTensor" or parameter.is_meta:
            raise BadRequest(f"{name} is sharded, or not loaded.", plain)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise BadRequest(
            "The model has an encoder and a decoder, whose positions are not one dimension.",
            "Record a model that reads one sequence.",
        )
    if not parameters(model):
        raise BadRequest("No parameter of the model is trained.", "Set requires_grad of some.")


def _shared_by_rows(output: Any, call: Call) -> bool:
    """Whether a table was read once for all rows, as GPT-2's is with positions of shape [1, T]."""
    return (
        call.rows_at == 0
        and call.rows > 1
        and output.dim() == 3
        and tuple(output.shape[:2]) == (1, call.positions)
    )


def _tensors(output: Any) -> Iterator[Tensor]:
    if _is_tensor(output):
        if output.dtype.is_floating_point:
            yield output
    elif isinstance(output, (tuple, list)):
        for each in output:
            yield from _tensors(each)
    elif isinstance(output, Mapping):
        for each in output.values():
            yield from _tensors(each)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _detached(value: Any) -> Any:
    if _is_tensor(value):
        return value.detach()
    if type(value) in (tuple, list):
        return type(value)(_detached(each) for each in value)
    if isinstance(value, dict):
        return {key: _detached(each) for key, each in value.items()}
    return value
