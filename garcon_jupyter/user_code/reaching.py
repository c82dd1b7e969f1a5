"""What code reaches in the user's own modules, read from its bytecode.

``helpers.scale(x)`` takes one function of ``helpers`` along, and not all that stands beside it: what a module holds
besides may be large, or unable to travel. Where code does something else with a module, such as
``getattr(helpers, name)``, everything in it goes along.
"""

from __future__ import annotations

import dis
import importlib
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec, resolve_name
from typing import Any

from garcon_jupyter.user_code import own_modules

SEES_ALL = frozenset({"globals", "eval", "exec", "vars", "locals"})
"""Builtins by which code can reach any of its global names."""

_LOADS = (
    "LOAD_GLOBAL",
    "LOAD_NAME",
    "LOAD_FAST",
    "LOAD_DEREF",
    "LOAD_FROM_DICT",
    "LOAD_CLASSDEREF",
)
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_IMPORT = dis.opmap["IMPORT_NAME"]


@dataclass
class Reached:
    """What a function reaches.

    Attributes:
        names: of each own module, by its name: the module, and the names that are used of it.
        whole: own modules of which anything may be used, by name.
        imports: whether import statements in it find own modules.
    """

    names: dict[str, tuple[types.ModuleType, set[str]]] = field(default_factory=dict)
    whole: dict[str, types.ModuleType] = field(default_factory=dict)
    imports: bool = False

    def module(self, module: types.ModuleType) -> set[str]:
        """Note that a module is used; the names that are used of it."""
        return self.names.setdefault(module.__name__, (module, set()))[1]

    def all_of(self, module: types.ModuleType) -> None:
        """Note that anything of a module may be used."""
        self.whole[module.__name__] = module

    def attribute(self, module: types.ModuleType, name: str) -> Any:
        """Note that a name of a module is used; its value."""
        if name in vars(module):
            self.module(module).add(name)
            return vars(module)[name]
        if "__getattr__" in vars(module):
            self.all_of(module)
        return None


def reached(function: types.FunctionType) -> Reached:
    """What a function, and those inside it, reach in own modules: by global names, closures and imports."""
    found = Reached()
    codes = list(_codes(function.__code__))
    bound = _own_modules_bound(function)
    for code in codes:
        bound |= dict(_imported(code, function.__globals__, found))
    if bound:
        for code in codes:
            _follow(_steps(code), bound, found)
    home = own_modules.own(own_modules.loaded(function.__globals__.get("__name__")))
    if home and any(map(_sees_all, codes)):
        found.all_of(home)
    return found


def _sees_all(code: types.CodeType) -> bool:
    """Whether code can reach any global name of its module."""
    return bool(SEES_ALL & set(code.co_names)) and any(
        step.argval in SEES_ALL
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _steps(code: types.CodeType) -> list[dis.Instruction]:
    """The instructions of code; those that only lengthen the next one's argument are left out."""
    return [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]


def _own_modules_bound(function: types.FunctionType) -> dict[str, types.ModuleType]:
    """Own modules by the global names, and by those of the closure, under which code has them."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    held = {name: function.__globals__[name] for name in names if name in function.__globals__}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            held[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return {name: value for name, value in held.items() if own_modules.own(value)}


def _imported(
    code: types.CodeType, scope: Mapping[str, Any], found: Reached
) -> Iterator[tuple[str, types.ModuleType]]:
    """(name, module) of each import statement of own modules; what ``from … import …`` takes is noted."""
    if _IMPORT not in code.co_code[::2]:
        return
    steps = _steps(code)
    for number, step in enumerate(steps):
        if step.opname != "IMPORT_NAME":
            continue
        level, wanted = (before.argval for before in steps[number - 2 : number])
        module = _module_meant(step.argval, level, scope)
        if module is None:
            continue
        found.imports = True
        if not wanted:
            yield from _bound_by_import(steps[number + 1 :], step.argval, module, found)
            continue
        for name in wanted:
            if name not in vars(module) and "__path__" in vars(module):
                _module_meant(f"{module.__name__}.{name}", 0, scope)
            value = found.attribute(module, name)
            if own_modules.own(value):
                found.all_of(value)


def _bound_by_import(
    after: list[dis.Instruction], dotted: str, module: types.ModuleType, found: Reached
) -> Iterator[tuple[str, types.ModuleType]]:
    """What ``import a.b`` and ``import a.b as c`` bind: the first package, and the module."""
    top = sys.modules[dotted.partition(".")[0]]
    value: Any = top
    for part in dotted.split(".")[1:]:
        value = found.attribute(value, part)
    renamed = any(step.opname == "IMPORT_FROM" for step in after[:1])
    store = next((step for step in after if step.opname.startswith("STORE_")), None)
    found.module(module)
    if store is not None:
        yield store.argval, module if renamed else top


def _module_meant(name: str, level: int, scope: Mapping[str, Any]) -> types.ModuleType | None:
    """The own module that an import statement means; imported here, where it was not before."""
    try:
        package = scope.get("__package__") or scope.get("__name__", "")
        full = resolve_name("." * level + name, package) if level else name
        if full not in sys.modules:
            top = full.partition(".")[0]
            if top in own_modules.OF_THE_SERVER or not _is_own_place(top):
                return None
            importlib.import_module(full)
    except Exception:  # noqa: BLE001 - an import that fails here fails there, if it is reached
        return None
    return own_modules.own(sys.modules.get(full))


def _is_own_place(top: str) -> bool:
    """Whether a package that may not be imported yet is the user's own, without running it."""
    if top in sys.modules:
        return own_modules.own(sys.modules[top]) is not None
    spec = find_spec(top)
    if spec is None:
        return False
    module = types.ModuleType(top)
    if spec.has_location:
        module.__file__ = spec.origin
    if spec.submodule_search_locations is not None:
        module.__path__ = list(spec.submodule_search_locations)
    return own_modules.own(module) is not None


def _follow(
    steps: list[dis.Instruction], bound: Mapping[str, types.ModuleType], found: Reached
) -> None:
    """Note the names that code takes of the modules that it has."""
    for number, step in enumerate(steps):
        if not step.opname.startswith(_LOADS):
            continue
        several = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        for name in several:  # two loads may be one instruction
            if name not in bound:
                continue
            last = name == several[-1]
            _follow_one(bound[name], steps[number + 1 :] if last else [], found)


def _follow_one(module: types.ModuleType, after: list[dis.Instruction], found: Reached) -> None:
    for step in after:
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            found.module(module)
            return
        if step.opname not in _ATTRIBUTES:
            break
        value = found.attribute(module, step.argval)
        inner = own_modules.own(value)
        if inner is None:
            return
        module = inner
    found.all_of(module)
