"""Every point of the table, computed by hand: what the families are compared with.

A checkpoint is loaded by plain transformers, in float64; its forward is written out here, one
architecture at a time, with a tap at every point. A tap keeps the value, or puts another in its
place. Nothing of ours is imported, and no module's forward is called; that the writing is right is
shown by transformers' own logits and by plain hooks on its modules (see ``test_families``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu
from transformers import AutoModelForCausalLM

Edit = Callable[[Tensor], Tensor]


@dataclass
class Taps:
    """All values of one forward by the names of their points."""

    edits: dict[str, Edit] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    prefix: str = ""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        name = self.prefix + name
        if name in self.edits:
            value = self.edits[name](value)
        if value.is_floating_point() and torch.is_grad_enabled():
            value.retain_grad()
        self.values[name] = value
        return value

    def inside(self, prefix: str) -> Taps:
        return Taps(self.edits, self.values, self.prefix + prefix)


@dataclass
class Stored:
    """A parameter of the table: the stored one it is read from, and how."""

    parameter: Tensor
    read: Callable[[Tensor], Tensor] = lambda stored: stored
    offset: float = 0.0

    @property
    def value(self) -> Tensor:
        return self.read(self.parameter.detach()) + self.offset

    @property
    def gradient(self) -> Tensor:
        assert self.parameter.grad is not None
        return self.read(self.parameter.grad)


# -- arithmetic ------------------------------------------------------------------------------


def linear(module: Any, x: Tensor) -> Tensor:
    return x @ module.weight.T + (0 if module.bias is None else module.bias)


def rms_norm(taps: Taps, module: Any, x: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    scale = taps("scale", ((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps) ** 0.5)
    return taps("out", taps("normalized", x / scale) * (module.weight + offset))


def layer_norm(taps: Taps, module: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    variance = (centred * centred).sum(-1, keepdim=True) / x.shape[-1]
    normalized = taps("normalized", centred / taps("scale", (variance + module.eps) ** 0.5))
    return taps("out", normalized * module.weight + module.bias)


def rotated(x: Tensor, positions: Tensor, theta: float, dims: int) -> Tensor:
    """Rotary positions (Su et al. 2021) on the first `dims` of [b, p, heads, d], halves paired."""
    frequency = theta ** (-torch.arange(0, dims, 2).double() / dims)
    angle = positions.double()[:, :, None, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    a, b, rest = x.split([dims // 2, dims // 2, x.shape[-1] - dims], -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def visible(mask: Tensor, window: int | None) -> Tensor:
    """Which key each query may see: [b, 1, p_q, p_k]."""
    places = torch.arange(mask.shape[1])
    distance = places[:, None] - places[None, :]
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return (seen & mask[:, None, :].bool())[:, None]


def mixed(
    taps: Taps,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    scale: float,
    cap: float | None = None,
) -> Tensor:
    """z [b, p, H, d] from queries [b, p, H, d], keys and values [b, p, K, d]."""
    group = q.shape[2] // k.shape[2]
    of_head = torch.arange(q.shape[2]) // group  # the key head that each query head reads
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k[:, :, of_head]) * scale
    if cap is not None:
        scores = cap * (scores / cap).tanh()
    scores = scores + (~seen) * torch.finfo(torch.float32).min
    scores = taps("scores", scores)
    raised = (scores - scores.amax(-1, keepdim=True).detach()).exp()
    pattern = taps("pattern", raised / raised.sum(-1, keepdim=True))
    return taps("z", torch.einsum("bhqk,bkhd->bqhd", pattern, v[:, :, of_head]))


def written(taps: Taps, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What attention puts out: the sum of what its heads write; weight [D, H·d]."""
    by_head = weight.reshape(weight.shape[0], z.shape[2], z.shape[3])
    out = taps("head_out", torch.einsum("bphd,ohd->bpho", z, by_head)).sum(2)
    return taps("out", out if bias is None else out + bias)


