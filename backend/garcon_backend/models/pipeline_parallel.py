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

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.libraries.transformers_internals import CACHES
from garcon_backend.models.stages import (
    EmbeddingStandIn,
    HeadStandIn,
    LayerStandIn,
    Stage,
    StandIn,
)
from garcon_jupyter.errors import BadDegrees
from garcon_jupyter.model_files.multimodal import text_config, wrapper_of

SAME_ON_EVERY_STAGE = frozenset(
    {
        *("self", "hidden_states", "x", "args", "kwargs"),
        *("attention_mask", "mamba_attention_mask", "causal_mask", "alibi", "position_bias"),
        *("position_ids", "position_embeddings", "cache_position"),
        *(*CACHES, "cache_params", "use_cache"),
        *("encoder_hidden_states", "encoder_attention_mask"),  # none, in a model that only decodes
        *("output_attentions", "output_router_logits"),
    }
)
"""What a layer may be called with: the residual stream, and what every stage makes of the tokens by itself."""

NONE_WITHOUT = {
    "per_layer_input": "hidden_size_per_layer_input",
    "shared_kv_states": "num_kv_shared_layers",
}
"""What a layer may be called with that is nothing where the configuration has none of it, by the name it has there."""
_STAGE = "_garcon_stage"  # attribute of a model


def find_layers(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the list of blocks, and the list's name in it; in a multimodal model, of its text part.

    Raises:
        ValueError: there is no such list.
    """
    config = getattr(model, "config", None)
    count, wrapper = getattr(text_config(config), "num_hidden_layers", None), wrapper_of(config)
    part = model if wrapper is None else model.get_submodule(wrapper.stem)
    for holder in part.modules():
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
                setattr(
                    holder, child, EmbeddingStandIn(module, mesh.device) if embeds else StandIn()
                )
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
    if more := beside_the_stream(model, layers):
        raise BadDegrees(
            f"{type(model).__name__} cannot be cut into stages: its layers are given "
            f"{' and '.join(more)} beside the residual stream.",
            "Launch it with pp=1.",
        )


def beside_the_stream(model: nn.Module, layers: Sequence[nn.Module]) -> list[str]:
    """What layers are given beside the residual stream and what can be made of the tokens alone, by name."""
    config = text_config(getattr(model, "config", None))
    none = {name for name, said in NONE_WITHOUT.items() if not getattr(config, said, True)}
    given = {
        name
        for layer in layers
        if not isinstance(layer, StandIn)
        for name in inspect.signature(type(layer).forward).parameters
    }
    return sorted(given - SAME_ON_EVERY_STAGE - none)


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
    masks = (
        None,  # made by the model
        torch.zeros(1, 1, 2, 2, device=device),  # as it is used
        torch.ones(
            1, 2, dtype=torch.long, device=device
        ),  # as tokenizers give it, where ALiBi is made of it
    )
    for mask in masks:
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


def settle(model: Any, mesh: Mesh, as_in: nn.Module | None = None) -> None:
    """After loading: take away the embedding that the last stage kept to unembed with.

    A checkpoint may have two weights where its configuration says one; transformers then ties nothing, which only the last
    stage sees, and tells the others.

    Args:
        as_in: a model of the same configuration that is settled: whether its embeddings are tied holds on the other stages,
            which then are told nothing.
    """
    stage = stage_of(model)
    assert stage is not None
    if stage.tied:
        one = mesh.last_stage and model.get_output_embeddings().weight is getattr(
            model.get_input_embeddings(), "weight", None
        )
        if as_in is None:
            told = torch.tensor([int(one)], device=mesh.device)
            stage.tied = bool(mesh.pipeline.broadcast(told, mesh.degrees.pp - 1).item())
        else:
            settled = stage_of(as_in)
            assert settled is not None
            stage.tied = one if mesh.last_stage else settled.tied
        model.config.tie_word_embeddings = stage.tied
    if mesh.last_stage and not mesh.first_stage:
        kept = model.get_input_embeddings()
        if isinstance(kept, nn.Embedding):
            holder, _ = find_layers(model)
            child = next(n for n, module in holder.named_children() if module is kept)
            setattr(holder, child, EmbeddingStandIn(kept, mesh.device, keep=stage.tied))


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


def backward_again(
    model: nn.Module, value: Tensor | None, gradient: Tensor | None, last: bool
) -> None:
    """A backward from a value in the midst of a forward over all stages, perhaps the first of several; every rank calls it.

    Args:
        model: whose forward has just run, in grad mode, on every rank.
        value: where it begins; None on the ranks of other stages.
        gradient: there.
        last: of those through this forward.
    """
    outputs: list[Tensor] = []
    gradients: list[Tensor] = []
    if value is not None and value.requires_grad:
        assert gradient is not None
        outputs, gradients = [value], [gradient]
    stage = stage_of(model)
    if stage is not None:
        outputs += [token for token, _ in stage.tokens]
        gradients += [torch.full_like(token, worth) for token, worth in stage.tokens]
        if last:
            stage.tokens.clear()
    if outputs:
        torch.autograd.backward(outputs, gradients, retain_graph=not last)


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
