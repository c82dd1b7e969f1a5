"""Layers that mix tokens in different ways: each plausible reading that is wrong is told from the right one.

And what their mixers keep while a model generates: a state in place of keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import silu
from transformers import AutoModelForCausalLM

from garcon_jupyter.errors import NotAModel, PointUnavailable
from tests import by_hand, checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK, apart, wrong
from tests.backend.test_wrong_answers import FAR

HYBRIDS = (
    *("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "olmo_hybrid", "granitemoehybrid"),
    *("lfm2", "lfm2_moe", "mamba", "mamba2", "bamba", "jamba", "falcon_h1", "minimax"),
    "kimi_linear",
)
CLAMPED = ("nemotron_h", "zamba2")
"""Whose steps are not shorter than some length where many tokens are read at once, and may be where one is: in
transformers itself what a generation reads is then not what a forward of the whole text does."""
PLAIN_ZAMBA2 = {"use_shared_attention_adapter": False, "use_mem_rope": False}
NEW = 4
EVERY_TOKEN = torch.ones_like(IDS)


class Two:
    """One checkpoint, served by us and by plain transformers."""

    def __init__(self, name: str, path: Path, **more: Any) -> None:
        self.name, self.path = name, checkpoints.make(name, path, **more)
        self.ours = BareRank(self.path)
        self.plain: Any = AutoModelForCausalLM.from_pretrained(
            self.path, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def hooked(self, path: str, ids: Tensor = IDS) -> tuple[Tensor, Tensor]:
        """What a module of the plain model is given, and what it puts out."""
        seen: list[tuple[Any, Any]] = []
        module = self.plain.get_submodule(path)
        handle = module.register_forward_hook(
            lambda m, a, k, o: seen.append(((*a, *k.values()), o)), with_kwargs=True
        )
        with torch.no_grad():
            self.plain(ids)
        handle.remove()
        (given, out), *_ = seen
        return given[0], out if isinstance(out, Tensor) else out[0]

    def value(self, name: str) -> Tensor:
        return self.ours.values(IDS, None, [name])[name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Two]:
    return {}


@pytest.fixture
def two(
    request: pytest.FixtureRequest, made: dict[str, Two], tmp_path_factory: pytest.TempPathFactory
) -> Two:
    name = request.param
    if name not in made:
        made[name] = Two(name, tmp_path_factory.mktemp(name))
    return made[name]


of = pytest.mark.parametrize


# -- generation ------------------------------------------------------------------------------


@of("two", (*HYBRIDS, *CLAMPED), indirect=True)
@of("padded", [False, True])
def test_generation_with_every_point_probed(two: Two, padded: bool) -> None:
    """Tokens are transformers' own, whatever is looked at, and each step of a point is what a forward of all shows."""
    mask = MASK.flip(1) if padded else EVERY_TOKEN
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 2}
    # MiniMax's own cache counts no positions where its first layer keeps no keys: padding would be read.
    reads_again = {"use_cache": False} if two.name == "minimax" and padded else {}
    wanted = two.plain.generate(IDS, attention_mask=mask, **options, **reads_again)
    at = [n for n in two.ours.catalog.names() if n.startswith(("layers.0.", "layers.1."))]
    if two.name == "kimi_linear":  # these are made anew of latents, and refused
        at = [n for n in at if not n.endswith(("attn.k_nope", "attn.k", "attn.v"))]
    seen: dict[str, list[Tensor]] = {}

    def look(context: Any, value: Tensor) -> None:
        seen.setdefault(context.here.point, []).append(value.clone())

    found = two.ours.generated(IDS, mask, dict.fromkeys(at, look), max_new_tokens=NEW)
    assert found is not None and torch.equal(found.ids, wanted)
    assert set(seen) == set(at)
    if padded or two.name in CLAMPED:
        return
    flat = [n for n in at if ".mixer." in n]
    whole = two.ours.values(wanted[:, :-1], None, flat)
    assert wrong({n: torch.cat(seen[n], 1) for n in flat}, whole, 1e-4) == {}