def expert_mlp(taps: Taps, module: Any, x: Tensor, normalise: bool) -> Tensor:
    """A mixture of experts: softmax over all, the best k of it; their weights may add up to one."""
    k = module.gate.top_k
    taps = taps.inside("mlp.")
    x = taps("in", x)
    tokens = x.flatten(0, 1)
    logits = taps("router.logits", x @ module.gate.weight.T)
    best = logits.exp().div(logits.exp().sum(-1, keepdim=True)).topk(k, -1)
    total = best.values.sum(-1, keepdim=True) if normalise else 1
    weights = taps("router.weights", best.values / total).flatten(0, 1)
    indices = taps("router.indices", best.indices).flatten(0, 1)
    out = torch.zeros_like(tokens)
    for expert, (gate_up, down) in enumerate(
        zip(module.experts.gate_up_proj, module.experts.down_proj, strict=True)
    ):
        gate, up = gate_up.chunk(2)
        chosen = indices == expert
        token = chosen.any(-1).nonzero()[:, 0]
        neurons = silu(tokens[token] @ gate.T) * (tokens[token] @ up.T)
        neurons = taps(f"experts.{expert}.post_activation", neurons)
        weight = (weights * chosen).sum(-1)[token, None]
        out = out.index_add(0, token, (neurons @ down.T) * weight)
    return taps("contribution", taps("out", out.view_as(x)))


def gated_mlp(taps: Taps, module: Any, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    x = taps("mlp.in", x)
    gate = taps("mlp.pre_activation", linear(module.gate_proj, x))
    up = taps("mlp.pre_linear", linear(module.up_proj, x))
    return taps("mlp.out", linear(module.down_proj, taps("mlp.post_activation", act(gate) * up)))


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# -- architectures ---------------------------------------------------------------------------


class ByHand:
    """A model of one architecture, with all its points and parameters in reach."""

    def __init__(self, path: Path) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float64, attn_implementation="eager"
        )
        self.model, self.config = model.eval(), model.config
        self.d = getattr(self.config, "head_dim", None) or (
            self.config.hidden_size // self.config.num_attention_heads
        )

    def run(self, ids: Tensor, mask: Tensor | None = None, **edits: Edit) -> Taps:
        """One forward; edits by the name of the point."""
        mask = torch.ones_like(ids) if mask is None else mask.long()
        taps = Taps(edits)
        # Padding is not counted; a token of it has the position of the one before.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        taps("logits", self.forward(taps, ids, mask, positions))
        return taps

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        raise NotImplementedError

    def parameters(self) -> dict[str, Stored]:
        """All parameters of the table."""
        raise NotImplementedError

    def _norm(self, name: str, module: Any, offset: float = 0.0) -> dict[str, Stored]:
        found = {f"{name}.weight": Stored(module.weight, offset=offset)}
        if getattr(module, "bias", None) is not None:
            found[f"{name}.bias"] = Stored(module.bias)
        return found

    def _linear(self, name: str, module: Any, rows: Any = slice(None)) -> dict[str, Stored]:
        found = {name: Stored(module.weight, lambda stored: stored[rows])}
        if module.bias is not None:
            found[f"{name}.bias"] = Stored(module.bias, lambda stored: stored[rows])
        return found


class GPT2(ByHand):
    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.transformer
        x = taps("embed.out", stem.wte.weight[ids])
        x = x + taps("pos_embed.out", stem.wpe.weight[positions])
        for i, block in enumerate(stem.h):
            x = self.block(taps.inside(f"layers.{i}."), block, x, visible(mask, None))
        return layer_norm(taps.inside("final_norm."), stem.ln_f, x) @ stem.wte.weight.T

    def block(self, taps: Taps, block: Any, x: Tensor, seen: Tensor) -> Tensor:
        x = taps("resid_pre", x)
        attn = taps.inside("attn.")
        h = attn("in", layer_norm(attn.inside("norm."), block.ln_1, x))
        c_attn, c_proj = block.attn.c_attn, block.attn.c_proj
        fused = h @ c_attn.weight + c_attn.bias
        q, k, v = (
            attn(name, part.reshape(*part.shape[:2], -1, self.d))
            for name, part in zip("qkv", fused.split(x.shape[-1], -1), strict=True)
        )
        z = mixed(attn, q, k, v, seen, self.d**-0.5)
        x = x + attn("contribution", written(attn, z, c_proj.weight.T, c_proj.bias))
        x = taps("resid_mid", x)
        mlp = taps.inside("mlp.")
        h = mlp("in", layer_norm(mlp.inside("norm."), block.ln_2, x))
        up, down = block.mlp.c_fc, block.mlp.c_proj
        neurons = gelu_tanh(mlp("pre_activation", h @ up.weight + up.bias))
        y = mlp("out", mlp("post_activation", neurons) @ down.weight + down.bias)
        return taps("resid_post", x + mlp("contribution", y))

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.transformer
        width = self.config.n_embd
        found = {
            "embed.weight": Stored(stem.wte.weight),
            "unembed.weight": Stored(stem.wte.weight),
            "pos_embed.weight": Stored(stem.wpe.weight),
            **self._norm("final_norm", stem.ln_f),
        }
        for i, block in enumerate(stem.h):
            at = f"layers.{i}"
            fused = block.attn.c_attn
            found |= self._norm(f"{at}.attn.norm", block.ln_1)
            found |= self._norm(f"{at}.mlp.norm", block.ln_2)
            for part, name in enumerate("qkv"):
                cut = slice(part * width, (part + 1) * width)
                found |= self._conv(f"{at}.attn.{name}_proj", fused, cut)
            found |= self._conv(f"{at}.attn.o_proj", block.attn.c_proj)
            found |= self._conv(f"{at}.mlp.up_proj", block.mlp.c_fc)
            found |= self._conv(f"{at}.mlp.down_proj", block.mlp.c_proj)
        return found

    def _conv(self, name: str, module: Any, cut: slice = slice(None)) -> dict[str, Stored]:
        return {
            name: Stored(module.weight, lambda stored: stored[:, cut].T),
            f"{name}.bias": Stored(module.bias, lambda stored: stored[cut]),
        }


