"""Pages of the site that stand elsewhere in the tree, and links that lead to source.

README, CONTRIBUTING and CHANGELOG are read on a forge as they are; here they become pages, and their links those of
pages. A link to a source file leads to a copy of it, so that the site is whole without the repository.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

# That its list of names is made from a table is no fault of the package; everything else that is warned of ends the build.
logging.getLogger("mkdocs.plugins.griffe").addFilter(
    lambda record: "Unsupported item in garcon_jupyter.__all__" not in record.getMessage()
)

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}
"""File in the tree → page of the site."""

LINK = re.compile(r"(?<=\]\()(?!https?://|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand elsewhere, and the sources that any page links to."""
    for file, page in ELSEWHERE.items():
        text = (ROOT / file).read_text("utf-8")
        files.append(File.generated(config, page, content=_linked(text, file)))
    known = {file.src_uri for file in files}
    for path in (*map(ROOT.joinpath, ELSEWHERE), *(ROOT / "docs").glob("*.md")):
        where = str(path.relative_to(ROOT))
        links = LINK.finditer(path.read_text("utf-8"))
        for target in (_in_tree(found[1], where) for found in links):
            if _is_source(target) and _copy(target) not in known:
                known.add(_copy(target))
                source = ROOT / target
                content = _listing(source) if source.is_dir() else source.read_bytes()
                files.append(File.generated(config, _copy(target), content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of pages under docs to what stands outside of it."""
    if page.file.src_uri in ELSEWHERE.values() or "/" in page.file.src_uri:
        return markdown
    return _linked(markdown, f"docs/{page.file.src_uri}")


def _linked(text: str, where: str) -> str:
    """The text of a file in the tree, with links as its page has them."""
    page = ELSEWHERE.get(where, where.removeprefix("docs/"))

    def link(found: re.Match[str]) -> str:
        target = _in_tree(found[1], where)
        uri = ELSEWHERE.get(target, target.removeprefix("docs/"))
        if _is_source(target):
            uri = _copy(target)
        return relpath(uri, str(PurePosixPath(page).parent)) + (found[2] or "")

    return LINK.sub(link, text)


def _in_tree(target: str, where: str) -> str:
    """Where a link leads, from the root of the tree."""
    return normpath(str(PurePosixPath(where).parent / target))


def _copy(target: str) -> str:
    """Where the copy of a source is: as text, which a browser shows."""
    if (ROOT / target).is_dir():
        return f"source/{target}/files.txt"
    return f"source/{target}" if target.endswith(".ipynb") else f"source/{target}.txt"


def _is_source(target: str) -> bool:
    return not target.startswith("docs/") and target not in ELSEWHERE and (ROOT / target).exists()


def _listing(folder: Path) -> str:
    return "\n".join(sorted(path.name for path in folder.iterdir() if path.name[0] not in "._"))