@of("two", ["bamba", "falcon_h1", "nemotron_h", "jamba", "zamba2"], indirect=True)
def test_logits_of_all_of_a_prompt_are_seen(two: Two) -> None:
    """Though some say by their configuration that generation keeps those of the last token."""
    seen: list[Tensor] = []
    look = {"logits": lambda context, value: seen.append(value.clone())}
    two.ours.generated(IDS, None, look, max_new_tokens=2)
    assert apart(seen[0], two.ours.forward(IDS)) <= 1e-5


@of("two", HYBRIDS, indirect=True)
def test_an_edit_of_a_prompt_reaches_later_tokens_through_the_state(two: Two) -> None:
    """As it would without a cache, where every step reads the whole text again."""
    inside = [
        n
        for n in two.ours.catalog.names()
        if n.startswith("layers.0.mixer.") and "norm" not in n and ".out" not in n
    ]
    names = [n for n in inside if n.endswith(("conv_in", ".k", ".v", ".B", ".x", "decay", ".dt"))]
    assert names

    def change(context: Any, value: Tensor) -> Tensor | None:
        if context.here.step and value.shape[1] == 1:
            return None
        new = value.clone()
        new[:, 1:8] = 0.3 * new[:, 1:8].flip(-1)
        return new

    for name in names:
        options = {"max_new_tokens": NEW, "output_scores": True}
        cached, read_again = (
            two.ours.generated(IDS, None, {name: change}, **options, use_cache=use)
            for use in (True, False)
        )
        assert cached is not None and read_again is not None
        assert torch.equal(cached.ids, read_again.ids), name
        assert cached.scores is not None and read_again.scores is not None
        assert apart(cached.scores, read_again.scores) <= 1e-4, name
        free = two.ours.generated(IDS, None, {}, **options)
        assert free is not None and free.scores is not None
        assert apart(cached.scores[1], free.scores[1]) > 1e-5, name


# -- readings that are wrong -----------------------------------------------------------------


@of("two", ["qwen3_next", "qwen3_5_text"], indirect=True)
def test_the_input_of_the_output_projection_is_not_what_heads_mix(two: Two) -> None:
    """A gate is between them: the second half of what each head's queries are projected with, not of all of it."""
    read, _ = two.hooked("model.layers.1.self_attn.o_proj")
    _, projected = two.hooked("model.layers.1.self_attn.q_proj")
    z, gate = two.value("layers.1.attn.z"), two.value("layers.1.attn.gate")
    assert apart((z * gate.sigmoid()).flatten(2), read) <= 1e-5
    assert apart(z.flatten(2), read) > FAR
    of_each = projected.unflatten(-1, (4, 2, 16))
    assert apart(gate, of_each[:, :, :, 1]) <= 1e-5
    assert apart(two.value("layers.1.attn.q"), of_each[:, :, :, 0]) <= 1e-5
    halves = projected.chunk(2, -1)[1].unflatten(-1, (4, 16))
    assert apart(gate, halves) > FAR


@of("two", ["olmo_hybrid"], indirect=True)
def test_one_name_of_a_norm_is_two_things(two: Two) -> None:
    """``post_attention_layernorm`` puts out what attention adds, in layers that attend, and what the MLP reads elsewhere."""
    for layer, here, not_here in ((0, "mlp.in", "mixer"), (1, "attn.contribution", "attn")):
        _, out = two.hooked(f"model.layers.{layer}.post_attention_layernorm")
        assert apart(two.value(f"layers.{layer}.{here}"), out) <= 1e-5
        other = "mixer.contribution" if not_here == "mixer" else "mlp.in"
        assert apart(two.value(f"layers.{layer}.{other}"), out) > FAR