class GPTNeoX(ByHand):
    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.gpt_neox
        x = taps("embed.out", stem.embed_in.weight[ids])
        for i, block in enumerate(stem.layers):
            x = self.block(taps.inside(f"layers.{i}."), block, x, positions, visible(mask, None))
        x = layer_norm(taps.inside("final_norm."), stem.final_layer_norm, x)
        return x @ self.model.lm_head.weight.T

    def block(self, taps: Taps, block: Any, x: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        x = taps("resid_pre", x)
        a = self.attention(taps.inside("attn."), block, x, positions, seen)
        parallel = self.config.use_parallel_residual
        middle = x if parallel else taps("resid_mid", x + a)
        mlp = taps.inside("mlp.")
        h = mlp("in", layer_norm(mlp.inside("norm."), block.post_attention_layernorm, middle))
        neurons = gelu(mlp("pre_activation", linear(block.mlp.dense_h_to_4h, h)))
        y = mlp("out", linear(block.mlp.dense_4h_to_h, mlp("post_activation", neurons)))
        y = mlp("contribution", y)
        return taps("resid_post", x + a + y if parallel else middle + y)

    def attention(
        self, attn: Taps, block: Any, x: Tensor, positions: Tensor, seen: Tensor
    ) -> Tensor:
        h = attn("in", layer_norm(attn.inside("norm."), block.input_layernorm, x))
        module, rotary = block.attention, self.config.rope_parameters
        fused = linear(module.query_key_value, h).reshape(*h.shape[:2], -1, 3, self.d)
        q, k, v = (attn(name, fused[:, :, :, part]) for part, name in enumerate("qkv"))
        dims = int(self.d * rotary["partial_rotary_factor"])
        q = attn("q_rot", rotated(q, positions, rotary["rope_theta"], dims))
        k = attn("k_rot", rotated(k, positions, rotary["rope_theta"], dims))
        z = mixed(attn, q, k, v, seen, self.d**-0.5)
        return attn("contribution", written(attn, z, module.dense.weight, module.dense.bias))

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.gpt_neox
        found = {
            "embed.weight": Stored(stem.embed_in.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", stem.final_layer_norm),
        }
        every = torch.arange(3 * self.config.hidden_size)
        for i, block in enumerate(stem.layers):
            at = f"layers.{i}"
            found |= self._norm(f"{at}.attn.norm", block.input_layernorm)
            found |= self._norm(f"{at}.mlp.norm", block.post_attention_layernorm)
            for part, name in enumerate("qkv"):
                rows = every[every // self.d % 3 == part]
                found |= self._linear(
                    f"{at}.attn.{name}_proj", block.attention.query_key_value, rows
                )
            found |= self._linear(f"{at}.attn.o_proj", block.attention.dense)
            found |= self._linear(f"{at}.mlp.up_proj", block.mlp.dense_h_to_4h)
            found |= self._linear(f"{at}.mlp.down_proj", block.mlp.dense_4h_to_h)
        return found


class Llama(ByHand):
    """Llama, and what the architectures that come from it do otherwise."""

    gain_offset = 0.0
    act: Callable[[Tensor], Tensor] = staticmethod(silu)

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.model
        x = taps("embed.out", self.embedded(ids))
        for i, block in enumerate(stem.layers):
            x = self.block(taps.inside(f"layers.{i}."), block, i, x, mask, positions)
        x = self.norm(taps.inside("final_norm."), stem.norm, x)
        return x @ self.model.lm_head.weight.T

    def embedded(self, ids: Tensor) -> Tensor:
        return self.model.model.embed_tokens.weight[ids]

    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        return rms_norm(taps, module, x, self.config.rms_norm_eps, self.gain_offset)

    def unseen_norm(self, module: Any, x: Tensor) -> Tensor:
        """A norm that is no point."""
        return self.norm(Taps(), module, x)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        return taps("resid_post", x + self.mlp(taps, block.mlp, h))

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return taps("mlp.contribution", gated_mlp(taps, module, h, self.act))

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        h = attn("in", h)
        q, k, v = (
            attn(name, x.reshape(*h.shape[:2], -1, self.d))
            for name, x in zip("qkv", self.projected(module, h), strict=True)
        )
        q, k = self.normed(attn, module, q, k)
        rotary = self.rotary(i)
        turned = int(self.d * rotary.get("partial_rotary_factor", 1))
        q = attn("q_rot", rotated(q, positions, rotary["rope_theta"], turned))
        k = attn("k_rot", rotated(k, positions, rotary["rope_theta"], turned))
        z = mixed(attn, q, k, v, visible(mask, self.window(i)), self.scale(), self.cap())
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def projected(self, module: Any, h: Tensor) -> tuple[Tensor, ...]:
        return tuple(linear(m, h) for m in (module.q_proj, module.k_proj, module.v_proj))

    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k

    def rotary(self, i: int) -> dict[str, Any]:
        return self.config.rope_parameters

    def window(self, i: int) -> int | None:
        return None

    def scale(self) -> float:
        return self.d**-0.5

    def cap(self) -> float | None:
        return None

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.model
        found = {
            "embed.weight": Stored(stem.embed_tokens.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", stem.norm, self.gain_offset),
        }
        for i, block in enumerate(stem.layers):
            at = f"layers.{i}"
            found |= self.norms(at, block)
            found |= self.attention_parameters(f"{at}.attn", block.self_attn)
            found |= self.mlp_parameters(f"{at}.mlp", block.mlp)
        return found

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.input_layernorm),
            **self._norm(f"{at}.mlp.norm", block.post_attention_layernorm),
        }

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = {}
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found |= self._linear(f"{at}.{name}", getattr(module, name))
        for name in ("q_norm", "k_norm"):
            if hasattr(module, name):
                found |= self._norm(f"{at}.{name}", getattr(module, name), self.gain_offset)
        return found

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = {}
        for name in ("gate_proj", "up_proj", "down_proj"):
            found |= self._linear(f"{at}.{name}", getattr(module, name))
        return found


class Gemma2(Llama):
    gain_offset = 1.0
    act = staticmethod(gelu_tanh)

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        logits = super().forward(taps, ids, mask, positions)
        cap = self.config.final_logit_softcapping
        return logits if cap is None else cap * (logits / cap).tanh()

    def embedded(self, ids: Tensor) -> Tensor:
        return super().embedded(ids) * math.sqrt(self.config.hidden_size)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        a = taps("attn.contribution", self.unseen_norm(block.post_attention_layernorm, a))
        x = taps("resid_mid", x + a)
        h = self.norm(taps.inside("mlp.norm."), block.pre_feedforward_layernorm, x)
        y = gated_mlp(taps, block.mlp, h, self.act)
        y = taps("mlp.contribution", self.unseen_norm(block.post_feedforward_layernorm, y))
        return taps("resid_post", x + y)

    def window(self, i: int) -> int | None:
        sliding = self.config.layer_types[i] == "sliding_attention"
        return self.config.sliding_window if sliding else None

    def scale(self) -> float:
        return self.config.query_pre_attn_scalar**-0.5

    def cap(self) -> float | None:
        return self.config.attn_logit_softcapping

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.input_layernorm, 1),
            **self._norm(f"{at}.attn.post_norm", block.post_attention_layernorm, 1),
            **self._norm(f"{at}.mlp.norm", block.pre_feedforward_layernorm, 1),
            **self._norm(f"{at}.mlp.post_norm", block.post_feedforward_layernorm, 1),
        }


