"""Which names a body reads and assigns, and which statements it has that a probe cannot have."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)

_WORDS: dict[type[ast.AST], str] = {
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
    ast.Await: "await",
    ast.AsyncFor: "await",
    ast.AsyncWith: "await",
    ast.Nonlocal: "nonlocal",
}


def forbidden(body: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """(line, word) of every yield, await, global and nonlocal.

    Those of nested functions are their own, but for ``global``, which means the notebook everywhere.
    """
    for node in body:
        yield from _forbidden(node, nested=False)


def _forbidden(node: ast.AST, nested: bool) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Global):
        yield node.lineno, "global"
    if not nested and type(node) in _WORDS:
        yield getattr(node, "lineno", 1), _WORDS[type(node)]
    if not nested and isinstance(node, ast.comprehension) and node.is_async:
        yield node.iter.lineno, "await"
    for child in ast.iter_child_nodes(node):
        yield from _forbidden(child, nested or isinstance(node, _NESTED))


def read_before_assigned(body: Sequence[ast.stmt], arguments: Sequence[str]) -> dict[str, int]:
    """Names that the body both assigns and reads, and reads first; with the line of that read.

    In a notebook cell ``n += 1`` changes a variable; in a function it reads a local name that has no
    value yet. Plain assignment to a fresh local name is fine. Order is that of evaluation; branches
    are taken as if all ran, so that a name assigned in one of them counts as assigned.
    """
    uses = _Uses()
    for statement in body:
        uses.visit(statement)
    return {
        name: line
        for name, line in uses.read_first.items()
        if name in uses.assigned and name not in arguments
    }


class _Uses(ast.NodeVisitor):
    """Visits a body in the order of evaluation and notes names that are read before assigned."""

    def __init__(self) -> None:
        self.assigned: set[str] = set()
        self.read_first: dict[str, int] = {}

    def _read(self, name: str, line: int) -> None:
        if name not in self.assigned:
            self.read_first.setdefault(name, line)

    def _all(self, *nodes: Any) -> None:
        for node in nodes:
            for item in node if isinstance(node, list) else [node]:
                if item is not None:
                    self.visit(item)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.assigned.add(node.id)
            return
        self._read(node.id, node.lineno)
        if isinstance(node.ctx, ast.Del):
            self.assigned.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._all(node.value, node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._read(node.target.id, node.lineno)
        self._all(node.value, node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._all(node.value, node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._all(node.value, node.target)

    def visit_For(self, node: ast.For) -> None:
        self._all(node.iter, node.target, node.body, node.orelse)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.assigned |= {(a.asname or a.name).partition(".")[0] for a in node.names}

    visit_ImportFrom = visit_Import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._all(node.type)
        self.assigned |= {node.name} if node.name else set()
        self._all(node.body)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self.generic_visit(node)
        self.assigned |= {node.name} if node.name else set()

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        self.assigned |= {node.rest} if node.rest else set()

    # A nested function reads when it is called, which nobody knows; its defaults are read now.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._all(node.decorator_list, node.args.defaults, node.args.kw_defaults)
        self.assigned.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._all(node.args.defaults, node.args.kw_defaults)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all(node.decorator_list, node.bases, [keyword.value for keyword in node.keywords])
        self._inner(node.body)
        self.assigned.add(node.name)

    def _comprehension(self, node: Any) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        parts: list[ast.AST] = [first.target, *first.ifs]
        for generator in others:
            parts += [generator.iter, generator.target, *generator.ifs]
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._inner(parts)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _inner(self, parts: Sequence[ast.AST]) -> None:
        """A scope of its own that runs at once: its reads count, its names stay inside."""
        inner = _Uses()
        inner.assigned = set(self.assigned)
        for part in parts:
            inner.visit(part)
        for name, line in inner.read_first.items():
            self._read(name, line)