@of("two", ["qwen3_next", "lfm2", "jamba", "kimi_linear"], indirect=True)
def test_patterns_are_counted_by_layer(two: Two) -> None:
    """transformers' list of patterns is of the layers that attend alone: its first is of the second layer."""
    with torch.no_grad():
        patterns = two.plain(IDS, output_attentions=True).attentions
    assert len(patterns) == 2
    assert apart(two.value("layers.1.attn.pattern"), patterns[0]) <= 1e-5
    assert apart(two.value("layers.1.attn.pattern"), patterns[1]) > FAR
    with pytest.raises(PointUnavailable, match="kind (linear|conv|mamba)"):
        two.ours.catalog.point("layers.0.attn.pattern")
    with pytest.raises(PointUnavailable, match="kind attention"):
        two.ours.catalog.point("layers.1.mixer.in")


@of(
    "two",
    ["mamba", "mamba2", "bamba", "jamba", "falcon_h1", "lfm2", "qwen3_next", "kimi_linear"],
    indirect=True,
)
def test_a_convolution_that_is_never_called_is_seen_all_the_same(two: Two) -> None:
    """Its module stays silent; what goes through its weights is ``mixer.conv_in`` and ``conv_out``."""
    path = next(n for n, m in two.plain.named_modules() if isinstance(m, torch.nn.Conv1d))
    module, called = two.plain.get_submodule(path), []
    module.register_forward_hook(lambda *_: called.append(1))
    with torch.no_grad():
        two.plain(IDS)
        x = two.value("layers.0.mixer.conv_in")
        out = module(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
    assert len(called) == 1, "the model called it"
    raw = out if two.name == "lfm2" else silu(out)
    assert apart(two.value("layers.0.mixer.conv_out"), raw) <= 1e-5


@of("two", ["falcon_h1"], indirect=True)
def test_what_is_added_is_multiplied(two: Two) -> None:
    """By numbers of the configuration, which the modules' own outputs do not have in them."""
    config = two.plain.config
    for half, path, factor in (
        ("attn", "self_attn", config.attention_out_multiplier),
        ("mixer", "mamba", config.ssm_out_multiplier),
    ):
        _, out = two.hooked(f"model.layers.1.{path}")
        assert apart(two.value(f"layers.1.{half}.contribution"), out * factor) <= 1e-5
        assert apart(two.value(f"layers.1.{half}.contribution"), out) > 0.05
    _, keys = two.hooked("model.layers.1.self_attn.k_proj")
    first = two.value("layers.1.attn.k_rot")[:, 0].flatten(1)  # the first position is not turned
    assert apart(first, keys[:, 0] * config.key_multiplier) <= 1e-5
    assert apart(first, keys[:, 0]) > FAR


@of("two", ["lfm2"], indirect=True)
def test_neurons_are_counted_as_the_model_has_them(two: Two) -> None:
    config, shape = two.plain.config, two.value("layers.1.mlp.post_activation").shape
    assert shape[-1] == two.ours.catalog.sizes["M"] != config.intermediate_size


@of("two", ["minimax"], indirect=True)
def test_the_stream_goes_on_normed(two: Two) -> None:
    """A layer adds to what its norms put out, times a factor, and not to the stream that they read."""
    config = two.plain.config
    for layer, half, kept in (
        (0, "mixer", config.linear_attn_alpha_factor),
        (1, "attn", config.full_attn_alpha_factor),
    ):
        middle, _ = two.hooked(f"model.layers.{layer}.post_attention_layernorm")
        _, normed = two.hooked(f"model.layers.{layer}.input_layernorm")
        added = two.value(f"layers.{layer}.{half}.contribution")
        assert apart(two.value(f"layers.{layer}.resid_mid"), middle) <= 1e-5
        assert apart(normed * kept + added, middle) <= 1e-5
        assert apart(two.value(f"layers.{layer}.resid_pre") + added, middle) > FAR
        assert apart(two.value(f"layers.{layer}.{half}.out") + normed * kept, middle) > FAR
        _, written = two.hooked(f"model.layers.{layer}.mlp")
        _, left = two.hooked(f"model.layers.{layer}")
        factors = config.mlp_alpha_factor, config.mlp_beta_factor
        normed = two.value(f"layers.{layer}.mlp.norm.out")
        assert apart(normed * factors[0] + written * factors[1], left) <= 1e-5
        assert apart(two.value(f"layers.{layer}.mlp.contribution"), written) > FAR


@of("two", ["minimax"], indirect=True)
def test_states_are_told_among_patterns(two: Two) -> None:
    """transformers' list has one of each layer; those of linear layers are states [b, H, d, d]."""
    with torch.no_grad():
        told = two.plain(IDS, output_attentions=True).attentions
    assert len(told) == 4 and told[0].shape == (2, 4, 16, 16)
    assert apart(two.value("layers.1.attn.pattern"), told[1]) <= 1e-5
    with pytest.raises(PointUnavailable, match="kind linear"):
        two.ours.catalog.point("layers.0.attn.pattern")
    keys = two.value("layers.0.mixer.k")[:, -1]
    _, projected = two.hooked("model.layers.0.self_attn.qkv_proj")
    by_head = silu(projected[:, -1]).unflatten(-1, (4, 3, 16))
    assert apart(keys, by_head[:, :, 1]) <= 1e-5
    thirds = silu(projected[:, -1]).unflatten(-1, (3, 4, 16))
    assert apart(keys, thirds[:, 1]) > FAR


@of("two", ["minimax"], indirect=True)
def test_beams_take_their_states_along(two: Two) -> None:
    """As they do where each step reads all again; transformers' own cache leaves the states where they were."""
    options = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 3}
    cached, again = (
        two.ours.generated(IDS, MASK, {}, **options, output_scores=True, use_cache=use)
        for use in (True, False)
    )
    assert cached is not None and again is not None and torch.equal(cached.ids, again.ids)
    given = {"attention_mask": EVERY_TOKEN, "do_sample": False, "pad_token_id": 2, **options}
    right, theirs = (two.plain.generate(IDS, **given, use_cache=use) for use in (False, True))
    ours = two.ours.generated(IDS, EVERY_TOKEN, {}, **options)
    assert ours is not None and torch.equal(ours.ids, right) and not torch.equal(theirs, right)