class Mixtral(Llama):
    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return expert_mlp(taps, module, h, normalise=True)

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        gate_up, down = module.experts.gate_up_proj, module.experts.down_proj
        found = {f"{at}.router": Stored(module.gate.weight)}
        half = gate_up.shape[1] // 2
        for e in range(len(gate_up)):
            name = f"{at}.experts.{e}"
            found[f"{name}.gate_proj"] = Stored(gate_up, lambda stored, e=e: stored[e, :half])
            found[f"{name}.up_proj"] = Stored(gate_up, lambda stored, e=e: stored[e, half:])
            found[f"{name}.down_proj"] = Stored(down, lambda stored, e=e: stored[e])
        return found


class Mistral(Llama):
    def window(self, i: int) -> int | None:
        return self.config.sliding_window


class Qwen3(Llama):
    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q = attn("q_normed", self.unseen_norm(module.q_norm, q))
        return q, attn("k_normed", self.unseen_norm(module.k_norm, k))


class Qwen3Moe(Qwen3):
    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        if hasattr(module, "experts"):
            return expert_mlp(taps, module, h, self.config.norm_topk_prob)
        return super().mlp(taps, module, h)

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        kind = Mixtral if hasattr(module, "experts") else Llama
        return kind.mlp_parameters(self, at, module)  # type: ignore[arg-type]


