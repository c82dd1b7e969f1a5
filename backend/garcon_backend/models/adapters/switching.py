"""The adapters of a rank: held against its model when they are loaded, and switched on for a request.

With none named a request runs the base model, whatever ran before. At most one is on, and it is off again however the
request ended.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.models.adapters.low_rank import LINEAR, AdaptedModule
from garcon_backend.models.adapters.reading import Adapter, LowRank, read
from garcon_backend.models.stages import StandIn
from garcon_backend.models.tensor_parallel import ColumnParallel, cut_of, mark, style_of
from garcon_jupyter.errors import NotAnAdapter, UnknownName


@dataclass(frozen=True)
class Exchange:
    """A parameter that takes the place of a module's own."""

    module: nn.Module
    name: str
    parameter: nn.Parameter


@dataclass
class FittedAdapter:
    """An adapter cut for this rank, whose modules it has found.

    Attributes:
        told: what it is, in words.
    """

    told: str
    modules: list[AdaptedModule] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    @contextmanager
    def on(self) -> Iterator[None]:
        """The model computes with it while this lasts."""
        undo: list[Callable[[], None]] = []
        try:
            for each in self.exchanges:
                undo.append(_exchanged(each))
            for module in self.modules:
                module.switch_on()
                undo.append(module.switch_off)
            yield
        finally:
            for step in reversed(undo):
                step()


def _exchanged(exchange: Exchange) -> Callable[[], None]:
    """Put a parameter in the place of another; what takes it away again."""
    holder, name = exchange.module._parameters, exchange.name
    former = holder[name]
    holder[name] = exchange.parameter

    def back() -> None:
        holder[name] = former

    return back


@dataclass
class Adapters:
    """The adapters that a server was launched with.

    Attributes:
        fitted: by name.
        current: the name of the one that is on; None for the base model.
    """

    fitted: dict[str, FittedAdapter] = field(default_factory=dict)
    current: str | None = None

    @classmethod
    def load(
        cls,
        directories: Mapping[str, str],
        model: nn.Module,
        mesh: Mesh,
        progress: Callable[[str], None] = lambda line: None,
    ) -> Adapters:
        """Read adapters and hold them against a loaded model; every rank calls it.

        Args:
            directories: by name.
            model: this rank's part of it.

        Raises:
            NotAnAdapter: a directory holds none, or one of another model.
        """
        found = cls()
        for name, directory in directories.items():
            adapter = read(name, Path(directory))
            found.fitted[name] = fitted(adapter, model, mesh)
            progress(f"adapter {name}: {adapter}")
        return found

    def check(self, name: str | None) -> None:
        """Refuse a name that no adapter has.

        Raises:
            UnknownName: names the nearest.
        """
        if name is not None and name not in self.fitted:
            raise UnknownName.among(
                "adapter", name, self.fitted, "Adapters are given at launch: adapter=DIRECTORY."
            )

    @contextmanager
    def on(self, name: str | None) -> Iterator[None]:
        """The model computes with the adapter of a name while this lasts; None is the base model."""
        if name is None:
            yield
            return
        with self.fitted[name].on():
            self.current = name
            try:
                yield
            finally:
                self.current = None

    def told(self) -> dict[str, str]:
        """What each is, in words, by name."""
        return {name: each.told for name, each in self.fitted.items()}


# -- holding an adapter against a model ----------------------------------------------------------


def fitted(adapter: Adapter, model: nn.Module, mesh: Mesh) -> FittedAdapter:
    """An adapter cut for this rank's part of a model.

    Raises:
        NotAnAdapter: it is of another model, or cannot be cut as that is.
    """
    mine = FittedAdapter(str(adapter))
    for path, low_rank in adapter.low_rank.items():
        module = _module(adapter, model, path)
        if module is not None:
            _check_shape(adapter, path, module, low_rank)
            _check_cut(adapter, path, module, low_rank, mesh)
            mine.modules.append(AdaptedModule(module, low_rank, mesh))
    for name, tensor in adapter.whole.items():
        path, _, leaf = name.rpartition(".")
        module = _module(adapter, model, path)
        if module is not None:
            _check_tied(adapter, model, name, mesh)
            mine.exchanges.append(_exchange(adapter, module, path, leaf, tensor, mesh))
    return mine


