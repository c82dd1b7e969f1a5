"""State spaces: Mamba, Mamba-2, and hybrids of these and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.by_hand.arithmetic import Taps, expert_mlp, linear, rms_norm, routed
from tests.by_hand.base import ByHand, Stored
from tests.by_hand.linear import Hybrid
from tests.by_hand.llama import Mixtral
from tests.by_hand.recurrences import convolved, state_space


def mamba_mix(taps: Taps, module: Any, h: Tensor, mask: Tensor) -> Tensor:
    """Mamba: each channel is a head of its own."""
    real = mask[:, :, None]
    x, gate = linear(module.in_proj, h).chunk(2, -1)
    x = convolved(taps, module.conv1d, x) * real
    state = module.A_log.shape[1]
    low, write, read = (x @ module.x_proj.weight.T).split(
        [module.dt_proj.in_features, state, state], -1
    )
    if hasattr(module, "dt_layernorm"):  # Jamba's
        norms = (module.dt_layernorm, module.b_layernorm, module.c_layernorm)
        eps = module.dt_layernorm.variance_epsilon
        low, write, read = (
            rms_norm(Taps(), norm, part, eps)
            for norm, part in zip(norms, (low, write, read), strict=True)
        )
    steps = low @ module.dt_proj.weight.T
    gate = taps("gate", gate)
    speed = -module.A_log.exp()
    out = state_space(
        taps,
        x[..., None],
        steps,
        write[:, :, None],
        read[:, :, None],
        speed,
        module.dt_proj.bias,
        module.D,
    )
    return taps("out", linear(module.out_proj, taps("gated", out[..., 0] * silu(gate))))


def mamba_parameters(at: str, module: Any) -> dict[str, Stored]:
    """Mamba's."""
    inner, state = module.A_log.shape
    low = module.dt_proj.in_features
    found = {f"{at}.{name}": Stored(getattr(module, name)) for name in ("A_log", "D")}
    found |= {
        f"{at}.conv.weight": Stored(module.conv1d.weight, lambda stored: stored[:, 0]),
        f"{at}.conv.bias": Stored(module.conv1d.bias),
        f"{at}.dt_proj": Stored(module.dt_proj.weight),
        f"{at}.dt_bias": Stored(module.dt_proj.bias),
        f"{at}.dt_down_proj": Stored(module.x_proj.weight, lambda stored: stored[:low]),
        f"{at}.B_proj": Stored(module.x_proj.weight, lambda stored: stored[low : low + state]),
        f"{at}.C_proj": Stored(module.x_proj.weight, lambda stored: stored[low + state :]),
    }
    rows = {"x_proj": slice(inner), "gate_proj": slice(inner, None)}
    return found | projections(at, module, rows)


def projections(at: str, module: Any, rows: dict[str, slice]) -> dict[str, Stored]:
    """Of a mixer: what is cut out of its one input projection, and its output projection."""
    found = {f"{at}.out_proj": Stored(module.out_proj.weight)}
    if module.out_proj.bias is not None:
        found[f"{at}.out_proj.bias"] = Stored(module.out_proj.bias)
    for name, cut in rows.items():
        found[f"{at}.{name}"] = Stored(module.in_proj.weight, lambda s, cut=cut: s[cut])
        if module.in_proj.bias is not None:
            found[f"{at}.{name}.bias"] = Stored(module.in_proj.bias, lambda s, cut=cut: s[cut])
    return found


