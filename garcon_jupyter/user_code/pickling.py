"""cloudpickle, with the user's own modules by value.

What is of an installed module travels by name, what is of a notebook by value, as cloudpickle has it. What is of the
user's own modules (:mod:`garcon_jupyter.user_code.own_modules`) travels by value too, in the version that is loaded here: each
function with the names that it uses, in a module that it shares with the others of its module
(:mod:`garcon_jupyter.user_code.guests`). The rule is that of this pickler, and nobody else's in the process.
"""

from __future__ import annotations

import functools
import io
import types
import typing
from collections import ChainMap
from collections.abc import Iterator
from typing import Any, ClassVar

from cloudpickle import cloudpickle

from garcon_jupyter.user_code import guests, own_modules, source_lines
from garcon_jupyter.user_code.reaching import reached

_FACTS = ("__name__", "__package__", "__path__", "__file__")
_MACHINERY = {*_FACTS, "__builtins__", "__loader__", "__spec__", "__cached__"}
_MOST_TRIES = 50
_COMPILED = (types.BuiltinFunctionType, types.ModuleType, type)


class _FamilyMark:
    """Stands for the family of guests that a payload makes; there is one in each."""


class _Guest:
    """Stands for a module whose values come with whatever uses them."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module


class _Sent:
    """Stands for a value, with what its functions use after it."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Items(_Sent):
    """The list that this makes."""


