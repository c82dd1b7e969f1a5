"""The body of a cell as a function.

What is written under ``%%probe`` becomes ``def cell_5(save_ctx, tensor): …`` with the notebook's
variables as globals. Line numbers and file name are the cell's own, so that a traceback, wherever the
body ran, names the lines that the user sees. What could not mean the same on the server as in the
notebook is refused here.
"""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from garcon_jupyter.client.function_checks import hint_at_lost_edit
from garcon_jupyter.client.shipping import global_names
from garcon_jupyter.errors import BadProbe
from garcon_jupyter.magics.scopes import forbidden, read_before_assigned

ARGUMENTS = ("save_ctx", "tensor")


@dataclass(frozen=True)
class Cell:
    """A cell with a magic.

    Attributes:
        body: its text below the line of the magic.
        first_line: number of the body's first line in the cell.
        filename: what IPython calls the cell; ``linecache`` has its text.
        number: as in ``In [5]``.
    """

    body: str
    first_line: int
    filename: str
    number: int

    @classmethod
    def of(cls, shell: Any, magic: str, line: str, body: str) -> Cell:
        """The cell that runs now."""
        running = shell.displayhook.exec_result
        number = (running and running.execution_count) or shell.execution_count
        written = running.info.raw_cell if running else ""
        above = 0
        if written.strip().startswith(f"%%{magic}") and written.rstrip().endswith(body.rstrip()):
            above = written[: len(written) - len(written.lstrip())].count("\n")
        else:  # called by other code, not by a cell of its own
            written = f"%%{magic} {line}".rstrip() + f"\n{body}"
        return cls(body, above + 2, shell.compile.cache(written, number), number)

    @property
    def source(self) -> str:
        """The body, on the lines where it stands in the cell."""
        return "\n" * (self.first_line - 1) + textwrap.dedent(self.body)

    def place(self, line: int) -> str:
        """A line of the cell, as tracebacks name it."""
        return f"Cell In[{self.number}], line {line}"


def parse(cell: Cell, what: str = "probe") -> ast.Module:
    """The body's syntax tree.

    Raises:
        BadProbe: it does not compile; shows the line.
    """
    try:
        return ast.parse(cell.source, cell.filename)
    except SyntaxError as error:
        raise _does_not_compile(cell, error, what) from None


def function(cell: Cell, variables: dict[str, Any], hidden: dict[str, Any]) -> Callable[..., Any]:
    """The body as a function of a save context and a tensor.

    Args:
        variables: of the notebook; the function sees those that it uses, as they are now.
        hidden: variables that IPython has put there, which mean nothing on a server.

    Raises:
        BadProbe: it does not compile, or does what a probe cannot.
    """
    body = parse(cell).body
    if not body:
        raise BadProbe("The probe has no statements.", "save_ctx.tensor = tensor saves the value.")
    mine = {name: v for name, v in variables.items() if name not in hidden or v is not hidden[name]}
    for line, problem, remedy in _objections(body, mine):
        raise BadProbe(f"{cell.place(line)}: {problem}", remedy)
    compiled = _compiled(cell, body)
    names = global_names(compiled.__code__)
    scope = {name: mine[name] for name in names if name in mine}
    scope |= {"__name__": "__main__", "__builtins__": builtins}
    made = FunctionType(compiled.__code__, scope, compiled.__name__)
    hint_at_lost_edit(made, body)
    return made


def _objections(body: list[ast.stmt], variables: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
    """(line, what is wrong, what to do) of all that a probe cannot do."""
    for line, word in forbidden(body):
        if word in ("global", "nonlocal"):
            problem = (
                f"a probe cannot use `{word}`: the notebook's variables are not on the server."
            )
            yield line, problem, "Use save_ctx, which stays there between passes."
        else:
            problem = f"a probe cannot {word}: it runs once, when the value is there."
            yield line, problem, "Save in save_ctx, or return a tensor that replaces the value."
    for name, line in read_before_assigned(body, ARGUMENTS).items():
        if name in variables:
            yield (
                line,
                f"the probe assigns to {name!r}, a variable of the notebook, which is not there.",
                f"To count or gather over passes use save_ctx.{name}; else give it another name.",
            )


def _compiled(cell: Cell, body: list[ast.stmt]) -> FunctionType:
    name = f"cell_{cell.number}"
    definition = ast.parse(f"def {name}({', '.join(ARGUMENTS)}): pass").body[0]
    assert isinstance(definition, ast.FunctionDef)
    ast.increment_lineno(definition, cell.first_line - 2)
    definition.body = body
    module = ast.Module([definition], type_ignores=[])
    scope: dict[str, Any] = {}
    try:
        exec(compile(module, cell.filename, "exec", dont_inherit=True), scope)
    except SyntaxError as error:
        raise _does_not_compile(cell, error, "probe") from None
    function: FunctionType = scope[name]
    return function


def _does_not_compile(cell: Cell, error: SyntaxError, what: str) -> BadProbe:
    line = error.lineno or cell.first_line
    lines = cell.source.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    caret = f"\n    {' ' * ((error.offset or 1) - 1)}^" if error.offset else ""
    return BadProbe(
        f"The {what} does not compile: {error.msg}.\n  {cell.place(line)}\n    {shown}{caret}",
        "Correct that line and run the cell again.",
    )