@of("two", ["kimi_linear"], indirect=True)
def test_channels_decay_by_themselves_and_a_gate_is_a_sigmoid(two: Two) -> None:
    """Not heads as a whole, as in Gated DeltaNet, whose gate goes through a SiLU."""
    at = "layers.0.mixer"
    decay = two.value(f"{at}.channel_decay")
    read = {name: two.value(f"{at}.{name}") for name in ("q", "k", "v", "beta")}
    state_out = two.value(f"{at}.state_out")
    assert apart(by_delta_rule(decay=decay, **read), state_out) <= 1e-4
    of_heads = decay.mean(-1, keepdim=True).expand_as(decay)
    assert apart(by_delta_rule(decay=of_heads, **read), state_out) > 0.02
    gain, gate = two.ours.parameter(f"{at}.out_norm.weight"), two.value(f"{at}.gate")
    eps = two.plain.config.rms_norm_eps
    normed = state_out / (state_out.square().mean(-1, keepdim=True) + eps).sqrt() * gain
    assert apart(two.value(f"{at}.gated"), normed.flatten(2) * gate.sigmoid()) <= 1e-5
    assert apart(two.value(f"{at}.gated"), normed.flatten(2) * silu(gate)) > FAR
    with pytest.raises(PointUnavailable, match=r"mixer\.channel_decay"):
        two.ours.catalog.point(f"{at}.decay")


def by_delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    """What is read from a state that decays by [b, p, R, N]; as many keys as values."""
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    state, read = torch.zeros(*v.shape[:1], *v.shape[2:], k.shape[-1]), []
    for p in range(v.shape[1]):
        state = state * decay[:, p, :, None].exp()
        known = torch.einsum("brvn,brn->brv", state, k[:, p])
        news = (v[:, p] - known) * beta[:, p, :, None]
        state = state + torch.einsum("brv,brn->brvn", news, k[:, p])
        read.append(torch.einsum("brvn,brn->brv", state, q[:, p] * q.shape[-1] ** -0.5))
    return torch.stack(read, 1)


