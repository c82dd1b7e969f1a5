"""The side bar as a person uses it, in JupyterLab and in Notebook 7."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.exchanges import shuffle
from garcon_jupyter.server_extension import launch_form
from garcon_jupyter.servers import control, registry
from tests import checkpoints
from tests.browser.lab import Lab, Notebook, become
from tests.conftest import quiet
from tests.exchanges.conftest import make

TEXT = "The capital of France is"

expect.set_options(timeout=40_000)  # milliseconds: a kernel may take some to import


class SideBar:
    """The side bar of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.panel = page.locator(".grc-panel")

    def open(self) -> None:
        """As its command does."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('garcon:open')")

    def server(self, name: str) -> Locator:
        """The card of a running server."""
        return self.panel.get_by_role("article", name=f"Server {name}", exact=True)

    def point(self, name: str) -> Locator:
        """The row of a point that is on screen."""
        return self.panel.locator(f".grc-point[aria-label='{name}']")

    def layer(self, layer: int | str) -> Locator:
        """The node of a layer."""
        return self.panel.locator(f"[role=treeitem][aria-label='layers.{layer}']")

    def search(self, words: str) -> None:
        self.panel.get_by_label("Search probe points").fill(words)

    def recordings(self) -> Locator:
        """The rows of recordings."""
        return self.panel.get_by_role("region", name="Recordings").get_by_role("listitem")


@contextmanager
def side_bar(lab: Lab, name: str, cells: list[str]) -> Iterator[tuple[SideBar, Notebook]]:
    """A notebook with the side bar beside it."""
    with lab.notebook(lab.write(name, cells)) as notebook:
        bar = SideBar(notebook.page)
        bar.open()
        yield bar, notebook


def sources(page: Page) -> list[str]:
    """What is written in the cells of the notebook in front."""
    return page.evaluate(
        """() => Array.from(window.jupyterapp.shell.currentWidget.content.widgets,
                            cell => cell.model.sharedModel.getSource())"""
    )


def numbers(page: Page) -> list[int | None]:
    """The execution counts of its code cells."""
    return page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.widgets
                 .filter(cell => cell.model.type === 'code').map(cell => cell.model.executionCount)"""
    )


def active(page: Page) -> int:
    """The place of its active cell."""
    return page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex")


def wait_until_told(notebook: Notebook) -> None:
    """Wait until the side bar has the table of contents of the latest recordings.

    Until then a thread of the kernel may ask the server for it, which winds up the idle clock.
    """
    asked = "from garcon_jupyter.server_extension.kernel_report import told; print(told().content['current'])"
    become(notebook.page, lambda: notebook.execute(asked), "True\n")


@pytest.fixture
def smollm2_name() -> Iterator[str]:
    """The name that a server of smollm2 is given; it is stopped afterwards, if it runs."""
    from garcon_jupyter.model_files import snapshots

    name = snapshots.server_name(snapshots.resolve("smollm2", lambda line: None).path)
    yield name
    for server in garcon.servers():
        if server.name == name:
            control.stop(server, force=True)


def test_a_newcomer_sees_a_picture_without_typing_a_name(
    lab: Lab, smollm2_name: str, images: Path
) -> None:
    """From an empty JupyterLab: launch, insert a probe, look; then stop."""
    with lab.page() as page:
        bar = SideBar(page)
        page.get_by_role("tab", name="Garçon").click()
        bar.panel.get_by_role("button", name="Launch a model…").click()
        page.get_by_role("button", name="Launch", exact=True).click()
        # It opens a notebook that is connected to it.
        expect(bar.server(smollm2_name).locator(".grc-mine")).to_be_visible(timeout=200_000)
        expect(bar.server(smollm2_name)).to_contain_text("LlamaForCausalLM, 135M, float32")

        bar.layer(4).get_by_role("button").first.click()
        pattern = bar.point("layers.4.attn.pattern")
        expect(pattern.locator(".grc-shape")).to_have_text("b × 9 × p_q × p_k")
        pattern.hover()
        pattern.get_by_role("button", name="Show layers.4.attn.pattern").click()
        page.locator(".garcon-live.garcon-attention").first.wait_for()
        expect(bar.recordings()).to_contain_text(["layers.4.attn.pattern"])
        expect(bar.recordings()).to_contain_text(["1 × 9 × 5 × 5"])
        expect(pattern.locator(".grc-probed")).to_be_visible()
        expect(page.locator(".Toastify__toast")).to_have_count(0)
        expect(bar.server(smollm2_name).locator(".grc-doing")).to_contain_text("idle")
        page.mouse.move(640, 880)
        page.screenshot(path=images / "side-bar.png")

        bar.server(smollm2_name).get_by_role("button", name=f"Stop {smollm2_name}").click()
        expect(page.locator(".jp-Dialog-body")).to_contain_text("It is used by")
        page.locator(".jp-Dialog").get_by_role("button", name="Stop").click()
        expect(bar.server(smollm2_name)).to_have_count(0, timeout=60_000)
        assert smollm2_name not in {server.name for server in garcon.servers()}
    assert lab.refused == []


