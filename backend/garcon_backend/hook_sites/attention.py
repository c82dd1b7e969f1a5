"""The one attention function that every family runs through.

transformers lets an attention implementation be registered by name; models loaded with
``attn_implementation="garcon"`` call this one. It hands over to the fast kernel unless the scores or
the pattern of that very layer are probed, in which case it computes them in steps:
``softmax(softcap(q·kᵀ·scale) + mask)·v`` (Vaswani et al. 2017; the soft cap is Gemma 2's).

Where nothing is padded and no window cuts the past short, the mask is no tensor at all: the fast kernel is
told that attention is causal, and skips half of the work.

An architecture may hand over more than this function knows: a sink beside the keys, a bias by position. Nothing
that it is given is ever dropped. What has no meaning here is listed (:data:`SAID_ELSEWHERE`); with anything else
the layer attends by its own module's function, if that one can know of it, and otherwise the pass is refused.
Which models attend by this function at all is decided in :mod:`garcon_backend.models.attending`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from garcon_backend.hook_sites.sites import visited
from garcon_backend.hook_sites.state_cache import CountsAttendingLayers, own_class
from garcon_backend.libraries.transformers_internals import (
    ALL_ATTENTION_FUNCTIONS,
    CACHES,
    attention_of,
    cache_argument,
    sdpa_mask,
)
from garcon_jupyter.errors import NotAModel, PointUnavailable
from garcon_jupyter.model_files.multimodal import text_config, wrapper_of

NAME = "garcon"

SAID_ELSEWHERE = frozenset(
    {
        "sliding_window",  # in the mask
        "position_ids",  # in queries and keys, which are rotated already
        "position_embeddings",
        "cache_position",
        "token_type_ids",
        *CACHES,  # keys and values are those of the cache already
        "use_cache",
        "cu_seq_lens_q",  # the rows of a kernel that is given no padding; here the mask tells
        "cu_seq_lens_k",
        "max_length_q",
        "max_length_k",
        "deterministic",  # of a kernel's backward
        "output_attentions",  # what is asked of the model besides
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
        "logits_to_keep",
        "num_items_in_batch",
    }
)
"""What modules and transformers pass along that says nothing more to an attention function than its other
arguments do."""


def register() -> None:
    """Make the function known to transformers; harmless when called twice."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, additive_mask)


def additive_mask(
    *, dtype: torch.dtype = torch.float32, device: Any = "cpu", **kwargs: Any
) -> Tensor | None:
    """What is added to scores [b, H, p_q, p_k]: 0 where a query sees a key, else the lowest number.

    None where a query sees just what came before it.
    """
    seen = sdpa_mask(device=device, **kwargs)
    if seen is None:
        return None
    return torch.where(seen, torch.zeros((), dtype=dtype, device=device), torch.finfo(dtype).min)


