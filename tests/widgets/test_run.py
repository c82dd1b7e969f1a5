"""The widget of a run, on answers in place of a run."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.widgets import RunWidget


class Streaming:
    """Gets further at each look, and does as it is told."""

    def __init__(self) -> None:
        self.state, self.done, self.told = "running", 0, [""]

    def poll(self) -> dict[str, Any]:
        self.done += self.state == "running"
        return {
            "state": self.state,
            "fraction": self.done / 10,
            "over": self.state == "cancelled",
            "words": f"{self.done} of 10",
        }

    def steer(self, word: str) -> None:
        if word == "resume" and self.state == "cancelled":
            raise ValueError("it is over")
        self.told.append(word)
        self.state = {"pause": "paused", "resume": "running", "cancel": "cancelled"}[word]


def test_it_follows_the_run_and_steers_it() -> None:
    run = Streaming()
    widget = RunWidget(run.poll, run.steer, lambda: f"<p>{run.done} drawn</p>", "run-1")
    assert widget.summary == "1 of 10" and widget.drawn == ""
    for word, state, drawn in (
        ("look", "running", "2"),
        ("pause", "paused", "2"),
        ("look", "paused", "2"),
        ("resume", "running", "3"),
        ("cancel", "cancelled", "3"),
    ):
        widget._hear(widget, {"do": word}, [])
        assert widget.worker.wait()
        assert widget.state["state"] == state and widget.drawn == f"<p>{drawn} drawn</p>"
    assert widget.looks == 5 and run.told == ["", "pause", "resume", "cancel"]
    assert "<img" in widget.still() and widget.still().endswith("<p>3 drawn</p>")


def test_what_goes_wrong_is_shown() -> None:
    run = Streaming()
    widget = RunWidget(run.poll, run.steer)
    for content in ({"do": "stop"}, {"do": 3}, "nonsense"):
        widget._hear(widget, content, [])
    assert run.told == [""]
    widget._hear(widget, {"do": "cancel"}, [])
    assert widget.worker.wait()
    widget._hear(widget, {"do": "resume"}, [])
    assert widget.worker.wait() and widget.trouble == "ValueError: it is over"
