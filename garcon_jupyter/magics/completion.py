"""Tab completion on the lines of the magics.

Everything is read from the catalog that came with the connection, from the registry's directory and
from the notebook's variables. A server is asked, once, where what is written must be of a dictionary (``….sae.``) and nothing
that is known begins so: another client may have loaded it. Names are offered whole while they are
few; where they are many, part by part: ``layers.`` first, then the layers, then what a layer has.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from garcon_jupyter.client.probes import MERGE_RULES
from garcon_jupyter.magics.arguments import PARSERS, PROBE, word_of
from garcon_jupyter.magics.current import Current
from garcon_jupyter.magics.parser import Parser
from garcon_jupyter.model import RemoteModel
from garcon_jupyter.model_files.embedded import EMBEDDED
from garcon_jupyter.points import MODULE_PREFIX, Catalog, is_pattern, pattern_regex
from garcon_jupyter.points.dictionary_points import MARK
from garcon_jupyter.servers import fleet_files, registry

IDENTIFIER = "garcon"
FEW = 200
"""Names up to this many are offered whole."""

_LINE = re.compile(r"\s*(?P<magic>%%probe|%%garcon|%garcon)\s+(?P<rest>.*)", re.DOTALL)

_Matches = Callable[[CompletionContext], SimpleMatcherResult]


def matcher(current: Current) -> _Matches:
    """The completer of the magics' lines, for ``Completer.custom_matchers``."""

    def complete(context: CompletionContext) -> SimpleMatcherResult:
        line = _LINE.fullmatch(context.text_until_cursor)
        if not line or not _is_magic_line(context, line["magic"]):
            return {"completions": []}
        *before, fragment = re.split(r"\s+", line["rest"])
        kind, found = _candidates(current, line["magic"], before, fragment)
        chosen = [SimpleCompletion(text, type=kind) for text in found if text.startswith(fragment)]
        return {
            "completions": chosen,
            "suppress": bool(chosen),
            "matched_fragment": fragment,
            "ordered": True,
        }

    made: _Matches = context_matcher(identifier=IDENTIFIER)(complete)
    return made


def _is_magic_line(context: CompletionContext, magic: str) -> bool:
    """Cell magics stand on the first line that is not empty; line magics not below one."""
    lines = context.full_text.split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    if magic.startswith("%%"):
        return context.cursor_line == first
    return not lines[first].lstrip().startswith("%%")


def _candidates(
    current: Current, magic: str, before: list[str], fragment: str
) -> tuple[str, Iterable[str]]:
    """What could stand here: (its kind, the names)."""
    if magic == "%garcon":
        if not before:
            return "command", PARSERS
        word, before = word_of(before)
        second = [two.removeprefix(f"{word} ") for two in PARSERS if two.startswith(f"{word} ")]
        if word not in PARSERS or (second and not before):
            return "command", () if before else second
        parser, kind = PARSERS[word], _POSITIONAL.get(word, "nothing")
    else:
        if magic == "%%garcon" and not before and "--ranks".startswith(fragment or "?"):
            return "option", ["--ranks"]
        parser, kind = PROBE, "probe point"
    if fragment.startswith("-"):
        return "option", parser._option_string_actions
    option = _open_option(parser, before)
    if option is not None:
        if option.choices:
            return "value", list(option.choices)
        kind = _OPTIONS.get(option.dest, "nothing")
    elif not before and (choices := _choices(parser)):
        return "value", choices
    return kind, _SOURCES[kind](current, fragment)


def _open_option(parser: Parser, before: list[str]) -> argparse.Action | None:
    """The option whose value is being written."""
    for back, word in enumerate(reversed(before)):
        action = parser._option_string_actions.get(word)
        if action is not None:
            takes_more = action.nargs == "+" or (action.nargs is None and back == 0)
            return action if takes_more else None
    return None


def _choices(parser: Parser) -> list[str]:
    """What the first word may be, where there are few that it may be."""
    first = next((a for a in parser._actions if not a.option_strings), None)
    return list(first.choices) if first and first.choices else []


# -- sources of names ----------------------------------------------------------------------------


