"""What can be written after ``%garcon`` and ``%%probe``: words, options and their help."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from garcon_jupyter.client.probes import MERGE_RULES
from garcon_jupyter.display.whereabouts import WHY
from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.magics import (
    activations,
    dictionaries,
    dictionary_training,
    explanations,
    training,
)
from garcon_jupyter.magics.experiments import EXPERIMENTS
from garcon_jupyter.magics.parser import Parser
from garcon_jupyter.servers.option_forms import add_certify_options, add_launch_options

_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_WORD = re.compile(rf"(?:{_QUOTED}|[^\s\"'])+")
_WHOLLY_QUOTED = re.compile(rf"(--[\w-]+=)?({_QUOTED})", re.DOTALL)
_VARIABLE = re.compile(r"\{([^\W\d]\w*)\}")


def words(line: str) -> list[str]:
    """The words of a magic's line, as a shell splits them: a quoted text is one.

    Quotes inside a word stay, so that ``--source recs["logits"]`` is a Python expression.

    Raises:
        BadRequest: a quote is not closed.
    """
    found = _WORD.findall(line)
    if "".join(found) != "".join(_without_space(line)):
        raise BadRequest(f"A quote is not closed in: {line.strip()}", "Close it.")
    return [_unquoted(word) for word in found]


def _without_space(line: str) -> list[str]:
    return [part if n % 2 else "".join(part.split()) for n, part in enumerate(_parts(line))]


def _parts(line: str) -> list[str]:
    """Unquoted and quoted parts of a line, in turn."""
    return re.split(f"({_QUOTED})", line)


def _unquoted(word: str) -> str:
    quoted = _WHOLLY_QUOTED.fullmatch(word)
    if not quoted:
        return word
    return (quoted[1] or "") + re.sub(r"\\([\"'\\])", r"\1", quoted[2][1:-1])


def expanded(word: str, variables: Mapping[str, Any]) -> str:
    """A word with ``{name}`` of each variable replaced by its value; a list's by ``{4,8}``."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in variables:
            return found[0]
        value = variables[found[1]]
        if isinstance(value, (list, tuple, range, set)):
            return "{" + ",".join(map(str, value)) + "}"
        return str(value)

    return _VARIABLE.sub(value, word)


def check_expanded(points: Sequence[str]) -> None:
    """Refuse points in which the name of no variable is left.

    Raises:
        BadRequest: names the missing variable.
    """
    for point in points:
        if missing := _VARIABLE.search(point):
            raise BadRequest(
                f"{point} needs a variable {missing[1]!r}, which the notebook does not have.",
                "Set it, or write the layers: {4,8}, 4-7 or *.",
            )


# -- parsers -------------------------------------------------------------------------------------


def _launch() -> Parser:
    parser = Parser(
        "%garcon launch",
        "Launch a server for a model, or find the one that runs, and connect rmodel to it.\n"
        "rmodel is a variable of the notebook. The session is this notebook's own, so that recordings survive a kernel restart.",
        epilog="In Python: rmodel = garcon.launch_and_connect(PATH, …)",
    )
    parser.add_argument("path", metavar="PATH", help="smollm2, a directory, or a hub id")
    add_launch_options(parser)
    parser.add_argument("--session", help="to resume, instead of this notebook's")
    return parser


def _connect() -> Parser:
    parser = Parser(
        "%garcon connect",
        "Connect the variable rmodel to a running server.",
        epilog="In Python: rmodel = garcon.connect(NAME, session=…)",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="of the server; %%garcon list names them, ssh://user@host/NAME is of another machine",
    )
    parser.add_argument("--session", help="to resume, or make (default: this notebook's)")
    return parser


def _list() -> Parser:
    return Parser("%garcon list", "List the running servers.", epilog="In Python: garcon.servers()")


