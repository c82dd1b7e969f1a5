"""``%%probe``: a cell becomes a probe and does what it says, against plain hooks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadProbe, BadRequest, UnknownPoint, WrongValue
from tests import lora
from tests.magics.conftest import Notebook
from tests.oracle import PROMPT, Plain, close

NEURONS = "layers.2.mlp.post_activation"


def test_saves_and_says_what_is_attached(connected: Notebook, plain: Plain) -> None:
    printed = connected.run(f"%%probe {NEURONS}\nsave_ctx.tensor = tensor")
    number = connected.shell.execution_count - 1
    assert printed == f"Attached to tiny:\n  {NEURONS}  cell_{number}\n"
    model = connected["rmodel"]
    model.forward(PROMPT)
    assert close(model.recordings()[NEURONS].tensor, plain.neurons(2, PROMPT))


def test_garcon_is_the_same_magic(connected: Notebook) -> None:
    connected.run("%%garcon layers.{0,3}.mlp.out --name n\nsave_ctx.tensor = tensor")
    assert list(connected["rmodel"].attached) == [
        ("layers.0.mlp.out", False, "n"),
        ("layers.3.mlp.out", False, "n"),
    ]


def test_running_it_again_replaces_it(connected: Notebook) -> None:
    for value in (1, 2):
        connected.run(f"%%probe logits --on Hello\nsave_ctx.value = {value}")
    model = connected["rmodel"]
    assert len(model.attached) == 1
    assert model.recordings()["logits"].value == 2


def test_edits_and_captured_variables(connected: Notebook, plain: Plain) -> None:
    connected["unit"], connected["factor"] = 7, torch.tensor(0.0)
    printed = connected.run(f"%%probe {NEURONS}\ntensor[:, :, unit] *= factor")
    assert "captures factor (" in printed and "unit (5 bytes)" in printed

    def ablate(module: object, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = args[0].clone()
        changed[:, :, 7] = 0
        return (changed,)

    handle = plain.module("model.layers.2.mlp.down_proj").register_forward_pre_hook(ablate)
    expected = plain.logits(PROMPT)
    handle.remove()
    connected["unit"] = 3  # captured when the cell ran
    edited = connected["rmodel"].forward(PROMPT)
    assert close(edited, expected) and not close(edited, plain.logits(PROMPT))
    assert close(connected["rmodel"].forward(PROMPT, probes=[]), plain.logits(PROMPT))


def test_return_replaces(connected: Notebook, plain: Plain) -> None:
    connected.run("%%probe logits\nreturn tensor * 2")
    assert close(connected["rmodel"].forward(PROMPT), 2 * plain.logits(PROMPT))


def test_on_a_text_a_variable_and_tokens(connected: Notebook) -> None:
    model = connected["rmodel"]
    connected.run('%%probe embed.out --on "two words"\nsave_ctx.tokens = save_ctx.here.tokens')
    assert model.recordings()["embed.out"].tokens.tolist() == model.encode("two words").tolist()
    connected["prompt"] = PROMPT
    connected.run("%%probe embed.out --on prompt\nsave_ctx.tokens = save_ctx.here.tokens")
    assert model.recordings()["embed.out"].tokens.tolist() == PROMPT
    connected["texts"] = ["Hi", "there"]
    connected.run("%%probe embed.out --on texts\nsave_ctx.tokens = save_ctx.here.tokens")
    assert model.recordings()["embed.out"].tokens.shape[0] == 2


def test_prints_appear_in_the_cell(connected: Notebook) -> None:
    printed = connected.run("%%probe embed.out --on Hello\nprint('shape', list(tensor.shape))")
    assert printed.endswith("\nshape [1, 6, 48]\n")


def test_once_with_on_and_in_the_next_pass(connected: Notebook) -> None:
    model = connected["rmodel"]
    body = "save_ctx.n = getattr(save_ctx, 'n', 0) + 1"
    connected.run(f"%%probe embed.out --once --on Hello\n{body}")
    assert not model.attached and not model.attached_once
    assert "next pass only" in connected.run(f"%%probe embed.out --once\n{body}")
    assert model.recordings()["embed.out"].n == 1
    model.forward(PROMPT, probes=[])  # a clean pass is not its turn
    for _ in range(3):
        model.forward(PROMPT)
    assert model.recordings()["embed.out"].n == 2


def test_once_stands_in_for_one_pass_only(connected: Notebook) -> None:
    model = connected["rmodel"]
    connected.run("%%probe embed.out\nsave_ctx.which = 'attached'")
    connected.run("%%probe embed.out --once --on Hello\nsave_ctx.which = 'once'")
    assert model.recordings()["embed.out"].which == "once"
    model.forward(PROMPT)
    assert model.recordings()["embed.out"].which == "attached"


def test_gradients(connected: Notebook, plain: Plain) -> None:
    connected.run(f"%%probe {NEURONS} --grad\nsave_ctx.gradient = tensor")
    model = connected["rmodel"]
    model.backward(PROMPT, lambda logits: logits[:, -1, 5].sum())
    leaves = []

    def keep(module: object, args: tuple[torch.Tensor]) -> None:
        args[0].retain_grad()
        leaves.append(args[0])

    handle = plain.module("model.layers.2.mlp.down_proj").register_forward_pre_hook(keep)
    plain.model(torch.tensor(PROMPT)).logits[:, -1, 5].sum().backward()
    handle.remove()
    plain.model.zero_grad()
    assert close(model.recordings()[NEURONS].gradient, leaves[0].grad, 1e-4)
    shown = connected.fails(f"%%probe {NEURONS} --grad --on Hello\nreturn tensor", BadRequest)
    assert "no gradients" in shown and "rmodel.backward" in shown


def test_parameters_and_source_stay_on_the_server(connected: Notebook, plain: Plain) -> None:
    model = connected["rmodel"]
    connected.run(
        "%%probe layers.3.resid_post --params unembed.weight embed.weight --on Hello\n"
        "save_ctx.shape = list(save_ctx.params['unembed.weight'].shape)\n"
        "save_ctx.same = bool((save_ctx.params['embed.weight'] == save_ctx.params['unembed.weight']).all())\n"
        "save_ctx.tensor = tensor"
    )
    recording = model.recordings()["layers.3.resid_post"]
    assert recording.shape == [263, 48] and recording.same is False
    connected["earlier"] = model.recordings()
    connected.run(
        '%%probe layers.3.resid_post --source earlier["layers.3.resid_post"] --on Hxllo\n'
        "return save_ctx.source.tensor"
    )
    tokens = model.encode("Hello")
    assert close(model.forward(model.encode("Hxllo")), plain.logits(tokens.ids))
    shown = connected.fails("%%probe logits --source earlier\nreturn tensor", BadProbe)
    assert "is a Recordings, not a recording" in shown
    shown = connected.fails("%%probe logits --source nothing.there\nreturn tensor", BadProbe)
    assert "NameError" in shown


def test_sharded_with_a_rule_and_a_function(
    notebook: Notebook, rmodel_tp2: garcon.RemoteModel, plain: Plain
) -> None:
    notebook["rmodel"] = rmodel_tp2
    notebook.run(f"%%probe {NEURONS} --sharded --merge cat\nsave_ctx.t = tensor")
    rmodel_tp2.forward(PROMPT)
    assert close(rmodel_tp2.recordings()[NEURONS].t, plain.neurons(2, PROMPT))
    notebook.run("def smallest(parts): return min(float(p) for p in parts)")
    notebook.run(f"%%probe {NEURONS} --sharded --merge smallest\nsave_ctx.t = tensor.min()")
    rmodel_tp2.forward(PROMPT)
    smallest = plain.neurons(2, PROMPT).min()
    assert abs(rmodel_tp2.recordings()[NEURONS].t - float(smallest)) < 1e-5
    shown = notebook.fails(f"%%probe {NEURONS} --sharded --merge median\nreturn None", BadProbe)
    assert "no merge rule 'median'" in shown and "topk" in shown


def test_show(connected: Notebook) -> None:
    shown = connected.fails("%%probe embed.out --show\nsave_ctx.t = tensor", BadRequest)
    assert "Add --on" in shown
    printed = connected.run("%%probe embed.out --on Hello --show\nsave_ctx.tensor = tensor")
    assert "View embed.out: activations 1 × 6 × 48" in printed
    printed = connected.run("%%probe layers.0.attn.pattern --show\nsave_ctx.tensor = tensor")
    assert "View layers.0.attn.pattern: attention 1 × 6 × 6 × 6" in printed
    printed = connected.run("%%probe layers.*.mlp.* --name s --show\nsave_ctx.tensor = tensor")
    assert printed.count("<View") == 4
    assert printed.endswith("\n20 more: rmodel.show('layers.0.mlp.out'), ….\n")
    every = "%%probe layers.*.attn.pattern --show\n"
    printed = connected.run(f"{every}save_ctx.tensor = tensor")
    assert "<AttentionWidget attention pattern: 4 layers × 6 heads, 6 × 6 tokens" in printed
    connected.run("rmodel.clear_recordings()")
    printed = connected.run(
        f"{every}save_ctx.largest = tensor.amax((2, 3))"
    )  # no patterns any more
    assert printed.count("<View") == 4


# -- what goes wrong -----------------------------------------------------------------------------


def test_an_error_names_the_point_and_the_line_of_the_cell(connected: Notebook) -> None:
    shown = connected.fails(
        "\n\n%%probe layers.1.attn.z --on Hello\n\nsave_ctx.x = 1\nhalf = tensor / 'two'", TypeError
    )
    number = connected.shell.execution_count - 1
    assert f"Cell In[{number}], line 6, in cell_{number}\n    half = tensor / 'two'" in shown
    assert "at layers.1.attn.z [1, 6, 6, 16] float32" in shown
    assert "site-packages/IPython" not in shown
    assert connected["rmodel"].forward(PROMPT, probes=[]).shape == (2, 6, 263)


def test_an_error_in_a_function_of_the_notebook_names_its_cell(connected: Notebook) -> None:
    connected.run("def half(x):\n    return x / 'two'")
    defined = connected.shell.execution_count - 1
    shown = connected.fails("%%probe embed.out --on Hello\nhalf(tensor)", TypeError)
    assert f"Cell In[{defined}], line 2, in half" in shown
    assert f"Cell In[{defined + 1}], line 2, in cell_{defined + 1}" in shown


def test_an_error_in_a_loss_names_its_line(connected: Notebook) -> None:
    connected.run("def loss(logits):\n    return logits.nope")
    defined = connected.shell.execution_count - 1
    shown = connected.fails("rmodel.backward('Hello', loss)", AttributeError)
    assert (
        f"at the loss function\n  Cell In[{defined}], line 2, in loss\n    return logits.nope"
        in shown
    )


def test_code_on_ranks_names_its_line(connected: Notebook) -> None:
    shown = connected.fails("rmodel.run_on_ranks('x = 1\\nmodel.nope()')", AttributeError)
    assert 'File "<garcon>", line 2, in <module>\n    model.nope()' in shown


def test_a_warning_shows_its_line(
    connected_served: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    connected_served.shell.run_cell(
        "%%probe embed.out --on Hello\nimport warnings\nwarnings.warn('odd')"
    )
    told = capsys.readouterr().err
    assert ":3: UserWarning: odd\n  warnings.warn('odd')" in told


def test_a_lost_edit_is_told_once(connected: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    cell = "%%probe embed.out\nsave_ctx.before = tensor\ntensor = tensor + 1"
    connected.shell.run_cell(cell, store_history=True)
    number = connected.shell.execution_count - 1
    told = capsys.readouterr().err
    assert f"[garcon] Cell In[{number}], line 3: cell_{number} gives 'tensor' a new value" in told
    connected.shell.run_cell(f"{cell}\nreturn tensor", store_history=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("cell", "kind", "sentence"),
    [
        ("%%probe layers.1.mlp.uot\nreturn None", UnknownPoint, "Did you mean layers.1.mlp.out"),
        ("%%probe layers.9.mlp.out\nreturn None", UnknownPoint, "layers 0 to 3"),
        ("%%probe layers.{i}.mlp.out\nreturn None", BadRequest, "needs a variable 'i'"),
        ("%%probe logits --nme x\nreturn None", BadRequest, "no option --nme"),
        ("%%probe --grad\nreturn None", BadRequest, "required: POINT"),
        ("%%probe logits\nyield tensor", BadProbe, "cannot yield"),
        ("%%probe logits\nreturn (", BadProbe, "does not compile"),
        ("%%probe logits\ncount += 1", BadProbe, "use save_ctx.count"),
        ("%%probe logits\nlock.acquire()", BadProbe, "'lock', a lock, cannot be pickled"),
        ("%%probe logits\nrmodel.forward([[0]])", BadProbe, "'rmodel', a RemoteModel,"),
        ("%%probe logits --on Hello\nreturn tensor[:, :1]", WrongValue, "[1, 1, 263]"),
    ],
)
def test_refused(connected: Notebook, cell: str, kind: type[Exception], sentence: str) -> None:
    import threading

    connected["count"], connected["lock"] = 0, threading.Lock()
    shown = connected.fails(cell, kind)
    assert sentence in shown and "Traceback" not in shown
    if kind is not WrongValue:
        assert not connected["rmodel"].attached, "nothing has changed"
    assert connected["rmodel"].forward(PROMPT, probes=[]).shape == (2, 6, 263)


def test_braces_of_a_variable(connected: Notebook) -> None:
    connected["i"] = 3
    connected.run("%%probe layers.{i}.mlp.out layers.{0,1}.mlp.out\nreturn None")
    assert [point for point, *_ in connected["rmodel"].attached] == [
        "layers.3.mlp.out",
        "layers.0.mlp.out",
        "layers.1.mlp.out",
    ]


def test_exit_ends_the_request_and_nothing_else(connected_served: Notebook) -> None:
    _, error = connected_served.attempt("%%probe logits --on Hello\nexit()")
    assert isinstance(error, garcon.ProbeError) and error.original == "SystemExit"
    assert connected_served["rmodel"].forward(PROMPT, probes=[]).shape == (2, 6, 263)


def test_a_recorder_in_place_of_a_body(connected: Notebook, plain: Plain) -> None:
    printed = connected.run(f"%probe {NEURONS} --record topk=3 --record moments --on Hello")
    assert "Attached to tiny" in printed
    model = connected["rmodel"]
    values = plain.neurons(2, model.last_tokens.ids)[0]
    found = model.recordings()[NEURONS]
    assert close(found.topk.values, values.topk(3, 0).values.T)
    assert close(found.moments.mean, values.mean(0))
    connected.fails(f"%%probe {NEURONS} --record topk\nsave_ctx.x = tensor", BadProbe)
    assert "Did you mean topk" in connected.fails(
        f"%probe {NEURONS} --record topj=3", garcon.UnknownName
    )
    connected.fails(f"%probe {NEURONS} --record topk --record topk=3", BadProbe)
    assert len(model.attached) == 1


def test_an_adapter_is_on_in_the_pass_that_is_run(
    connected: Notebook, llama_path: Path, tmp_path: Path, plain: Plain
) -> None:
    lora.make(tmp_path / "tuned", plain.model, ["q_proj"])
    tuned = garcon.connect(open_here(llama_path, adapter=tmp_path / "tuned"))
    served, connected["rmodel"], connected["prompt"] = connected["rmodel"], tuned, PROMPT
    connected.run("%%probe logits --on prompt --adapter tuned\nsave_ctx.value = tensor")
    assert close(tuned.recordings()["logits"].value, tuned.forward(PROMPT, [], adapter="tuned"))
    assert not close(tuned.recordings()["logits"].value, plain.logits(PROMPT))
    with pytest.raises(garcon.UnknownName, match="Did you mean tuned"):
        connected.run("%%probe logits --on prompt --adapter tund\nsave_ctx.value = tensor")
    with pytest.raises(garcon.BadRequest, match="is of a pass, and none is run"):
        connected.run("%%probe logits --adapter tuned\nsave_ctx.value = tensor")
    connected["rmodel"] = served
