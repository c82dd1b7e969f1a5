"""The server card on a status in place of a server."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.widgets import ServerCard

RANK = {
    "rank": 0,
    "host": "h",
    "device": "cpu",
    "parameter_bytes": 5 * 2**20,
    "memory": 2**30,
    "layers": [0, 1],
}


class Status:
    """Answers, counts how often it was asked, and ends."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.left = 100.0

    def __call__(self) -> dict[str, Any]:
        if "stop" in self.done:
            raise ConnectionError("it has ended")
        self.done.append("look")
        return {
            "running": None,
            "waiting": [],
            "clients": [],
            "idle_left": self.left,
            "ranks": [RANK],
            "key": "not for the page",
        }

    def keep(self) -> None:
        self.done.append("keep")
        self.left = 3600.0

    def stop(self) -> None:
        self.done.append("stop")


def test_buttons_do_what_they_say_and_looking_does_no_more() -> None:
    status = Status()
    card = ServerCard(status, status.keep, status.stop, "name", ["Llama"])
    assert card.can_keep and card.can_stop and "key" not in card.state
    card._hear(card, {"do": "look"}, [])
    assert card.worker.wait() and status.done == ["look", "look"]
    card._hear(card, {"do": "keep"}, [])
    assert card.worker.wait() and card.state["idle_left"] == 3600.0
    card._hear(card, {"do": "stop"}, [])
    assert card.worker.wait() and card.stopped == "stopped by you"
    assert status.done == ["look", "look", "keep", "look", "stop"]
    card._hear(card, {"do": "look"}, [])  # what the page had asked before it heard of that
    assert card.worker.wait() and card.stopped == "stopped by you"


def test_a_server_that_ended_is_said_so() -> None:
    status = Status()
    card = ServerCard(status, title="name")
    status.stop()
    card.refresh()
    assert card.worker.wait() and card.stopped == "it has ended"
    card._hear(card, {"do": "stop"}, [])
    card._hear(card, "nonsense", [])
    assert card.worker.wait() and status.done.count("stop") == 1


def test_the_still_card_tells_ranks() -> None:
    card = ServerCard(Status(), title="name")
    assert card.summary == "idle, 1 rank" and "<img" in card.still()