def test_what_the_dialog_asks_for_is_launched(lab: Lab, llama_path: Path) -> None:
    """Its fields are those that are declared; what is left as it is, is left out."""
    with lab.page() as page:
        bar = SideBar(page)
        page.get_by_role("tab", name="Garçon").click()
        bar.panel.get_by_role("button", name="Launch a model…").click()
        dialog = page.locator(".jp-Dialog")
        dialog.get_by_role("radio", name="Another model").check()
        dialog.get_by_label("Path or hub name").fill(str(llama_path))
        dialog.get_by_role("checkbox").uncheck()  # no notebook
        dialog.get_by_text("More settings").click()
        fields = launch_form.fields()
        labels = dialog.locator(".grc-grid label")
        expect(labels.locator("> span")).to_have_text([field["label"] for field in fields])
        for field, label in zip(fields, labels.all(), strict=True):
            expect(label).to_have_attribute("title", field["meaning"])
            expect(label.locator("input, select")).to_have_value(field["initial"])
        dialog.get_by_label("Name", exact=True).fill(" filled-in ")
        dialog.get_by_label("Pipeline parallel").fill("2")
        dialog.get_by_label("Device").select_option("CPU")
        dialog.get_by_label("Ends when idle for").select_option("30 minutes")
        page.get_by_role("button", name="Launch", exact=True).click()
        try:
            expect(bar.server("filled-in")).to_be_visible(timeout=200_000)
            facts = registry.find("filled-in").facts
            given = {word: value for word, value in facts["settings"].items() if value is not None}
            assert given == {"path": str(llama_path), "pp": 2, "device": "cpu"}
            assert facts["idle_timeout"] == 1800
        finally:
            control.stop(registry.find("filled-in"), force=True)


def test_points_are_searched_inserted_and_dragged(lab: Lab, llama_server: garcon.Server) -> None:
    with side_bar(lab, "points", ["first = 1"]) as (bar, notebook):
        page = notebook.page
        bar.server("tiny").locator("header").click()  # elsewhere there may be a button
        expect(bar.panel.get_by_role("region", name="Probe points")).to_contain_text("of tiny")

        bar.search("post_activation 3")
        expect(bar.panel.locator(".grc-point")).to_have_count(1)
        expect(bar.point("layers.3.mlp.post_activation")).to_contain_text("b × p × 80")
        bar.search("post_activation nonsense")
        expect(bar.panel.locator(".grc-tree")).to_have_text("No point has all of these words.")
        bar.search("after softmax pattern")  # also by what it is
        expect(bar.point("layers.*.attn.pattern")).to_be_visible()
        expect(bar.panel.locator(".grc-point")).to_have_count(5)

        # A click connects the notebook first, where it is not, and inserts below the active cell.
        bar.search("layers.3.mlp.post_activation")
        bar.point("layers.3.mlp.post_activation").locator(".grc-row").click()
        expect(bar.server("tiny").locator(".grc-mine")).to_be_visible()
        body = "save_ctx.tensor = tensor"
        cells = [
            "first = 1",
            "%load_ext garcon_jupyter\n%garcon connect tiny",
            f'%%probe layers.3.mlp.post_activation --on "{TEXT}" --show\n{body}',
        ]
        become(page, lambda: sources(page), cells)
        become(page, lambda: numbers(page), [None, 1, None])  # inserted, not run

        text = bar.panel.get_by_label("Text that inserted cells run on")
        text.fill('say "hi"')
        bar.point("layers.3.mlp.post_activation").locator(".grc-row").click()
        cells.append(f'%%probe layers.3.mlp.post_activation --on "say \\"hi\\"" --show\n{body}')
        become(page, lambda: sources(page), cells)
        text.fill("")
        bar.point("layers.3.mlp.post_activation").locator(".grc-row").click()
        cells.append(f"%%probe layers.3.mlp.post_activation\n{body}")
        become(page, lambda: sources(page), cells)
        bar.point("layers.3.mlp.post_activation").locator(".grc-row").drag_to(
            notebook.cell(0).locator(".cm-content")
        )
        expect(notebook.cell(0)).to_contain_text("layers.3.mlp.post_activation")
        become(page, lambda: active(page), 0)

        # By the keyboard: down to the first layer, open it, and into its points.
        bar.search("")
        bar.panel.locator(".grc-tree .grc-row").first.focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        expect(bar.point("layers.0.resid_pre").locator(".grc-row")).to_be_focused()
        page.keyboard.press("Enter")
        expect(notebook.cell(1)).to_contain_text("%%probe layers.0.resid_pre")


