"""Digest of the side bar's sources, kept beside its bundle: tells whether the bundle was made from them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
STAMP = HERE.parent / "garcon_jupyter" / "labextension" / "sources.sha256"


def digest() -> str:
    """sha256 over the names and contents of everything that goes into the bundle."""
    single = [HERE / name for name in ("package.json", "tsconfig.json", "yarn.lock")]
    files = sorted(p for folder in ("src", "style") for p in (HERE / folder).rglob("*.*"))
    total = hashlib.sha256()
    for file in single + files:
        content = file.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{file.relative_to(HERE).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()


if __name__ == "__main__":
    if "--write" in sys.argv:
        STAMP.write_text(digest() + "\n")
    print(digest())