class _Names:
    """Stands for what functions of a module use, where that comes after them."""

    def __init__(self, guest: Any, values: dict[str, Any]) -> None:
        self.guest, self.values = guest, values


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """One payload.

    Args:
        flat: what functions of own modules use comes after them, and not within. Pickling then goes less deep; but code
            that runs while it is unpickled, such as ``__init_subclass__``, may miss something.
        left_out: (module, name) of values that do not travel with their modules, and why.
        by_name: modules that the server must have, and why.

    Attributes:
        carried: (module, name, value, whether it goes along unasked) of what own modules hold.
    """

    dispatch_table: ClassVar[Any] = ChainMap(
        {types.CodeType: source_lines.reduce_code}, cloudpickle.Pickler.dispatch_table
    )

    def __init__(
        self,
        file: Any,
        protocol: int = 5,
        buffer_callback: Any = None,
        left_out: dict[tuple[str, str], str] | None = None,
        by_name: dict[str, str] | None = None,
        flat: bool = False,
    ) -> None:
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)
        self._left_out = {} if left_out is None else left_out
        self._by_name = {} if by_name is None else by_name
        self.carried: list[tuple[str, str, Any, bool]] = []
        self._family = _FamilyMark()
        self._guests: dict[str, _Guest] = {}
        self._cells: dict[int, types.CellType] = {}
        self._flat, self._later = flat, list[Any]()

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is _FamilyMark:
            return guests.make_family, ()
        if kind is _Guest:
            return guests.module_of, (self._family, obj.module.__name__, _facts(vars(obj.module)))
        if kind is _Sent:
            return guests.first_of, (_Items(obj.value),)
        if kind is _Items:
            return list, (), None, self._items(obj.value)
        if kind is _Names:
            return guests.fill_names, (obj.guest, obj.values)
        if kind is functools._lru_cache_wrapper:
            return self._reduce_cached(obj)
        if isinstance(obj, _COMPILED) and (reduced := self._reduce_compiled(obj)):
            return reduced
        if isinstance(obj, types.ModuleType):
            return self._reduce_module(obj)
        if kind is types.FunctionType:
            return self._reduce_function(obj)
        if kind is typing.TypeVar and self._own(obj):
            return cloudpickle._make_typevar, cloudpickle._decompose_typevar(obj)
        if isinstance(obj, type):
            return self._reduce_class(obj)
        return super().reducer_override(obj)

    def _own(self, obj: Any) -> types.ModuleType | None:
        """The own module that a function, class or the like is of, where that travels."""
        module = own_modules.own(own_modules.loaded(getattr(obj, "__module__", None)))
        return None if module is None or module.__name__ in self._by_name else module

    # -- modules ---------------------------------------------------------------------------------

    def _reduce_module(self, module: types.ModuleType) -> Any:
        if module.__name__ in self._by_name:
            return self._from_server(module, "")
        if own_modules.own(module) is None:
            return NotImplemented
        held = {key: value for key, value in vars(module).items() if key not in _MACHINERY}
        values = self._carried(module, held, unasked=True)
        arguments = (self._family, module.__name__, _facts(vars(module)))
        return guests.module_of, arguments, values, None, None, guests.fill_module

    def _reduce_compiled(self, obj: Any) -> Any:
        """What is of a compiled module, or of one that cannot travel."""
        if isinstance(obj, types.ModuleType):
            module, name = obj, ""
        else:
            module = own_modules.loaded(getattr(obj, "__module__", None))
            name = getattr(obj, "__qualname__", "")
        if not isinstance(module, types.ModuleType):
            return None
        if own_modules.compiled(module) is not None:
            why = f"{module.__name__} is compiled, and cannot travel"
            self._by_name.setdefault(module.__name__, why)
        if module.__name__ not in self._by_name or (name and _found(module, name) is not obj):
            return None
        return self._from_server(module, name)

    def _from_server(self, module: types.ModuleType, name: str) -> Any:
        why = self._by_name[module.__name__]
        said = own_modules.fingerprint(module)
        return guests.from_server, (module.__name__, name, said, why)

    def _bare(self, value: Any) -> Any:
        """A value; of an own module what stands for it, as what is used of it comes by itself."""
        if own_modules.own(value) is None or value.__name__ in self._by_name:
            return value
        return self._guests.setdefault(value.__name__, _Guest(value))

    def _bare_cell(self, cell: types.CellType) -> types.CellType:
        """A cell of a closure; the same for all functions that share it."""
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            return cell
        bare = self._bare(value)
        return cell if bare is value else self._cells.setdefault(id(cell), types.CellType(bare))

    def _carried(
        self, module: types.ModuleType, values: dict[str, Any], unasked: bool = False
    ) -> dict[str, Any]:
        """What an own module holds, as it travels."""
        name = module.__name__
        left = {key: why for key in values if (why := self._left_out.get((name, key)))}
        values = {k: guests.Absent(left[k]) if k in left else v for k, v in values.items()}
        self.carried += [(name, key, value, unasked) for key, value in values.items()]
        return values

    # -- functions -------------------------------------------------------------------------------

    def _reduce_function(self, function: types.FunctionType) -> Any:
        module = own_modules.loaded(function.__module__)
        name = function.__qualname__
        if isinstance(module, types.ModuleType) and module.__name__ in self._by_name:
            if _found(module, name) is function:
                return self._from_server(module, name)
        elif self._own(function) is None:
            return self._function_reduce(function)
        return self._dynamic_function_reduce(function)

    def _dynamic_function_reduce(self, func: types.FunctionType) -> Any:
        """As cloudpickle's own, with the guests that the function uses."""
        _, (code, _, _, _, closure), (attributes, slots), *_ = super()._dynamic_function_reduce(
            func
        )
        space, home = self._space(func)
        found = reached(func)
        used = slots["__globals__"]
        if home is not None:
            used = self._carried(home, used)
        slots["__globals__"] = {name: self._bare(value) for name, value in used.items()}
        if home is not None and self._flat:
            self._later.append(_Names(self._bare(home), slots["__globals__"]))
            slots["__globals__"] = {}
        if slots["__closure__"] is not None:
            slots["__closure__"] = tuple(map(self._bare_cell, slots["__closure__"]))
        slots["_cloudpickle_submodules"] = [
            module for module in slots["_cloudpickle_submodules"] if not own_modules.own(module)
        ]
        slots["__reached__"] = list(self._reached(found.names))
        # Of a module that goes by name, that it is there and the same is looked at.
        by_name = {n: module for n, (module, _) in found.names.items() if n in self._by_name}
        whole = found.whole | by_name
        slots["__whole__"] = [whole[name] for name in sorted(whole)]
        facts = _facts(func.__globals__)
        arguments = (self._family, space, facts, found.imports, code, closure)
        state = (attributes, slots)
        return guests.make_function, arguments, state, None, None, guests.fill_function

    def _items(self, value: Any) -> Iterator[Any]:
        """A value, and what comes after it; that grows while it is pickled.

        The pickler asks for an item before it has pickled the one before, so that every other one is nothing.
        """
        yield value
        yield None
        while self._later:
            yield self._later.pop()
            yield None

    def _space(self, function: types.FunctionType) -> tuple[str | int, types.ModuleType | None]:
        """What stands for a function's global names, and the own module whose they are."""
        module = own_modules.own(own_modules.loaded(function.__globals__.get("__name__")))
        if module is not None and vars(module) is function.__globals__:
            return module.__name__, module
        # By order of appearance, so that equal code has equal bytes.
        known = self.globals_ref
        key = id(function.__globals__)
        return list(known).index(key), None

    def _reached(
        self, names: dict[str, tuple[types.ModuleType, set[str]]]
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Each module that is used, with what is used of it."""
        for name in sorted(names):
            if name in self._by_name:
                continue
            module, used = names[name]
            values = {key: vars(module)[key] for key in sorted(used)}
            values = self._carried(module, values)
            yield self._bare(module), {key: self._bare(value) for key, value in values.items()}

    def _reduce_cached(self, cached: Any) -> Any:
        function = cached.__wrapped__
        if self._own(function) is None and function.__module__ != "__main__":
            return NotImplemented
        how = cached.cache_parameters()
        return guests.make_cached, (function, how["maxsize"], how["typed"])

    # -- classes ---------------------------------------------------------------------------------

    def _reduce_class(self, kind: type) -> Any:
        if self._own(kind) is not None:
            reduced = cloudpickle._dynamic_class_reduce(kind)
        else:
            reduced = super().reducer_override(kind)
        if not isinstance(reduced, tuple) or len(reduced) != 6:
            return reduced
        make, arguments, state, *_ = reduced
        home = (kind.__module__, kind.__qualname__) if guests.is_guest(kind) else ("", "")
        if home[0] == "__main__":
            home = ("", "")
        return guests.make_class, (home, make, arguments), state, None, None, guests.fill_class


def _facts(names: dict[str, Any]) -> dict[str, Any]:
    """What a module knows of itself."""
    facts = {name: names[name] for name in _FACTS if name in names}
    if "__path__" in facts:
        facts["__path__"] = list(facts["__path__"])
    return facts


def _found(module: types.ModuleType, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def dumps(value: Any, pickler: type[Pickler] = Pickler, buffer_callback: Any = None) -> bytes:
    """The pickle of a value.

    What an own module holds and cannot be pickled is left out where nothing asks for it by name; where something does,
    the module goes by name, and must be on the server in the same version.
    """
    left_out: dict[tuple[str, str], str] = {}
    by_name: dict[str, str] = {}
    flat = False
    for _ in range(_MOST_TRIES):
        stream = io.BytesIO()
        taken: list[Any] = []
        keep = None if buffer_callback is None else taken.append
        attempt = pickler(stream, 5, keep, left_out, by_name, flat)
        try:
            attempt.dump(_Sent(value) if flat else value)
        except (Exception, SystemExit) as error:  # objects may raise anything when asked for this
            too_deep = isinstance(error.__cause__, RecursionError)
            if too_deep and not flat:
                flat = True
            elif not _blamed(attempt, left_out, by_name):
                raise
            continue
        for buffer in taken:
            buffer_callback(buffer)
        return stream.getvalue()
    raise RuntimeError("what its modules hold cannot be pickled")


def _blamed(
    attempt: Pickler, left_out: dict[tuple[str, str], str], by_name: dict[str, str]
) -> bool:
    """Find what own modules hold that cannot be pickled; whether anything new was found."""
    before = len(left_out) + len(by_name)
    for module, name, value, unasked in sorted(attempt.carried, key=lambda one: not one[3]):
        if isinstance(value, (types.FunctionType, types.ModuleType, type, _Guest, guests.Absent)):
            continue
        if (module, name) in left_out or module in by_name or _pickles(value):
            continue
        why = f"{module}.{name}, a {type(value).__name__}, cannot travel"
        if unasked:
            left_out[module, name] = why
        else:
            by_name[module] = why
    return len(left_out) + len(by_name) > before


def _pickles(value: Any) -> bool:
    try:
        Pickler(io.BytesIO()).dump(value)
    except (Exception, SystemExit):  # noqa: BLE001 - whatever it raises, this one cannot
        return False
    return True