def test_probes_and_recordings_of_this_notebook(lab: Lab, llama_server: garcon.Server) -> None:
    cells = [
        "%load_ext garcon_jupyter\n%garcon connect tiny",
        "%%probe layers.*.mlp.out --name mine\nsave_ctx.value = tensor\nsave_ctx.note = 'hello'",
        "import time\nrmodel.forward([[5, 6, 7]], logits='none')",
        "from pathlib import Path\nwhile not Path('go').exists():\n    time.sleep(0.02)",
    ]
    with side_bar(lab, "recordings", cells) as (bar, notebook):
        page = notebook.page
        notes = bar.panel.get_by_role("region", name="Recordings")
        expect(notes).to_contain_text("This notebook is not connected to a model.")
        notebook.start()
        expect(notes).to_contain_text("The kernel is busy.")
        (lab.directory / "go").touch()
        expect(bar.recordings()).to_have_count(8)
        expect(bar.layer(2)).to_contain_text("1 probed")
        assert numbers(page) == [1, 2, 3, 4]  # looking counts no number
        row = bar.recordings().nth(4)  # after layers 0 and 1, two attributes each
        expect(row).to_contain_text("layers.2.mlp.out")
        expect(row).to_contain_text("1 × 3 × 48")
        expect(row).to_contain_text("value of mine · float32")
        expect(bar.recordings().nth(5)).to_be_disabled()  # a text has no picture
        row.click()
        notebook.widgets("activations").wait_for()
        assert sources(page)[-1] == ('rmodel.show(("layers.2.mlp.out", "mine"), attribute="value")')
        assert numbers(page)[-1] == 5
        notebook.execute("rmodel.detach(); rmodel.clear_recordings()")
        bar.panel.get_by_role("button", name="Look again now").click()
        expect(bar.recordings()).to_have_count(0)
        expect(notes).to_contain_text("Nothing yet.")
        expect(bar.layer(2)).not_to_contain_text("probed")
        notebook.restart()
        expect(notes).to_contain_text("This notebook is not connected to a model.")


def test_requests_idle_time_and_status_item(lab: Lab, llama_server: garcon.Server) -> None:
    cells = [
        "%load_ext garcon_jupyter\n%garcon connect tiny",
        "%%probe layers.1.mlp.out\nimport time\nwhile True:\n    time.sleep(0.01)",
        "rmodel.forward([[5, 6, 7]], logits='none')",
    ]
    with side_bar(lab, "requests", cells) as (bar, notebook):
        page, card = notebook.page, bar.server("tiny")
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")
        expect(card.locator(".grc-mine")).to_be_visible()
        notebook.start()
        # A question of the side bar itself may wait behind it.
        work = card.locator(".grc-work", has_text="forward of")
        expect(work).to_have_count(1)
        expect(page.locator(".grc-status")).to_have_text("tiny: busy")
        work.get_by_role("button", name="Cancel this forward").click()
        expect(work).to_have_count(0)
        expect(notebook.cell(2)).to_contain_text("Interrupted")

        wait_until_told(notebook)
        before = control.status(registry.find("tiny"))["idle_left"]
        time.sleep(1)  # of idle time
        expect(card.locator(".grc-doing")).to_have_text(re.compile(r"idle, ends in \d+ min"))
        expect(page.locator(".grc-status")).to_have_text(re.compile(r"tiny: idle, ends in"))
        looked_at = control.status(registry.find("tiny"))["idle_left"]
        assert looked_at < before - 0.9  # looking on did not keep it alive
        card.get_by_role("button", name="Keep tiny alive").click()
        end = time.monotonic() + 10
        while control.status(registry.find("tiny"))["idle_left"] < looked_at:
            assert time.monotonic() < end
        # The command palette has it all.
        commands = page.evaluate(
            "() => window.jupyterapp.commands.listCommands().filter(id => id.startsWith('garcon:'))"
        )
        assert {"garcon:open", "garcon:launch", "garcon:search", "garcon:new-notebook"} <= set(
            commands
        )


