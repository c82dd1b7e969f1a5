"""What a body reads before it assigns, and what it may not contain."""

from __future__ import annotations

import ast

import pytest

from garcon_jupyter.magics.scopes import forbidden, read_before_assigned


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("n += 1", {"n": 1}),
        ("n = n + 1", {"n": 1}),
        ("n = 0\nn += 1", {}),
        ("n = tensor.mean()\nsave_ctx.n = n", {}),
        ("save_ctx.n = n", {}),
        ("print(n)\nn = 3", {"n": 1}),
        ("for n in range(3): print(n)", {}),
        ("for i in range(n): n = i", {"n": 1}),
        ("while n < 3: n += 1", {"n": 1}),
        ("if tensor.any():\n    n = 1\nelse:\n    n = 2\nprint(n)", {}),
        ("print([n for n in tensor])\nn = 1", {}),
        ("print([n for i in tensor])\nn = 1", {"n": 1}),
        ("f = lambda: n\nn = 1\nf()", {}),
        ("def f(x=n): return x\nn = 1", {"n": 1}),
        ("def n(): pass\nn()", {}),
        ("import numpy.linalg as n\nn.norm", {}),
        ("with open('x') as n: n.read()", {}),
        ("try:\n    pass\nexcept ValueError as n:\n    print(n)", {}),
        ("if (n := 3) > 2: print(n)", {}),
        ("match tensor:\n    case [n, *m]: print(n, m)", {}),
        ("del n", {"n": 1}),
        ("class A:\n    n = 1\nn = A.n", {}),
        ("tensor = tensor.float()", {}),
        ("tensor += 1\nsave_ctx.x = 1", {}),
        ("n[0] += 1", {}),
        ("x: int = n\nn = x", {"n": 1}),
    ],
)
def test_read_before_assigned(body: str, expected: dict[str, int]) -> None:
    assert read_before_assigned(ast.parse(body).body, ("save_ctx", "tensor")) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("yield tensor", [(1, "yield")]),
        ("x = yield from tensor", [(1, "yield")]),
        ("pass\nawait tensor", [(2, "await")]),
        ("async for x in tensor: pass", [(1, "await")]),
        ("[x async for x in tensor]", [(1, "await")]),
        ("global n\nn = 1", [(1, "global")]),
        ("def f():\n    global n", [(2, "global")]),
        ("nonlocal n", [(1, "nonlocal")]),
        ("k = 0\ndef f():\n    nonlocal k", []),
        ("def f():\n    yield 1", []),
        ("f = lambda: (yield)", []),
        ("async def f():\n    await g()", []),
        ("return (x for x in tensor)", []),
    ],
)
def test_forbidden(body: str, expected: list[tuple[int, str]]) -> None:
    assert list(forbidden(ast.parse(body).body)) == expected