@of("two", ["kimi_linear"], indirect=True)
def test_no_part_of_a_key_is_turned(two: Two) -> None:
    """Though the configuration and the modules call one the rotary part: a text may be moved along."""
    whole, shared = two.value("layers.1.attn.k"), two.value("layers.1.attn.k_rope")
    assert torch.equal(whole[..., -shared.shape[-1] :], shared[:, :, None].expand(-1, -1, 4, -1))
    with torch.no_grad():
        moved = two.plain(IDS, position_ids=torch.arange(5, 14)[None].expand(2, -1)).logits
    assert apart(two.ours.forward(IDS), moved) <= 1e-5
    with pytest.raises(PointUnavailable, match="knows of no positions"):
        two.ours.catalog.point("layers.1.attn.k_rot")


@of("two", ["zamba2"], indirect=True)
def test_attention_that_layers_share_adds_nothing_to_the_stream(two: Two) -> None:
    """Nor does the MLP after it: both write for the norm of the mixer alone, and read the embedding beside the stream."""
    for layer in (1, 3):
        at, block = f"layers.{layer}", f"model.layers.{layer}"
        before, after = two.value(f"{at}.resid_pre"), two.value(f"{at}.resid_post")
        added, aside = two.value(f"{at}.mixer.contribution"), two.value(f"{at}.mixer.aside")
        assert apart(before + added, after) <= 1e-5 and apart(before + added + aside, after) > FAR
        _, attended = two.hooked(f"{block}.shared_transformer.self_attn")
        assert apart(two.value(f"{at}.attn.out"), attended) <= 1e-5
        assert apart(before + attended, after) > FAR
        read, _ = two.hooked(f"{block}.mamba_decoder.input_layernorm")
        assert apart(before + aside, read) <= 1e-5 and apart(before, read) > FAR
        joint, _ = two.hooked(f"{block}.shared_transformer.self_attn.q_proj")
        assert apart(two.value(f"{at}.attn.joint"), joint) <= 1e-5
        both = torch.cat([before, two.value("embed.out")], -1)
        gain = two.ours.parameter(f"{at}.attn.joint_norm.weight")
        eps = two.plain.config.rms_norm_eps
        assert (
            apart(both / (both.square().mean(-1, keepdim=True) + eps).sqrt() * gain, joint) <= 1e-5
        )
        for name in ("attn.contribution", "mlp.contribution", "resid_mid", "attn.in"):
            with pytest.raises(PointUnavailable, match=r"mixer\.aside|attn\.joint"):
                two.ours.catalog.point(f"{at}.{name}")


@of("two", ["zamba2"], indirect=True)
def test_layers_share_weights_and_each_adds_to_them(two: Two) -> None:
    """What the shared projection alone puts out is not what heads read; its gradient is that of both layers."""
    get = two.ours.parameter
    assert torch.equal(get("layers.1.attn.q_proj"), get("layers.3.attn.q_proj"))
    ups = [get(f"layers.{layer}.attn.q_own_up_proj") for layer in (1, 3)]
    assert apart(*ups) > FAR
    for layer, other in ((1, 3), (3, 1)):
        at = f"layers.{layer}.attn"
        joint, queries = two.value(f"{at}.joint"), two.value(f"{at}.q").flatten(2)
        shared = joint @ get(f"{at}.q_proj").T
        narrow = joint @ get(f"{at}.q_own_down_proj").T
        assert apart(shared + narrow @ get(f"{at}.q_own_up_proj").T, queries) <= 1e-5
        assert apart(shared, queries) > FAR
        wrong_one = joint @ get(f"layers.{other}.attn.q_own_down_proj").T
        wrong_one = shared + wrong_one @ get(f"layers.{other}.attn.q_own_up_proj").T
        assert apart(wrong_one, queries) > FAR
    names = [f"layers.{layer}.attn.q_proj" for layer in (1, 3)]
    found = two.ours.backward(lambda logits: logits.square().mean(), IDS, parameters=names)
    assert torch.equal(*(found[name] for name in names)) and found[names[0]].abs().max() > 0


