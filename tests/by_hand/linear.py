"""Hybrids of attention and linear attention: Qwen 3.5, Qwen3-Next, OLMo hybrid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from tests.by_hand.arithmetic import Taps, expert_mlp, linear, mixed, rms_norm, visible, written
from tests.by_hand.base import Stored
from tests.by_hand.llama import Llama, Mixtral
from tests.by_hand.recurrences import convolved, delta_rule
from tests.by_hand.relatives import Olmo2, Qwen3


class Hybrid(Llama):
    """A block whose first half attends, or is a mixer of another kind."""

    mixer = "linear_attn"
    first_norm = "input_layernorm"
    second_norm = "post_attention_layernorm"
    mlp_module = "mlp"

    def kind(self, block: Any) -> str:
        return "mixer" if hasattr(block, self.mixer) else "attn"

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        kind = self.kind(block)
        x = taps("resid_pre", x)
        h = self.norm(taps.inside(f"{kind}.norm."), getattr(block, self.first_norm), x)
        a = self.first_half(taps, block, i, h, mask, positions)
        x = taps("resid_mid", x + taps(f"{kind}.contribution", a))
        h = self.norm(taps.inside("mlp.norm."), getattr(block, self.second_norm), x)
        return taps("resid_post", x + self.mlp(taps, getattr(block, self.mlp_module), h))

    def first_half(
        self, taps: Taps, block: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        if self.kind(block) == "attn":
            return self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        taps = taps.inside("mixer.")
        h = taps("in", h) * mask[:, :, None]
        return self.mix(taps, getattr(block, self.mixer), h, mask)

    def mix(self, taps: Taps, module: Any, h: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.model
        found = {
            "embed.weight": Stored(stem.embed_tokens.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", self.final_norm(), self.gain_offset),
        }
        for i, block in enumerate(stem.layers):
            at = f"layers.{i}"
            found |= self.norms(at, block)
            if self.kind(block) == "attn":
                found |= self.attention_parameters(f"{at}.attn", block.self_attn)
            else:
                found |= self.mixer_parameters(f"{at}.mixer", getattr(block, self.mixer))
            found |= self.mlp_parameters(f"{at}.mlp", getattr(block, self.mlp_module))
        return found

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        first, second = getattr(block, self.first_norm), getattr(block, self.second_norm)
        return {
            **self._norm(f"{at}.{self.kind(block)}.norm", first, self.gain_offset),
            **self._norm(f"{at}.mlp.norm", second, self.gain_offset),
        }

    def mixer_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        raise NotImplementedError

    def _of_mixer(self, at: str, module: Any, *names: str) -> dict[str, Stored]:
        return {f"{at}.{name}": Stored(getattr(module, name)) for name in names}

    def _convolution(self, at: str, module: Any) -> dict[str, Stored]:
        found = {f"{at}.conv.weight": Stored(module.weight, lambda stored: stored[:, 0])}
        if module.bias is not None:
            found[f"{at}.conv.bias"] = Stored(module.bias)
        return found


class DeltaNet(Hybrid):
    """Linear layers by the gated delta rule."""

    out_norm, out_projection = "norm", "out_proj"
    most_of_beta = 1.0
    eps = 1e-6

    def read_by(self, module: Any) -> dict[str, Tensor]:
        """Rows that q, k, v, beta, decay and gate are projected by, [·, D]; gradients reach what is stored."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, int, int, int]:
        c = self.config
        return (
            c.linear_num_key_heads,
            c.linear_key_head_dim,
            c.linear_num_value_heads,
            c.linear_value_head_dim,
        )

    def mix(self, taps: Taps, module: Any, h: Tensor, mask: Tensor) -> Tensor:
        groups, state, heads, width = self.sizes()
        rows = self.read_by(module)
        q, k, v = (h @ rows[name].T for name in "qkv")
        both = convolved(taps, module.conv1d, torch.cat([q, k, v], -1))
        q, k, v = both.split([groups * state, groups * state, heads * width], -1)
        beta = (h @ rows["beta"].T).sigmoid() * self.most_of_beta
        decay = -module.A_log.exp() * softplus(h @ rows["decay"].T + module.dt_bias)
        q, k = (x.unflatten(-1, (groups, state)) for x in (q, k))
        out = delta_rule(taps, q, k, v.unflatten(-1, (heads, width)), beta, decay)
        gate = taps("gate", h @ rows["gate"].T).unflatten(-1, (heads, width))
        normed = rms_norm(Taps(), getattr(module, self.out_norm), out, self.eps)
        gated = taps("gated", (normed * silu(gate)).flatten(2))
        return taps("out", linear(getattr(module, self.out_projection), gated))

    def mixer_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        return {
            **self.projections(at, module),
            **self._convolution(at, module.conv1d),
            **self._of_mixer(at, module, "A_log", "dt_bias"),
            f"{at}.out_norm.weight": Stored(getattr(module, self.out_norm).weight),
            f"{at}.out_proj": Stored(getattr(module, self.out_projection).weight),
        }

    def projections(self, at: str, module: Any) -> dict[str, Stored]:
        raise NotImplementedError


