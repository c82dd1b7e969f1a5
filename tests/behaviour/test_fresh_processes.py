"""What a person types works as a script of its own, in a process that has just begun.

There torch is being imported on a thread while the script goes on, and no earlier cell has imported anything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import garcon_jupyter as garcon
from tests.test_docs import README

CONNECT = """
import garcon_jupyter as garcon
rmodel = garcon.connect("smollm2")
"""

SCRIPTS = {
    "encode": 'print(rmodel.encode("hi").ids.tolist())',
    "forward": 'print(list(rmodel.forward([[6004]], logits="last").shape))',
    "look": 'print(list(rmodel.look("hi")["layers.4.mlp.post_activation"].shape))',
    "run": 'print(rmodel.run(["hi"], show=False).status.tokens)',
}

PRINTED = {
    "encode": "[[6004]]",
    "forward": "[1, 49152]",
    "look": "[1, 1, 1536]",
    "run": "2",  # with the token that ends a text
}


def printed(source: str, directory: Path) -> tuple[str, str]:
    """What a script writes on both streams."""
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout.strip(), done.stderr


def test_the_first_line_after_connecting_works(
    smollm2_server: garcon.Server, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as two:
        done = list(two.map(lambda s: printed(CONNECT + s, tmp_path), SCRIPTS.values()))
    assert dict(zip(SCRIPTS, done, strict=True)) == {what: (PRINTED[what], "") for what in SCRIPTS}


def test_the_readmes_script_is_one(smollm2_server: garcon.Server, tmp_path: Path) -> None:
    """The block that it calls so, with nothing before it; what it says below is what a cell would show."""
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(r"In a script.*?```python\n(.*?)```", text, flags=re.S)
    *lines, last, said = block.strip().splitlines()
    path = smollm2_server.facts["path"]
    source = "\n".join([*lines, f"print({last})"]).replace('"smollm2"', f'{path!r}, name="smollm2"')
    out, err = printed(source, tmp_path)
    assert out.splitlines()[-1] == said.removeprefix("# "), err
