"""The notebooks run from start to finish with real servers, and their pages need no network."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat import NotebookNode

import garcon_jupyter as garcon
from examples import demo
from garcon_jupyter.model_files import embedded
from tests.conftest import quiet
from tests.oracle import Plain, close

pytestmark = pytest.mark.processes

ARTICLE = """
import torch
torch.save({"tokens": tokens.ids, "logits": logits, "W": W,
  "neurons": rmodel.recordings()["layers.4.mlp.post_activation"].tensor,
  "ablated": rmodel.forward(tokens, probes=[ablate_neuron(4, 123)])}, "FILE")
"""
"""A last cell that keeps values of the article's notebook."""


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[NotebookNode, str, str]:
    """What `make demo` does: the notebook, its page, and what was printed."""
    file = tmp_path_factory.mktemp("page") / "quickstart.html"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        notebook = demo.demo(file)
    return notebook, file.read_text(encoding="utf-8"), printed.getvalue()


@pytest.fixture(scope="module")
def quickstart(demonstrated: tuple[NotebookNode, str, str]) -> NotebookNode:
    return demonstrated[0]


@pytest.fixture(scope="module")
def page(demonstrated: tuple[NotebookNode, str, str]) -> str:
    return demonstrated[1]


@pytest.fixture(scope="module")
def article(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Values of the article's notebook after its run."""
    file = tmp_path_factory.mktemp("article") / "values.pt"
    demo.run(demo.HERE / "article.ipynb", more=[ARTICLE.replace("FILE", str(file))])
    return torch.load(file)


# -- the demo ------------------------------------------------------------------------------------


def test_the_quickstart_finds_paris(quickstart: NotebookNode) -> None:
    demo.check_answer(quickstart)


def test_the_demo_says_how_to_go_on(demonstrated: tuple[NotebookNode, str, str]) -> None:
    printed = demonstrated[2]
    for words in ("Paris", "quickstart.html", "make lab", "garcon stop smollm2-"):
        assert words in printed


def test_another_answer_fails(quickstart: NotebookNode) -> None:
    wrong = nbformat.from_dict(json.loads(json.dumps(quickstart)))
    (cell,) = [c for c in wrong.cells if "answer" in c.metadata.get("tags", ())]
    cell.outputs[0].data["text/plain"] = "' London'"
    with pytest.raises(demo.Failed, match="London"):
        demo.check_answer(wrong)
    wrong.cells.remove(cell)
    with pytest.raises(demo.Failed):
        demo.check_answer(wrong)


def test_the_model_is_the_promised_one() -> None:
    assert embedded.provenance(demo.check_model())["sha256"] == demo.MODELS["smollm2"].sha256


def test_another_model_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = embedded.fetch("smollm2", progress=quiet)
    shutil.copy(snapshot / embedded.RECORD, tmp_path)
    record = json.loads((tmp_path / embedded.RECORD).read_text())
    record["sha256"] = "0" * 64
    (tmp_path / embedded.RECORD).write_text(json.dumps(record))
    monkeypatch.setattr(embedded, "fetch", lambda name: tmp_path)
    with pytest.raises(demo.Failed, match="0000"):
        demo.check_model()


def test_the_quickstart_leaves_its_server_to_the_reader(quickstart: NotebookNode) -> None:
    name = demo.server_name(embedded.fetch("smollm2", progress=quiet))
    assert name in [server.name for server in garcon.servers()]


# -- what a saved notebook shows -----------------------------------------------------------------


def test_the_page_has_the_pictures(page: str) -> None:
    pictures = re.findall(r'<img[^>]+src="data:image/svg\+xml[^"]+"', page)
    assert len(pictures) == 2
    assert "layers.4.mlp.post_activation activations" in page
    assert "layers.12.attn.pattern attention" in page


def test_the_page_loads_nothing(page: str) -> None:
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?!data:)\w+:", page)
    assert not re.findall(r"@import|url\(['\"]?https?:|(?:import|from)\s*\(?['\"]https?:", page)
    assert not re.findall(r"//[\w.]*(?:cdn|unpkg|jsdelivr)", page)


@pytest.mark.parametrize(
    "name",
    [
        *demo.NOTEBOOKS,
        "atlas.ipynb",
        "circuits.ipynb",
        "checkpoints.ipynb",
        "features.ipynb",
        "atlas_at_scale.ipynb",
        "training.ipynb",
    ],
)
def test_committed_notebooks_show_a_whole_run(name: str) -> None:
    path = demo.HERE / name
    assert path.stat().st_size < 500_000
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
    assert "widgets" not in notebook.metadata
    assert str(Path.home()) not in text


def test_the_committed_quickstart_is_what_a_run_gives(quickstart: NotebookNode) -> None:
    committed = nbformat.read(demo.HERE / "quickstart.ipynb", as_version=4)

    def results(notebook: NotebookNode) -> list[list[str]]:
        return [
            [o.data["text/plain"] for o in cell.get("outputs", ()) if o.output_type != "stream"]
            for cell in notebook.cells
            if "rmodel.decode" in cell.source
        ]

    assert results(committed) == results(quickstart)
    assert len(results(committed)) >= 4


