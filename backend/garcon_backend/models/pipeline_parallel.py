"""Pipeline parallelism: each stage keeps some of the layers, and stand-ins for the rest.

Every stage runs the model's own forward, from tokens to logits. Where a layer is on another stage
there is a stand-in that returns its input; the stand-in just before a stage's own layers receives
the residual stream of the stage before, the one just after them sends it on. Values outside of the
own layers have the right shape and mean nothing, but for the logits of the last stage.

Nothing but the residual stream crosses a boundary, so the gradient crosses it there too, the other
way. A boundary leaves a *token* on each side, through which the backward of each stage must run;
see :func:`backward_through`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers.cache_utils import Cache, DummyLayer

from garcon_backend.distributed.collectives import receive_from_before, send_on
from garcon_backend.distributed.mesh import Mesh
from garcon_jupyter.errors import BadDegrees

SAME_ON_EVERY_STAGE = frozenset(
    {
        *("self", "hidden_states", "x", "args", "kwargs"),
        *("attention_mask", "mamba_attention_mask", "causal_mask", "alibi", "position_bias"),
        *("position_ids", "position_embeddings", "cache_position"),
        *("past_key_values", "past_key_value", "cache_params", "layer_past", "use_cache"),
        *("encoder_hidden_states", "encoder_attention_mask"),  # none, in a model that only decodes
        *("output_attentions", "output_router_logits"),
    }
)
"""What a layer may be called with: the residual stream, and what every stage makes of the tokens by itself."""

FILLED_BY_THE_MODEL = frozenset({"mup_vector"})
"""Buffers of layers that a model fills by itself when it has been loaded, in all of its layers: Falcon-H1's multipliers."""

_STAGE = "_garcon_stage"  # attribute of a model


class Stage:
    """The part of a model that this rank runs.

    Attributes:
        layers: indices of the layers it holds.
        tokens: of the boundaries passed in the running forward; see :func:`backward_through`.
        tied: whether the unembedding, on the last stage, is the embedding of the first.
        shares_logits: whether every stage is given the last one's logits.
        beside: how many values a layer puts out after the residual stream; None where it puts out that alone.
    """

    def __init__(self, mesh: Mesh, count: int, tied: bool, beside: int | None = None) -> None:
        self.mesh, self.tied, self.beside = mesh, tied, beside
        self.layers = split_layers(count, mesh.degrees.pp, mesh.stage)
        self.tokens: list[tuple[Tensor, float]] = []
        self.shares_logits = False
        self._anchor = torch.zeros((), requires_grad=True, device=mesh.device)

    def arrive(self, hidden: Tensor) -> Tensor:
        """The residual stream of the stage before; `hidden` tells its shape and dtype."""
        hidden, token = receive_from_before(hidden, self._anchor, self.mesh.pipeline)
        if torch.is_grad_enabled():
            self.tokens.append((token, 0.0))
        return hidden

    def depart(self, hidden: Tensor) -> Tensor:
        """Send the residual stream to the next stage."""
        token = send_on(hidden, self._anchor, self.mesh.pipeline)
        if torch.is_grad_enabled():
            self.tokens.append((token, 1.0))
        return hidden.detach()


def split_layers(count: int, stages: int, stage: int) -> range:
    """Which layers a stage holds: as equal as can be, the first stages one more."""
    base, more = divmod(count, stages)
    start = stage * base + min(stage, more)
    return range(start, start + base + (stage < more))


