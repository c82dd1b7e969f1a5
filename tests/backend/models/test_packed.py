"""Packed checkpoints: FP8 and MXFP4 become the numbers that they stand for, at every point, and what that takes is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.hook_sites.weights import weight_of
from garcon_backend.in_process import open_here
from garcon_backend.models.fit import needed_bytes
from garcon_backend.models.loading import load
from garcon_jupyter.amounts import sized
from garcon_jupyter.model_files import quantised
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.adapted_run import loss
from tests.backend.bare_rank import BareRank
from tests.packed import make_fp8, make_mxfp4

IDS = torch.tensor([[5, 80, 262, 17, 3], [9, 9, 200, 31, 4]])
MAKERS = {"fp8": make_fp8, "mxfp4": make_mxfp4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", MAKERS)
def test_every_point_is_that_of_the_unpacked_weights(
    method: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    packed, plain = MAKERS[method](tmp_path, dtype=dtype)
    ours, theirs = BareRank(packed), BareRank(plain)
    model = AutoModelForCausalLM.from_pretrained(plain, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(IDS, use_cache=False).logits
    assert {p.dtype for p in ours.model.parameters()} == {dtype}
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    assert (ours.forward(IDS) - logits).abs().max() <= tolerance * logits.abs().max()
    names = ours.catalog.names()
    values, wanted = (each.values(IDS, None, names) for each in (ours, theirs))
    assert [n for n in wanted if not torch.equal(values[n], wanted[n])] == []
    for name in ours.catalog.parameters:
        assert torch.equal(ours.parameter(name), theirs.parameter(name)), name
    points = ours.floating_points([0])
    found, asked = (each.gradients(loss, IDS, None, points) for each in (ours, theirs))
    for (
        name,
        gradient,
    ) in asked.items():  # memory lies otherwise, and sums are taken in another order
        assert (found[name] - gradient).abs().max() <= tolerance * gradient.abs().max(), name


@pytest.mark.parametrize("method", MAKERS)
def test_what_was_unpacked_into_what_and_what_it_takes(method: str, tmp_path: Path) -> None:
    packed, plain = MAKERS[method](tmp_path, dtype=torch.bfloat16)
    facts = garcon.connect(open_here(packed)).facts["model"]
    assert facts["dtype"] == "bfloat16"
    held = sum(p.numel() * 2 for p in load(plain, Mesh.solo()).parameters())
    said = f"stored as {method} and were unpacked into bfloat16: {sized(held)} in memory"
    assert said in str(facts["notes"])
    wide = garcon.connect(open_here(packed, dtype="float32"))
    assert "were unpacked into float32" in repr(wide) and wide.facts["model"]["dtype"] == "float32"
    ours, theirs = BareRank(packed, "float32"), BareRank(plain, "float32")
    assert {p.dtype for p in ours.model.parameters()} == {torch.float32}
    # The wider numbers are those that were stored, and not those rounded to bfloat16.
    apart = (ours.forward(IDS) - theirs.forward(IDS)).abs().max()
    assert 0 <= apart < 0.1 and (apart == 0) == (method == "mxfp4")
    # And what it takes is known before: as much as the plain weights take.
    asked = needed_bytes(packed, None, Degrees()), needed_bytes(plain, None, Degrees())
    assert asked[1] <= asked[0] <= 1.1 * asked[1]
    assert needed_bytes(packed, "float32", Degrees()) > 1.9 * asked[1]


@pytest.mark.processes
def test_it_is_not_cut(tmp_path: Path) -> None:
    packed, _ = make_fp8(tmp_path)

    class Two:
        degrees, device = Degrees(tp=2), torch.device("cpu")

    with pytest.raises(garcon.BadDegrees, match="tp=2 asks for it: a part of packed"):
        load(packed, Two())  # type: ignore[arg-type]
    with pytest.raises(garcon.BadDegrees, match="in the midst of numbers that share a scale"):
        garcon.launch(packed, name="never", tp=2, progress=lambda line: None)


def test_a_package_that_is_missing_is_named_where_the_server_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, _ = make_fp8(tmp_path)
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (packed / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(quantised, "_is_there", lambda name: False)
    with pytest.raises(garcon.NotAModel, match="needs bitsandbytes, and that is not installed"):
        load(packed, Mesh.solo())


def test_weights_that_stay_packed_are_not_taken_for_numbers() -> None:
    """As bitsandbytes, GPTQ and FP8 on a GPU store them: nothing is computed from such a weight by itself."""
    module = nn.Linear(4, 4, bias=False).requires_grad_(False)
    for packed in (torch.zeros(8, 1, dtype=torch.uint8), torch.zeros(4, 4).to(torch.float8_e4m3fn)):
        module.weight = nn.Parameter(packed, requires_grad=False)
        with pytest.raises(garcon.PointUnavailable, match="The weight of this Linear is packed"):
            weight_of(module)
    gptq: Any = nn.Module()
    with pytest.raises(garcon.PointUnavailable, match="is packed"):
        weight_of(gptq)
