"""Cutting a transformers model over a mesh while it is loaded.

This is the one module that knows transformers' distributed internals, which change between its
minor
versions: the plan that names a style for each module, the two class methods of ``from_pretrained``
that run between building the model (without memory) and reading its weights, and the loader that
reads only the part of a tensor that a DTensor placeholder asks for. Placeholders live no longer
than the loading: afterwards all parameters are plain tensors of this rank, and the model is an
instance of its own class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from garcon_backend.distributed.collectives import Layout
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.libraries.torch_internals import StridedShard
from garcon_backend.libraries.transformers_internals import DistributedConfig, without_mesh
from garcon_backend.models import pipeline_parallel
from garcon_backend.models.pipeline_parallel import (
    backward_again,
    backward_through,
    shared_logits,
)
from garcon_backend.models.stages import StandIn, split_layers
from garcon_backend.models.tensor_parallel import (
    LEFT_OUT,
    OWN_PLANS,
    STYLES,
    ColumnParallel,
    Cut,
    CutAlong,
    Experts,
    RowParallel,
    Style,
    cut_of,
    mark,
    share_rotary_key,
    style_of,
)
from garcon_jupyter.errors import BadDegrees, NotAModel, PointUnavailable
from garcon_jupyter.model_files.degrees import sizes_of
from garcon_jupyter.model_files.multimodal import text_config, wrapper_of
from garcon_jupyter.wire.launch_spec import Degrees

# -- loading ---------------------------------------------------------------------------------


def load_sharded(
    model_class: Any,
    directory: Path,
    mesh: Mesh,
    options: dict[str, Any],
    as_in: nn.Module | None = None,
) -> nn.Module:
    """Load this rank's part of a model.

    Args:
        model_class: transformers' own class for the checkpoint.
        directory: of the checkpoint.
        mesh: of more than one rank; every one of them calls this.
        options: of ``from_pretrained``, among them the configuration.
        as_in: a model of the same configuration that is loaded so; with it the ranks say nothing to each other.

    Raises:
        BadDegrees: the model has no plan that it can be cut by.
        NotAModel: the checkpoint lacks weights.
    """
    model, found = _cutting_class(model_class, mesh).from_pretrained(
        directory,
        distributed_config=DistributedConfig(),
        output_loading_info=True,
        **options,
    )
    refuse_missing(directory, found)
    model.__class__ = model_class
    without_mesh(model)
    _make_plain(model, mesh)
    if mesh.degrees.pp > 1:
        pipeline_parallel.settle(model, mesh, as_in)
    part: nn.Module = model
    return part


FOLLOW_FROM_THE_CONFIGURATION = ("slope_rate", "query_decay", "key_decay", "diagonal_decay")
"""Buffers that a checkpoint may have, and that are computed where it has not: rates by which MiniMax 01's heads forget."""


def refuse_missing(directory: Path, found: dict[str, Any]) -> None:
    """Refuse a model of which transformers drew some weights at random.

    Raises:
        NotAModel: naming the first of them.
    """
    other_shape = {key[0] if isinstance(key, tuple) else key for key in found["mismatched_keys"]}
    computed = tuple(f".{name}" for name in FOLLOW_FROM_THE_CONFIGURATION)
    missing = {key for key in found["missing_keys"] if not key.endswith(computed)}
    lacking = sorted(other_shape | missing)
    if lacking:
        raise NotAModel(
            f"The weights in {directory} lack {lacking[0]} ({len(lacking)} in all), "
            "or hold it in another shape.",
            "Check that config.json and the weights belong together.",
        )