@of("two", ["zamba2", "minimax"], indirect=True)
def test_rotated_keys_are_edited_for_later_steps(two: Two) -> None:
    """Before the cache keeps them, whichever layer the module says it is of, and whichever cache a model takes."""

    def change(context: Any, value: Tensor) -> Tensor:
        return 0.3 * value.flip(-1)

    options = {"max_new_tokens": 2, "output_scores": True}
    name = "layers.3.attn.k_rot"
    cached, again, free = (
        two.ours.generated(IDS, None, probes, **options, use_cache=use)
        for probes, use in (({name: change}, True), ({name: change}, False), ({}, True))
    )
    assert cached is not None and again is not None and free is not None
    assert apart(cached.scores, again.scores) <= 2e-3  # Zamba2 clamps steps, see CLAMPED
    assert apart(cached.scores, free.scores) > 0.01


# -- shapes of families ----------------------------------------------------------------------


@of(
    ("family", "more", "lacks"),
    [
        ("granitemoehybrid", {"num_local_experts": 0}, "layers.0.mlp.shared.out"),
        ("granitemoehybrid", {"position_embedding_type": "rope"}, "layers.0.mlp.post_activation"),
        ("jamba", {"num_experts": 1}, "layers.1.mlp.router.logits"),
        ("kimi_linear", {"q_lora_rank": None}, "layers.1.attn.q_latent"),
        ("zamba2", {**PLAIN_ZAMBA2, "num_mem_blocks": 1}, "layers.1.attn.q_rot"),
        ("zamba2", {**PLAIN_ZAMBA2, "num_mem_blocks": 2}, "layers.1.attn.k_rot"),
    ],
)
def test_shapes(family: str, more: dict[str, Any], lacks: str, tmp_path: Path) -> None:
    """Without experts, or with positions, or with queries of the stream: what the shape has is right, what it lacks has a reason."""
    two = Two(family, tmp_path, **more)
    with torch.no_grad():
        logits = two.plain(IDS).logits
    names = [n for n in two.ours.catalog.names() if n.startswith(("layers.1.", "layers.0."))]
    values = two.ours.values(IDS, None, names)
    assert apart(two.ours.forward(IDS), logits) <= 1e-5
    with pytest.raises(PointUnavailable, match="This model has no"):
        two.ours.catalog.point(lacks)
    if "position_embedding_type" in more:
        assert apart(values["layers.1.attn.q_rot"], values["layers.1.attn.q"]) > FAR
        return
    theirs = by_hand.by_hand(family, two.path).run(IDS).values
    assert wrong(values, theirs, 1e-5) == {}


def test_rates_that_a_checkpoint_does_not_have_are_computed(tmp_path: Path) -> None:
    """They follow from the number of heads and of the layer; what does not is refused as ever."""
    path = checkpoints.make("minimax", tmp_path)
    whole, file = BareRank(path).forward(IDS), path / "model.safetensors"
    stored = load_file(file)
    rates = [n for n in stored if n.endswith(("_decay", "slope_rate"))]
    assert len(rates) == 8
    left = {name: value for name, value in stored.items() if name not in rates}
    save_file(left, file, metadata={"format": "pt"})
    assert apart(BareRank(path).forward(IDS), whole) <= 1e-6
    left.pop("model.norm.weight")
    save_file(left, file, metadata={"format": "pt"})
    with pytest.raises(NotAModel, match=r"lack model\.norm\.weight \(1 in all\)"):
        BareRank(path)


def test_a_gate_inside_a_norm(tmp_path: Path) -> None:
    """Falcon-H1 in the shape that normalises what its mixers put out."""
    two = Two("falcon_h1", tmp_path, mamba_rms_norm=True)
    seen: list[Tensor] = []
    norm = two.plain.get_submodule("model.layers.1.mamba.norm")
    norm.register_forward_pre_hook(lambda m, args: seen.extend(args))
    with torch.no_grad():
        logits = two.plain(IDS).logits
    state_out, gate = seen
    assert apart(two.value("layers.1.mixer.gate"), gate) <= 1e-5
    assert apart(two.value("layers.1.mixer.state_out").flatten(2), state_out) <= 1e-5
    assert apart(two.ours.forward(IDS), logits) <= 1e-5