def _pictured(bar: SideBar, file: Path) -> None:
    """A picture of its servers."""
    bar.panel.get_by_role("region", name="Servers").screenshot(path=file)


def test_a_fleet_is_a_folder_and_stopped_as_one(lab: Lab, llama_path: Path, images: Path) -> None:
    steps = {"step0": llama_path, "step 512": llama_path}
    fleet = garcon.fleet(steps, "steps", progress=quiet)
    with lab.page() as page:
        bar = SideBar(page)
        bar.open()
        folder = bar.panel.get_by_role("article", name="Fleet steps")
        expect(folder).to_contain_text("fleet, 2 of 2 run")
        expect(folder.get_by_text("LlamaForCausalLM")).to_have_count(1)  # it is that of all
        first, second = bar.server("steps.step0"), bar.server("steps.step-512")
        expect(second.locator("header")).to_have_text("step 512")
        expect(second).to_contain_text("idle, ends in")

        # A click on a member shows its points, and unfolds it; of the others it folds.
        points = bar.panel.get_by_role("region", name="Probe points")
        for member, other in ((second, first), (first, second)):
            member.locator("header").click()
            expect(points).to_contain_text(f"of {member.get_attribute('aria-label')[7:]}")
            expect(member.get_by_role("button", name="Open a notebook with it")).to_be_visible()
            expect(other).not_to_contain_text("one process")
        expect(first).to_contain_text("one process on cpu")
        first.get_by_text("one process").click()  # within, it stays as it is
        expect(first).to_contain_text("one process")
        first.locator("header").click()
        expect(first).not_to_contain_text("one process")
        folder.get_by_role("button", name="steps fleet, 2 of 2 run").click()
        expect(first).to_have_count(0)
        folder.get_by_role("button", name="steps fleet, 2 of 2 run").click()

        control.kill(fleet["step0"].server)
        expect(folder).to_contain_text("fleet, 1 of 2 run")
        expect(first).to_contain_text("does not run")
        second.locator("header").click()
        _pictured(bar, images / "side-bar-fleet.png")
        folder.get_by_role("button", name="Stop the fleet steps").click()
        expect(page.locator(".jp-Dialog-body")).to_contain_text("It is used by")
        page.locator(".jp-Dialog").get_by_role("button", name="Stop").click()
        expect(folder).to_have_count(0)
        assert not {server.name for server in garcon.servers()} & {"steps.step0", "steps.step-512"}
    fleet.close()


