"""Latent attention: how its points hang together, what is not there, and what generation can show of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.execution import admission
from garcon_jupyter.errors import PointUnavailable
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK, Case, apart, wrong

FAR = 0.1
"""Relative distance from which on two tensors are two different things."""


LATENT = [name for name, config in checkpoints.FAMILIES.items() if "kv_lora_rank" in config]

UNTURNED = "kimi_linear"
"""Whose attention knows of no positions: a whole key is ``attn.k``."""

of_latent_attention = pytest.mark.parametrize("case", LATENT, indirect=True)


@pytest.fixture
def values(case: Case) -> dict[str, Tensor]:
    return case.ours.values(IDS, MASK, case.ours.catalog.names())


@of_latent_attention
def test_how_queries_keys_and_values_are_made(case: Case, values: dict[str, Tensor]) -> None:
    at, get = "layers.1.attn", case.ours.parameter
    q_latent, kv_latent = values[f"{at}.q_latent"], values[f"{at}.kv_latent"]
    assert apart(values[f"{at}.q"].flatten(2), q_latent @ get(f"{at}.q_b_proj").T) <= 1e-5
    assert apart(values[f"{at}.k_nope"].flatten(2), kv_latent @ get(f"{at}.k_b_proj").T) <= 1e-5
    assert apart(values[f"{at}.v"].flatten(2), kv_latent @ get(f"{at}.v_b_proj").T) <= 1e-5
    stream = values[f"{at}.in"]
    assert apart(values[f"{at}.k_rope"], stream @ get(f"{at}.k_rope_proj").T) <= 1e-5
    for latent, name in ((q_latent, "q_a"), (kv_latent, "kv_a")):
        raw = stream @ get(f"{at}.{name}_proj").T
        normalized = raw / (raw.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        assert apart(latent, normalized * get(f"{at}.{name}_norm.weight")) <= 1e-5
        assert apart(latent, raw) > FAR


@of_latent_attention
def test_a_key_is_its_own_part_beside_the_shared_one(case: Case, values: dict[str, Tensor]) -> None:
    at, sizes = "layers.1.attn", case.ours.catalog.sizes
    whole = values[f"{at}.k" if case.name == UNTURNED else f"{at}.k_rot"]
    own, turned = whole.split([sizes["d_n"], sizes["d_r"]], -1)
    assert torch.equal(own, values[f"{at}.k_nope"])
    assert torch.equal(turned, turned[:, :, :1].expand_as(turned))
    if case.name == UNTURNED:
        assert torch.equal(turned[:, :, 0], values[f"{at}.k_rope"])
        return
    first = values[f"{at}.k_rope"][:, 0]  # position 0 turns nothing, but may put pairs apart
    assert torch.equal(turned[:, 0, 0].sort(-1).values, first.sort(-1).values)
    assert apart(turned[:, 5, 0], values[f"{at}.k_rope"][:, 5]) > FAR
    q = values[f"{at}.q"], values[f"{at}.q_rot"]
    assert torch.equal(*(x[..., : sizes["d_n"]] for x in q))
    assert apart(*(x[:, 5, :, sizes["d_n"] :] for x in q)) > FAR


@of_latent_attention
def test_one_key_for_all_is_refused(case: Case, values: dict[str, Tensor]) -> None:
    if case.name == UNTURNED:
        with pytest.raises(PointUnavailable, match="knows of no positions"):
            case.ours.catalog.point("layers.1.attn.k_rot")
        return
    with pytest.raises(PointUnavailable, match=r"attn\.k_rot is the whole"):
        case.ours.catalog.point("layers.1.attn.k")


@of_latent_attention
def test_values_are_narrower_than_queries(case: Case, values: dict[str, Tensor]) -> None:
    sizes = case.ours.catalog.sizes
    assert values["layers.1.attn.z"].shape == (2, 9, sizes["H"], sizes["d_v"])
    assert sizes["d_v"] < sizes["d"] == sizes["d_n"] + sizes["d_r"]
    assert case.ours.parameter("layers.1.attn.o_proj").shape == (48, sizes["H"] * sizes["d_v"])


@of_latent_attention
@pytest.mark.parametrize("name", ["k_nope", "v", "whole"])
def test_what_is_made_anew_at_each_step_is_refused_in_generation(
    case: Case, values: dict[str, Tensor], name: str
) -> None:
    """Its values would be those of all tokens, and an edit would be forgotten at the next step."""
    if name == "whole":
        name = "k" if case.name == UNTURNED else "k_rot"
    with pytest.raises(PointUnavailable, match=r"while generating.*kv_latent"):
        case.ours.run(generation(f"layers.1.attn.{name}"))


def test_a_cache_is_counted_by_what_it_keeps() -> None:
    """Latents, not the keys and values of all heads, of which there would be several times as many."""
    sizes = {"V": 263, "D": 48, "M": 80, "H": 4, "K": 4, "d": 20, "d_r": 8, "r_kv": 20}
    ruler = admission.Admission(Mesh.solo(), torch.nn.Linear(2, 2), 3, sizes)
    batch = wire.Batch(torch.zeros(5, 7, dtype=torch.long))
    needs = ruler._needs(wire.Generate(batch=batch, options={"max_new_tokens": 3}))
    (cache,) = (need.count for need in needs if need.what == "the key-value cache")
    assert cache == 5 * (7 + 3) * (20 + 8) * 3 * 4


def generation(point: str) -> wire.Generate:
    code = wire.Code(cloudpickle.dumps(lambda context, tensor: None), "look", "look")
    probes = (wire.ProbeSpec(point, code),)
    return wire.Generate(
        "test", batch=wire.Batch(IDS), probes=probes, options={"max_new_tokens": 2}
    )


@of_latent_attention
@pytest.mark.parametrize("part", ["kv_latent", "k_rope"])
def test_what_a_cache_keeps_is_edited_for_all_later_steps(
    case: Case, values: dict[str, Tensor], part: str
) -> None:
    """Against plain transformers that reads the whole text again for each token, edited at each position."""
    module, columns = {
        "kv_latent": ("kv_a_layernorm", slice(None)),
        "k_rope": ("kv_a_proj_with_mqa", slice(-case.ours.catalog.sizes["d_r"], None)),
    }[part]
    plain: Any = AutoModelForCausalLM.from_pretrained(case.path, dtype=torch.float32)
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True}
    read_again = {**options, "use_cache": False, "return_dict_in_generate": True}
    clean = plain.generate(IDS[:1], **read_again)

    def halved(m: object, a: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[..., columns] *= -1.0
        return out

    plain.get_submodule(f"model.layers.1.self_attn.{module}").register_forward_hook(halved)
    theirs = plain.generate(IDS[:1], **read_again)
    probe = {f"layers.1.attn.{part}": lambda context, value: -value}
    ours = case.ours.generated(IDS[:1], None, probe, **options)
    assert ours is not None and ours.logits is not None
    assert torch.equal(ours.ids, theirs.sequences)
    assert apart(ours.logits, torch.stack(theirs.logits)) <= 1e-4
    assert apart(torch.stack(theirs.logits), torch.stack(clean.logits)) > FAR


def test_queries_that_are_not_compressed(tmp_path: Path) -> None:
    """As in Moonlight and DeepSeek V2 Lite: q is there all the same, and what is not says why."""
    path = checkpoints.make("deepseek_v3", tmp_path, q_lora_rank=None)
    ours = BareRank(path)
    plain: Any = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    seen: dict[str, Tensor] = {}
    plain.get_submodule("model.layers.1.self_attn.q_proj").register_forward_hook(
        lambda m, a, out: seen.update({"layers.1.attn.q": out.unflatten(-1, (4, 20))})
    )
    with torch.no_grad():
        logits = plain(IDS).logits
    assert wrong(ours.values(IDS, None, list(seen)), seen, 1e-5) == {}
    assert apart(ours.forward(IDS), logits) <= 1e-5
    assert ours.parameter("layers.1.attn.q_proj").shape == (80, 48)
    with pytest.raises(PointUnavailable, match="from the stream itself"):
        ours.catalog.point("layers.1.attn.q_latent")
