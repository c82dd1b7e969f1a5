"""openapi.json in the tree, and what is made of it, are what the table of operations says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clients import write
from garcon_jupyter.operations import openapi
from garcon_jupyter.operations.table import OPERATIONS
from tests.typescript import COMPILER, with_node

STALE = "it is stale: run `make clients`"


def test_the_document_in_the_tree_is_the_tables() -> None:
    assert write.DOCUMENT.read_text(encoding="utf-8") == openapi.text(), STALE


def test_it_has_every_operation_once() -> None:
    paths = json.loads(write.DOCUMENT.read_text(encoding="utf-8"))["paths"]
    ids = [path["post"]["operationId"] for path in paths.values()]
    assert sorted(ids) == sorted(OPERATIONS) and len(set(ids)) == len(ids)


def test_the_types_in_the_tree_know_every_operation_and_schema() -> None:
    """Without Node, which makes them."""
    text = write.TYPES.read_text(encoding="utf-8")
    assert all(f'    "/v1/{name}": {{' in text for name in OPERATIONS), STALE
    schemas = openapi.document()["components"]["schemas"]
    for name, schema in schemas.items():
        assert f"export type {name} = components['schemas']['{name}'];" in text, STALE
        if not schema.get("properties"):
            continue
        block = text.split(f"        {name}: {{\n", 1)[1].split("\n        };", 1)[0]
        for field in schema.get("properties", {}):
            assert f"            {field}: " in block or f"            {field}?: " in block, STALE


@with_node
@pytest.mark.processes
def test_the_types_are_what_the_generator_makes(tmp_path: Path) -> None:
    if not write.GENERATOR.exists():
        pytest.skip("There is no generator: `make clients` brings it.")
    write.types(tmp_path / "operations.ts")
    made = (tmp_path / "operations.ts").read_text(encoding="utf-8")
    assert made == write.TYPES.read_text(encoding="utf-8"), STALE


@with_node
@pytest.mark.processes
def test_the_page_has_the_client_as_it_is(tmp_path: Path) -> None:
    if not COMPILER.exists():
        pytest.skip("There is no TypeScript: `make javascript` brings it.")
    write.compiled(tmp_path, COMPILER)
    made = (tmp_path / "client.js").read_text(encoding="utf-8")
    assert made == write.COMPILED.read_text(encoding="utf-8"), STALE