class _Meshes:
    """What the loader asks for a mesh: the same one, whatever axes it names."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh.device_mesh

    def get_mesh(self, axes: Any) -> Any:
        return self.mesh


def _cutting_class(model_class: Any, mesh: Mesh) -> Any:
    """The class, but cut over the mesh between building and reading.

    The name and the module must stay: transformers looks up by them how to convert a checkpoint's
    keys, and a class it does not know gets random weights without a word.
    """

    def prepare_distribute_model(cls: Any, distributed_config: Any, device_map: Any = None) -> Any:
        return distributed_config, mesh.device, _Meshes(mesh)

    def maybe_distribute_model(cls: Any, model: Any, *_: Any) -> Any:
        _cut(model, mesh)
        return model

    body = {
        "config_class": model_class.config_class,
        "__module__": model_class.__module__,
        "__qualname__": model_class.__qualname__,
        "prepare_distribute_model": classmethod(prepare_distribute_model),
        "maybe_distribute_model": classmethod(maybe_distribute_model),
    }
    if mesh.degrees.pp > 1:  # the weights of other stages are no surprise
        body["_keys_to_ignore_on_load_unexpected"] = [".*"]
    return type(model_class.__name__, (model_class,), body)


def _cut(model: Any, mesh: Mesh) -> None:
    """Put stand-ins and placeholders into a model that has no memory yet, and wrap its modules."""
    plan = plan_of(model) if mesh.degrees.tp > 1 else {}
    if mesh.degrees.pp > 1:
        tied = bool(model.all_tied_weights_keys)
        pipeline_parallel.install(model, mesh, tied)
        if not mesh.last_stage:
            model.all_tied_weights_keys = {}
    if not plan:
        return
    degrees, shard_mesh = mesh.degrees, mesh.device_mesh["tp"]  # type: ignore[index]
    for path, module in list(model.named_modules()):
        if isinstance(module, StandIn):
            continue
        style = _style(path, plan, model.config, degrees)
        for name, parameter in list(module.named_parameters(recurse=False)):
            rule = _style(f"{path}.{name}", plan, model.config, degrees) or style
            cut = rule.cut(module, parameter, degrees.tp) if rule else None
            if cut is not None:
                setattr(module, name, _placeholder(parameter, cut, shard_mesh))
        if style is not None:
            style.install(module, mesh.tp)
    if _has_own_heads(plan):
        _count_own_heads(model, degrees)
        for module in model.modules():
            if hasattr(module, "expand_kv"):
                share_rotary_key(module, mesh.tp)


def plan_of(model: Any) -> dict[str, str]:
    """The style of each module and parameter, by path with ``*`` for numbers.

    Raises:
        BadDegrees: the architecture has no plan, or one with a style that is not known here.
    """
    plan = _text_plan(model)
    unknown = sorted(set(plan.values()) - set(STYLES))
    if not plan or unknown:
        raise BadDegrees(
            f"{type(model).__name__} cannot be cut by tensor parallelism"
            + (f": its plan asks for {unknown[0]!r}." if unknown else ": it has no plan."),
            "Launch it with tp=1 and, if it does not fit, pp greater than one.",
        )
    embedding = model.get_input_embeddings()
    path = next(name for name, module in model.named_modules() if module is embedding)
    return {path: "embedding_rowwise", **plan}


def _text_plan(model: Any) -> dict[str, str]:
    """What transformers says, and what is ours; of a multimodal model for its text part: each rank has the rest whole."""
    kind, wrapper = text_config(model.config).model_type, wrapper_of(model.config)
    theirs, own, more = dict(model.tp_plan or {}), OWN_PLANS.get(kind, {}), LEFT_OUT.get(kind, {})
    if wrapper is None:
        return (own or theirs) | more
    here = {wrapper.path(path): style for path, style in own.items()}
    here |= {path: style for path, style in theirs.items() if wrapper.holds(path)}
    return here | {wrapper.path(path): style for path, style in more.items()}


def _style(path: str, plan: dict[str, str], config: Any, degrees: Degrees) -> Style | None:
    name = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", path))
    if name is None:
        return None
    style = STYLES[name]
    kv_heads, name = sizes_of(config).kv_heads, path.rpartition(".")[2]
    if kv_heads >= degrees.tp:
        return style
    dup = degrees.tp // kv_heads
    if isinstance(style, ColumnParallel) and not style.joined and name in ("k_proj", "v_proj"):
        return ColumnParallel(dup=dup)
    return CutAlong(style.dim, dup) if isinstance(style, CutAlong) and name == "k_norm" else style


def _placeholder(parameter: nn.Parameter, cut: Cut, shard_mesh: Any) -> nn.Parameter:
    """A parameter without memory that the loader fills with this rank's part."""
    if cut.dup > 1:  # no placement says so: it is read whole and cut afterwards
        whole = nn.Parameter(parameter.data, requires_grad=False)
        mark(whole, cut)
        return whole
    placement = (
        Shard(cut.dim) if cut.groups == 1 else StridedShard(cut.dim, split_factor=cut.groups)
    )
    placed = distribute_tensor(parameter.data, shard_mesh, [placement], src_data_rank=None)
    return nn.Parameter(placed, requires_grad=False)


def _make_plain(model: Any, mesh: Mesh) -> None:
    """Replace placeholders by plain tensors that remember how they were cut."""
    plan = plan_of(model) if mesh.degrees.tp > 1 else {}
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        style = _style(path, plan, model.config, mesh.degrees)
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                rule = _style(f"{path}.{name}", plan, model.config, mesh.degrees) or style
                made[id(parameter)] = _plain(module, parameter, rule, mesh)
            setattr(module, name, made[id(parameter)])


def _plain(
    module: nn.Module, parameter: nn.Parameter, rule: Style | None, mesh: Mesh
) -> nn.Parameter:
    cut = rule.cut(module, parameter, mesh.degrees.tp) if rule else None
    if cut is None:
        return parameter
    if isinstance(parameter, DTensor):
        part = parameter.to_local()
    else:
        part = cut.take(parameter.data, mesh.tp_rank)
    plain = nn.Parameter(part.contiguous(), requires_grad=False)
    mark(plain, cut)
    return plain


def _count_own_heads(model: Any, degrees: Degrees) -> None:
    """Correct what attention modules noted of their heads when they still had all of them."""
    sizes = sizes_of(model.config)
    for module in model.modules():
        if hasattr(module, "num_key_value_groups") and sizes.kv_heads < degrees.tp:
            module.num_key_value_groups = sizes.heads // degrees.tp
        if hasattr(module, "split_size") and hasattr(module, "c_attn"):
            module.split_size //= degrees.tp


