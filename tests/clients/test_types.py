"""The compiler finds what is wrong in a request, and what is right survives: literals, tuples, numbers."""

from __future__ import annotations

import json
import subprocess

import pytest

from clients import write
from tests.typescript import COMPILER, with_node

pytestmark = [pytest.mark.processes, with_node]

RIGHT = """
import { connect, type AnswerOf, type OperationName, type RequestOf } from 'CLIENT/client.js';
import { throughJupyter } from 'CLIENT/jupyter.js';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
const kind: Same<NonNullable<NonNullable<RequestOf<'forward'>['edits']>[number]['kind']>,
  'ablate' | 'set' | 'scale' | 'add' | 'patch'> = true;
const tuple: Same<AnswerOf<'unit'>['correlated'], [number, number][]> = true;
const pair: Same<AnswerOf<'unit'>['more_likely'][number], [string, number]> = true;
const name: OperationName = 'effects';

const ask = connect({ address: 'http://127.0.0.1:8484', token: 'secret' });
const found = await ask('forward', { prompts: ['a', 'b'], edits: [{ point: 'x', kind: 'set', value: 1 }], likely: 3 });
const id: number | undefined = found.likely[0]?.[0]?.[0]?.id;

// As @jupyterlab/services declares it.
interface ISettings { readonly baseUrl: string; readonly token: string }
declare namespace ServerConnection {
  function makeSettings(options?: Partial<ISettings>): ISettings;
  function makeRequest(url: string, init: RequestInit, settings: ISettings): Promise<Response>;
}
const jupyter: Promise<AnswerOf<'describe'>> = throughJupyter(ServerConnection, 'smollm2')('describe', {});
export { id, jupyter, kind, name, pair, tuple };
"""

WRONG = {
    "an operation that there is not": "ask('foward', { prompts: 'a' })",
    "a field that there is not": "ask('forward', { prompt: 'a' })",
    "a field too many": "ask('forward', { prompts: 'a', code: 'import os' })",
    "a field too few": "ask('effects', {})",
    "a word that there is not": "ask('forward', { prompts: 'a', edits: [{ point: 'x', kind: 'oblate' }] })",
    "a text for a number": "ask('generate', { prompts: 'a', max_new_tokens: '5' })",
    "an answer that has no such field": "(await ask('describe', {})).modle",
    "a tuple as a list": "const t: AnswerOf<'unit'>['correlated'] = [[1, 2, 3]]",
    "a tuple the wrong way round": "const t: AnswerOf<'unit'>['more_likely'][number] = [0.5, 'a']",
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What tsc says of each file, by name."""
    if not COMPILER.exists():
        pytest.skip("There is no TypeScript: `make javascript` brings it.")
    folder = tmp_path_factory.mktemp("types")
    head = "import { connect, type AnswerOf } from 'CLIENT/client.js';\nconst ask = connect({ address: '', token: '' });\n"
    tail = "\nexport type Used = AnswerOf<'describe'>;\nexport { ask };\n"
    sources = {"right": RIGHT}
    sources |= {f"wrong{n}": f"{head}{line};{tail}" for n, line in enumerate(WRONG.values())}
    for name, source in sources.items():
        text = source.replace("CLIENT", str(write.TYPESCRIPT))
        (folder / f"{name}.ts").write_text(text, encoding="utf-8")
    options = {"noEmit": True, "declaration": False, "noUnusedLocals": False}
    project = {"extends": str(write.TYPESCRIPT / "tsconfig.json"), "compilerOptions": options}
    project |= {"files": [f"{name}.ts" for name in sources]}
    (folder / "tsconfig.json").write_text(json.dumps(project))
    command = ["node", str(COMPILER), "--pretty", "false", "--project", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    said = dict.fromkeys(sources, "")
    for line in done.stdout.splitlines():
        name = line.partition(".ts(")[0]
        if name in said:
            said[name] += line + "\n"
        else:
            assert line.startswith(" "), line  # of the one before
    return said


def test_what_is_right_compiles(complaints: dict[str, str]) -> None:
    assert complaints["right"] == ""


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_does_not(complaints: dict[str, str], what: str) -> None:
    assert "error TS" in complaints[f"wrong{[*WRONG].index(what)}"]


def test_the_page_has_no_errors_of_types() -> None:
    if not COMPILER.exists():
        pytest.skip("There is no TypeScript: `make javascript` brings it.")
    command = ["node", str(COMPILER), "--project", str(write.TYPESCRIPT / "tsconfig.page.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