# -- the atlas -----------------------------------------------------------------------------------


def test_the_atlas_notebook_runs_on_a_little_of_its_text(tmp_path: Path) -> None:
    notebook = nbformat.read(demo.HERE / "atlas.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "TOKENS = 200_000" in cell.source]
    cell.source = cell.source.replace("200_000", "2_000").replace("*", "{10,11,21,22,23,24}")
    (tmp_path / "examples").mkdir()
    nbformat.write(notebook, tmp_path / "examples" / "atlas.ipynb")
    done = demo.run(tmp_path / "examples" / "atlas.ipynb")
    atlas = garcon.open_atlas(tmp_path / "build" / "smollm2.atlas")
    assert len(atlas) == 6 * 1536 and atlas.tokens == 2_000
    # The last cells run whole texts through the model: their outputs do not depend on the atlas.
    for source in ("May I march?", "exports.neuronpedia"):
        (mine,) = [cell for cell in done.cells if source in cell.source]
        assert mine.outputs and mine.outputs[0].output_type == "stream"
    assert _printed(done, "May I march?") == _printed(notebook, "May I march?")


def _printed(notebook: NotebookNode, source: str) -> list[str]:
    (cell,) = [cell for cell in notebook.cells if source in cell.source]
    return [line.strip() for line in cell.outputs[0].text.splitlines()]


# -- circuits ------------------------------------------------------------------------------------

CIRCUIT = """
import json
with open("FILE", "w") as file:
    json.dump({"patched": patched.strongest(1), "logits": to_logits.strongest(1), "values": values.strongest(1),
      "check": attributed.facts["check"], "kept": mean.tolist(), "edges": max(into, key=into.get)}, file)
"""
"""A last cell that keeps what the notebook on circuits found."""


def test_the_notebook_on_circuits_finds_what_it_says(tmp_path: Path) -> None:
    notebook = demo.HERE / "circuits.ipynb"
    cells = nbformat.read(notebook, as_version=4).cells
    code = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert len([line for line in code if line.strip()]) < 50
    demo.run(notebook, more=[CIRCUIT.replace("FILE", str(tmp_path / "found.json"))])
    found = json.loads((tmp_path / "found.json").read_text())
    for name, share in (("patched", 0.740), ("logits", 0.572)):
        ((place, value),) = found[name]
        assert place == {"layer": 23, "head": 3} and value == pytest.approx(share, abs=1e-3)
    assert found["values"][0][0] == {"position": 9, "kv_head": 1}
    assert found["check"]["pearson"] > 0.95 and found["edges"] == "mlp 0"
    (none, one, *_, whole), (empty, drawn, *_) = found["kept"]
    assert none == pytest.approx(0, abs=1e-3) == empty and whole == pytest.approx(1, abs=1e-3)
    assert one > 0.6 and abs(drawn) < 0.05


# -- checkpoints ---------------------------------------------------------------------------------

FORMED = """
import json
with open("FILE", "w") as file:
    json.dump({"place": [layer, head], "induction": table, "losses": losses, "found": [*scores]}, file)
"""
"""A last cell that keeps what the notebook on checkpoints found."""


def test_the_notebook_on_checkpoints_shows_an_induction_head_form(tmp_path: Path) -> None:
    notebook = nbformat.read(demo.HERE / "checkpoints.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "STEPS = (" in cell.source]
    cell.source = cell.source.replace(", 450, 700)", ")")
    (tmp_path / "examples").mkdir()
    nbformat.write(notebook, tmp_path / "examples" / "checkpoints.ipynb")
    kept = FORMED.replace("FILE", str(tmp_path / "found.json"))
    demo.run(tmp_path / "examples" / "checkpoints.ipynb", more=[kept])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["found"] == [f"step{step}" for step in (*range(0, 301, 50), 350)]
    assert found["place"][0] == 1 and found["induction"]["step0"] < 0.1
    assert max(found["induction"][f"step{step}"] for step in (0, 50, 100)) < 0.1
    assert (
        found["induction"]["step350"] > 0.3 and found["losses"]["350"] < 2 < found["losses"]["150"]
    )


# -- features ------------------------------------------------------------------------------------

FEATURES = """
import json
with open("FILE", "w") as file:
    json.dump({"clean": loss(clean), "through": loss(through), "alive": len(alive), "rows": len(found.to_frame()),
      "unexplained": training.curves[-1].unexplained, "war": a_month(war), "out": a_month(war, sae.latents.probe(out))}, file)
"""
"""A cell that keeps what the notebook on features found."""


def test_the_notebook_on_features_runs_on_a_little_of_its_text(tmp_path: Path) -> None:
    notebook = nbformat.read(demo.HERE / "features.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "TOKENS, WIDTH = 160_000, 4096" in cell.source]
    cell.source = cell.source.replace("160_000, 4096", "6_000, 512")
    *cells, last = notebook.cells
    assert last.source == "rmodel.shutdown()"
    kept = nbformat.v4.new_code_cell(FEATURES.replace("FILE", str(tmp_path / "found.json")))
    notebook.cells = [*cells, kept, last]
    (tmp_path / "examples").mkdir()
    nbformat.write(notebook, tmp_path / "examples" / "features.ipynb")
    demo.run(tmp_path / "examples" / "features.ipynb")
    found = json.loads((tmp_path / "found.json").read_text())
    # A dozen steps: it learns something, costs much, and the model without a latent is still the model.
    assert 0 < found["unexplained"] < 1 and found["alive"] > 100 and found["rows"] == 8
    assert found["through"] > found["clean"] == pytest.approx(2.993, abs=1e-2)
    assert found["war"] == pytest.approx(0.968, abs=1e-3) and 0 <= found["out"] <= 1


AT_SCALE = """
import json
with open("FILE", "w") as file:
    json.dump({"rows": len(mixed), "spread": spread(store), "mixed": spread(mixed), "alive": len(alive),
      "same": digest(features) == digest(again), "tokens": features.tokens, "units": len(features)}, file)
"""
"""A cell that keeps what the notebook on activations that do not fit found."""


def test_the_notebook_at_scale_runs_on_a_little_of_its_text(tmp_path: Path) -> None:
    notebook = nbformat.read(demo.HERE / "atlas_at_scale.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "TOKENS, WIDTH = 24_000, 1024" in cell.source]
    cell.source = cell.source.replace("24_000, 1024", "3_000, 256")
    *cells, last = notebook.cells
    assert last.source == "rmodel.shutdown()"
    kept = nbformat.v4.new_code_cell(AT_SCALE.replace("FILE", str(tmp_path / "found.json")))
    notebook.cells = [*cells, kept, last]
    (tmp_path / "examples").mkdir()
    nbformat.write(notebook, tmp_path / "examples" / "atlas_at_scale.ipynb")
    demo.run(tmp_path / "examples" / "atlas_at_scale.ipynb")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows"] == 3000 and found["units"] == 256 and found["tokens"] < 3000
    assert found["spread"] > 2 and 0.5 < found["mixed"] < 1.6
    assert found["alive"] > 20 and found["same"]


# -- a training ----------------------------------------------------------------------------------


def test_the_notebook_on_a_training_runs_on_a_little_of_its_text(tmp_path: Path) -> None:
    """What it finds is held in tests/training/test_post.py."""
    notebook = nbformat.read(demo.HERE / "training.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "STEPS = 120" in cell.source]
    root = str(demo.HERE.parent)
    cell.source = cell.source.replace("120", "30").replace('".."', repr(root), 1)
    kept = "import json\njson.dump({'losses': losses, 'steps': len(found.steps)}, open('found.json', 'w'))"
    (tmp_path / "examples").mkdir()
    nbformat.write(notebook, tmp_path / "examples" / "training.ipynb")
    demo.run(tmp_path / "examples" / "training.ipynb", more=[kept])
    told = json.loads((tmp_path / "examples" / "found.json").read_text())
    assert told["steps"] == 30 and sum(told["losses"][-5:]) < sum(told["losses"][:5]) - 3


# -- the article ---------------------------------------------------------------------------------


def test_the_articles_snippets_are_there_as_printed() -> None:
    source = "\n".join(
        cell.source for cell in nbformat.read(demo.HERE / "article.ipynb", as_version=4).cells
    )
    for line in (
        "python -m garcon_jupyter.launch --snapshot PATH-TO-MODEL --name my-garcon",
        'rmodel = garcon.connect("my-garcon")',
        "rmodel = garcon.launch_and_connect('path-to-model')",
        'logits = rmodel.forward(rmodel.encode("Hello, world"))',
        "  save_ctx.tensor = tensor",
        "  probes=[rmodel.probe_points[point_name].probe(save_tensor)]",
        "    tensor[:, :, mlp_idx] = 0",
        "  return rmodel.probe_points[point_name].probe(hook)",
        "rmodel.forward(tokens, probes=[ablate_neuron(4, 123)])",
        "W = rmodel.get_parameter('layers.4.mlp.up_proj')",
    ):
        assert line in source


def test_the_articles_values_are_transformers_own(article: dict[str, torch.Tensor]) -> None:
    plain = Plain(embedded.fetch("smollm2", progress=quiet))
    ids = plain.tokenizer("Hello, world", return_tensors="pt")["input_ids"]
    assert article["tokens"].tolist() == ids.tolist()
    clean = plain.logits(ids)
    assert close(article["logits"], clean)
    assert close(article["neurons"], plain.neurons(4, ids))
    assert torch.equal(article["W"], plain.module("model.layers.4.mlp.up_proj").weight)

    def ablate(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[:, :, 123] = 0
        return value

    with plain.hooked("model.layers.4.mlp.gate_proj", ablate):
        expected = plain.logits(ids)
    assert close(article["ablated"], expected)
    assert not close(article["ablated"], clean)
