"""The harness itself: a notebook runs, a widget draws, other hosts are refused."""

from __future__ import annotations

from tests.browser.lab import Lab


def test_a_notebook_runs_and_draws_a_widget(lab: Lab) -> None:
    path = lab.write(
        "harness",
        [
            "import numpy as np\nfrom garcon_jupyter.widgets import show",
            "show(np.ones((1, 3, 8)), 'bpM', [['a', 'b', 'c']])",
        ],
    )
    with lab.notebook(path) as notebook:
        notebook.run()
        notebook.widgets("activations").wait_for()
        assert notebook.execute("print(6 * 7)") == "42\n"
    assert lab.refused == []


def test_other_hosts_are_refused(lab: Lab) -> None:
    with lab.page() as page:
        asked = "fetch('https://example.com/x').then(() => 'came', () => 'refused')"
        assert page.evaluate(asked) == "refused"
    assert lab.refused == ["https://example.com/x"]
    lab.refused.clear()