def _module(adapter: Adapter, model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path; None where another stage of the pipeline has it.

    Raises:
        NotAnAdapter: the model has none; names the nearest.
    """
    module: Any = model
    for part in path.split("."):
        if isinstance(module, StandIn):
            return None
        module = module._modules.get(part)
        if module is None:
            names = [name for name, _ in model.named_modules()]
            nearest = difflib.get_close_matches(path, names, n=2, cutoff=0.5)
            hint = f"The nearest here: {' and '.join(nearest)}. " if nearest else ""
            raise NotAnAdapter(
                f"The adapter {adapter.name} changes {path}, which {type(model).__name__} does not have.",
                f"{hint}Give the adapter with the base model that it was trained on.",
            )
    return None if isinstance(module, StandIn) else module


def _check_shape(adapter: Adapter, path: str, module: nn.Module, found: LowRank) -> None:
    assert found.a is not None and found.b is not None
    if not isinstance(module, LINEAR):
        raise NotAnAdapter(
            f"The adapter {adapter.name} changes {path}, a {type(module).__name__}, which is neither a linear "
            "layer nor an embedding.",
            "Merge it into its base model (`merge_and_unload` in peft), save that and give it.",
        )
    has = _shape(module)
    asks = [found.b.shape[0], found.a.shape[1]]
    if has != asks or found.embeds != isinstance(module, nn.Embedding):
        raise NotAnAdapter(
            f"The adapter {adapter.name} is of another model: {path} is [out, in] {has} here, and {asks} in it.",
            "Give the adapter with the base model that it was trained on.",
        )


def _shape(module: nn.Module) -> list[int]:
    """[out, in] of a whole module, however it is cut or packed."""
    if isinstance(module, nn.Linear):
        return [module.out_features, module.in_features]
    if isinstance(module, nn.Embedding):
        return [module.embedding_dim, module.num_embeddings]
    weight: Tensor = module.weight  # type: ignore[assignment]
    return _whole_shape(weight)[::-1]


def _whole_shape(parameter: Tensor) -> list[int]:
    cut, shape = cut_of(parameter), list(parameter.shape)
    if cut is not None and cut.parts > 1:
        shape[cut.dim] = cut.total
    return shape


def _check_cut(adapter: Adapter, path: str, module: nn.Module, found: LowRank, mesh: Mesh) -> None:
    """Refuse what cannot be cut, or computed, beside a module as it is here.

    Raises:
        NotAnAdapter: and why.
    """
    if found.magnitude is None:
        return
    weight, style = module.weight, style_of(module)
    joined = isinstance(style, ColumnParallel) and style.joined and module.bias is not None
    if (mesh.tp.size > 1 and joined) or not weight.is_floating_point():  # type: ignore[operator]
        why = "is put together from all ranks with a bias" if joined else "is packed"
        raise NotAnAdapter(
            f"The adapter {adapter.name} has DoRA at {path}, whose weight {why}.",
            "Launch with tp=1 and weights that are not packed, or merge the adapter.",
        )


def _check_tied(adapter: Adapter, model: Any, name: str, mesh: Mesh) -> None:
    tied = getattr(model, "all_tied_weights_keys", None) or getattr(
        getattr(model, "config", None), "tie_word_embeddings", False
    )
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    holders = [each for each in (embedding, head) if each is not None]
    mine = model.get_submodule(name.rpartition(".")[0])
    if mesh.degrees.pp > 1 and tied and any(mine is each for each in holders):
        raise NotAnAdapter(
            f"The adapter {adapter.name} has {name} whole, which the model's first and last stage share.",
            "Launch with pp=1, or merge the adapter into its base model.",
        )


def _exchange(
    adapter: Adapter, module: nn.Module, path: str, leaf: str, tensor: Tensor, mesh: Mesh
) -> Exchange:
    """A whole parameter of an adapter in the place of the model's."""
    own = module._parameters.get(leaf)
    if own is None:
        raise NotAnAdapter(
            f"The adapter {adapter.name} has {path}.{leaf} whole, which the model does not have.",
            f"It has {', '.join(n for n, p in module._parameters.items() if p is not None) or 'none'} there.",
        )
    has = _whole_shape(own)
    if has != list(tensor.shape) or not own.is_floating_point():
        raise NotAnAdapter(
            f"The adapter {adapter.name} is of another model: {path}.{leaf} is {has} here, and "
            f"{list(tensor.shape)} in it.",
            "Give the adapter with the base model that it was trained on, and tokens added to both or to none.",
        )
    cut = cut_of(own)
    part = tensor if cut is None or cut.parts == 1 else cut.take(tensor, mesh.tp_rank)
    parameter = nn.Parameter(part.to(own.device, own.dtype).contiguous(), requires_grad=False)
    if cut is not None:
        mark(parameter, cut)
    return Exchange(module, leaf, parameter)


__all__ = ["Adapters", "Exchange", "FittedAdapter", "fitted"]
