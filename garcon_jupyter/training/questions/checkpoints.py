"""A series of checkpoints without their training: the gradients of stored data at each, as the same records.

One model takes the weights of each checkpoint in turn. Nothing is trained: a step of the record is a checkpoint, and no optimizer belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.model_files.weights import weight_files

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from garcon_jupyter.training.opened import TrainingRecord

Weights = Any
"""A state dict; or a path to a file of torch's or safetensors, or to a directory with a model's weights."""

Losses = Callable[["Module", "Tensor"], "Tensor"]
"""The loss of each datum, [rows], of a model and tokens [rows, places]."""


def token_losses(model: Module, tokens: Tensor) -> Tensor:
    """The mean cross entropy of each datum's next tokens, [rows]."""
    from torch.nn import functional

    output = model(tokens)
    logits = getattr(output, "logits", output)[:, :-1]
    each = functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return each.mean(1)


def record_checkpoints(
    model: Module,
    checkpoints: Mapping[Any, Weights],
    data: Sequence[tuple[Any, Tensor]],
    path: str | Path,
    losses: Losses = token_losses,
    **options: Any,
) -> TrainingRecord:
    """Record the gradients of some data at each checkpoint of a series, such as Pythia's 154.

        training.record_checkpoints(model, {"step512": folder, "step1000": other}, [(ids, tokens), …], "series.record")

    Each datum's gradient is that of its own loss. Step n of the record is the n-th checkpoint, which its line of the journal names; all else is as in a
    record of a training. The model is in evaluation mode, and has its own weights again afterwards.

    Args:
        model: with the names and shapes of the checkpoints.
        checkpoints: weights by label, in their order.
        data: batches of (ids, tokens).
        path: of the record.
        losses: of each datum.
        options: of :func:`garcon_jupyter.training.record`.

    Raises:
        BadData: weights are not those of the model, or cannot be read.
    """
    from garcon_jupyter.training.recording.starting import record

    batches = list(data)
    if not batches:
        raise BadRequest("There are no data.", "Give batches of (ids, tokens).")
    with record(model, path, **options) as recorder, at_each(model, checkpoints) as series:
        for label in series:
            for ids, tokens in batches:
                found = losses(model, tokens)
                found.sum().backward()
                recorder.data(ids, found.detach().mean())
            model.zero_grad(set_to_none=True)
            recorder.keep(checkpoint=str(label))
    return recorder.record


@contextmanager
def at_each(model: Module, checkpoints: Mapping[Any, Weights]) -> Iterator[Iterable[Any]]:
    """Labels one after the other, while the model has the weights of each; its own again at the end."""
    own = {name: each.detach().clone() for name, each in model.state_dict().items()}
    training = model.training

    def labels() -> Iterator[Any]:
        for label, weights in checkpoints.items():
            exchange(model, read_weights(weights), str(label))
            yield label

    model.eval()
    try:
        yield labels()
    finally:
        model.load_state_dict(own)
        model.train(training)


def read_weights(weights: Weights) -> dict[str, Tensor]:
    """Tensors by name.

    Raises:
        BadData: they cannot be read.
    """
    if isinstance(weights, Mapping):
        return dict(weights)
    path = Path(weights).expanduser()
    files = weight_files(path) if path.is_dir() else [path]
    found: dict[str, Tensor] = {}
    for file in files:
        found |= _of_file(file)
    return found


def _of_file(file: Path) -> dict[str, Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        told: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise BadData(f"{file} cannot be read: {error}.", "Give a file of tensors.") from None
    if not isinstance(told, Mapping):
        raise BadData(f"{file} holds no tensors by name.", "Give a state dict.")
    return dict(told)


def exchange(model: Module, weights: Mapping[str, Tensor], label: str) -> None:
    """Give a model other weights; those of a name that shares its tensor with another may be missing.

    Raises:
        BadData: names or shapes differ; nothing has changed then.
    """
    own = model.state_dict(keep_vars=True)
    given = {id(own[name]) for name in weights if name in own}
    missing = [n for n, each in own.items() if n not in weights and id(each) not in given]
    unknown = [name for name in weights if name not in own]
    shapes = [n for n in weights if n in own and weights[n].shape != own[n].shape]
    for what, names in (
        ("lacks", missing),
        ("has besides", unknown),
        ("has other shapes of", shapes),
    ):
        if names:
            shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            raise BadData(
                f"Checkpoint {label} {what} {shown}.", "Give the weights of this very model."
            )
    model.load_state_dict(weights, strict=False)
