"""What each rank does in the sharding tests: run a cut model and write down all it computes.

The oracle runs the same on the whole model, with transformers' own class and nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

TOKENS = (torch.arange(18).view(2, 9) * 37 + 11) % 263
NEW = 6  # tokens to generate

LAYERS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}

VALUES: dict[str, list[tuple[str, str, str]]] = {
    "llama": [
        ("self_attn.q_proj", "output", "H"),
        ("self_attn.k_proj", "output", "K"),
        ("self_attn.v_proj", "output", "K"),
        ("self_attn.o_proj", "input", "H"),
        ("self_attn.o_proj", "output", ""),
        ("mlp", "output", ""),
    ],
    "gpt2": [
        ("attn.c_proj", "input", "H"),
        ("attn.c_proj", "output", ""),
        ("mlp.c_fc", "output", "M"),
        ("mlp.c_proj", "input", "M"),
    ],
    "gpt_neox": [
        ("attention.query_key_value", "output", "H"),
        ("attention.dense", "input", "H"),
        ("mlp.dense_4h_to_h", "input", "M"),
        ("mlp.dense_4h_to_h", "output", ""),
    ],
}
VALUES["mixtral"] = VALUES["llama"]
VALUES["gemma2"] = VALUES["llama_one_key_head"] = [
    *VALUES["llama"],
    ("mlp.down_proj", "input", "M"),
]
VALUES["llama"] = VALUES["gemma2"]
"""Where values are read in every layer: (module, side, letter of the table they are split
along)."""


@dataclass(frozen=True)
class Case:
    """One model cut in one way."""

    name: str
    family: str
    tp: int = 1
    pp: int = 1

    @property
    def layers(self) -> str:
        return LAYERS.get(self.family, "model.layers")


def gradient_of_logits(logits: Tensor) -> Tensor:
    """The same arbitrary gradient everywhere, so that every logit matters differently."""
    return torch.randn(logits.shape, generator=torch.Generator().manual_seed(5))


class Taps:
    """Plain hooks that keep values and, after a backward, their gradients."""

    def __init__(self, model: nn.Module, case: Case, owned: range) -> None:
        self.kept: dict[tuple[int, str, str], Tensor] = {}
        self.handles = []
        for layer in owned:
            block = model.get_submodule(f"{case.layers}.{layer}")
            self._hook(block, (layer, "", "output"))
            for path, side, _ in VALUES[case.name]:
                self._hook(block.get_submodule(path), (layer, path, side))

    def _hook(self, module: nn.Module, key: tuple[int, str, str]) -> None:
        def keep(value: Any) -> None:
            value = value[0] if isinstance(value, tuple) else value
            value.retain_grad()
            self.kept[key] = value

        if key[2] == "output":
            handle = module.register_forward_hook(lambda m, a, out: keep(out))
        else:
            handle = module.register_forward_pre_hook(lambda m, a: keep(a))
        self.handles.append(handle)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def generate(model: Any) -> list[list[int]]:
    """Greedy continuation of a batch whose first row is padded on the left."""
    mask = torch.ones_like(TOKENS)
    mask[0, :3] = 0
    with torch.no_grad():
        out = model.generate(
            TOKENS, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=2
        )
    return out.tolist()


def oracle(case: Case, directory: Path) -> dict[str, Any]:
    """Logits, values, gradients and parameters of the whole model, from plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    taps = Taps(model, case, range(model.config.num_hidden_layers))
    logits = model(TOKENS, use_cache=False).logits
    logits.backward(gradient_of_logits(logits))
    taps.remove()
    return {
        "logits": logits.detach(),
        "values": {key: value.detach() for key, value in taps.kept.items()},
        "gradients": {key: value.grad for key, value in taps.kept.items()},
        "parameters": {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)},
        "parameter_gradients": {
            n: p.grad for n, p in model.named_parameters(remove_duplicate=False)
        },
        "generated": generate(model),
    }


# -- on the ranks ----------------------------------------------------------------------------