class StandIn(nn.Module):
    """Stands where a module of another stage would be, and returns its input."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden


class LayerStandIn(StandIn):
    """A layer of another stage; perhaps the place where a stage begins or ends."""

    def __init__(self, index: int, stage: Stage, layer: nn.Module) -> None:
        super().__init__()
        self.index, self.stage = index, stage
        for name, value in vars(layer).items():
            if isinstance(
                value, str
            ):  # such as the kind of a layer, which a model chooses a mask by
                setattr(self, name, value)
        for path, buffer in layer.named_buffers():
            child, _, name = path.partition(".")
            if name in FILLED_BY_THE_MODEL:
                setattr(self, child, StandIn())
                getattr(self, child).register_buffer(name, buffer, persistent=False)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Cache) and _counts(value, self.index):
                # transformers asks the first layer's cache how many positions there are.
                counted = hidden.new_zeros(len(hidden), 1, hidden.shape[1], 1)
                value.update(counted, counted, self.index)
        if self.index == self.stage.layers.start - 1:
            hidden = self.stage.arrive(hidden)
        elif self.index == self.stage.layers.stop:
            hidden = self.stage.depart(hidden)
        beside = self.stage.beside
        return hidden if beside is None else (hidden, *[None] * beside)


def _counts(cache: Cache, layer: int) -> bool:
    """Whether a cache keeps keys of a layer, and so the number of positions; others have a state, or nothing."""
    if layer >= len(cache.layers):
        return True
    kept = cache.layers[layer]
    return hasattr(kept, "update") and not isinstance(kept, DummyLayer)


class EmbeddingStandIn(StandIn):
    """An embedding of the first stage: zeros of its output's shape.

    Attributes:
        weight: the parameter, on the last stage of a model that unembeds with it.
    """

    def __init__(self, embedding: nn.Embedding, keep: bool = False) -> None:
        super().__init__()
        self.width = embedding.embedding_dim
        self.dtype = embedding.weight.dtype
        self.weight = embedding.weight if keep else None

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Of tokens, or positions; OPT's is called with the mask, which has all tokens before, and with positions beside it.
        ids = hidden if kwargs.get("position_ids") is None else kwargs["position_ids"]
        return torch.zeros(*ids.shape, self.width, dtype=self.dtype, device=ids.device)


class HeadStandIn(StandIn):
    """The unembedding of the last stage: zeros of the logits' shape, one element of memory."""

    def __init__(self, vocabulary: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.weight = torch.empty(0, dtype=dtype)  # Mamba asks its dtype

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden.new_zeros(()).expand(*hidden.shape[:-1], self.vocabulary)


def find_layers(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the list of blocks, and the list's name in it.

    Raises:
        ValueError: there is no such list.
    """
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for holder in model.modules():
        for name, child in holder.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return holder, name
    raise ValueError(f"{type(model).__name__} has no list of its layers")


def install(model: Any, mesh: Mesh, tied: bool) -> None:
    """Put stand-ins where another stage's modules are, before any weight is read.

    On the last stage of a model with tied embeddings the embedding stays, to be loaded as the
    unembedding; :func:`settle` then takes it away.

    Raises:
        BadDegrees: more than the residual stream goes from layer to layer.
    """
    holder, name = find_layers(model)
    layers = getattr(holder, name)
    _check_boundaries(model, layers)
    beside, stem = _before_layers(model, holder, name)
    stage = Stage(mesh, len(layers), tied, beside)
    setattr(model, _STAGE, stage)
    for index in range(len(layers)):
        if index not in stage.layers:
            layers[index] = LayerStandIn(index, stage, layers[index])
    if not mesh.first_stage:
        kept = model.get_input_embeddings() if mesh.last_stage and tied else None
        for child in stem:
            module = getattr(holder, child)
            if module is not kept:
                embeds = isinstance(module, nn.Embedding)
                setattr(holder, child, EmbeddingStandIn(module) if embeds else StandIn())
    if not mesh.last_stage:
        for child in _with_parameters(holder):
            if child != name and child not in stem:
                setattr(holder, child, StandIn())
        head = model.get_output_embeddings()
        model.set_output_embeddings(HeadStandIn(head.out_features, head.weight.dtype))
    model.register_forward_pre_hook(lambda *_: stage.tokens.clear())
    model.register_forward_hook(_share_logits)


def _check_boundaries(model: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Refuse a model whose layers hand on, or are handed, more than a boundary carries.

    Raises:
        BadDegrees: it is one.
    """
    for layer in layers:
        more = set(inspect.signature(type(layer).forward).parameters) - SAME_ON_EVERY_STAGE
        if more:
            raise BadDegrees(
                f"{type(model).__name__} cannot be cut into stages: its layers are given "
                f"{' and '.join(sorted(more))} beside the residual stream.",
                "Launch it with pp=1.",
            )


class _PutOut(Exception):
    """Ends a forward at its first layer."""


def _before_layers(model: Any, holder: nn.Module, layers: str) -> tuple[int | None, list[str]]:
    """What there is before the layers, and what a layer puts out.

    A forward up to the first layer tells, which takes no memory, as the model has none yet. Where it cannot run
    so, because it looks at numbers, the layer puts out a tensor: those that do not are older than such code. And what
    is defined before the layers is taken for what runs before them, which is mostly so: OPT defines its last norm there.

    Returns:
        How many values a layer puts out after the residual stream, None where it puts out a tensor; and the names of
        the modules with parameters beside the layers that run before them.
    """
    first = getattr(holder, layers)[0]
    found: list[Any] = []
    called: list[str] = []

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        found.append(output)
        raise _PutOut

    device = next(first.parameters()).device
    ids = torch.zeros(1, 2, dtype=torch.long, device=device)
    names = _with_parameters(holder)
    handles = [first.register_forward_hook(stop)]
    for name in names:
        if name != layers:
            note = partial(_note, called, name)
            handles.append(getattr(holder, name).register_forward_pre_hook(note))
    before = [(module, dict(vars(module))) for module in model.modules()]
    for mask in (
        None,
        torch.zeros(1, 1, 2, 2, device=device),
    ):  # made by the model, or as it is used
        try:
            with torch.no_grad():
                model(input_ids=ids, attention_mask=mask, use_cache=False)
        except Exception:  # noqa: BLE001 - the layer was reached, or a model that cannot run without memory
            if found:
                break
    for module, attributes in before:  # what a forward notes without memory is of no use
        vars(module).clear()
        vars(module).update(attributes)
    for handle in handles:
        handle.remove()
    beside = len(found[0]) - 1 if found and isinstance(found[0], tuple) else None
    return beside, list(dict.fromkeys(called)) if found else names[: names.index(layers)]


def _note(called: list[str], name: str, module: nn.Module, args: Any) -> None:
    called.append(name)


def _with_parameters(holder: nn.Module) -> list[str]:
    """Names of the modules with parameters inside another, in order of definition."""
    return [n for n, child in holder.named_children() if next(child.parameters(), None) is not None]


def settle(model: Any, mesh: Mesh) -> None:
    """After loading: take away the embedding that the last stage kept to unembed with."""
    if mesh.last_stage and not mesh.first_stage:
        kept = model.get_input_embeddings()
        if isinstance(kept, nn.Embedding):
            holder, _ = find_layers(model)
            child = next(n for n, module in holder.named_children() if module is kept)
            setattr(holder, child, EmbeddingStandIn(kept, keep=True))


def stage_of(model: nn.Module) -> Stage | None:
    """The stage that this rank runs of a model; None where there is but one."""
    return getattr(model, _STAGE, None)


# -- running ---------------------------------------------------------------------------------


def backward_through(mesh: Mesh, model: nn.Module, logits: Tensor, gradient: Tensor | None) -> None:
    """Run the backward over all stages; every rank calls it.

    Args:
        mesh: the ranks.
        model: whose forward has just run, in grad mode, on every rank.
        logits: what it put out on this rank; [b, p, V].
        gradient: of the loss at the logits, the same on all ranks of the last stage; ignored
            elsewhere.
    """
    outputs: list[Tensor] = []
    gradients: list[Tensor] = []
    if mesh.last_stage and logits.requires_grad:
        assert gradient is not None
        outputs, gradients = [logits], [gradient]
    stage = stage_of(model)
    if stage is not None:
        outputs += [token for token, _ in stage.tokens]
        gradients += [torch.full_like(token, value) for token, value in stage.tokens]
        stage.tokens.clear()
    if outputs:
        torch.autograd.backward(outputs, gradients)
    if stage is not None and stage.tied:
        _add_tied_gradients(model, mesh)


def _add_tied_gradients(model: Any, mesh: Mesh) -> None:
    """Give the first and the last stage the sum of both their gradients of a tied embedding."""
    if not (mesh.first_stage or mesh.last_stage):
        return
    module = model.get_input_embeddings() if mesh.first_stage else model.get_output_embeddings()
    weight = module.weight
    if not weight.requires_grad:
        return
    other = mesh.pipeline.members[-1 if mesh.first_stage else 0]
    mine = torch.zeros_like(weight) if weight.grad is None else weight.grad.contiguous()
    theirs = torch.empty_like(mine)
    group = mesh.pipeline.group
    both = [
        dist.P2POp(dist.isend, mine, other, group),
        dist.P2POp(dist.irecv, theirs, other, group),
    ]
    for work in dist.batch_isend_irecv(both):
        work.wait()
    weight.grad = mine + theirs


@contextmanager
def shared_logits(model: nn.Module) -> Iterator[None]:
    """While this lasts, the model puts out the last stage's logits on every stage, off the graph.

    So that ``model.generate`` chooses the same next token everywhere. Every rank enters it.
    """
    stage = stage_of(model)
    if stage is None:
        yield
        return
    stage.shares_logits = True
    try:
        yield
    finally:
        stage.shares_logits = False


def _share_logits(model: nn.Module, args: Any, output: Any) -> None:
    stage = stage_of(model)
    if stage is not None and stage.shares_logits:
        output.logits = stage.mesh.pipeline.broadcast(output.logits, stage.mesh.degrees.pp - 1)
