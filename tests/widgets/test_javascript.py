"""The widgets' JavaScript: its types, its own tests, what Python and the browser tell each other, and how the files
are joined.

The tests in ``javascript/`` run by ``node --test``, the types are checked by TypeScript. Neither Node nor TypeScript is
needed to install or to use Garçon; ``make javascript`` brings TypeScript where there is Node.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pytest
import traitlets

from garcon_jupyter import widgets
from garcon_jupyter.widgets import bundle, colours
from tests.typescript import complaints, with_node

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent / "javascript"
SOURCES = Path(widgets.__file__).parent

WIDGETS = {
    "activations": widgets.ActivationsWidget,
    "attention": widgets.AttentionWidget,
    "card": widgets.ServerCard,
    "dots": widgets.DotsWidget,
    "grid": widgets.GridWidget,
    "live": widgets.LiveWidget,
    "members": widgets.MembersWidget,
    "moves": widgets.MovesWidget,
    "neuron": widgets.NeuronWidget,
    "run": widgets.RunWidget,
    "tokens": widgets.TokensWidget,
}


def ran(*command: object) -> str:
    """What a command says; it must succeed."""
    done = subprocess.run([*map(str, command)], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- what Node says ------------------------------------------------------------------------------


@with_node
def test_its_own_tests_pass() -> None:
    said = ran("node", "--test", "--test-reporter=tap")
    passed = re.search(r"^# pass (\d+)$", said, flags=re.MULTILINE)
    assert passed and int(passed.group(1)) >= 40, said


@with_node
def test_its_types_are_right() -> None:
    assert complaints() == ""


@with_node
def test_a_wrong_type_is_found(tmp_path: Path) -> None:
    """The check is no formality: a trait that is misspelt, or a number for a text, fails it."""
    for source in [*SOURCES.glob("*.js"), *SOURCES.glob("*.d.ts")]:
        shutil.copy(source, tmp_path)
    broken = (tmp_path / "run.js").read_text().replace('get("drawn")', 'get("drwan")')
    (tmp_path / "run.js").write_text(broken.replace('element("i")', "element(7)"))
    found = complaints(tmp_path)
    assert '"drwan"' in found and "type '7'" in found
    assert set(re.findall(r"(\w+\.js)\(", found)) == {"run.js"}


@with_node
def test_any_number_has_the_same_colour_on_both_sides(tmp_path: Path) -> None:
    """A hundred thousand of them, halves among them: not only those of the contract."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100_000).astype(np.float32)
    values[:1000] = (rng.integers(-127, 127, 1000) + 0.5) / 127
    limits = 10 ** rng.uniform(-3, 3, 8)
    expected = [colours.codes(values, limit, root) for limit in limits for root in (False, True)]
    (tmp_path / "values").write_bytes(values.tobytes())
    (tmp_path / "limits").write_bytes(limits.tobytes())
    (tmp_path / "codes").write_bytes(np.concatenate(expected).tobytes())
    program = f"""
        import {{ readFileSync }} from "node:fs";
        import {{ codeOf }} from "{(SOURCES / "common.js").as_uri()}";
        const read = (name) => new Uint8Array(readFileSync("{tmp_path.as_posix()}/" + name)).buffer;
        const values = new Float32Array(read("values"));
        const codes = new Uint8Array(read("codes"));
        let place = 0, wrong = 0;
        for (const limit of new Float64Array(read("limits"))) {{
          for (const root of [false, true]) {{
            for (const value of values) wrong += codeOf(value, limit, root) !== codes[place++];
          }}
        }}
        console.log(place, wrong);
    """
    assert ran("node", "--input-type=module", "--eval", program).split() == ["1600000", "0"]


# -- what they tell each other -------------------------------------------------------------------

