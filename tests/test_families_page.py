"""The page of all points says of every family what it has, and why it lacks the rest: read back, it is the families themselves."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace

import pytest
from transformers import AutoConfig

from docs import families
from docs.families import TEMPLATES, Row
from garcon_backend.models.families import FAMILIES, decoder


@dataclass(frozen=True)
class Page:
    """What a reader takes from the section, by the words that stand there and nothing else."""

    text: str

    @functools.cache  # noqa: B019 - there are two pages
    def tables(self) -> list[list[list[str]]]:
        """Cells of each table, without its head."""
        blocks = re.findall(r"(?:^\|.*\n)+", self.text, re.M)
        return [[row.strip("|\n ").split(" | ") for row in b.splitlines()[2:]] for b in blocks]

    @functools.cache  # noqa: B019 - there are two pages
    def reasons(self) -> dict[str, str]:
        return dict(re.findall(r"^(\d+)\. (.*)$", self.text, re.M))

    @functools.cache  # noqa: B019 - there are two pages
    def usual(self) -> set[str]:
        paragraph = re.search(r"those of Llama: (.*)\.\n", self.text)
        assert paragraph
        return meant(paragraph[1])

    def has(self, model_type: str) -> set[str]:
        _, _, _, _, lacks, besides = self.row(model_type)
        return self.usual() - meant(lacks) | meant(besides)

    def row(self, model_type: str) -> list[str]:
        (found,) = [row for row in self.cells() if f"`{model_type}`" in row[1]]
        return found

    @functools.cache  # noqa: B019 - there are two pages
    def cells(self) -> list[list[str]]:
        return [[*row, *[""] * (6 - len(row))] for row in self.tables()[0]]

    def why(self, model_type: str, template: str) -> str:
        """The reason for which a model has no such point, as a person finds it."""
        name, _, _, _, lacks, _ = self.row(model_type)
        for part in filter(None, lacks.split("; ")):
            if template in meant(part):
                return self.reasons()[numbers(part)[0]]
        (parts,) = [row[2] for row in self.tables()[1] if template in meant(row[0])]
        for part in parts.split("; "):
            for_whom = part.partition(") ")[2].split(", ")
            if {name, model_type, "all others"} & set(for_whom):
                return self.reasons()[numbers(part)[0]]
        raise AssertionError(f"no reason for {template}")


def numbers(cell: str) -> list[str]:
    return re.findall(r"\((\d+)\)", cell)


@functools.cache
def meant(cell: str) -> set[str]:
    """The templates that the names of a cell stand for."""
    found: set[str] = set()
    for name in re.findall(r"`([^`]+)`", cell):
        pattern = re.escape(name).replace(r"\*", ".*")
        these = {t for t in TEMPLATES if re.fullmatch(rf"(layers\.\{{i\}}\.)?{pattern}", t)}
        assert these, name
        found |= these
    return found


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(families.section())


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_reader_finds_what_a_family_has_and_why_not_the_rest(page: Page, model_type: str) -> None:
    config, family = AutoConfig.for_model(model_type), FAMILIES[model_type]
    family = family.shaped(config) if family.shaped else family
    missing = {**family.refused, **family.lacks(config)}
    assert page.has(model_type) == set(TEMPLATES) - set(missing)
    assert {t: page.why(model_type, t) for t in missing} == missing


def test_a_reader_finds_out_about_one_point(page: Page) -> None:
    """As one would ask: has my model ``attn.q_rot``? Why not?"""
    rotated = "layers.{i}.attn.q_rot"
    assert rotated in page.has("llama") and rotated not in page.has("gptj")
    assert page.why("gptj", rotated) == decoder.OWN_ATTENTION
    assert "`attn.q_rot`" in page.row("gptj")[4]


def test_no_number_of_families_is_too_many() -> None:
    """A hundred that differ: none is dropped, and none confused with another."""
    (llama,) = [row for row in families.rows_of([FAMILIES["llama"]], {}) if row.name == "llama"]
    made = [
        replace(llama, name=f"made{n}", model_types=(f"type{n}",), missing=more(llama, n))
        for n in range(100)
    ]
    page = Page(families.written([llama, *made]))
    assert len(page.cells()) == 101
    for row in made:
        assert page.has(row.model_types[0]) == set(TEMPLATES) - set(row.missing)
        found = {template: page.why(row.model_types[0], template) for template in row.missing}
        assert found == row.missing


def more(row: Row, n: int) -> dict[str, str]:
    """What it lacks, and three points more for a reason of its own."""
    usual = families.usual_points([row])
    return {**row.missing, **{usual[(n + i) % len(usual)]: f"number {n}" for i in (0, 1, 5)}}


def test_every_family_says_what_it_is(page: Page) -> None:
    assert [row[0] for row in page.cells() if not row[2].endswith(".")] == []
