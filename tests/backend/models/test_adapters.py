"""LoRA adapters: a model with one on computes what plain transformers computes with the adapter merged into its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.in_process import open_here
from garcon_backend.lockstep.outcome import title_of
from garcon_backend.models.adapters import Adapters
from garcon_jupyter.wire import requests as wire
from tests import lora
from tests.backend.adapted_run import DTYPE, IDS, compute, compute_all, loss
from tests.backend.bare_rank import BareRank
from tests.backend.ranks import run_on_ranks
from tests.checkpoints import make

pytestmark = pytest.mark.sampled

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def plain_of(path: Path, dtype: torch.dtype = torch.float64) -> Any:
    """A checkpoint as plain transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(
        path, attn_implementation="eager", dtype=dtype
    ).eval()


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    logits: Tensor = model(IDS, use_cache=False).logits
    return logits


def same(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """Norms round to float32 whatever the model's dtype, so nothing is nearer than that."""
    if a.shape != b.shape:
        return False
    apart, largest = float((a - b).abs().max()), float(b.abs().max())
    return apart <= max(tolerance * largest, 1e-9)


def unlike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """Names of the values that differ, or are missing."""
    return [name for name in theirs if name not in ours or not same(ours[name], theirs[name])]


def read(name: str, directory: Path, model: Any) -> Adapters:
    return Adapters.load({name: str(directory)}, model, Mesh.solo())


# -- what is computed --------------------------------------------------------------------------

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "every projection": ("llama", {"targets": ALL}),
    "a pickle": ("llama", {"targets": ["q_proj"], "pickled": True}),
    "rsLoRA, ranks and alphas of their own": (
        "llama",
        {
            "targets": ALL,
            "use_rslora": True,
            "rank_pattern": {"q_proj": 5, "mlp.down_proj": 2},
            "alpha_pattern": {"q_proj": 1, "layers.1.self_attn.k_proj": 30},
        },
    ),
    "DoRA": ("llama", {"targets": ALL, "use_dora": True}),
    "DoRA beside a bias": ("qwen2", {"targets": ALL, "use_dora": True}),
    "the embedding, and whole parameters": (
        "llama",
        {
            "targets": ["q_proj", "embed_tokens"],
            "whole": ("lm_head.weight", "norm.weight"),
            "modules_to_save": ["lm_head", "norm"],
        },
    ),
    "an embedding that multiplies": ("gemma3_text", {"targets": ["embed_tokens", "o_proj"]}),
    "biases": ("qwen2", {"targets": ["q_proj"], "whole": ("_proj.bias",), "bias": "all"}),
    "GPT-2's transposed and fused weights": (
        "gpt2",
        {"targets": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "DoRA of transposed weights": (
        "gpt2",
        {"targets": ["c_attn", "c_fc"], "fan_in_fan_out": True, "use_dora": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_gradients_parameters_are_those_of_merged_weights(case: str, tmp_path: Path) -> None:
    """At every point, head by head too; in float64, where little else could hide."""
    family, asked = CASES[case]
    path = make(family, tmp_path / "base")
    base = plain_of(path)
    changed = lora.make(tmp_path / "lora", base, **asked)
    merged, ours = lora.with_merged(base, changed), BareRank(path, "float64")
    theirs = BareRank(lora.with_merged(ours.model, changed))
    adapters = read("a", tmp_path / "lora", ours.model)
    names, points = list(ours.catalog.parameters), ours.catalog.names()
    floating = ours.floating_points()
    with adapters.on("a"):
        ours.untouched = ours.installed()
        assert same(ours.forward(IDS), logits_of(merged))
        values = ours.values(IDS, None, points)
        gradients = ours.gradients(loss, IDS, None, floating)
        of_parameters = ours.backward(loss, IDS, parameters=names)
        read_now = {name: ours.parameter(name) for name in names}
    assert unlike(values, theirs.values(IDS, None, points)) == []
    assert unlike(gradients, theirs.gradients(loss, IDS, None, floating)) == []
    assert unlike(read_now, {name: theirs.parameter(name) for name in names}) == []
    if not asked.get("use_dora"):  # whose factors move with the weights, and are held still
        # Merged into one of two weights that are one, they are two, and so are their gradients.
        two = ["embed.weight", "unembed.weight"] if family == "gemma3_text" else []
        assert unlike(of_parameters, theirs.backward(loss, IDS, parameters=names)) == two
    assert not same(logits_of(base), logits_of(merged), 1e-3)  # an adapter left out would be seen


def test_without_a_name_it_is_the_base_model_to_the_last_bit(tmp_path: Path) -> None:
    path = make("llama", tmp_path / "base")
    base = plain_of(path, torch.float32)
    lora.make(tmp_path / "lora", base, ALL, whole=("lm_head.weight",), modules_to_save=["lm_head"])
    ours = BareRank(path)
    before = ours.forward(IDS)
    adapters = read("a", tmp_path / "lora", ours.model)
    state = {n: p.clone() for n, p in ours.model.named_parameters()}
    with adapters.on("a"):
        assert not torch.equal(ours.model(IDS).logits, before)
    with pytest.raises(KeyError), adapters.on("a"):
        raise KeyError
    assert torch.equal(ours.forward(IDS), before) and ours.installed() == ours.untouched
    assert all(torch.equal(p, state[n]) for n, p in ours.model.named_parameters())


def test_half_precision_adds_in_float32(tmp_path: Path) -> None:
    path = make("llama", tmp_path / "base", dtype=torch.bfloat16)
    base = plain_of(path, torch.bfloat16)
    stored = lora.make(tmp_path / "lora", base, ["q_proj"])
    ours = BareRank(path)
    x = torch.randn(2, 48, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(1))
    module: Any = ours.model.get_submodule("model.layers.0.self_attn.q_proj")
    with read("a", tmp_path / "lora", ours.model).on("a"):
        out = module(x)
    added = stored["model.layers.0.self_attn.q_proj.weight"] - module.weight.double()
    wanted = module(x).float() + (x.double() @ added.T).float()
    assert out.dtype == torch.bfloat16 and torch.equal(out, wanted.bfloat16())


def test_it_is_what_peft_computes(tmp_path: Path) -> None:
    """An adapter that PEFT made and wrote, run by PEFT: only where that is installed, which Garçon does not need."""
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    path = make("llama", tmp_path / "base")
    for number, asked in enumerate(
        [
            {"target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"q_proj": 5}},
            {
                "target_modules": ["q_proj", "down_proj"],
                "use_dora": True,
                "alpha_pattern": {"q_proj": 3},
            },
            {"target_modules": ["v_proj", "embed_tokens"], "modules_to_save": ["lm_head"]},
            {"target_modules": ["o_proj"], "lora_bias": True},
        ]
    ):
        torch.manual_seed(number)
        config = peft.LoraConfig(r=4, lora_alpha=9, task_type="CAUSAL_LM", **asked)
        theirs = peft.get_peft_model(plain_of(path, torch.float32), config).eval()
        for _, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn(parameter.shape)
        theirs.save_pretrained(tmp_path / str(number))
        ours = BareRank(path)
        with read("a", tmp_path / str(number), ours.model).on("a"):
            logits = ours.model(IDS).logits
        assert same(logits, logits_of(theirs)), asked
        assert not same(logits, ours.forward(IDS), 1e-2)


# -- cut over ranks ----------------------------------------------------------------------------

CUT: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "every projection": ("llama", {}, {"targets": [*ALL, "embed_tokens", "lm_head"]}),
    "one key head for two ranks, DoRA": (
        "llama",
        {"num_key_value_heads": 1},
        {"targets": [*ALL, "lm_head"], "use_dora": True},
    ),
    "fused, transposed and tied": (
        "gpt2",
        {},
        {"targets": ["c_attn", "c_proj", "c_fc"], "whole": ("c_attn.bias", "ln_1.weight")},
    ),
    "gate and up in one": (
        "phi3",
        {},
        {"targets": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]},
    ),
    "whole": (
        "llama",
        {},
        {
            "targets": ["q_proj"],
            "whole": ("lm_head.weight", "embed_tokens.weight", "up_proj.weight"),
        },
    ),
}
"""Family, configuration and adapter."""


@pytest.mark.processes
@pytest.mark.parametrize("layout", [{"tp": 2}, {"pp": 2}], ids=["tp", "pp"])
def test_cut_over_ranks_it_is_the_same(layout: dict[str, int], tmp_path: Path) -> None:
    """Against merged weights in one process: every point, gradient, parameter, and greedy generation."""
    wanted = {}
    for case, (family, config, asked) in CUT.items():
        layers = {"n_layer" if family == "gpt2" else "num_hidden_layers": 2}
        path = make(family, tmp_path / case / "base", **layers, **config)
        changed = lora.make(tmp_path / case / "lora", plain_of(path), **asked)
        base = BareRank(path, DTYPE)
        wanted[case] = compute(BareRank(lora.with_merged(base.model, changed)))
        wanted[case]["base"] = dict.fromkeys(("before", "after"), base.forward(IDS))
        assert not same(wanted[case]["logits"][""], wanted[case]["base"]["after"], 1e-2)
    run_on_ranks(2, compute_all, str(tmp_path), layout, list(CUT))
    for case, all_kinds in wanted.items():
        ranks = [torch.load(tmp_path / case / f"{'-'.join(layout)}-{n}.pt") for n in range(2)]
        for kind, values in all_kinds.items():
            if kind == "gradients of parameters" and "DoRA" in case:
                continue  # its factors move with merged weights, and are held still here
            found: dict[str, Tensor] = {}
            for each in ranks:
                found |= {name: value for name, value in each[kind].items() if value is not None}
            assert unlike(found, values) == [], (case, kind)


# -- by request --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint "base" with two adapters of it, "one" and "two", and the models that they make."""
    folder = tmp_path_factory.mktemp("adapters")
    base = plain_of(make("llama", folder / "base"), torch.float32)
    for seed, name in enumerate(("one", "two")):
        lora.make(folder / name, base, ALL[seed:], seed)
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str | None, Any]:
    """The base model as plain transformers runs it, by None, and with each adapter merged."""
    base = plain_of(folder / "base", torch.float32)
    merged = {
        name: lora.with_merged(base, lora.make(folder / name, base, ALL[seed:], seed))
        for seed, name in enumerate(("one", "two"))
    }
    return {None: base, **merged}


@pytest.fixture(scope="module")
def rmodel(folder: Path) -> garcon.RemoteModel:
    here = open_here(folder / "base", adapter=[folder / "one", f"two={folder / 'two'}"])
    return garcon.connect(here)


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.value, save_ctx.on = tensor, save_ctx.here.adapter


def test_requests_take_turns_without_a_trace_of_one_another(
    rmodel: garcon.RemoteModel, models: dict[str | None, Any]
) -> None:
    for name in ("one", None, "two", "one", "two", None):
        assert same(rmodel.forward(IDS, adapter=name), logits_of(models[name]))
        chunked = rmodel.forward(IDS, adapter=name, batch_tokens=5)
        assert same(chunked, logits_of(models[name]))


def test_a_failed_request_leaves_none_on(
    rmodel: garcon.RemoteModel, models: dict[str | None, Any]
) -> None:
    def wrong(save_ctx: Any, tensor: Tensor) -> None:
        raise ZeroDivisionError

    probe = rmodel.probe_points["layers.1.mlp.out"].probe(wrong)
    with pytest.raises(garcon.ProbeError):
        rmodel.forward(IDS, probes=[probe], adapter="one")
    assert same(rmodel.forward(IDS), logits_of(models[None]))


def test_generation_edits_and_gradients(
    rmodel: garcon.RemoteModel, models: dict[str | None, Any]
) -> None:
    plain = models["two"]
    wanted = plain.generate(IDS, max_new_tokens=5, do_sample=False, pad_token_id=2)
    assert torch.equal(rmodel.generate(IDS, 5, adapter="two").ids, wanted)
    assert not torch.equal(rmodel.generate(IDS, 5).ids, wanted)

    def halve(save_ctx: Any, tensor: Tensor) -> Tensor:
        return tensor / 2

    q_proj = plain.get_submodule("model.layers.1.self_attn.q_proj")
    handle = q_proj.register_forward_hook(lambda module, args, out: out / 2)
    edited = logits_of(plain)
    handle.remove()
    point = "module:model.layers.1.self_attn.q_proj.output"
    probe = rmodel.probe_points[point].probe(halve)
    assert same(rmodel.forward(IDS, probes=[probe], adapter="two"), edited)

    weight = plain.model.layers[0].mlp.up_proj.weight.requires_grad_()
    plain(IDS, use_cache=False).logits.square().mean().backward()
    name = next(n for n in rmodel.parameters if n.startswith("layers.0.mlp") and "up" in n)
    _, found = rmodel.backward(
        IDS, lambda logits: logits.square().mean(), parameters=[name], adapter="two"
    )
    assert same(found[name], weight.grad, 1e-4)
    weight.requires_grad_(False)


def test_recordings_and_the_model_say_which_was_on(rmodel: garcon.RemoteModel) -> None:
    probe = rmodel.probe_points["layers.0.resid_post"].probe(keep)
    rmodel.forward(IDS, probes=[probe])
    assert rmodel.recordings()["layers.0.resid_post"].adapters == ()
    rmodel.forward(IDS, probes=[probe], adapter="one")
    told = rmodel.recordings()["layers.0.resid_post"]
    assert (
        told.adapters == ("", "one")
        and told.on == "one"
        and "with adapter none, then one" in repr(told)
    )
    rmodel.clear_recordings()
    rmodel.forward(IDS, probes=[probe], adapter="one")
    assert "with adapter one:" in repr(rmodel.recordings()["layers.0.resid_post"])
    rmodel.clear_recordings()
    # And of which request a value was left, where a lost rank made it be brought back.
    assert "forward 7 with adapter one, which ended" in title_of(7, wire.Forward(adapter="one"))
    assert "forward 7, which ended" in title_of(7, wire.Forward())
    html = rmodel._repr_html_()
    assert html is not None and "Adapter two: rank 3 in 24 modules (down_proj, " in html
    assert "; adapters one, two;" in repr(rmodel) and rmodel.adapters == ("one", "two")


def test_what_takes_a_model_takes_one_with_an_adapter(
    rmodel: garcon.RemoteModel, models: dict[str | None, Any], tmp_path: Path
) -> None:
    tuned = rmodel.adapted("one")
    assert tuned.session == rmodel.session and "adapter one is on" in repr(tuned)
    assert same(tuned.look(IDS).logits, logits_of(models["one"]))
    assert same(rmodel.look(IDS).logits, logits_of(models[None]))
    assert same(tuned.forward(IDS, adapter="two"), logits_of(models["two"]))
    assert same(tuned.adapted(None).forward(IDS), logits_of(models[None]))
    name = next(n for n in rmodel.parameters if n.startswith("layers.0.mlp") and "up" in n)
    wanted = models["one"].model.layers[0].mlp.up_proj.weight
    assert same(tuned.get_parameter(name), wanted)
    assert same(rmodel.get_parameter(name, adapter="one"), wanted)
    assert not same(rmodel.get_parameter(name), wanted, 1e-2)


def test_a_run_over_data_has_it_on(
    rmodel: garcon.RemoteModel, models: dict[str | None, Any]
) -> None:
    probe = rmodel.probe_points["logits"].probe(keep, name="run")
    rmodel.run([row.tolist() for row in IDS], [probe], adapter="one", show=False)
    value = rmodel.recordings()["logits", "run"].value
    assert same(value, logits_of(models["one"]))
    rmodel.clear_recordings()


def test_unknown_names_are_refused(rmodel: garcon.RemoteModel) -> None:
    for ask in (rmodel.forward, rmodel.generate, rmodel.adapted):
        with pytest.raises(garcon.UnknownName, match="no adapter 'tow'. Did you mean two"):
            ask(*([] if ask == rmodel.adapted else [IDS]), adapter="tow")
    with pytest.raises(garcon.UnknownName, match="no adapter 'tow'"):
        rmodel.run([[1, 2]], adapter="tow", show=False)


# -- what is refused when it is loaded ---------------------------------------------------------


def test_an_adapter_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = plain_of(make("llama", tmp_path / "wider", hidden_size=60))
    lora.make(tmp_path / "lora", other, ["q_proj"])
    model = plain_of(folder / "base")
    with pytest.raises(garcon.NotAnAdapter, match=r"is of another model.*\[96, 48\].*\[96, 60\]"):
        read("a", tmp_path / "lora", model)
    lora.make(tmp_path / "whole", other, ["q_proj"], whole=("lm_head.weight",))
    stored = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    alone = {n: t for n, t in stored.items() if "lora_" not in n}
    save_file(alone, tmp_path / "whole" / "adapter_model.safetensors")
    with pytest.raises(
        garcon.NotAnAdapter, match=r"lm_head.weight is \[263, 48\] here, and \[263, 60\]"
    ):
        read("a", tmp_path / "whole", model)


def test_a_module_that_the_model_does_not_have_is_named_with_the_nearest(
    folder: Path, tmp_path: Path
) -> None:
    lora.make(tmp_path, plain_of(folder / "base"), ["q_proj"])
    file = tmp_path / "adapter_model.safetensors"
    save_file({k.replace("q_proj", "qq_proj"): t for k, t in load_file(file).items()}, file)
    with pytest.raises(garcon.NotAnAdapter, match=r"qq_proj, which .* nearest here: .*q_proj"):
        read("a", tmp_path, plain_of(folder / "base"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 4}, "says rank 4"),
        ({"use_dora": True}, "lacks the magnitudes of DoRA"),
    ],
)
def test_weights_that_the_configuration_does_not_describe(
    change: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    lora.make(tmp_path, plain_of(folder / "base"), ["q_proj"])
    config = json.loads((tmp_path / "adapter_config.json").read_text()) | change
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(garcon.NotAnAdapter, match=said):
        read("a", tmp_path, plain_of(folder / "base"))


def test_files_that_are_broken(folder: Path, tmp_path: Path) -> None:
    model = plain_of(folder / "base")
    lora.make(tmp_path, model, ["q_proj"])
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(garcon.NotAnAdapter, match="cannot be read"):
        read("a", tmp_path, model)
    file.unlink()
    torch.save({"a": print}, tmp_path / "adapter_model.bin")  # a pickle with code in it is not run
    with pytest.raises(garcon.NotAnAdapter, match="cannot be read"):
        read("a", tmp_path, model)