# -- what lies where -------------------------------------------------------------------------


def layouts(model: Any, mesh: Mesh) -> dict[str, Layout]:
    """How values lie on the tensor-parallel ranks, by the letter along which the table splits them.

    "" is a value that is not split. Logits are put together inside the model, so "V" is not either.
    """
    whole = Layout()
    table = dict.fromkeys(("", "H", "K", "M", "m", "S", "V", "E"), whole)
    tp = mesh.degrees.tp
    if tp == 1:
        return table
    plan = plan_of(model)
    if _has_own_heads(plan):
        kv_heads = sizes_of(model.config).kv_heads
        dup = max(1, tp // kv_heads)
        table["H"] = Layout(-1, tp)
        table["K"] = Layout(-1, tp // dup, dup, dup > 1)
    routed = any(isinstance(style_of(module), Experts) for module in model.modules())
    if routed or any("mlp" in path for path in _own_features(plan)):
        table["M"] = table["m"] = Layout(-1, tp)
    if any("shared" in path for path in _own_features(plan)):
        table["S"] = Layout(-1, tp)
    return table


def _own_features(plan: dict[str, str]) -> set[str]:
    """Modules of which each rank puts out features of its own."""
    return {path for path, name in plan.items() if _puts_out_own(STYLES[name])}


def _has_own_heads(plan: dict[str, str]) -> bool:
    """Whether a rank works on heads of its own: where q and k are one projection, or normalised over
    all heads, it works on all of them."""
    return any("attn" in path or "attention" in path for path in _own_features(plan))


def _puts_out_own(style: Style) -> bool:
    return isinstance(style, ColumnParallel) and not style.joined


def _works_on_own(style: Style | None) -> bool:
    return style is not None and (_puts_out_own(style) or isinstance(style, RowParallel))


def module_layout(model: nn.Module, mesh: Mesh, path: str, side: str) -> Layout:
    """How the "input" or "output" of any module lies on the tensor-parallel ranks.

    Raises:
        PointUnavailable: it is cut, and no layout can say how.
    """
    if mesh.degrees.tp == 1:
        return Layout()
    module = model.get_submodule(path)
    layout: Layout | None = Layout()
    if (style := style_of(module)) is not None:
        layout = style.layout(side, mesh.degrees.tp)
    elif not any(style_of(inner) for inner in module.modules()):
        parent = model.get_submodule(path.rpartition(".")[0])
        beside = [style_of(child) for child in parent.children()]
        if isinstance(style_of(parent), Experts) or any(map(_works_on_own, beside)):
            layout = None  # it may well stand between two that are cut
    if layout is None:
        raise PointUnavailable(
            f"The {side} of {path} is cut over {mesh.degrees.tp} ranks in a way that has no name.",
            "Probe a point of the table there, or launch with tp=1.",
        )
    return layout


def stage_layers(model: nn.Module, mesh: Mesh) -> range:
    """Indices of the layers that this rank's stage holds; none of a module without layers."""
    try:
        holder, name = pipeline_parallel.find_layers(model)
    except ValueError:
        return range(0)
    return split_layers(len(getattr(holder, name)), mesh.degrees.pp, mesh.stage)


def own_layers(model: nn.Module, mesh: Mesh) -> list[nn.Module]:
    """The layers that this rank's stage holds."""
    indices = stage_layers(model, mesh)
    if not indices:
        return []
    holder, name = pipeline_parallel.find_layers(model)
    return [getattr(holder, name)[index] for index in indices]


def gather_parameter(tensor: Tensor, mesh: Mesh, like: Tensor | None = None) -> Tensor | None:
    """A parameter, or a gradient of one, whole on the leader of its stage; None elsewhere.

    Args:
        tensor: this rank's part.
        mesh: every rank of the stage calls this.
        like: the parameter whose gradient `tensor` is; gradients of copies add up.

    Returns:
        Off the graph; on one rank `tensor`'s own memory.
    """
    cut = cut_of(tensor if like is None else like)
    value = tensor.detach()
    if cut is None or mesh.tp.size == 1:
        return value if mesh.leads else None
    width = -(-cut.total // cut.groups // cut.parts) * cut.groups
    if value.shape[cut.dim] < width:  # the last of uneven parts
        padded = value.new_zeros([width if d == cut.dim else n for d, n in enumerate(value.shape)])
        padded.narrow(cut.dim, 0, value.shape[cut.dim]).copy_(value)
        value = padded
    layout = Layout(cut.dim, cut.parts, cut.dup, cut.dup > 1)
    joined = mesh.tp.gather(value, layout, grad=like is not None)
    if joined is None or cut.parts == 1:
        return joined
    whole = cut.join(joined.chunk(cut.parts, cut.dim))
    return whole.narrow(cut.dim, 0, cut.total)


__all__ = [
    "StandIn",
    "backward_again",
    "backward_through",
    "gather_parameter",
    "layouts",
    "load_sharded",
    "module_layout",
    "plan_of",
    "refuse_missing",
    "shared_logits",
    "stage_layers",
]
