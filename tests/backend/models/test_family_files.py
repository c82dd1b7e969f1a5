"""A family of the user's own: the page's file, served, against plain hooks; and what is refused of such files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

import garcon_jupyter as garcon
from garcon_backend.hook_sites.views import Interleaved
from garcon_backend.in_process import open_here
from garcon_backend.models.families import FAMILIES
from garcon_backend.models.family_files import from_toml, read_family
from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import (
    BadRequest,
    GarconError,
    MissingModule,
    PointUnavailable,
    UnknownName,
    UnknownPoint,
)
from garcon_jupyter.servers.option_checks import absolute_family, check_words
from tests import checkpoints
from tests.backend.cases import IDS, MASK, apart, changed

PAGE = Path(__file__).parents[3] / "docs" / "family.md"
BLOCK = "biogpt.layers.{i}"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the page prints."""
    [said] = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    file = tmp_path_factory.mktemp("family") / "biogpt.toml"
    file.write_text(said)
    return file


def save_biogpt(path: Path) -> Path:
    """A checkpoint of an architecture that no family here maps."""
    config = AutoConfig.for_model(
        "biogpt",
        vocab_size=checkpoints.VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = AutoModelForCausalLM.from_config(config)
    checkpoints.redraw(model)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def biogpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_biogpt(tmp_path_factory.mktemp("biogpt"))


@pytest.fixture(scope="module")
def rmodel(biogpt: Path, page: Path) -> garcon.RemoteModel:
    return garcon.connect(open_here(biogpt, family=str(page)))


def seen_by_plain_hooks(path: Path) -> dict[str, Tensor]:
    plain: Any = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    seen: dict[str, Tensor] = {}
    sides = {
        "attn.q": ("self_attn.q_proj", "output"),
        "attn.z": ("self_attn.out_proj", "input"),
        "attn.out": ("self_attn.out_proj", "output"),
        "resid_mid": ("final_layer_norm", "input"),
        "attn.norm.out": ("self_attn_layer_norm", "output"),
        "mlp.post_activation": ("fc2", "input"),
        "mlp.out": ("fc2", "output"),
    }
    for layer in range(2):
        for name, (module, side) in sides.items():
            at = plain.get_submodule(f"{BLOCK.format(i=layer)}.{module}")

            def keep(m: Any, args: Any, *out: Any, key: str = f"layers.{layer}.{name}") -> None:
                seen[key] = out[0] if out else args[0]

            at.register_forward_hook(keep) if side == "output" else (
                at.register_forward_pre_hook(keep)
            )
    positions = (MASK.cumsum(1) - 1).clamp(min=0)
    out = plain(IDS, attention_mask=MASK, position_ids=positions, output_attentions=True)
    for layer, pattern in enumerate(out.attentions):
        seen[f"layers.{layer}.attn.pattern"] = pattern
    return {**seen, "logits": out.logits}


def test_the_page_s_family_names_what_plain_hooks_see(
    rmodel: garcon.RemoteModel, biogpt: Path
) -> None:
    theirs = seen_by_plain_hooks(biogpt)
    points = [name for name in theirs if name != "logits"]

    def keep(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.value = tensor

    probes = [rmodel.probe_points[name].probe(keep) for name in points]
    logits = rmodel.forward(Tokens(IDS, MASK.bool()), probes=probes)
    kept = rmodel.recordings()
    assert apart(logits * MASK[:, :, None], theirs["logits"] * MASK[:, :, None]) <= 1e-5
    for name in points:
        value = kept[name].value
        assert apart(value.reshape(theirs[name].shape), theirs[name]) <= 1e-5, name


def test_its_points_can_be_edited_and_its_parameters_read(rmodel: garcon.RemoteModel) -> None:
    clean = rmodel.forward(IDS)
    for name in ("layers.0.attn.pattern", "layers.1.attn.head_out", "layers.0.resid_mid"):
        probe = rmodel.probe_points[name].probe(lambda save_ctx, tensor: changed(tensor))
        assert apart(rmodel.forward(IDS, probes=[probe]), clean) > 1e-4, name
    assert rmodel.get_parameter("layers.0.attn.o_proj").shape == (24, 24)
    with pytest.raises(PointUnavailable, match="BioGPT has nothing of the kind"):
        rmodel.probe_points["layers.0.mlp.router.logits"].probe(lambda save_ctx, tensor: None)
    with pytest.raises(PointUnavailable, match="added to the embedding"):
        rmodel.probe_points["layers.0.attn.q_rot"].probe(lambda save_ctx, tensor: None)


def test_without_it_the_architecture_has_modules_only(biogpt: Path) -> None:
    assert not garcon.connect(open_here(biogpt)).catalog.mapped


def written(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        ("layers = ", BadRequest, "cannot be read"),
        ('name = "mine"', BadRequest, "says no layers"),
        ('layer = "blocks"', UnknownName, "layers"),
        ('like = "lama"', UnknownName, "llama"),
        ('layers = "b"\n[points]\n"layers.{i}.mlp.ou" = "b.output"', UnknownPoint, "mlp.out"),
        ('layers = "b"\n[refused]\n"logit" = "no"', UnknownPoint, "logits"),
        ('layers = "b"\n[parameters]\n"embed.weigt" = "e"', UnknownName, "embed.weight"),
        ('layers = "b"\n[points]\n"embed.out" = "b.out"', BadRequest, "ends in no side"),
        ('layers = "b"\n[points]\n"embed.out" = {head = true}', BadRequest, "has no place"),
        (
            'layers = "b"\n[points]\n"embed.out" = {at = "b.output", head = true}',
            UnknownName,
            "heads",
        ),
        (
            'layers = "b"\n[norms]\n"final_norm" = {at = "n", kind = "rmsnorm"}',
            UnknownName,
            "rms_norm",
        ),
        (
            'layers = "b"\n[points]\n"logits" = "output"\n[refused]\n"logits" = "no"',
            BadRequest,
            "is a point, and refused",
        ),
    ],
)
def test_wrong_files_are_refused(
    tmp_path: Path, said: str, error: type[GarconError], match: str
) -> None:
    with pytest.raises(error, match=match):
        read_family(written(tmp_path / "mine.toml", said))


def test_places_that_the_model_lacks_are_refused(biogpt: Path, page: Path, tmp_path: Path) -> None:
    for old, new, nearest in (
        ("fc2.output", "fc3.output", "fc2"),
        ("out_proj.weight", "out_prj.weight", "out_proj.weight"),
        ('layers = "biogpt.layers"', 'layers = "biogpt.layer"', "biogpt.layers"),
    ):
        wrong = written(tmp_path / "wrong.toml", page.read_text().replace(old, new))
        with pytest.raises(UnknownName, match=nearest):
            open_here(biogpt, family=wrong)


def test_a_family_begins_with_another(tmp_path: Path) -> None:
    """Llama's, with other paths and one point more to refuse."""
    said = """
        like = "llama"
        renamed = {"model." = "transformer."}
        layers = "transformer.layers"
        [sizes]
        M = 80
        D = "width"
        [points]
        "layers.{i}.attn.q" = {at = "transformer.layers.{i}.qkv.output", part = 0, of = 3, heads = "interleaved"}
        [refused]
        "layers.{i}.mlp.pre_linear" = "not this one"
    """
    family = from_toml(Path(written(tmp_path / "other.toml", said)))
    base = FAMILIES["llama"]
    assert family.points["embed.out"].path == "transformer.embed_tokens"
    assert family.points["layers.{i}.attn.q"].view == Interleaved(0, 3)  # type: ignore[attr-defined]
    assert family.refused["layers.{i}.mlp.pre_linear"] == "not this one"
    assert family.refused["pos_embed.out"] == base.refused["pos_embed.out"]
    assert family.parameters["unembed.weight"].tied == "transformer.embed_tokens.weight"

    class Config:
        width, num_attention_heads = 48, 4

    assert family.sizes(Config()) | {"H": 4, "D": 48, "M": 80} == family.sizes(Config())
    assert base.points["embed.out"].path == "model.embed_tokens"


# -- in Python, and of a module of one's own -----------------------------------------------------

SITTING = FAMILIES["llama"]


def made() -> Any:
    return FAMILIES["gpt2"]


def test_a_family_in_python() -> None:
    here = __name__
    assert read_family(f"{here}:SITTING") is FAMILIES["llama"]
    assert read_family(f"{here}:made") is FAMILIES["gpt2"]
    with pytest.raises(UnknownName, match="SITTING"):
        read_family(f"{here}:SITING")
    with pytest.raises(BadRequest, match="is a PosixPath, and no family"):
        read_family(f"{here}:PAGE")
    with pytest.raises(MissingModule, match="no_such_module"):
        read_family("no_such_module:FAMILY")


def test_a_module_of_ones_own_takes_a_family(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)
            self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            for block in self.blocks:
                x = x + block(x)
            out: Tensor = self.head(x)
            return out

    said = """
        layers = "blocks"
        [points]
        "embed.out" = "embed.output"
        "layers.{i}.resid_pre" = "blocks.{i}.input"
        "layers.{i}.mlp.contribution" = "blocks.{i}.output"
        "logits" = "head.output"
        [sizes]
        D = 6
    """
    model = Tiny()
    rmodel = garcon.connect(open_here(model, family=written(tmp_path / "tiny.toml", said)))
    ids = torch.tensor([[1, 2, 3]])
    probe = rmodel.probe_points["layers.1.mlp.contribution"].probe(lambda save_ctx, x: x * 0)
    with torch.no_grad():
        x = model.embed(ids)
        theirs = model.head(x + model.blocks[0](x))
    assert apart(rmodel.forward(ids, probes=[probe]), theirs) <= 1e-6
    assert rmodel.catalog.kinds == ()


# -- the option ----------------------------------------------------------------------------------


def test_a_family_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("")
    assert absolute_family("mine.toml") == str(tmp_path / "mine.toml")
    assert absolute_family("package.module:FAMILY") == "package.module:FAMILY"
    with pytest.raises(BadRequest, match=r"no family file yours\.toml"):
        absolute_family("yours.toml")
    with pytest.raises(BadRequest, match="names no family"):
        check_words("smollm2", {"family": "llama"})
    with pytest.raises(BadRequest, match="names a file"):
        check_words("smollm2", {"family": "mine.py:FAMILY"})
