"""From running a cell to the picture on the screen: ``python -m benchmarks.painting``, about three minutes.

A person's JupyterLab in a real browser, a server of SmolLM2 that is warm, and a kernel that is new in every
round: each picture is the first of its kind in its kernel, so what it imports and what the browser loads
are in its time. What it does afterwards (a sweep, layers that follow) is waited for before the next one
begins. The table goes to ``docs/performance.md``.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WITHIN = 1.0
"""Seconds in which every picture is to be there."""

ROUNDS = 3

BEGIN, END = "<!-- first paint: made by python -m benchmarks.painting -->", "<!-- end -->"

WARM_UP = """%load_ext garcon_jupyter
import garcon_jupyter as garcon
from garcon_jupyter.widgets import Edit
rmodel = garcon.connect("painting")
short = "The capital of France is"
text = "When Mary and John went to the store, John gave a drink to Mary. The Eiffel Tower is in Paris."
texts = [text, short, "She bought three apples, two pears and a melon.", "def add(a, b):\\n    return a + b"]"""

PICTURES = {
    "table of `rmodel`": "rmodel",
    "tokens, the first widget of its kernel": "rmodel.show_tokens(text)",
    "tokens": "rmodel.show_tokens(text[::-1])",
    "server card": "rmodel.card()",
    "sharding picture": "rmodel.show_sharding()",
    "attention: all layers": "rmodel.show_attention(text)",
    "attention: one layer": "rmodel.show_attention(text, layer=4)",
    "neurons of a layer": "rmodel.show('layers.4.mlp.post_activation', text)",
    "logits of 49,152 tokens, left on the server": "rmodel.show('logits', text)",
    "lens: 30 layers": "rmodel.lens('The capital of France is Paris, and the capital of Italy is')",
    "patching: two sweeps": "rmodel.patching(short, 'The capital of Italy is')",
    "live": "rmodel.live(short, ['layers.4.mlp.post_activation'], [Edit('layers.8.mlp.contribution', 'ablate', 0.6)])",
    "neuron's dashboard": "rmodel.show_neuron('layers.8.mlp.post_activation', 97, texts, text=short)",
}
"""What a picture is of, to the cell that makes it."""


@dataclass
class Painted:
    """Seconds of one picture, one number for each round.

    Attributes:
        shown: from running the cell to its picture on the screen.
        answered: to the end of the cell: the kernel's part, and the way there and back.
        settled: to when nothing more was to come.
    """

    shown: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)

    def row(self, what: str) -> str:
        middle = statistics.median(self.shown)
        verdict = "met" if middle < WITHIN else "**missed**"
        times = [f"{middle:.2f} s ({min(self.shown):.2f}–{max(self.shown):.2f})"]
        times += [f"{statistics.median(each):.2f} s" for each in (self.answered, self.settled)]
        return f"| {what} | {' | '.join(times)} | {verdict} |"


def paint(lab: Any, path: Path, painted: dict[str, Painted]) -> None:
    """One round: every picture once, in a new kernel and a new page."""
    from playwright.sync_api import expect

    with lab.notebook(path, viewport=(1180, 1300)) as notebook:
        notebook.paint(0)
        for number, what in enumerate(PICTURES, start=1):
            began = time.perf_counter()
            times = notebook.paint(number)
            busy = notebook.page.locator(".garcon-live[aria-busy=true]")
            expect(busy).to_have_count(0, timeout=300_000)
            painted[what].shown.append(times.shown)
            painted[what].answered.append(times.answered)
            painted[what].settled.append(max(times.shown, time.perf_counter() - began))
        notebook.check()
        assert notebook.page.locator(".garcon-trouble").count() == 0


def measured(folder: Path) -> dict[str, Painted]:
    """All rounds, after one that warms the server."""
    from playwright.sync_api import sync_playwright

    from benchmarks.servers import served, smollm2
    from tests.browser.conftest import FLAGS, browser_path
    from tests.browser.lab import Lab

    painted: dict[str, Painted] = {}
    with served(smollm2(), "painting"), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        with Lab.started(folder, browser) as lab:
            path = lab.write("painting", [WARM_UP, *PICTURES.values()])
            for number in range(ROUNDS + 1):
                fresh = {what: Painted() for what in PICTURES}
                painted = painted if number > 1 else fresh
                paint(lab, path, painted)
                print(f"round {number} of {ROUNDS}", flush=True)
        browser.close()
    return painted


def main() -> int:
    """Measure, print the table and put it into the page."""
    from benchmarks import report
    from benchmarks.harness import machine

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server stays behind
    with tempfile.TemporaryDirectory(prefix="garcon-painting-") as name:
        folder = Path(name)
        os.environ["GARCON_RUNTIME"] = str(folder / "runtime")
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ.pop("JPY_SESSION_NAME", None)
        on = machine()
        painted = measured(folder)
    lines = [f"Median of {ROUNDS} rounds on {on}.", ""]
    lines += ["| Picture | On the screen (range) | Cell done | All there | within a second |"]
    lines += ["|---|---|---|---|---|"]
    lines += [times.row(what) for what, times in painted.items()]
    report.put(BEGIN, END, "\n".join(lines))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
