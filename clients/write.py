"""Writes what is made from the table of operations: openapi.json, the types, and the client as the page of `garcon serve` has it.

python -m clients.write            all; the types need Node, and `npm ci` in clients/typescript
python -m clients.write --document openapi.json alone
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from garcon_jupyter.operations import openapi

HERE = Path(__file__).parent
DOCUMENT = HERE / "openapi.json"
TYPESCRIPT = HERE / "typescript"
TYPES = TYPESCRIPT / "operations.ts"
PAGE = HERE.parent / "garcon_jupyter" / "http_door" / "page"
COMPILED = PAGE / "client.js"

GENERATOR = TYPESCRIPT / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
COMPILER = TYPESCRIPT / "node_modules" / "typescript" / "bin" / "tsc"
OPTIONS = ("--default-non-nullable=false", "--root-types", "--root-types-no-schema-prefix")


def types(out: Path) -> None:
    """Write the types of the document."""
    _node(GENERATOR, DOCUMENT, "--output", out, *OPTIONS)


def compiled(out: Path, compiler: Path = COMPILER) -> None:
    """Write the client and its types as JavaScript, into a folder."""
    _node(compiler, "--project", TYPESCRIPT / "tsconfig.json", "--outDir", out)


def _node(*command: object) -> None:
    done = subprocess.run(["node", *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def main() -> None:
    """Write what the command line asks for."""
    DOCUMENT.write_text(openapi.text(), encoding="utf-8")
    if "--document" in sys.argv:
        return
    types(TYPES)
    build = TYPESCRIPT / "build"
    compiled(build)
    COMPILED.write_text((build / "client.js").read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main()
