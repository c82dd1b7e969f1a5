"""What tab offers on the lines of the magics, and nowhere else."""

from __future__ import annotations

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.magics.completion import point_names
from garcon_jupyter.points import Catalog
from tests.magics.conftest import Notebook


def test_points(connected: Notebook) -> None:
    offered = connected.completions("%%probe layers.1.mlp.po")
    assert offered == ["layers.1.mlp.post_activation"]
    assert connected.completions("%%garcon layers.1.mlp.po") == offered
    assert connected.completions("%garcon points layers.1.mlp.po") == offered


def test_nothing_typed_offers_every_point(connected: Notebook) -> None:
    names = list(connected["rmodel"].probe_points)
    assert connected.completions("%%probe ") == names
    assert connected.completions("%%probe logits ") == names


def test_several_points_and_options_on_a_line(connected: Notebook) -> None:
    assert connected.completions("%%probe logits --grad embed.o") == ["embed.out"]
    assert connected.completions("%%probe logits --sh") == ["--show", "--sharded"]
    assert connected.completions("%%probe logits --merge ") == ["cat", "sum", "topk"]
    assert connected.completions("%%probe logits --params unemb") == ["unembed.weight"]
    assert connected.completions("%%probe logits --params embed.weight unemb") == ["unembed.weight"]
    connected["prompt"] = "Hello"
    assert connected.completions("%%probe logits --on pro") == ["prompt"]


def test_patterns(connected: Notebook) -> None:
    assert connected.completions("%%probe layers.*.mlp.po") == ["layers.*.mlp.post_activation"]
    assert connected.completions("%%probe layers.{0,2}.resid_po") == ["layers.{0,2}.resid_post"]
    assert connected.completions("%%probe layers.1-2.attn.z") == ["layers.1-2.attn.z"]


def test_modules(connected: Notebook) -> None:
    assert connected.completions("%%probe module:model.norm.") == [
        "module:model.norm.input",
        "module:model.norm.output",
    ]


def test_many_names_are_offered_part_by_part() -> None:
    deep = Catalog({}, 80, layers={"layers.{i}.mlp.out": tuple(range(80)),
                                   "layers.{i}.attn.out": tuple(range(80)),
                                   "layers.{i}.resid_post": tuple(range(80))})  # fmt: skip
    top = point_names(deep, "")
    assert "layers." in top and "logits" in top and "layers.3.mlp.out" not in top
    assert point_names(deep, "layers.")[:3] == ["layers.*", "layers.0.", "layers.1."]
    assert point_names(deep, "layers.77.") == [
        f"layers.77.{name}" for name in ("attn.out", "mlp.out", "resid_post")
    ]


def test_words_servers_and_parameters(connected_served: Notebook) -> None:
    assert connected_served.completions("%garcon la") == ["launch", "layout"]
    assert connected_served.completions("%garcon help stat") == ["status"]
    assert connected_served.completions("%garcon stop tin") == [
        server.name for server in garcon.servers() if server.name.startswith("tin")
    ]
    assert "tiny" in connected_served.completions("x = 1\n%garcon connect ")
    assert connected_served.completions("%garcon use rmo") == ["rmodel"]
    assert connected_served.completions("%garcon params layers.0.mlp.") == [
        name for name in connected_served["rmodel"].parameters if name.startswith("layers.0.mlp.")
    ]
    assert connected_served.completions("%garcon launch smo") == ["smollm2"]
    assert connected_served.completions("%garcon launch smollm2 --dev") == ["--device"]
    assert connected_served.completions("%garcon launch smollm2 --device c") == ["cpu", "cuda"]


def test_below_the_line_python_is_completed(connected: Notebook) -> None:
    connected["layersize"] = 3
    offered = connected.completions("%%probe logits\nlayersi")
    assert "layersize" in offered
    assert not connected.completions("x = 1\n%%probe layers.1.mlp.po")


def test_keys_of_probe_points(connected: Notebook) -> None:
    offered = connected.completions('rmodel.probe_points["layers.1.mlp.po')
    assert any("layers.1.mlp.post_activation" in one for one in offered)


def test_the_options_of_a_launch_in_python(notebook: Notebook) -> None:
    notebook.run("import garcon_jupyter as garcon")
    for function in ("launch", "launch_and_connect"):
        offered = notebook.completions(f'garcon.{function}("smollm2", rdzv')
        assert offered == ["rdzv_endpoint="]
        assert notebook.completions(f"garcon.{function}(dty") == [f"garcon.{function}(dtype="]


def test_no_model_offers_no_points(notebook: Notebook) -> None:
    assert "layers.1.mlp.out" not in notebook.completions("%%probe layers.")
    assert notebook.completions("%garcon po") == ["points"]


def test_completing_asks_no_server(connected: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a server was asked")

    monkeypatch.setattr(connected["rmodel"]._channel, "ask", refuse)
    monkeypatch.setattr(connected["rmodel"]._channel, "request", refuse)
    for line in ("%%probe ", "%garcon params ", "%garcon stop ", "%garcon probes --detach "):
        connected.completions(line)
