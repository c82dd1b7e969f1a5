"""Certificates: every family holds, what is found is what is told, and the server keeps it."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter.certificate.identities import IDENTITIES, UNCOVERED, identity_of
from garcon_jupyter.certificate.layer_kinds import layer_kinds
from garcon_jupyter.certificate.result import Certificate, CertificateFinding, CertificateRow
from garcon_jupyter.cli.app import main
from garcon_jupyter.display import certificate
from garcon_jupyter.points import PARAMETERS, POINTS, Catalog
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.backend.cases import EVERY

pytestmark = pytest.mark.sampled

UNLIKE = (
    *(
        "gpt2",
        "gpt_neox",
        "llama",
        "gemma2",
        "mixtral",
        "qwen3",
        "olmo2",
        "granite",
        "cohere",
        "gpt_oss",
    ),
    *(
        "gptj",
        "gpt_neo",
        "bloom",
        "mpt",
        "falcon_rw",
        "olmo",
        "nanochat",
        "bitnet",
        "apertus",
        "phimoe",
    ),
    *(
        "qwen2_moe",
        "deepseek_v2",
        "glm_moe_dsa",
        "dots1",
        "llama4_text",
        "gemma4_text",
        "gemma3n_text",
    ),
    *("qwen3_next", "olmo_hybrid", "mamba", "jamba", "falcon_h1", "nemotron_h", "lfm2"),
    *("minimax", "kimi_linear", "zamba2"),
)
"""Checkpoints of which each has what no other has: a form of an identity, or a point."""

LACKING = {
    "gemma3n_text": {
        "final_norm.scale",
        *(f"layers.{{i}}.per_layer.{part}" for part in ("gate", "gate_proj")),
    },
    "gemma4_text": {
        "layers.{i}.mlp.router",
        "layers.{i}.mlp.post_norm.scale",
        "layers.{i}.mlp.post_norm.weight",
        *(f"layers.{{i}}.mlp.experts.{{e}}.{part}_proj" for part in ("gate", "up")),
    },
}
"""What is held against nothing, by checkpoint: what these read, or are read by, has no name."""


@pytest.mark.parametrize("name", UNLIKE)
def test_all_holds_and_all_of_it_is_covered(name: str, tmp_path: Path) -> None:
    family, config = EVERY[name]
    rmodel = garcon.connect(open_here(checkpoints.make(family, tmp_path, **config)))
    found = rmodel.certify()
    assert [*found.broken()] == []
    assert {template for template, *_ in found.not_covered()} <= LACKING.get(name, set())
    assert set(LACKING.get(name, ())) <= set(UNCOVERED)
    told = {row.name for row in found.rows}
    assert {rmodel.catalog.point(name).template for name in rmodel.catalog.names()} <= told
    assert {rmodel.catalog.parameter(name).template for name in rmodel.parameters} <= told


def test_every_point_and_parameter_has_an_identity_or_a_reason() -> None:
    points = {spec.template for spec in POINTS}
    parameters = {spec.template for spec in PARAMETERS}
    used = {template for identity in IDENTITIES for template in identity.by}
    assert points - set(UNCOVERED) == {i.of for i in IDENTITIES} - set(UNCOVERED)
    assert parameters - set(UNCOVERED) == used - set(UNCOVERED)
    assert set(UNCOVERED) <= points | parameters and all(UNCOVERED.values())
    for identity in IDENTITIES:
        assert set(identity.reads) <= points and set(identity.beside) <= set(identity.reads)
        assert identity_of(identity.of) is identity


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_lower_precision_holds_by_its_own_tolerance(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = checkpoints.make(family, tmp_path, dtype=dtype)
    found = garcon.connect(open_here(path)).certify()
    assert [*found.broken()] == []
    errors = [row.value.error for row in found.rows if row.value.error is not None]
    assert 1e-4 < max(errors) < 0.04, "that was not a lower precision"


def test_what_is_told(rmodel: garcon.RemoteModel) -> None:
    found = rmodel.certify(anew=True)
    assert found.holds and found.row("layers.{i}.attn.z").held
    assert found.row("layers.{i}.attn.z").value.says == "pattern × values, repeated"
    assert found.kinds["attention"].layers == (0, 1, 2, 3)
    assert found.kinds["attention"].read == (0, 3) and found.kinds["attention"].moved == 3
    assert found.facts["dtype"] == "float32" and found.facts["degrees"]["tp"] == 1
    assert found.facts["versions"]["torch"] == metadata.version("torch")
    assert set(found.checks) == {"looking changes nothing", "equal edits", "logits"}
    assert found.summary == "44 of 44 points and parameters held"
    assert len(found.id) == 8 and repr(found).startswith(f"<certificate {found.id} of tiny")
    assert Certificate.of_json(found.as_json()) == found
    with pytest.raises(KeyError):
        found.row("layers.{i}.attn.z", "mamba")


def test_it_is_kept_and_recordings_name_it(tmp_path: Path) -> None:
    here = open_here(checkpoints.make("llama", tmp_path))
    rmodel = garcon.connect(here)

    def save(save_ctx: Any, tensor: torch.Tensor) -> None:
        save_ctx.x = tensor

    def recorded() -> Any:
        rmodel.forward([[1, 2]], probes=[rmodel.probe_points["embed.out"].probe(save)])
        return rmodel.recordings()["embed.out"]

    before = recorded()
    assert before.certificate == "" and "certificate" not in repr(before)
    assert rmodel.status()["certificate"] is None
    found = rmodel.certify()
    assert rmodel.status()["certificate"] == {"id": found.id, "summary": found.summary}
    assert rmodel.recordings()["embed.out"].certificate == ""
    assert recorded().certificate == found.id
    assert f"certificate {found.id}" in repr(recorded())
    again = garcon.connect(here).certify()
    assert again == found and again.id == found.id
    assert rmodel.certify(anew=True).id != found.id
    assert len(rmodel.recordings()) == 1, "nothing of it is left"


def test_every_layer_is_read_where_that_is_asked(tmp_path: Path) -> None:
    rmodel = garcon.connect(open_here(checkpoints.make("gemma2", tmp_path)))
    few = rmodel.certify()
    assert {name: kind.read for name, kind in few.kinds.items()} == {
        "sliding": (0, 2),
        "attention": (1, 3),
    }
    found = rmodel.certify(every_layer=True)
    assert found.holds and found.id != few.id
    assert rmodel.certify().id == found.id, "what is kept says more"


def test_kinds_of_layers() -> None:
    catalog = Catalog(
        {},
        4,
        0,
        {"a": (0, 1, 2, 3), "b": (1, 3)},
        kinds=("linear", "attention", "linear", "attention"),
    )
    kinds = layer_kinds(catalog)
    assert {name: kind.layers for name, kind in kinds.items()} == {
        "linear": (0, 2),
        "attention": (1, 3),
    }
    plain = layer_kinds(Catalog({}, 3, 0, {"a": (0, 1, 2), "b": (2,)}))
    assert {n: k.layers for n, k in plain.items()} == {"layer": (0, 1), "layer, from 2": (2,)}


def test_a_model_without_points_is_told_so() -> None:
    module = torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.Linear(3, 7))
    with pytest.raises(garcon.BadRequest, match="no named points"):
        garcon.connect(open_here(module)).certify()


def test_it_shows_itself(rmodel: garcon.RemoteModel) -> None:
    found = rmodel.certify(anew=True)
    lines = certificate.text(found).splitlines()
    assert lines[0] == repr(found) and "LlamaForCausalLM, float32, one process" in lines[1]
    assert any(
        line.startswith("layers.{i}.attn.z") and "pattern × values" in line for line in lines
    )
    assert "Broken:" not in lines and "BROKEN" not in certificate.text(found)
    html = found._repr_html_()
    assert html is not None and f"Certificate {found.id}" in html and "44 held" in html
    broken = replace(
        found, checks={"a < b": CertificateFinding(False, "it is not")}, rows=(*found.rows, WRONG)
    )
    text, html = certificate.text(broken), broken._repr_html_() or ""
    assert not broken.holds and "Broken:" in text and "  a < b check: it is not" in text
    assert "BROKEN 2e+00" in text and "<b>BROKEN 2e+00</b>" in html and "a &lt; b" in html
    assert broken.summary.endswith("2 findings are broken, 1 not covered")


WRONG = CertificateRow(
    "layers.{i}.attn.q",
    "sliding",
    CertificateFinding(None, "nothing reads it"),
    CertificateFinding(False, "lost", 2.0),
)


def test_what_is_no_certificate_is_not_kept(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(garcon.BadRequest, match="no summary"):
        rmodel._run(wire.KeepCertificate(certificate={"id": "1"}))


@pytest.mark.processes
def test_over_two_ranks_and_on_the_command_line(
    rmodel_tp2: garcon.RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", "tiny-tp2"]) == 0
    printed = capsys.readouterr().out
    found = rmodel_tp2.certify()
    assert found.holds and [*found.not_covered()] == [] and found.facts["degrees"]["tp"] == 2
    assert printed.splitlines()[0] == repr(found)
    assert main(["status", "tiny-tp2"]) == 0
    assert f"certificate  {found.id}: {found.summary}" in capsys.readouterr().out