def test_a_fleet_in_turn_is_one_server_with_the_member_that_is_loaded(
    lab: Lab, llama_path: Path, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    steps = {"step0": llama_path, "step 512": checkpoints.make("llama", tmp_path / "512", seed=1)}
    fleet = garcon.fleet(steps, "turns", alive=1, progress=quiet)
    try:
        with lab.page() as page:
            bar = SideBar(page)
            bar.open()
            card = bar.panel.get_by_role("article", name="Fleet turns")
            expect(card).to_contain_text("step0 is loaded, 2 in turn")
            fleet["step 512"].forward([[5]], logits="none")
            expect(card).to_contain_text("step 512 is loaded, 2 in turn")
            expect(bar.server("turns.in-turn")).to_have_count(0)
            card.get_by_text("2 in turn").click()
            expect(card.locator(".grc-loaded")).to_have_text("step 512")
            _pictured(bar, images / "side-bar-in-turn.png")
            card.locator("header").click()
            points = bar.panel.get_by_role("region", name="Probe points")
            expect(points).to_contain_text("of turns.in-turn")
    finally:
        fleet.stop(force=True)


def test_a_launch_that_fails_is_explained(lab: Lab) -> None:
    with lab.page() as page:
        bar = SideBar(page)
        bar.open()
        bar.panel.get_by_role("button", name="Launch a model…").click()
        page.get_by_text("Another model").click()
        page.get_by_label("Path or hub name").fill("/nowhere/at-all")
        page.get_by_role("button", name="Launch", exact=True).click()
        card = bar.panel.get_by_role("article", name="Launch of /nowhere/at-all")
        expect(card).to_contain_text("There is no /nowhere/at-all: /nowhere does not exist.")
        expect(card).to_contain_text("Give an embedded model (smollm2, gemma3-270m)")
        card.get_by_role("button", name="Dismiss").click()
        expect(card).to_have_count(0)

        # The launcher's card makes a notebook that needs nothing but to be run.
        page.locator(".jp-LauncherCard[data-category='Notebook']", has_text="Garçon").click()
        page.locator(".jp-Notebook").wait_for()
        Notebook(page).wait_until_ready()
        _, launch, probe, _ = sources(page)
        assert launch == "%load_ext garcon_jupyter\n%garcon launch smollm2"
        assert probe.startswith("%%probe layers.4.attn.pattern --on")
        Notebook(page).command("kernelmenu:shutdown")


HELD = """
import sys
from garcon_jupyter.exchanges import shuffle
from garcon_jupyter.exchanges.engines.local import HereEngine
from tests.exchanges.conftest import plan_for
from garcon_jupyter.activation_stores import open_store
source = open_store(sys.argv[1])
def told(line):
    print(line, flush=True)
    sys.stdin.readline()
plan = plan_for(source, 300)
shuffle(source, sys.argv[2], 7, engine=HereEngine(), plan=plan, progress=told)
"""


def test_jobs_are_paused_gone_on_with_and_cancelled(lab: Lab, tmp_path: Path, images: Path) -> None:
    """A shuffle of another process: how far it is, stopped, and gone on with by nobody; one that failed, and is cancelled."""
    source, out = make(tmp_path / "acts"), tmp_path / "acts-mixed"
    failed = tmp_path / "small-mixed"
    with pytest.raises(garcon.DoesNotFit):
        shuffle(source, failed, 7, memory="80 MB")

    command = [sys.executable, "-c", HELD, str(source.path), str(out)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
        with lab.page() as page:
            bar = SideBar(page)
            page.get_by_role("tab", name="Garçon").click()
            job = bar.panel.get_by_role("article", name=f"Job {out}", exact=True)
            expect(job).to_contain_text("shuffle, running")
            expect(job).to_contain_text("of about 15 tasks")
            assert 0 < float(job.locator("progress").get_attribute("value") or 0) < 1
            wrong = bar.panel.get_by_role("article", name=f"Job {failed}", exact=True)
            expect(wrong).to_contain_text("shuffle, failed")
            expect(wrong.locator(".grc-problem")).to_contain_text("A shuffle takes at least")
            page.mouse.move(640, 880)
            page.screenshot(
                path=images / "side-bar-jobs.png",
                clip={"x": 0, "y": 0, "width": 420, "height": 520},
            )

            job.get_by_role("button", name="Pause acts-mixed").click()
            expect(job).to_contain_text("shuffle, pausing")
            process.stdin.close()
            expect(job).to_contain_text("shuffle, paused")
            job.get_by_role("button", name="Go on with acts-mixed").click()
            expect(job).to_have_count(0)
            assert len(open_store(out)) == 2000

            wrong.get_by_role("button", name="Cancel small-mixed").click()
            expect(page.locator(".jp-Dialog-body")).to_contain_text("may be lost")
            page.locator(".jp-Dialog").get_by_role("button", name="Cancel it").click()
            expect(wrong).to_have_count(0)
            assert not (failed / ".between").exists()
            expect(page.locator(".Toastify__toast")).to_have_count(0)
