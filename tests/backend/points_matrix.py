"""What ``points_matrix.toml`` says of a case, and a program that writes it for those that it does not know yet.

python -m tests.backend.points_matrix        # appends; read what it wrote before you commit it
"""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

from garcon_jupyter.points import PARAMETERS, POINTS, Catalog, PointSpec, parse_parameter
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import EVERY

FILE = Path(__file__).with_name("points_matrix.toml")


def entry(catalog: Catalog) -> dict[str, Any]:
    """Kinds of layers, parameters and points of a model; not those whose reason is the table's own."""
    found = {parse_parameter(name) for name in catalog.parameters}
    parameters = {address.template for address in found if address is not None}
    points = {spec.template: stated(catalog, spec.template) for spec in POINTS}
    return {
        "kinds": list(catalog.kinds),
        "parameters": [s.template for s in PARAMETERS if s.template in parameters],
        "points": {s.template: points[s.template] for s in POINTS if _is_said(s, points)},
    }


def stated(catalog: Catalog, template: str) -> str:
    """What the table says of a point."""
    if template in catalog.refused:
        return catalog.refused[template]
    layers = catalog.layers.get(template, ())
    if "{i}" not in template or len(layers) == catalog.n_layers:
        return "supported"
    return "supported in layers " + ", ".join(map(str, layers))


def _is_said(spec: PointSpec, points: dict[str, str]) -> bool:
    return not spec.absent or points[spec.template] != spec.absent


def as_toml(name: str, said: dict[str, Any]) -> str:
    """The section of a case."""
    lines = ["", f"[{name}]", "kinds = [" + ", ".join(f'"{kind}"' for kind in said["kinds"]) + "]"]
    lines += ["parameters = [", *(f'  "{template}",' for template in said["parameters"]), "]"]
    lines += ["", f"[{name}.points]"]
    lines += [f'"{template}" = "{what}"' for template, what in said["points"].items()]
    return "\n".join(lines) + "\n"


def append_missing() -> None:
    """Write the sections of cases that the file does not know."""
    known = tomllib.loads(FILE.read_text())
    for name in EVERY.keys() - known.keys():
        family, config = EVERY[name]
        with tempfile.TemporaryDirectory() as folder:
            catalog = BareRank(checkpoints.make(family, Path(folder), **config)).catalog
        with FILE.open("a") as file:
            file.write(as_toml(name, entry(catalog)))


if __name__ == "__main__":
    append_missing()
