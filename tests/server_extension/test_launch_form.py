"""The fields of the launch dialog, and what comes back from them."""

from __future__ import annotations

from typing import Any

import pytest

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.server_extension import launch_form
from garcon_jupyter.servers.options import OPTIONS
from tests.server_extension import answers


def by_word() -> dict[str, dict[str, Any]]:
    return {field["word"]: field for field in launch_form.fields()}


def test_the_dialog_asks_for_what_needs_no_terminal() -> None:
    assert list(by_word()) == ["name", "tp", "pp", "dp", "dtype", "device", "idle_timeout"]
    labels = [field["label"] for field in launch_form.fields()]
    assert labels[0] == "Name" and labels[-1] == "Ends when idle for"
    answers.check(launch_form.fields(), answers.EXAMPLES["launch_fields"])


def test_a_field_says_what_holds_where_nothing_is_chosen() -> None:
    fields = by_word()
    assert (fields["tp"]["kind"], fields["tp"]["unset"], fields["tp"]["choices"]) == (
        "number",
        "chosen",
        [],
    )
    assert fields["device"]["choices"] == [
        {"value": "", "text": "GPUs, where there are some"},
        {"value": "cuda", "text": "GPUs"},
        {"value": "cpu", "text": "CPU"},
    ]
    assert fields["dtype"]["choices"][0] == {"value": "", "text": "the model's own"}
    # A server always has an idle time, so there is no empty choice, and its default is chosen.
    idle = fields["idle_timeout"]
    assert idle["initial"] == "1h" and idle["choices"][1] == {"value": "1h", "text": "1 hour"}
    assert {choice["value"] for choice in idle["choices"]} == {"30m", "1h", "4h", "24h", "never"}


def test_a_field_can_be_drawn_and_its_choices_launched() -> None:
    """The dialog draws texts and numbers; what it offers, a launch takes."""
    for field in launch_form.fields():
        assert field["kind"] in ("text", "number"), field["word"]
        values = {choice["value"] for choice in field["choices"]} - {""}
        assert not OPTIONS[field["word"]].choices or values == set(OPTIONS[field["word"]].choices)
        assert not field["choices"] or field["initial"] in {c["value"] for c in field["choices"]}
        for value in values:
            assert launch_form.checked({"path": "x", field["word"]: value})[field["word"]] == value


def test_what_is_empty_is_left_out() -> None:
    words = {"path": "x", "name": "", "tp": None, "dp": 2, "idle_timeout": 90.5}
    assert launch_form.checked(words) == {"path": "x", "dp": 2, "idle_timeout": 90.5}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "A launch takes a JSON object."),
        ({"name": "x"}, "A launch needs a path."),
        (
            {"path": "x", "paht": 1},
            "A launch takes no 'paht'. It takes path, name, tp, pp, dp, dtype, device, ",
        ),
        ({"path": 7}, "path is 7. Give a text."),
        ({"path": "x", "tp": "two"}, "tp is 'two'. Give a number."),
        ({"path": "x", "tp": True}, "tp is True. Give a number."),
        ({"path": "x", "dtype": 16}, "dtype is 16. Give a text."),
        ({"path": "x", "idle_timeout": {}}, "idle_timeout is {}. Give a number."),
        ({"path": "x", "loader": "os:system"}, "A launch takes no 'loader'."),
        ({"path": "x", "sbatch": ["--wrap=sh"]}, "A launch takes no 'sbatch'."),
    ],
)
def test_words_that_make_no_sense(words: Any, says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        launch_form.checked(words)
    assert says in str(caught.value)