def mamba2_mix(
    taps: Taps, module: Any, h: Tensor, mask: Tensor, factors: Tensor | float = 1.0
) -> Tensor:
    """Mamba-2: gate, x, B, C and steps of one projection; a norm of each group of what was gated.

    Args:
        factors: that what is projected is multiplied with.
    """
    real = mask[:, :, None]
    inner, groups, state, heads = sizes(module)
    projected = linear(module.in_proj, h) * factors
    gate, both, dt = projected.split([inner, inner + 2 * groups * state, heads], -1)
    both = convolved(taps, module.conv1d, both) * real
    x, write, read = both.split([inner, groups * state, groups * state], -1)
    write, read = (part.unflatten(-1, (groups, state)) for part in (write, read))
    x, speed = x.unflatten(-1, (heads, -1)), -module.A_log.exp()
    shortest = module.time_step_limit[0]
    out = state_space(taps, x, dt, write, read, speed, module.dt_bias, module.D, shortest).flatten(
        2
    )
    out = out * silu(taps("gate", gate))
    if not hasattr(module.norm, "weight"):
        return taps("out", linear(module.out_proj, taps("gated", out)))
    group = getattr(
        module.norm, "group_size", inner
    )  # transformers 5.22 has one group, whatever the model says
    by_group = out.unflatten(-1, (inner // group, -1))
    scale = ((by_group**2).mean(-1, keepdim=True) + module.norm.variance_epsilon) ** 0.5
    gated = taps("gated", (by_group / scale).flatten(-2) * module.norm.weight)
    return taps("out", linear(module.out_proj, gated))


def sizes(module: Any) -> tuple[int, int, int, int]:
    """Inner width, groups, state and heads of Mamba-2."""
    inner, heads, groups = module.out_proj.in_features, len(module.A_log), module.n_groups
    return inner, groups, (module.conv1d.in_channels - inner) // (2 * groups), heads


def mamba2_parameters(at: str, module: Any) -> dict[str, Stored]:
    """Mamba-2's."""
    inner, groups, state, heads = sizes(module)
    found = {f"{at}.{name}": Stored(getattr(module, name)) for name in ("A_log", "D", "dt_bias")}
    found |= {
        f"{at}.conv.weight": Stored(module.conv1d.weight, lambda stored: stored[:, 0]),
    }
    if hasattr(module.norm, "weight"):
        found[f"{at}.out_norm.weight"] = Stored(module.norm.weight)
    if module.conv1d.bias is not None:
        found[f"{at}.conv.bias"] = Stored(module.conv1d.bias)
    names = ("gate_proj", "x_proj", "B_proj", "C_proj", "dt_proj")
    rows, start = {}, 0
    for name, length in zip(
        names, (inner, inner, groups * state, groups * state, heads), strict=True
    ):
        rows[name] = slice(start, start + length)
        start += length
    return found | projections(at, module, rows)


class Mamba(ByHand):
    """A mixer in each layer, and nothing beside it."""

    mix = staticmethod(mamba_mix)
    of_mixer = staticmethod(mamba_parameters)

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.backbone
        eps = self.config.layer_norm_epsilon
        x = taps("embed.out", stem.embeddings.weight[ids])
        for i, block in enumerate(stem.layers):
            inside = taps.inside(f"layers.{i}.")
            x = inside("resid_pre", x)
            h = rms_norm(inside.inside("mixer.norm."), block.norm, x, eps)
            mixer = inside.inside("mixer.")
            h = mixer("in", h) * mask[:, :, None]
            x = inside(
                "resid_post", x + mixer("contribution", self.mix(mixer, block.mixer, h, mask))
            )
        return (
            rms_norm(taps.inside("final_norm."), stem.norm_f, x, eps) @ self.model.lm_head.weight.T
        )

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.backbone
        found = {
            "embed.weight": Stored(stem.embeddings.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", stem.norm_f),
        }
        for i, block in enumerate(stem.layers):
            found |= self._norm(f"layers.{i}.mixer.norm", block.norm)
            found |= self.of_mixer(f"layers.{i}.mixer", block.mixer)
        return found


class Mamba2(Mamba):
    mix = staticmethod(mamba2_mix)
    of_mixer = staticmethod(mamba2_parameters)


class StateSpaceHybrid(Hybrid):
    """Layers that attend, and layers of Mamba-2."""

    mixer = "mamba"

    def kind(self, block: Any) -> str:
        return "mixer" if getattr(block, self.mixer, None) is not None else "attn"

    def mix(self, taps: Taps, module: Any, h: Tensor, mask: Tensor) -> Tensor:
        return mamba2_mix(taps, module, h, mask)

    def mixer_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        return mamba2_parameters(at, module)


class Bamba(StateSpaceHybrid):
    second_norm = "pre_ff_layernorm"
    mlp_module = "feed_forward"

    def final_norm(self) -> Any:
        return self.model.model.final_layernorm


class Jamba(Bamba):
    """Mamba instead, no positions, and experts in some layers."""

    def mix(self, taps: Taps, module: Any, h: Tensor, mask: Tensor) -> Tensor:
        return mamba_mix(taps, module, h, mask)

    def mixer_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        norms = {"B": module.b_layernorm, "C": module.c_layernorm, "dt": module.dt_layernorm}
        found = {f"{at}.{name}_norm.weight": Stored(norm.weight) for name, norm in norms.items()}
        return found | mamba_parameters(at, module)

    def turned(
        self, attn: Taps, module: Any, i: int, q: Tensor, k: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        return q, k

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        if not hasattr(module, "experts"):
            return super().mlp(taps, module, h)
        return expert_mlp(taps, module, h, normalise=False, router=module.router)

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        if not hasattr(module, "experts"):
            return super().mlp_parameters(at, module)
        return Mixtral.mlp_parameters(self, at, module)  # type: ignore[arg-type]


class GraniteHybrid(StateSpaceHybrid):
    """What is added is multiplied; experts beside an MLP of all tokens, or that alone."""

    mlp_module = "shared_mlp"
    turned = Jamba.turned

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return super().forward(taps, ids, mask, positions) / self.config.logits_scaling

    def scale(self) -> float:
        return self.config.attention_multiplier

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        factor, kind = self.config.residual_multiplier, self.kind(block)
        x = taps("resid_pre", x if i else x * self.config.embedding_multiplier)
        h = self.norm(taps.inside(f"{kind}.norm."), block.input_layernorm, x)
        a = self.first_half(taps, block, i, h, mask, positions)
        x = taps("resid_mid", x + taps(f"{kind}.contribution", a * factor))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        y = self.both(taps.inside("mlp."), block, taps("mlp.in", h))
        return taps("resid_post", x + taps("mlp.contribution", y * factor))

    def both(self, mlp: Taps, block: Any, h: Tensor) -> Tensor:
        gate, up = linear(block.shared_mlp.input_linear, h).chunk(2, -1)
        if block.block_sparse_moe is None:
            gate, up = mlp("pre_activation", gate), mlp("pre_linear", up)
            neurons = mlp("post_activation", silu(gate) * up)
            return mlp("out", linear(block.shared_mlp.output_linear, neurons))
        moe = block.block_sparse_moe

        def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
            best = logits.topk(moe.router.top_k, -1)
            return best.values.softmax(-1), best.indices

        chosen = routed(mlp, moe.experts, h, moe.router.weight, choose)
        neurons = mlp("shared.post_activation", silu(gate) * up)
        return mlp(
            "out", chosen + mlp("shared.out", linear(block.shared_mlp.output_linear, neurons))
        )

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        found = super().norms(at, block)
        shared, half = block.shared_mlp, self.config.shared_intermediate_size
        name = f"{at}.mlp"
        if block.block_sparse_moe is not None:
            found |= Mixtral.mlp_parameters(self, name, block.block_sparse_moe)  # type: ignore[arg-type]
            name = f"{name}.shared"
        return found | {
            **self._linear(f"{name}.gate_proj", shared.input_linear, slice(half)),
            **self._linear(f"{name}.up_proj", shared.input_linear, slice(half, None)),
            **self._linear(f"{name}.down_proj", shared.output_linear),
        }

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        return {}


class FalconH1(Bamba):
    """Attention and Mamba-2 side by side behind one norm; everything is multiplied."""

    def kind(self, block: Any) -> str:
        return "attn"

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return super().forward(taps, ids, mask, positions) * self.config.lm_head_multiplier

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        c = self.config
        x = taps("resid_pre", x if i else x * c.embedding_multiplier)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        mixer = taps.inside("mixer.")
        read = mixer("in", h.clone()) * mask[:, :, None] * c.ssm_in_multiplier
        m = mamba2_mix(mixer, block.mamba, read, mask, self.factors(block.mamba))
        m = mixer("contribution", m * c.ssm_out_multiplier)
        h = h * c.attention_in_multiplier
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        a = taps("attn.contribution", a * c.attention_out_multiplier)
        x = taps("resid_mid", x + m + a)
        h = self.norm(taps.inside("mlp.norm."), block.pre_ff_layernorm, x)
        return taps("resid_post", x + self.mlp(taps, block.feed_forward, h))

    def factors(self, module: Any) -> Tensor:
        inner, groups, state, heads = sizes(module)
        lengths = (inner, inner, groups * state, groups * state, heads)
        both = zip(self.config.ssm_multipliers, lengths, strict=True)
        return torch.cat([torch.full((n,), factor, dtype=torch.float64) for factor, n in both])

    def turned(
        self, attn: Taps, module: Any, i: int, q: Tensor, k: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super(Bamba, self).turned(
            attn, module, i, q, k * self.config.key_multiplier, positions
        )

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        mlp, (gate_factor, down_factor) = taps.inside("mlp."), self.config.mlp_multipliers
        h = mlp("in", h)
        gate = mlp("pre_activation", linear(module.gate_proj, h) * gate_factor)
        up = mlp("pre_linear", linear(module.up_proj, h))
        out = mlp("out", linear(module.down_proj, mlp("post_activation", silu(gate) * up)))
        return mlp("contribution", out * down_factor)

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return super().norms(at, block) | mamba2_parameters(f"{at}.mixer", block.mamba)
