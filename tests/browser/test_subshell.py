"""Callbacks of a widget on a thread of a subshell (ipykernel 7), in a real browser."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.lab import Lab, become
from tests.browser.test_widgets import kernel, shown

SUBSHELL = """import threading, time
import numpy as np
from garcon_jupyter.widgets import AttentionWidget
layers = np.stack([np.eye(4), np.ones((4, 4)) / 4])[:, None, None].repeat(2, 2)
attention = AttentionWidget(layers[0], layers=2, load=layers.__getitem__)
threads = []
attention.observe(lambda change: threads.append(threading.current_thread().name), "selected_head")
attention"""

BUSY = """end = time.monotonic() + 30
while not (attention.matrix_head == 1 and attention.here == 1) and time.monotonic() < end:
    time.sleep(0.02)
answered = attention.here == 1"""


def test_a_subshell_answers_while_a_cell_runs(lab: Lab) -> None:
    """A widget that was last heard from a subshell has its callbacks there, beside the running cell."""
    with lab.notebook(lab.write("subshell", [SUBSHELL, BUSY])) as notebook:
        page = notebook.page
        notebook.paint(0)
        widget = shown(notebook, "attention")
        page.evaluate(
            """async () => {
                const { kernel } = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
                const made = kernel.requestCreateSubshell({});
                const reply = await made.done;
                const other = kernel.clone();
                other.subshellId = reply.content.subshell_id;
                const code = "attention.title = 'of a subshell'";
                await other.requestExecute({ code, store_history: false }).done;
            }"""
        )
        expect(widget.locator(".garcon-title")).to_have_text("of a subshell")
        notebook.start_cell(1)
        become(page, notebook.busy, True)
        widget.get_by_role("button", name="the next layer").click()
        widget.locator(".garcon-tile").nth(1).click()
        kernel(notebook, "answered", "True")
        kernel(notebook, "len(threads) == 1 and threads[0] != 'MainThread'", "True")
        kernel(notebook, "np.frombuffer(attention.matrix, '<f4').tolist()", str([0.25] * 16))