class Qwen35(DeltaNet):
    gain_offset = 1.0
    normed = Qwen3.normed

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        h = attn("in", h)
        both = linear(module.q_proj, h).reshape(*h.shape[:2], -1, 2, self.d)
        q = attn("q", both[..., 0, :])
        k = attn("k", linear(module.k_proj, h).reshape(*h.shape[:2], -1, self.d))
        v = attn("v", linear(module.v_proj, h).reshape(*h.shape[:2], -1, self.d))
        gate = attn("gate", both[..., 1, :])
        q, k = self.turned(attn, module, i, q, k, positions)
        z = mixed(attn, q, k, v, visible(mask, None), self.scale())
        return written(attn, z * gate.sigmoid(), module.o_proj.weight, module.o_proj.bias)

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = super().attention_parameters(at, module)
        for half, name in enumerate(("q_proj", "gate_proj")):
            found[f"{at}.{name}"] = Stored(
                module.q_proj.weight,
                lambda stored, half=half: stored.view(-1, 2, self.d, stored.shape[-1])[
                    :, half
                ].flatten(0, 1),
            )
        return found

    def read_by(self, module: Any) -> dict[str, Tensor]:
        return {name: stored.read(stored.parameter) for name, stored in self.rows(module).items()}

    def rows(self, module: Any) -> dict[str, Stored]:
        groups, state, *_ = self.sizes()
        keys = groups * state
        fused = module.in_proj_qkv.weight
        return {
            "q": Stored(fused, lambda stored: stored[:keys]),
            "k": Stored(fused, lambda stored: stored[keys : 2 * keys]),
            "v": Stored(fused, lambda stored: stored[2 * keys :]),
            "beta": Stored(module.in_proj_b.weight),
            "decay": Stored(module.in_proj_a.weight),
            "gate": Stored(module.in_proj_z.weight),
        }

    def projections(self, at: str, module: Any) -> dict[str, Stored]:
        return {f"{at}.{name}_proj": stored for name, stored in self.rows(module).items()}


def shared_expert_mlp(taps: Taps, module: Any, x: Tensor, normalise: bool) -> Tensor:
    """Experts, and one of all tokens, multiplied by a gate."""
    inner = Taps(taps.edits, taps.values, taps.prefix)
    unfinished = {f"{taps.prefix}mlp.{name}": 0 for name in ("out", "contribution")}
    inner.edits = {n: e for n, e in taps.edits.items() if n not in unfinished}
    chosen = expert_mlp(inner, module, x, normalise)
    taps = taps.inside("mlp.")
    x = taps.values[f"{taps.prefix}in"]
    expert = module.shared_expert
    neurons = silu(linear(expert.gate_proj, x)) * linear(expert.up_proj, x)
    neurons = taps("shared.post_activation", neurons)
    gate = taps("shared.gate", linear(module.shared_expert_gate, x))
    shared = taps("shared.out", gate.sigmoid() * linear(expert.down_proj, neurons))
    return taps("contribution", taps("out", chosen + shared))


class _SharedExpert:
    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        if not hasattr(module, "experts"):
            return Llama.mlp(self, taps, module, h)  # type: ignore[arg-type]
        return shared_expert_mlp(taps, module, h, getattr(module.gate, "norm_topk_prob", True))

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        if not hasattr(module, "experts"):
            return Llama.mlp_parameters(self, at, module)  # type: ignore[arg-type]
        found = Mixtral.mlp_parameters(self, at, module)  # type: ignore[arg-type]
        for name in ("gate_proj", "up_proj", "down_proj"):
            found[f"{at}.shared.{name}"] = Stored(getattr(module.shared_expert, name).weight)
        return found | {f"{at}.shared.gate": Stored(module.shared_expert_gate.weight)}


class Qwen35Moe(_SharedExpert, Qwen35):
    pass


class Qwen3Next(_SharedExpert, Qwen35):
    def rows(self, module: Any) -> dict[str, Stored]:
        """Of each group its queries, keys, values and gates side by side; elsewhere its β and its decay."""
        groups, state, heads, width = self.sizes()
        of_group = heads // groups
        first = module.in_proj_qkvz.weight
        lengths = [state, state, of_group * width, of_group * width]
        found, start = {}, 0
        for name, length in zip(("q", "k", "v", "gate"), lengths, strict=True):
            cut = slice(start, start + length)
            found[name] = Stored(
                first, lambda s, cut=cut: s.view(groups, -1, s.shape[-1])[:, cut].flatten(0, 1)
            )
            start += length
        for index, name in enumerate(("beta", "decay")):
            cut = slice(index * of_group, (index + 1) * of_group)
            found[name] = Stored(
                module.in_proj_ba.weight,
                lambda s, cut=cut: s.view(groups, -1, s.shape[-1])[:, cut].flatten(0, 1),
            )
        return found


class OlmoHybrid(DeltaNet):
    """Linear layers with norms before what they do; the others as OLMo 2's."""

    normed = Olmo2.normed
    out_norm, out_projection = "o_norm", "o_proj"
    most_of_beta = 2.0
    eps = 1e-5

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        kind = Olmo2 if self.kind(block) == "attn" else Hybrid
        return kind.block(self, taps, block, i, x, mask, positions)  # type: ignore[arg-type]

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        kind = Olmo2 if self.kind(block) == "attn" else Hybrid
        return kind.norms(self, at, block)  # type: ignore[arg-type]

    def read_by(self, module: Any) -> dict[str, Tensor]:
        names = {"q": "q", "k": "k", "v": "v", "beta": "b", "decay": "a", "gate": "g"}
        return {n: getattr(module, f"{stored}_proj").weight for n, stored in names.items()}

    def projections(self, at: str, module: Any) -> dict[str, Stored]:
        return {f"{at}.{name}_proj": Stored(w) for name, w in self.read_by(module).items()}