def _status() -> Parser:
    parser = Parser(
        "%garcon status",
        "Say what a server does, who is there, and what it uses.",
        epilog="In Python: rmodel.status()",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: the current model's")
    return parser


def _sessions() -> Parser:
    parser = Parser(
        "%garcon sessions",
        "List the sessions of a server: who has them, and what is in them.",
        epilog="In Python: garcon.sessions(NAME)",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: the current model's")
    return parser


def _keep_alive() -> Parser:
    parser = Parser(
        "%garcon keep-alive",
        "Start the idle time of a server anew, as a request does.",
        epilog="In Python: rmodel.keep_alive()",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: the current model's")
    return parser


def _stop() -> Parser:
    in_python = "In Python: rmodel.shutdown(force=…), fleet.stop(force=…)"
    parser = Parser("%garcon stop", "End a server, or those of a fleet.", epilog=in_python)
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: the current model's")
    parser.add_argument("--force", action="store_true", help="even if others use it, or it hangs")
    return parser


def _points() -> Parser:
    parser = Parser(
        "%garcon points",
        "List the model's probe points with their shapes; those it lacks, with the reason.",
        epilog="In Python: rmodel.probe_points; rmodel.probe_points[POINT].where",
    )
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", help="a name, its beginning, or layers.*.mlp.out"
    )
    parser.add_argument("--why", action="store_true", help=WHY)
    return parser


def _params() -> Parser:
    parser = Parser(
        "%garcon params",
        "List the model's parameters, all oriented [out, in].",
        epilog="In Python: rmodel.parameters, rmodel.get_parameter(NAME)",
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", help="a name or its beginning")
    return parser


def _certify() -> Parser:
    parser = Parser(
        "%garcon certify",
        "Hold every named point of the model against what must hold between points and parameters.",
        epilog="In Python: rmodel.certify(anew=…, every_layer=…)",
    )
    add_certify_options(parser)
    return parser


def _probes() -> Parser:
    parser = Parser(
        "%garcon probes",
        "List the attached probes, which run in every pass that is given no probes; or detach some.",
        epilog="In Python: rmodel.attached, rmodel.detach(PATTERN)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--detach", metavar="PATTERN", help="detach those of these points")
    which.add_argument("--all", action="store_true", help="detach all")
    return parser


def _recordings() -> Parser:
    return Parser(
        "%garcon recordings",
        "List what probes have saved in this session.",
        epilog="In Python: rmodel.recordings()",
    )


def _pending() -> Parser:
    return Parser(
        "%garcon pending",
        "List the requests of this session that wait, run, or ended while nobody waited for them.",
        epilog="In Python: rmodel.pending()",
    )


def _result() -> Parser:
    parser = Parser(
        "%garcon result",
        "Wait for such a request, show what it printed, and put its answer into the variable result.",
        epilog="In Python: result = rmodel.result(REQUEST)",
    )
    parser.add_argument("request", metavar="REQUEST", nargs="?", help="its id; default: the last")
    return parser


def _cancel() -> Parser:
    parser = Parser(
        "%garcon cancel",
        "Stop requests of this session that wait or run, also those of an earlier notebook.",
        epilog="In Python: rmodel.cancel(REQUEST)",
    )
    parser.add_argument("request", metavar="REQUEST", nargs="?", help="its id; default: all")
    return parser


def _clear() -> Parser:
    parser = Parser(
        "%garcon clear",
        "Forget recordings on the server.",
        epilog="In Python: rmodel.clear_recordings(PATTERN, name=…)",
    )
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", help="of these points; default: all"
    )
    parser.add_argument("--name", help="of probes of this name")
    return parser


def _logs() -> Parser:
    parser = Parser("%garcon logs", "Show what a server wrote, even after it ended.")
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: the current model's")
    parser.add_argument("-n", dest="lines", type=int, default=40, help="last lines (default: 40)")
    return parser


def _use() -> Parser:
    parser = Parser(
        "%garcon use",
        "Make another model the current one: the variable rmodel.",
        epilog="In Python: rmodel = other",
    )
    parser.add_argument("which", metavar="NAME", help="of a variable, or of a server")
    return parser


def _help() -> Parser:
    parser = Parser("%garcon help", "Say what can be done.")
    parser.add_argument("about", metavar="WORD", nargs="*", help="of those after %%garcon")
    return parser


def _probe() -> Parser:
    parser = Parser(
        "%%probe",
        "Make this cell's body a probe: save_ctx and tensor are its arguments.\n\n"
        "Assign to save_ctx to save; change tensor in place, or return another, to edit.\n"
        "Variables of the notebook are captured as they are now. The probe is attached to rmodel\n"
        "and runs in every pass that is given no probes; run the cell again to replace it.",
        epilog="In Python: rmodel.attach(rmodel.probe_points[POINT].probe(fn, …))",
    )
    parser.add_argument("points", metavar="POINT", nargs="+", help="a name, or layers.*.mlp.out")
    add = parser.add_argument
    add("--name", help="a save context of its own, at recordings()[POINT, NAME]")
    add("--grad", action="store_true", help="run in the backward pass, on the gradient")
    add("--once", action="store_true", help="run in one pass only: that of --on, or the next")
    add("--on", metavar="TEXT", help="run forward now, on a text or on a variable that holds one")
    add("--adapter", metavar="NAME", help="of --on: the adapter that is on in that pass")
    add("--show", action="store_true", help="show what it saved, after --on or on the last tokens")
    add("--sharded", action="store_true", help="run on every rank that holds a shard, on its shard")
    add("--merge", metavar="RULE", help=f"of sharded: {', '.join(MERGE_RULES)}, or a function")
    add(
        "--read-only", action="store_true", help="promise not to change the tensor, which is faster"
    )
    add("--params", nargs="+", action="extend", default=[], help="to find in save_ctx.params")
    add("--source", metavar="RECORDING", help="an earlier recording, to find in save_ctx.source")
    add(
        "--record",
        metavar="RECORDER",
        action="append",
        help="instead of a body: topk=10, moments, histogram, …; may be given again",
    )
    add(
        "--without",
        metavar="TOKENS",
        nargs="+",
        action="extend",
        default=[],
        help="tokens that are not recorded: first, special, or ids",
    )
    return parser


PARSERS: dict[str, Parser] = {
    parser.prog.removeprefix("%garcon "): parser
    for parser in (
        _launch(),
        _connect(),
        _list(),
        _status(),
        _sessions(),
        _keep_alive(),
        _stop(),
        _points(),
        _params(),
        _certify(),
        _probes(),
        _recordings(),
        _pending(),
        _result(),
        _cancel(),
        _clear(),
        activations.store_parser(),
        activations.shuffle_parser(),
        activations.features_parser(),
        activations.jobs_parser(),
        dictionaries.parser(),
        dictionary_training.parser(),
        training.parser(),
        explanations.parser(),
        *(word.parser for word in EXPERIMENTS),
        _logs(),
        _use(),
        _help(),
    )
}
"""What can follow ``%garcon``: parsing, help, documentation and completion read this table."""

PROBE: Parser = _probe()


def word_of(given: Sequence[str]) -> tuple[str, list[str]]:
    """The word that a line begins with, of two where there is such a one (``dictionary train``), and what follows."""
    two = " ".join(given[:2])
    return (two, list(given[2:])) if two in PARSERS else (given[0], list(given[1:]))


def parser_of(word: str) -> Parser:
    """The parser of a word after ``%garcon``.

    Raises:
        UnknownName: there is no such word; names the nearest.
    """
    if word not in PARSERS:
        raise UnknownName.among("command", word, PARSERS, "%garcon help lists them.")
    return PARSERS[word]


def overview() -> str:
    """All words after ``%garcon``, with what they do."""
    width = max(map(len, PARSERS))
    rows = [
        f"  %garcon {word:<{width}}  {(parser.description or '').splitlines()[0]}"
        for word, parser in PARSERS.items()
    ]
    return "\n".join(
        [
            "Servers, models and probes. The current model is the notebook's variable rmodel.",
            "",
            *rows,
            "",
            "  %%probe POINT …           Make the cell's body a probe (%%garcon POINT … is the same).",
            "  %%garcon --ranks          Run the cell's body on every rank, with model, rank and",
            "                            world_size in scope.",
            "",
            'In Python: rmodel.experiments has every experiment, garcon_jupyter.fleet({"a": path, …}) asks several',
            "checkpoints as one, and rmodel? says what else a model can.",
            "{name} of a variable is replaced by its value: layers.{i}.mlp.out. {4,8} is two layers.",
            "%garcon help WORD, or %garcon WORD --help, says more; %%probe? does for probes.",
        ]
    )
