"""``%garcon dictionary``: what plain Python does, in a line."""

from __future__ import annotations

from pathlib import Path

from garcon_jupyter.errors import BadRequest, NotADictionary, UnknownName
from tests.dictionaries.making import saelens
from tests.magics.conftest import Notebook


def test_one_is_added_listed_and_removed(connected: Notebook, tmp_path: Path) -> None:
    model = connected["rmodel"]
    path = saelens(tmp_path / "wide", model.catalog.sizes["D"], 40, "")
    point = "layers.1.resid_post"
    shown = connected.run(f"%garcon dictionary add {path} --at {point} --name tiny-sae")
    assert "f = relu(pre)" in shown
    assert f"Its latents are {point}.sae.tiny-sae.latents" in shown
    assert connected["sae"].name == "tiny-sae"
    assert "40 latents at layers.1.resid_post" in connected.run("%garcon dictionary list")
    assert f"{point}.sae.tiny-sae.latents" in connected.run("%garcon points")
    assert "latents of tiny-sae" in connected.run(f"%garcon points {point}.sae.tiny-sae.latents")
    assert connected.completions(f"%garcon points {point}.sae.tiny-sae.l") == [
        f"{point}.sae.tiny-sae.latents"
    ]
    assert "f = relu(pre)" in connected.run(f"%garcon points {point}.sae.tiny-sae.latents --why")
    connected.run(f"%%probe {point}.sae.tiny-sae.latents\nsave_ctx.value = tensor")
    model.forward("Hello, world", logits="none")
    assert model.recordings()[f"{point}.sae.tiny-sae.latents"].value.shape[-1] == 40
    connected.run("%garcon clear")
    model.detach()
    connected.run("%garcon dictionary remove tiny-sae")
    assert connected.run("%garcon dictionary list").startswith("<no dictionary is loaded")


def test_what_is_wrong_is_said(connected: Notebook, tmp_path: Path) -> None:
    assert "Give a PATH" in connected.fails("%garcon dictionary add", BadRequest)
    assert "Did you mean remove?" in connected.fails("%garcon dictionary remov x", UnknownName)
    connected.fails(f"%garcon dictionary add {tmp_path}/nowhere", NotADictionary)
    connected.fails("%garcon dictionary remove nobody", UnknownName)