KINDS: list[tuple[type[Any], str]] = [
    (traitlets.Enum, r'("\w+"( \| )?)+'),
    (traitlets.Unicode, "string"),
    (traitlets.Bool, "boolean"),
    (traitlets.Float, "number"),
    (traitlets.Int, "number"),
    (traitlets.Bytes, "Bytes"),
    (traitlets.Tuple, r"\[number, number\]"),
    (traitlets.List, r".*\[\]"),
    (traitlets.Dict, r"\{.*|\w+(<.*>)?"),
]
"""Traits with what their types look like in traits.d.ts."""


def declared(name: str) -> dict[str, str]:
    """Traits of an interface in traits.d.ts with their types."""
    text = (SOURCES / "traits.d.ts").read_text(encoding="utf-8")
    found = re.search(
        rf"^export interface {name}(?: extends (\w+))? \{{\n(.*?)^\}}", text, re.M | re.S
    )
    assert found, name
    own = dict(re.findall(r"^  (\w+): (.+?);?$", found.group(2), flags=re.MULTILINE))
    return (declared(found.group(1)) if found.group(1) else {}) | own


@pytest.mark.parametrize("name", WIDGETS)
def test_traits_are_those_of_python(name: str) -> None:
    """The browser knows each trait that Python sends, by its type, and no other."""
    base = traitlets_of(anywidget.AnyWidget)
    python = {key: trait for key, trait in traitlets_of(WIDGETS[name]).items() if key not in base}
    typescript = declared(name.capitalize())
    assert set(typescript) == set(python)
    for key, trait in python.items():
        shape = next(shape for kind, shape in KINDS if isinstance(trait, kind))
        assert re.fullmatch(shape, typescript[key]), (key, trait, typescript[key])


def traitlets_of(widget: type[Any]) -> dict[str, Any]:
    return {key: trait for key, trait in widget.class_traits(sync=True).items() if key[0] != "_"}


# -- how they are joined -------------------------------------------------------------------------

_DECLARED = re.compile(
    r"^(?:export )?(?:async )?(?:function\*?|class|const|let|var) (\w+|\{[^}]*\}|\[[^\]]*\])",
    flags=re.MULTILINE,
)


def top_level(text: str) -> list[str]:
    """Names that a file declares for all that it is joined with."""
    return [name for found in _DECLARED.findall(text) for name in re.findall(r"\w+", found)]


@pytest.mark.parametrize("name", WIDGETS)
def test_no_two_joined_files_declare_the_same_name(name: str) -> None:
    """Files that are joined are in one scope. A name that two declare is an error of the whole page at best."""
    twice = [word for word, times in Counter(top_level(bundle.module(name))).items() if times > 1]
    assert not twice, f"{', '.join(twice)} in what {name}.js is joined with"


def test_names_are_found() -> None:
    """What the test before rests on, held against a text that has one of each."""
    text = (
        "export function a() {\n  const inner = 1;\n}\nconst [B, C] = [1, 2];\nlet d;\nclass E {}\n"
    )
    text += (
        "export const f = 1;\nconst { g, h } = f;\nasync function i() {}\nexport default { a };\n"
    )
    assert top_level(text) == ["a", "B", "C", "d", "E", "f", "g", "h", "i"]


@pytest.mark.parametrize("name", WIDGETS)
def test_a_page_is_one_module_without_types(name: str, tmp_path: Path) -> None:
    text = bundle.module(name)
    assert not re.search(r"^\s*import\b|^export (?!default)|@ts-check|@param|@typedef", text, re.M)
    assert text.count("export default") == 1
    if shutil.which("node"):
        (tmp_path / "page.mjs").write_text(text, encoding="utf-8")
        ran("node", "--check", tmp_path / "page.mjs")


def test_every_file_is_checked() -> None:
    """And imports its neighbours in the one way that can be joined."""
    for source in SOURCES.glob("*.js"):
        text = source.read_text(encoding="utf-8")
        assert text.startswith("// @ts-check\n"), source.name
        imports = re.findall(r"^import .*$", text, flags=re.MULTILINE)
        left = bundle._IMPORT.sub("", text)
        assert "\nimport " not in left, (source.name, imports)
