"""The page of `garcon serve`, as a person has it before them: on the small Llama, offline, by mouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

import garcon_jupyter as garcon
from tests.clients.doors import OpenDoor, open_door

pytestmark = pytest.mark.processes

LEFT, RIGHT = "a b c d", "a b d d"


@dataclass
class Visit:
    """A page in a window of its own, and what it did that it should not have.

    Attributes:
        complaints: of the console, and errors that nobody caught.
        elsewhere: addresses of other hosts that were asked.
    """

    page: Page
    door: OpenDoor
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def enter(self, token: str) -> None:
        self.page.get_by_label("Token", exact=True).fill(token)
        self.page.get_by_role("button", name="Connect").click()

    def done(self) -> None:
        """Everything that was asked is drawn."""
        self.page.wait_for_selector("#lens table, #trouble:not([hidden])")
        self.page.wait_for_selector("body:not(.working)")

    @property
    def metric(self) -> float:
        return float(self.page.locator("#next .metric b").first.get_attribute("data-value") or "")


@pytest.fixture(scope="module")
def door(llama_server: garcon.Server) -> Iterator[OpenDoor]:
    with open_door(llama_server.name) as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, door: OpenDoor, tokens: list[str]) -> Iterator[Visit]:
    window = browser.new_context(viewport={"width": 1300, "height": 900})
    window.set_default_timeout(60_000)
    page = window.new_page()
    visited = Visit(page, door)
    page.on("pageerror", lambda error: visited.complaints.append(str(error)))
    page.on(
        "console",
        lambda said: visited.complaints.append(said.text) if said.type == "error" else None,
    )
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((door.address, "data:"))
            else visited.elsewhere.append(asked.url)
        ),
    )
    fragment = urlencode(
        {
            "left": LEFT,
            "right": RIGHT,
            "targets": f'["{tokens[0]}"]',
            "distractors": f'["{tokens[1]}"]',
            "strongest": "8",
        }
    )
    page.goto(f"{door.address}/#{fragment}")
    yield visited
    window.close()


@pytest.fixture(scope="module")
def tokens(llama_server: garcon.Server) -> list[str]:
    """Two words that are a token each."""
    with closing(garcon.connect(llama_server.name)) as model:
        ids = model.encode(["a", "b"], special=False)
        assert ids.shape[1] == 1
    return ["a", "b"]


def difference(server: str, tokens: list[str], text: str, probes: list[garcon.Probe]) -> float:
    """The difference of the logits of two tokens, as RemoteModel has it."""
    with closing(garcon.connect(server)) as model:
        one, two = (int(model.encode(each, special=False)[0, 0]) for each in tokens)
        last = model.forward(model.encode(text), probes=probes)[0, -1]
        return float(last[one] - last[two])


def test_two_prompts_a_table_and_an_ablation(
    visit: Visit, llama_server: garcon.Server, tokens: list[str]
) -> None:
    page = visit.page
    visit.enter(visit.door.token)
    visit.done()
    assert visit.metric == pytest.approx(difference("tiny", tokens, LEFT, []), abs=1e-4)
    rows = page.locator("#nodes tbody tr")
    assert 8 <= rows.count() <= 16  # the union of both prompts' eight
    totals = [
        float(cell.get_attribute("data-value") or "nan")
        for cell in page.locator('[data-column="total effect left"]').all()
    ]
    there = [value for value in totals if value == value]
    assert there == sorted(there, reverse=True) and len(there) == 8

    name, from_end = (rows.first.get_attribute("data-node") or "").rsplit(" ", 1)
    layer, head = map(int, name.split()[1].split("."))
    rows.first.get_by_role("button", name="Ablate").click()
    expect(page.get_by_label("Edits", exact=True)).to_contain_text(name)
    expect(page.locator("#next .metric [data-was]").first).to_be_visible()
    visit.done()

    def ablate(save_ctx, tensor):  # type: ignore[no-untyped-def]
        tensor[:, from_the_end, which] = 0

    from_the_end, which = int(from_end), head
    with closing(garcon.connect("tiny")) as model:
        probe = model.probe_points[f"layers.{layer}.attn.z"].probe(ablate)
        wanted = difference("tiny", tokens, LEFT, [probe])
    assert visit.metric == pytest.approx(wanted, abs=1e-4)
    was = page.locator("#next .metric [data-was]").first.get_attribute("data-was")
    assert float(was or "") - wanted == pytest.approx(totals[0], abs=1e-4)

    # A link shows the same: in a reload, and nothing of it is the token.
    address, before = page.url, page.locator("#nodes").inner_text()
    assert visit.door.token not in address
    assert name in parse_qs(address.partition("#")[2])["edits"][0]
    page.reload()
    visit.done()
    assert page.url == address and page.locator("#nodes").inner_text() == before
    assert page.locator("#left").input_value() == LEFT

    # Another order, a head's attention, and the lens by keyboard.
    page.get_by_role("button", name="Sort by activation, difference").click()
    expect(page.locator('th[aria-sort="descending"]')).to_have_text("Δ ↓")
    page.locator("#nodes tbody button.link").first.click()
    expect(page.locator("#attention-maps table")).to_have_count(2)
    page.locator("#lens td[tabindex='0']").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#lens-says")).to_contain_text("layer 2")
    assert visit.complaints == [] and visit.elsewhere == []


def test_neurons_have_a_page_or_are_told_how_to_get_one(visit: Visit) -> None:
    visit.enter(visit.door.token)
    visit.done()
    visit.page.get_by_label("neurons", exact=True).check()
    visit.page.get_by_label("heads", exact=True).uncheck()
    button = visit.page.locator("#nodes tbody button.link", has_text="neuron").first
    button.click()
    expect(visit.page.locator("#unit")).to_contain_text("--records DIR")


def test_a_wrong_token_is_told(visit: Visit) -> None:
    visit.enter("wrong")
    expect(visit.page.get_by_role("alert")).to_contain_text("garcon serve prints which file has it")
    assert visit.page.evaluate("sessionStorage.length") == 0
    visit.enter(visit.door.token)
    visit.done()
    expect(visit.page.get_by_role("alert")).to_be_hidden()


def test_what_is_wrong_in_a_request_is_told_with_its_remedy(visit: Visit) -> None:
    visit.enter(visit.door.token)
    visit.done()
    visit.page.locator("#targets-new").fill("several words that are no token")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("alert")).to_contain_text("token")


def test_a_question_that_is_asked_again_while_it_runs_is_answered(visit: Visit) -> None:
    """What was called off is not taken for the answer to the same question."""
    page = visit.page
    visit.enter(visit.door.token)
    for strongest in (6, 7, 8):
        page.click("button:has-text('Run')")
        page.fill("#strongest", str(strongest))
    page.click("button:has-text('Run')")
    visit.done()
    assert page.locator("#nodes td").count() and not visit.complaints
