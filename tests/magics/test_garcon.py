"""``%garcon``: every word, with a real server behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, UnknownName, UnknownParameter, UnknownPoint, UnknownServer
from garcon_jupyter.magics.arguments import PARSERS
from tests.conftest import quiet
from tests.magics.conftest import Notebook

WITHOUT_A_MODEL = {"launch", "connect", "list", "use", "help", "shuffle", "jobs", "training"}


def save(save_ctx, tensor):  # type: ignore[no-untyped-def]
    save_ctx.tensor = tensor


# -- loading -------------------------------------------------------------------------------------


def test_loading_twice_adds_everything_once(notebook: Notebook) -> None:
    garcon.load_ipython_extension(notebook.shell)
    garcon.load_ipython_extension(notebook.shell)
    matchers = [
        getattr(m, "matcher_identifier", "") for m in notebook.shell.Completer.custom_matchers
    ]
    assert matchers.count("garcon") == 1
    assert {"garcon", "probe"} <= set(notebook.shell.magics_manager.magics["cell"])


def test_unloading_leaves_nothing(notebook: Notebook) -> None:
    notebook.run("%unload_ext garcon_jupyter")
    manager = notebook.shell.magics_manager
    assert not {"garcon", "probe"} & {*manager.magics["line"], *manager.magics["cell"]}
    assert "GarconMagics" not in manager.registry
    assert not any(
        getattr(m, "matcher_identifier", "") == "garcon"
        for m in notebook.shell.Completer.custom_matchers
    )
    notebook.run("%load_ext garcon_jupyter")
    assert "%garcon launch" in notebook.run("%garcon")


# -- models and servers --------------------------------------------------------------------------


def test_launch_sets_rmodel_and_running_it_again_keeps_it(
    notebook: Notebook, llama_server: garcon.Server, llama_path: Path
) -> None:
    notebook["where"] = str(llama_path)
    printed = notebook.run("%garcon launch {where} --name tiny --session again")
    assert printed == (
        "rmodel is connected to tiny: LlamaForCausalLM, 120,912 parameters, float32, "
        "one process on cpu.\n"
    )
    first = notebook["rmodel"]
    assert first.session == "again"
    assert first.facts["pid"] == llama_server.facts["pid"]
    first.attach(first.probe_points["logits"].probe(save))
    assert "still connected" in notebook.run("%garcon launch {where} --name tiny")
    assert notebook["rmodel"] is first and len(first.attached) == 1


def test_a_closed_connection_is_made_again_in_its_session(
    notebook: Notebook, llama_server: garcon.Server
) -> None:
    notebook.run("%garcon connect tiny --session kept")
    first = notebook["rmodel"]
    first.forward([[0, 1, 2]], probes=[first.probe_points["logits"].probe(save)])
    first.close()
    printed = notebook.run("%garcon connect tiny --session kept")
    assert "Session 'kept' is resumed, with 1 recording.\n" in printed
    assert notebook["rmodel"] is not first
    assert list(notebook["rmodel"].recordings()) == ["logits"]


def test_the_notebooks_own_session(
    notebook: Notebook, llama_server: garcon.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/a user/study.ipynb")
    notebook.run("%garcon connect tiny")
    assert notebook["rmodel"].session.endswith("@/home/a-user/study.ipynb")


def test_use_is_an_assignment(connected_served: Notebook, llama_server: garcon.Server) -> None:
    first = connected_served["rmodel"]
    connected_served.run("%garcon connect tiny --session other")
    second = connected_served["rmodel"]
    assert second is not first
    connected_served["mine"] = first
    connected_served.run("%garcon use mine")
    assert connected_served["rmodel"] is first
    connected_served["rmodel"] = None
    connected_served.run("%garcon use tiny")
    assert connected_served["rmodel"] is first  # the last that was used on that server
    connected_served["mine"] = 3
    assert "no open connection" in connected_served.fails("%garcon use mine", BadRequest)
    assert "tiny" in connected_served.fails("%garcon use tinny", UnknownServer)


@pytest.mark.processes
def test_a_fleet_is_listed_and_stopped_by_its_name(notebook: Notebook, llama_path: Path) -> None:
    garcon.fleet({"a step": llama_path}, "few", progress=quiet)
    rows = notebook.run("%garcon list").splitlines()
    at = next(n for n, row in enumerate(rows) if row.startswith("few "))
    assert "fleet, 1 of 1 run" in rows[at] and rows[at + 1].startswith("  few.a-step ")
    assert {"few", "few.a-step"} <= set(notebook.completions("%garcon stop few"))
    notebook.run("%garcon connect few.a-step")
    assert notebook.run("%garcon stop few") == "few.a-step has ended.\n"
    assert notebook["rmodel"].closed
    assert "few" in notebook.fails("%garcon stop few", UnknownServer)


NEEDED = {
    **dict.fromkeys(("patch", "path-patch", "attribute"), "a b embed.out"),
    "attribute-edges": "a b",
    "direct-logit-attribution": "a",
    "effects": "a heads",
    "attribution-graph": "a b",
    "connectome": "here",
    "read-lens": "a",
    "store": "embed.out a here",
    "features": "embed.out a here",
    "dictionary": "list",
    "explain": "here embed.out 0",
    "dictionary train": "embed.out a here --width 8",
    **dict.fromkeys(("layout", "pca"), "embed.out a"),
    "linear-probe": "embed.out a b",
}
"""Arguments that words cannot do without."""


@pytest.mark.parametrize("word", sorted(set(PARSERS) - WITHOUT_A_MODEL))
def test_no_model_is_said_with_what_to_do(
    notebook: Notebook, llama_server: garcon.Server, word: str
) -> None:
    line = f"%garcon {word} {NEEDED.get(word, '')}"
    shown = notebook.fails(line, BadRequest)
    assert "There is no model: rmodel is not set.\n%garcon launch smollm2 launches" in shown
    assert "%garcon connect NAME connects to one that runs (" in shown and "tiny" in shown
    notebook["rmodel"] = 3
    assert "rmodel is a int, not a connection" in notebook.fails(line, BadRequest)


def test_errors_are_two_sentences_and_no_stack(notebook: Notebook) -> None:
    assert notebook.fails("%garcon stop nobody", UnknownServer).startswith(
        "UnknownServer: There is no running server 'nobody'.\n"
    )
    assert notebook.fails("%garcon lanch x", UnknownName) == (
        "UnknownName: There is no command 'lanch'.\nDid you mean launch or patch or cancel? %garcon help lists them.\n"
    )
    assert "Usage: %garcon stop" in notebook.fails("%garcon stop --now", BadRequest)


# -- lists ---------------------------------------------------------------------------------------


def test_list_and_status(connected_served: Notebook, llama_server: garcon.Server) -> None:
    rows = connected_served.run("%garcon list").splitlines()
    assert rows[0].split() == ["NAME", "MODEL", "CUT", "PID", "PATH"]
    (row,) = [r.split() for r in rows if r.startswith("tiny ")]
    assert row[-2:] == [str(llama_server.facts["pid"]), llama_server.facts["path"]]
    told = connected_served.run("%garcon status tiny")
    assert told.splitlines()[:5] == connected_served.run("%garcon status").splitlines()[:5]
    assert f"in session {connected_served['rmodel'].session!r}" in told
    assert "layers 0-3" in told and re.search(r"running +nothing", told)


def test_points_by_template_with_the_reasons_of_those_it_lacks(connected: Notebook) -> None:
    rows = connected.run("%garcon points").splitlines()
    (row,) = [row for row in rows if row.startswith("layers.{i}.mlp.post_activation ")]
    assert "b, p, 80" in row and " 0-3 " in row and "the neurons" in row
    (row,) = [row for row in rows if "mlp.router.logits" in row]
    assert "dense" in row
    assert rows.index(row) > rows.index("This model does not have:")


def test_points_of_a_pattern_of_a_beginning_and_of_none(connected: Notebook) -> None:
    rows = connected.run("%garcon points layers.{0,2}.attn.z").splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["layers.0.attn.z", "layers.2.attn.z"]
    assert "b, p, 6, 16" in rows[0]
    rows = connected.run("%garcon points layers.3.mlp.norm").splitlines()[1:]
    assert [row.split()[0].rpartition(".")[2] for row in rows] == ["scale", "normalized", "out"]
    shown = connected.fails("%garcon points layers.3.mlp.uot", UnknownPoint)
    assert "Did you mean layers.3.mlp.out" in shown


def test_params(connected: Notebook) -> None:
    rows = connected.run("%garcon params").splitlines()
    assert any(row.split()[:3] == ["layers.{i}.mlp.down_proj", "48,", "80"] for row in rows)
    rows = connected.run("%garcon params layers.1.attn").splitlines()[1:]
    model = connected["rmodel"]
    assert [row.split()[0] for row in rows] == [
        name for name in model.parameters if name.startswith("layers.1.attn.")
    ]
    for row in rows:
        name, *shape = row.replace(",", "").split()
        sizes = [int(word) for word in shape if word.isdigit()]
        assert list(model.get_parameter(name).shape) == sizes
    assert "down_proj" in connected.fails("%garcon params layers.1.mlp.dwn_proj", UnknownParameter)


def test_probes_are_listed_and_detached(connected: Notebook) -> None:
    model = connected["rmodel"]
    assert connected.run("%garcon probes") == "No probes are attached to tiny.\n"
    model.attach(*model.probe_points["layers.*.mlp.out"].probes(save))
    model.attach(model.probe_points["logits"].probe(save, name="extra"))
    rows = connected.run("%garcon probes").splitlines()
    assert rows[1].split("  ")[1] == "layers.0.mlp.out … layers.3.mlp.out (4 points)"
    assert rows[2].split() == ["logits", "save", "name=extra"]
    assert "Detached 2 probes." in connected.run("%garcon probes --detach layers.{1,3}.mlp.out")
    assert {point for point, *_ in model.attached} == {
        "layers.0.mlp.out",
        "layers.2.mlp.out",
        "logits",
    }
    assert "Detached 3 probes." in connected.run("%garcon probes --all")
    assert not model.attached


def test_recordings_and_clear(connected: Notebook) -> None:
    model = connected["rmodel"]
    probes = model.probe_points["layers.{0,1}.mlp.out"].probes(save)
    model.forward([[0, 5, 6]], probes=probes)
    listed = connected.run(
        "%garcon recordings"
    )  # with a certificate where another test certified the server
    assert re.search(r"layers.1.mlp.out(, certificate \w+)?: tensor: Tensor \[1, 3, 48\]", listed)
    assert connected.run("%garcon clear layers.0.mlp.out") == "Recordings left: 1.\n"
    assert list(model.recordings()) == ["layers.1.mlp.out"]
    assert connected.run("%garcon clear") == "Recordings left: 0.\n"


def test_logs(connected_served: Notebook) -> None:
    assert "loaded 120,912 parameters" in connected_served.run("%garcon logs -n 100000")
    assert len(connected_served.run("%garcon logs tiny -n 2").splitlines()) == 2
    assert connected_served.run("%garcon logs -n 0").strip() == ""


def test_certify(connected: Notebook) -> None:
    printed = connected.run("%garcon certify --anew")
    kept = connected["rmodel"].certify()
    assert printed.startswith(f"<certificate {kept.id} of tiny: 44 of 44")
    assert connected.run("%garcon certify").splitlines()[0] == printed.splitlines()[0]


def test_help(notebook: Notebook) -> None:
    everything = notebook.run("%garcon")
    assert everything == notebook.run("%garcon help") == notebook.run("%garcon --help")
    for word, parser in PARSERS.items():
        first = (parser.description or "").splitlines()[0]
        assert first.endswith(".") and f" {first}\n" in everything  # a whole sentence
        about = notebook.run(f"%garcon help {word}")
        assert about.startswith(f"usage: %garcon {word}")
        assert notebook.run(f"%garcon {word} --help").strip() == about.strip()
    shell = notebook.shell
    assert "%garcon launch" in shell.object_inspect("%garcon")["docstring"]
    assert "save_ctx and tensor are its arguments" in shell.object_inspect("%%probe")["docstring"]
    assert "%%garcon POINT" in notebook.fails("%%garcon\nprint(1)", BadRequest)
    assert "one %" in notebook.fails("%%garcon launch smollm2\nprint(1)", BadRequest)


# -- on every rank -------------------------------------------------------------------------------


def test_ranks_prints_are_labelled(notebook: Notebook, rmodel_tp2: garcon.RemoteModel) -> None:
    notebook["rmodel"] = rmodel_tp2
    printed = notebook.run(
        "%%garcon --ranks\n"
        "print('I am', rank, 'of', world_size)\n"
        "print(sum(p.numel() for p in model.parameters()))\n"
        "print('no end', end='')"
    )
    for rank in (0, 1):
        lines = [line for line in printed.splitlines() if line.startswith(f"[rank {rank}] ")]
        assert [lines[0], lines[2]] == [
            f"[rank {rank}] I am {rank} of 2",
            f"[rank {rank}] no end",
        ]
        assert 120_912 / 2 < int(lines[1].split()[-1]) < 120_912  # a shard, and the shared norms


def test_an_error_on_one_rank_shows_the_line(
    notebook: Notebook, rmodel_tp2: garcon.RemoteModel
) -> None:
    notebook["rmodel"] = rmodel_tp2
    shown = notebook.fails("%%garcon --ranks\nx = 1\nif rank == 1:\n    x / 0", ZeroDivisionError)
    assert "at rank 1 of 2" in shown
    assert "line 4" in shown and "    x / 0" in shown
    assert torch.is_tensor(rmodel_tp2.forward([[0, 1]]))
    assert "does not compile" in notebook.fails("%%garcon --ranks\nx = (", garcon.BadProbe)
    assert "takes nothing else" in notebook.fails("%%garcon --ranks logits\nx", BadRequest)