def serves(model: Any) -> bool:
    """Whether a loaded model attends by this function."""
    return attention_of(text_config(getattr(model, "config", None))) == NAME


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    is_causal: bool | None = None,
    s_aux: Tensor | None = None,
    indices: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention over query [b, H, p_q, d] and key, value [b, K, p_k, d].

    Args:
        s_aux: sinks [H], scores of a key beside the others that has no value, so that the pattern of a query adds up
            to less than one (gpt-oss; Xiao et al. 2023).
        indices: of the keys that each query reads, [b, p_q, n], beside what the mask says (DeepSeek V3.2).

    Returns:
        The mix of values [b, p_q, H, d], and the pattern [b, H, p_q, p_k] where it was probed.

    Raises:
        NotAModel: the module hands over something that nothing here can compute.
        PointUnavailable: only its own function can, and scores or pattern are probed.
    """
    taps = module.__dict__.get("_garcon_attention", {})
    mixed, pattern = _attended(
        taps,
        module,
        query,
        key,
        value,
        attention_mask,
        scaling,
        dropout,
        softcap,
        is_causal,
        s_aux,
        indices,
        kwargs,
    )
    return visited(taps, "z", mixed), pattern


def _attended(
    taps: dict[str, Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    is_causal: bool | None,
    s_aux: Tensor | None,
    indices: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    if taps:
        query = _rotated(taps, "q_rot", query)
        if not taps["run"].caching:
            key = _keys(taps, key, getattr(module, "store_full_length_kv", False))
    if indices is not None:
        seen = _causal(query, key) if attention_mask is None else attention_mask
        attention_mask = _of_chosen(indices, seen)
    probed = "scores" in taps or "pattern" in taps
    more = _unknown(kwargs) if kwargs else {}
    if softcap is None and s_aux is None and not probed and not more:
        fast = ALL_ATTENTION_FUNCTIONS["sdpa"]
        options = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
        output, _ = fast(module, query, key, value, attention_mask, **options)
        return output, None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and causal:
        attention_mask = _causal(query, key)
    if more:
        own = _own_function(module, more, probed)
        given = {
            "scaling": scaling,
            "dropout": dropout,
            "softcap": softcap,
            "s_aux": s_aux,
            **kwargs,
        }
        given = {name: argument for name, argument in given.items() if argument is not None}
        output, pattern = own(module, query, key, value, attention_mask, **given)
        return output, pattern
    output, pattern = _in_steps(taps, query, key, value, attention_mask, scaling, softcap, s_aux)
    return output, pattern


def _unknown(given: dict[str, Any]) -> dict[str, Any]:
    """Of further arguments those that may mean something to attention."""
    return {
        name: value
        for name, value in given.items()
        if value is not None and value is not False and name not in SAID_ELSEWHERE
    }


def _own_function(module: nn.Module, more: dict[str, Any], probed: bool) -> Callable[..., Any]:
    """The eager function beside a module's class, which computes what the module hands over.

    It knows of an argument by its name, or because it is a parameter that the module holds. What it would
    drop in its turn, such as the few keys chosen for each query, which a module makes a part of the mask for the
    implementations that it knows, is refused.

    Args:
        more: what it is to know of.
        probed: scores or pattern are to be seen.

    Raises:
        NotAModel: it would not.
        PointUnavailable: it can, and shows neither.
    """
    own: Callable[..., Any] | None = getattr(
        sys.modules[type(module).__module__], "eager_attention_forward", None
    )
    named = inspect.signature(own).parameters if own is not None else {}
    held = {id(parameter) for parameter in module.parameters(recurse=False)}
    lost = {n: v for n, v in more.items() if n not in named and id(v) not in held}
    if own is None or lost:
        raise NotAModel(
            f"{type(module).__name__} hands {_names(lost or more)} to attention, which would be dropped.",
            "This architecture cannot be served by the house's attention function.",
        )
    if probed:
        raise PointUnavailable(
            f"{type(module).__name__} attends by a function of its own here, because of {_names(more)}: "
            "scores and pattern cannot be seen.",
            "Probe what goes in and out of it: q_rot, k_rot, z.",
        )
    return own


def _names(more: dict[str, Any]) -> str:
    return " and ".join(repr(name) for name in sorted(more))


def _rotated(taps: dict[str, Any], part: str, tensor: Tensor) -> Tensor:
    if part not in taps:
        return tensor
    return visited(taps, part, tensor.transpose(1, 2)).transpose(1, 2)


def _keys(taps: dict[str, Any], key: Tensor, shared: bool) -> Tensor:
    """Keys after their probes; where later layers read them too, a change is written into what these read."""
    if not shared or "k_rot" not in taps:
        return _rotated(taps, "k_rot", key)
    # In grad mode the visit must hold the value apart, or writing would destroy it.
    value = key.clone() if torch.is_grad_enabled() else key
    changed = _rotated(taps, "k_rot", value)
    return key if changed is value else key.copy_(changed)


def _in_steps(
    taps: dict[str, Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask[..., : key.shape[2]]
    scores = visited(taps, "scores", scores)
    if sinks is None:
        pattern = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    else:
        beside = sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        together = torch.cat([scores, beside], -1)
        pattern = torch.softmax(together, -1, dtype=torch.float32)[..., :-1].to(query.dtype)
    pattern = visited(taps, "pattern", pattern)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


def _of_chosen(indices: Tensor, mask: Tensor) -> Tensor:
    """A mask [b, 1, p_q, p_k] that lets each query see the chosen keys alone."""
    chosen = torch.zeros(*indices.shape[:2], mask.shape[-1], dtype=torch.bool, device=mask.device)
    chosen = chosen.scatter(-1, indices.long(), True)[:, None]
    return torch.where(chosen, mask, torch.finfo(mask.dtype).min)


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """The mask that is no tensor, as one: [1, 1, p_q, p_k]. A single query sees all keys."""
    queries, keys = query.shape[2], key.shape[2]
    lowest = torch.full(
        (queries, keys), torch.finfo(query.dtype).min, dtype=query.dtype, device=query.device
    )
    return lowest.triu(keys if queries == 1 else 1)[None, None]


def fresh_cache(model: Any) -> DynamicCache | None:
    """The cache that a generation is to begin with; None where the model makes its own.

    A model that keeps no keys takes none: what it keeps of the past is a state.
    """
    keeps_keys = cache_argument(model) in CACHES
    if not (serves(model) and keeps_keys):
        return None
    own = own_class(model)
    return VisitedCache(model) if own is None else _visited_own(own, model)


def _attentions(model: Any) -> dict[Any, nn.Module]:
    """The modules of a model that attend, by layer; those that know of none, by that around them."""
    wrapper = wrapper_of(model.config)
    part = model if wrapper is None else model.get_submodule(wrapper.stem)
    found: dict[Any, nn.Module] = {}
    for path, module in part.named_modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and hasattr(module, "scaling"):
            around = (int(name) for name in path.split(".") if name.isdigit())
            found[layer if layer >= 0 else next(around, layer)] = module
    return found


class VisitedCache(DynamicCache):
    """A key-value cache through which probed keys pass before they are kept.

    So an edit of ``k_rot`` during generation reaches every later step, as an edit of ``k`` or ``v``
    does by itself.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(config=model.config)
        self._attentions = _attentions(model)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        module = self._attentions.get(layer_idx)
        taps = module.__dict__.get("_garcon_attention", {}) if module is not None else {}
        return super().update(
            _rotated(taps, "k_rot", key_states), value_states, layer_idx, *args, **kwargs
        )


def _visited_own(own: type[DynamicCache], model: Any) -> VisitedCache:
    """The same as a model's own class of cache, which it takes alone."""
    made = type(f"Visited{own.__name__}", (CountsAttendingLayers, VisitedCache, own), {})
    cache: Any = object.__new__(made)
    own.__init__(cache)
    cache._attentions = _attentions(model)
    return cache  # type: ignore[no-any-return]
