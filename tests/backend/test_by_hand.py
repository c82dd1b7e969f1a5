"""The oracle is right: it gives what untouched transformers models and plain hooks give."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import by_hand, oracle
from tests.backend.cases import EVERY, IDS, MASK, Case, apart, wrong
from tests.backend.hooked import HOOKED


def test_logits_are_those_of_transformers(case: Case) -> None:
    plain = case.theirs.auto.from_pretrained(case.path, dtype=torch.float32)
    with torch.no_grad():
        theirs = plain(IDS, attention_mask=MASK).logits
    ours = case.ours.forward(IDS, MASK)
    assert apart(ours * MASK[:, :, None], theirs * MASK[:, :, None]) <= 1e-5 * case.rounding
    assert (
        apart(case.clean.values["logits"] * MASK[:, :, None], theirs * MASK[:, :, None])
        <= 1e-5 * case.rounding
    )


def test_by_hand_is_what_plain_hooks_see(case: Case) -> None:
    """The writing by hand is right, wherever an untouched model lets itself be hooked."""
    code = "sdpa" if case.name == "falcon_rw" else "eager"  # which adds ALiBi twice
    plain = case.theirs.auto.from_pretrained(
        case.path, dtype=torch.float32, attn_implementation=code
    )
    seen: dict[str, Tensor] = {}
    for name, path, side in HOOKED[EVERY[case.name][0]]:
        for layer in range(4) if "{i}" in name else (0,):
            key = name.replace("{i}", str(layer))
            if key not in case.clean.values:  # a layer of another kind
                continue
            module = plain.get_submodule(path.replace("{i}", str(layer)))
            if side == "output":
                module.register_forward_hook(
                    lambda m, a, out, key=key: seen.update(
                        {key: (out if isinstance(out, Tensor) else out[0]).clone()}
                    )
                )
            else:
                module.register_forward_pre_hook(lambda m, a, key=key: seen.update({key: a[0]}))
    positions = (MASK.cumsum(1) - 1).clamp(min=0)
    names = [f"layers.{i}.attn.pattern" for i in range(4)]
    attending = [name for name in names if name in case.clean.values]
    asked = bool(attending)
    out = plain(IDS, attention_mask=MASK, position_ids=positions, output_attentions=asked)
    if attending:  # transformers tells of these layers alone, one after the other
        told = out.attentions
        if case.name == "minimax":  # whose list has states of the other layers among them
            told = [told[int(name.split(".")[1])] for name in attending]
        seen.update(zip(attending, told, strict=True))
    theirs = {name: case.clean.values[name].reshape(seen[name].shape) for name in seen}
    assert len(seen) > 16
    assert wrong(seen, theirs, 1e-5 * case.rounding) == {}


@pytest.mark.parametrize("file", [oracle.__file__, *Path(by_hand.__file__).parent.glob("*.py")])
def test_the_oracle_imports_nothing_of_ours(file: str | Path) -> None:
    allowed = {"tests.by_hand", "transformers", "torch", *sys.stdlib_module_names}
    for name in imports(Path(file)):
        assert {name.partition(".")[0], ".".join(name.split(".")[:2])} & allowed, name


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