def run_cases(cases: list[tuple[Case, Path]], folder: Path) -> None:
    """On every rank: load and run each case in turn, and write down what came out."""
    from garcon_backend.distributed.mesh import Mesh
    from garcon_backend.hook_sites.attention import register
    from garcon_backend.models.loading import load
    from garcon_jupyter.wire.launch_spec import Degrees

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    register()
    meshes: dict[Degrees, Mesh] = {}
    for case, directory in cases:
        degrees = Degrees(case.tp, case.pp)
        mesh = meshes.get(degrees) or Mesh.form(degrees, "cpu")
        meshes[degrees] = mesh
        found = _run(case, load(directory, mesh), mesh)
        torch.save(found, folder / f"{case.name}-{case.tp}-{case.pp}-{mesh.rank}.pt")
    mesh.leave()


def _run(case: Case, model: Any, mesh: Any) -> dict[str, Any]:
    from garcon_backend.models import sharding

    table = sharding.layouts(model, mesh)
    owned = sharding.stage_layers(model, mesh)
    letters = {(path, side): letter for path, side, letter in VALUES[case.name]}
    frozen = not any(p.requires_grad for p in model.parameters())
    model.requires_grad_(True)
    taps = Taps(model, case, owned)
    logits = model(input_ids=TOKENS, use_cache=False).logits
    gradient = gradient_of_logits(logits) if mesh.last_stage else None
    sharding.backward_through(mesh, model, logits, gradient)
    taps.remove()

    def whole(tensors: Callable[[Tensor], Any], grad: bool, how: Callable[[Any], Any]) -> Any:
        """Values gathered as `how` changes their layouts; empty but on the leaders."""
        gathered = {}
        for key, value in taps.kept.items():
            layout = how(table[letters.get(key[1:], "")])
            gathered[key] = mesh.tp.gather(tensors(value), layout, grad=grad)
        return gathered

    parameters, parameter_gradients = {}, {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameters[name] = sharding.gather_parameter(parameter, mesh)
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter_gradients[name] = sharding.gather_parameter(grad, mesh, like=parameter)
    with sharding.shared_logits(model):
        generated = generate(model)
    return {
        "frozen": frozen,
        "class": (type(model).__module__, type(model).__name__),
        "plain": all(type(p) is nn.Parameter for p in model.parameters()),
        "logits": logits.detach().clone(),
        "owned": list(owned),
        "bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "shapes": {n: tuple(p.shape) for n, p in model.named_parameters()},
        "values": whole(lambda v: v, False, lambda layout: layout),
        "gradients": whole(lambda v: v.grad, True, lambda layout: layout),
        "half_width": whole(lambda v: v, False, lambda layout: replace(layout, chunks=1)),
        "copies_not_added": whole(
            lambda v: v.grad, True, lambda layout: replace(layout, partial=False)
        ),
        "parameters": parameters,
        "parameter_gradients": parameter_gradients,
        "generated": generated,
        "layouts": table,
        "modules": _module_layouts(model, mesh, f"{case.layers}.{owned[0]}"),
        "below_a_detached_layer": _below_a_detached_layer(model, mesh, case, owned),
    }


def _module_layouts(model: Any, mesh: Any, block: str) -> dict[str, list[Any]]:
    """Layout of the input and the output of every module of a block; None where refused."""
    from garcon_backend.models.sharding import module_layout
    from garcon_jupyter.errors import PointUnavailable

    def layout(path: str, side: str) -> Any:
        try:
            return module_layout(model, mesh, path, side)
        except PointUnavailable:
            return None

    inside = [f"{block}.{name}" for name, _ in model.get_submodule(block).named_modules() if name]
    return {
        path.removeprefix(f"{block}."): [layout(path, "input"), layout(path, "output")]
        for path in inside
    }


def _below_a_detached_layer(model: Any, mesh: Any, case: Case, owned: range) -> float | None:
    """Largest gradient of a first stage when the last one's loss does not depend on it."""
    from garcon_backend.models.sharding import backward_through

    blocks = [model.get_submodule(f"{case.layers}.{layer}") for layer in owned]
    kept: list[Tensor] = []
    model.zero_grad(set_to_none=True)  # what was gathered may be a gradient's own memory
    if mesh.last_stage:
        handle = blocks[0].register_forward_hook(lambda m, a, out: out.detach())
    else:
        handle = blocks[-1].register_forward_hook(lambda m, a, out: kept.append(out))
    logits = model(input_ids=TOKENS, use_cache=False).logits
    handle.remove()
    for value in kept:
        value.retain_grad()
    backward_through(mesh, model, logits, torch.ones_like(logits))
    return float(kept[0].grad.abs().max()) if kept else None