class Gemma3(Gemma2):
    normed = Qwen3.normed

    def rotary(self, i: int) -> dict[str, Any]:
        return self.config.rope_parameters[self.config.layer_types[i]]

    def cap(self) -> float | None:
        return None


class Olmo2(Llama):
    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, x.clone(), mask, positions)
        a = self.unseen_norm(block.post_attention_layernorm, a)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        y = gated_mlp(taps, block.mlp, x.clone(), self.act)
        y = self.unseen_norm(block.post_feedforward_layernorm, y)
        return taps("resid_post", x + taps("mlp.contribution", y))

    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = (
            self.unseen_norm(norm, heads.flatten(2)).view_as(heads)
            for norm, heads in ((module.q_norm, q), (module.k_norm, k))
        )
        return attn("q_normed", q), attn("k_normed", k)

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.post_norm", block.post_attention_layernorm),
            **self._norm(f"{at}.mlp.post_norm", block.post_feedforward_layernorm),
        }


class Phi3(Llama):
    def cuts(self) -> dict[str, slice]:
        """Rows of queries, keys and values."""
        q, k = (n * self.d for n in (self.config.num_attention_heads, 2))
        return {"q": slice(q), "k": slice(q, q + k), "v": slice(q + k, q + 2 * k)}

    def projected(self, module: Any, h: Tensor) -> tuple[Tensor, ...]:
        fused = linear(module.qkv_proj, h)
        return tuple(fused[..., rows] for rows in self.cuts().values())

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        mlp = taps.inside("mlp.")
        fused = linear(module.gate_up_proj, mlp("in", h))
        half = fused.shape[-1] // 2
        gate = mlp("pre_activation", fused[..., :half])
        up = mlp("pre_linear", fused[..., half:])
        y = mlp("out", linear(module.down_proj, mlp("post_activation", silu(gate) * up)))
        return mlp("contribution", y)

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = self._linear(f"{at}.o_proj", module.o_proj)
        for name, rows in self.cuts().items():
            found |= self._linear(f"{at}.{name}_proj", module.qkv_proj, rows)
        return found

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        half = self.config.intermediate_size
        return {
            **self._linear(f"{at}.gate_proj", module.gate_up_proj, slice(half)),
            **self._linear(f"{at}.up_proj", module.gate_up_proj, slice(half, None)),
            **self._linear(f"{at}.down_proj", module.down_proj),
        }


ARCHITECTURES: dict[str, type[ByHand]] = {
    "gpt2": GPT2,
    "gpt_neox": GPTNeoX,
    "llama": Llama,
    "gemma2": Gemma2,
    "mixtral": Mixtral,
    "mistral": Mistral,
    "qwen2": Llama,
    "qwen3": Qwen3,
    "qwen3_moe": Qwen3Moe,
    "gemma3_text": Gemma3,
    "olmo2": Olmo2,
    "phi3": Phi3,
}
"""By transformers' ``model_type``."""


def by_hand(family: str, path: Path) -> ByHand:
    """The model of a checkpoint."""
    return ARCHITECTURES[family](path)