def _points(current: Current, fragment: str) -> Iterator[str]:
    model = current.peek()
    if model is None:
        return
    found = point_names(model.catalog, fragment)
    if not found and f".{MARK}." in fragment and model.catalog.dictionaries.renew():
        found = point_names(model.catalog, fragment)
    yield from found


def point_names(catalog: Catalog, fragment: str) -> list[str]:
    """Points and patterns that begin with a fragment, which may be the beginning of a pattern."""
    head, _, _ = fragment.rpartition(".")
    of_modules = fragment.startswith(MODULE_PREFIX) or not catalog.mapped
    of_table = [*catalog.names(), *catalog.dictionary_names()]
    everything = catalog.module_names() if of_modules else of_table
    if not is_pattern(head + ".") and not is_pattern(head):
        names = [name for name in everything if name.startswith(fragment)]
        patterns = (
            ["layers.*"]
            if catalog.mapped and "layers.*".startswith(fragment) and "." in fragment
            else []
        )
        return patterns + _few(names, fragment)
    depth = head.count(".") + 1
    regex = pattern_regex(head)
    rests = {
        ".".join(parts[depth:]): None
        for parts in (name.split(".") for name in everything)
        if len(parts) > depth and regex.fullmatch(".".join(parts[:depth]))
    }
    return [f"{head}.{rest}" for rest in rests if f"{head}.{rest}".startswith(fragment)]


def _few(names: list[str], fragment: str) -> list[str]:
    """The names, or, where they are many, their beginnings up to the next dot."""
    if len(names) <= FEW:
        return names
    start = len(fragment)
    beginnings = (name[: name.find(".", start) + 1] or name for name in names)
    return list(dict.fromkeys(beginnings))


def _parameters(current: Current, fragment: str) -> Iterable[str]:
    model = current.peek()
    names = model.parameters if model else ()
    return _few([name for name in names if name.startswith(fragment)], fragment)


def _attached(current: Current, fragment: str) -> Iterable[str]:
    model = current.peek()
    return dict.fromkeys(point for point, *_ in model.attached) if model else ()


def _servers(current: Current, fragment: str) -> Iterable[str]:
    return [server.name for server in registry.servers()]


def _stoppable(current: Current, fragment: str) -> Iterable[str]:
    running = registry.servers()
    fleets = [fleet.name for fleet in fleet_files.fleets() if fleet.living(running)]
    return [*fleets, *(server.name for server in running)]


def _models(current: Current, fragment: str) -> Iterable[str]:
    variables = current.variables.items()
    mine = [n for n, v in variables if isinstance(v, RemoteModel) and not n.startswith("_")]
    return [*mine, *_servers(current, fragment)]


def _texts(current: Current, fragment: str) -> Iterable[str]:
    hidden = set(current.hidden)
    return [
        name
        for name, value in current.variables.items()
        if not name.startswith("_")
        and name not in hidden
        and type(value).__name__ in ("str", "Tokens", "Tensor", "list")
    ]


Source = Callable[[Current, str], Iterable[str]]

_SOURCES: dict[str, Source] = {
    "probe point": _points,
    "parameter": _parameters,
    "attached probe": _attached,
    "server": _servers,
    "server or fleet": _stoppable,
    "model": _models,
    "text": _texts,
    "merge rule": lambda current, fragment: MERGE_RULES,
    "embedded model": lambda current, fragment: EMBEDDED,
    "command": lambda current, fragment: PARSERS,
    "nothing": lambda current, fragment: (),
}
"""Where the names of each kind come from."""

_POSITIONAL = {
    "launch": "embedded model",
    "connect": "server",
    "status": "server",
    "sessions": "server",
    "keep-alive": "server",
    "stop": "server or fleet",
    "logs": "server",
    "points": "probe point",
    "params": "parameter",
    "clear": "probe point",
    "store": "probe point",
    "dictionary": "nothing",
    "dictionary train": "probe point",
    "use": "model",
    "help": "command",
}
"""The kind of name that follows each word."""

_OPTIONS = {
    "detach": "attached probe",
    "on": "text",
    "params": "parameter",
    "merge": "merge rule",
    "at": "probe point",
}
"""The kind of name that each option takes."""
