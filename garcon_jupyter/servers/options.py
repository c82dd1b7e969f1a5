"""The options of a launch, declared once.

Each is a key of one of the dictionaries below: its type, for whoever checks types, and an :class:`Option`, which says
the rest. All else that names the options reads them here, as :data:`OPTIONS`: signature, help and checks of
:func:`garcon_jupyter.launch` and :func:`garcon_jupyter.launch_and_connect`, command line, magic and its completion,
documentation, and the side bar's dialog. What an option does is written where it is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypedDict, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Field:
    """How the side bar's dialog asks for an option.

    Attributes:
        label: what stands beside the field.
        unset: what the field says where nothing is chosen.
        choices: values to choose among, and what each is called; none where the value is written.
    """

    label: str
    unset: str = "chosen"
    choices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Option:
    """An option of a launch.

    Attributes:
        meaning: what it is, in a phrase that the option's name goes before.
        unset: what holds where it is not given, in words; "" where that needs none.
        default: its value where it is not given.
        metavar: what stands for its value in a usage; "" for the option's name.
        choices: the values that there are; () where others are taken too.
        field: how the side bar's dialog asks for it; None where it does not.
        name, type, group: the key, its type, and what is said above those that belong together; :data:`OPTIONS` has
            them from the declaration.
    """

    meaning: str
    unset: str = ""
    default: Any = None
    metavar: str = ""
    choices: tuple[str, ...] = ()
    field: Field | None = None
    name: str = ""
    type: Any = None
    group: str = ""

    @property
    def types(self) -> tuple[Any, ...]:
        """The classes that its type is of."""
        return tuple(get_origin(each) or each for each in get_args(self.type))

    @property
    def flag(self) -> str:
        """As it is written on a command line: ``--idle-timeout``."""
        return "--" + self.name.replace("_", "-")

    @property
    def otherwise(self) -> str:
        """What holds where it is not given; "" where nothing does."""
        return self.unset or self.default or ""

    @property
    def kind(self) -> str:
        """What its value is where everything is written: "text", "number", "truth" or "list"."""
        if Sequence in self.types:
            return "list"
        if str in self.types:
            return "text"
        if bool in self.types:
            return "truth"
        return "number" if int in self.types else "list"

    @property
    def required(self) -> bool:
        """Whether it always has a value: None is none."""
        return type(None) not in self.types


class NameOption(TypedDict, total=False):
    """Which server: it may stand second, without its word."""

    name: Annotated[
        str | None,
        Option(
            "of the server",
            unset="the model's name and a short hash of its path",
            field=Field("Name"),
        ),
    ]


class ModelOptions(TypedDict, total=False):
    """How the model is loaded: what a server that runs already must have been launched with, too."""

    tp: Annotated[
        int | None,
        Option(
            "degree of tensor parallelism",
            unset="chosen from the devices and the model's size",
            metavar="N",
            field=Field("Tensor parallel"),
        ),
    ]
    pp: Annotated[
        int | None,
        Option(
            "degree of pipeline parallelism",
            unset="chosen from the devices and the model's size",
            metavar="N",
            field=Field("Pipeline parallel"),
        ),
    ]
    dp: Annotated[
        int | None,
        Option("degree of data parallelism", unset="1", metavar="N", field=Field("Data parallel")),
    ]
    dtype: Annotated[
        str | None,
        Option(
            "to load in, e.g. bfloat16",
            unset="the checkpoint's",
            field=Field(
                "Number format",
                unset="the model's own",
                choices=(
                    ("float32", "float32"),
                    ("bfloat16", "bfloat16"),
                    ("float16", "float16"),
                ),
            ),
        ),
    ]
    device: Annotated[
        str | None,
        Option(
            "to run on",
            unset="the GPUs, where there are some",
            choices=("cpu", "cuda"),
            field=Field(
                "Device",
                unset="GPUs, where there are some",
                choices=(("cuda", "GPUs"), ("cpu", "CPU")),
            ),
        ),
    ]
    adapter: Annotated[
        Sequence[str] | Mapping[str, str] | str | os.PathLike[str] | None,
        Option(
            "a LoRA as PEFT writes it: a directory, or NAME=DIRECTORY, or several; requests name the one that is to be on",
            unset="none",
            metavar="[NAME=]DIRECTORY",
        ),
    ]
    trust_remote_code: Annotated[
        bool | None,
        Option(
            "let code that the checkpoint brings run on the server, with your rights",
            unset="it is refused",
        ),
    ]
    loader: Annotated[
        str | None,
        Option(
            'a function "package.module:function" that makes a torch.nn.Module of your own from the path',
            metavar="PACKAGE.MODULE:FUNCTION",
        ),
    ]
    family: Annotated[
        str | None,
        Option(
            'where the points of an architecture are that has none here: a TOML file, or "package.module:NAME"',
            unset="the one that this version has",
            metavar="FILE",
        ),
    ]
    unchecked: Annotated[
        bool | None,
        Option(
            "serve the model though its numbers were not held against those of its own implementation, which is then"
            " said wherever it is named",
            unset="a model whose numbers differ is not served",
        ),
    ]


class LimitOptions(TypedDict, total=False):
    """What the server may use, and for how long it stays."""

    idle_timeout: Annotated[
        float | str,
        Option(
            'the server ends after so long without a request: seconds, "30m", "1h", "never"',
            default="1h",
            metavar="TIME",
            field=Field(
                "Ends when idle for",
                choices=(
                    ("30m", "30 minutes"),
                    ("1h", "1 hour"),
                    ("4h", "4 hours"),
                    ("24h", "1 day"),
                    ("never", "never"),
                ),
            ),
        ),
    ]
    memory: Annotated[
        int | str | None,
        Option(
            "bytes that requests may use on a host beside the model, e.g. 8GiB; one that needs more fails, and the"
            " server goes on",
            unset="90 % of what is free there when the model is loaded",
            metavar="BYTES",
        ),
    ]
    keep: Annotated[
        int | str | None,
        Option(
            "bytes of recordings that a host keeps; a request that saves more fails, and what it saved is taken back",
            unset="half of what is free there",
            metavar="BYTES",
        ),
    ]
    threads: Annotated[
        int | None,
        Option(
            "threads that each rank computes with on a CPU",
            unset="its share of the host's cores; of the members of a fleet, a share of that each",
            metavar="N",
        ),
    ]
    forget: Annotated[
        float | str | None,
        Option(
            "a session without name and client is forgotten after so long, with its recordings",
            unset="1h",
            metavar="TIME",
        ),
    ]


class HostsOptions(TypedDict, total=False):
    """How several hosts meet."""

    nnodes: Annotated[int | None, Option("number of hosts", metavar="N")]
    rdzv_endpoint: Annotated[
        str | None,
        Option("where they meet: an address of one of them, and a free port", metavar="HOST:PORT"),
    ]
    nproc_per_node: Annotated[
        int | None,
        Option("ranks on each host", unset="as many as the degrees ask for", metavar="N"),
    ]
    node_rank: Annotated[
        int | None,
        Option(
            "place of this host's ranks among all",
            unset="the host of the endpoint is the first",
            metavar="N",
        ),
    ]
    is_host: Annotated[
        bool | None,
        Option("whether the endpoint is this host's", unset="found by its addresses"),
    ]
    local_addr: Annotated[
        str | None,
        Option(
            "address at which the others reach this host",
            unset="that of the route to them",
            metavar="ADDRESS",
        ),
    ]
    secret_file: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "file (0600) with the secret that all share",
            unset="the one that $GARCON_SECRET names",
            metavar="FILE",
        ),
    ]


class JobOptions(TypedDict, total=False):
    """A job of Slurm, from a host that submits jobs."""

    launcher: Annotated[str | None, Option("submit a job instead", choices=("slurm",))]
    nodes: Annotated[int | None, Option("nodes of the job", unset="1", metavar="N")]
    gpus_per_node: Annotated[
        int | None, Option("GPUs of the job on each node", unset="none", metavar="N")
    ]
    partition: Annotated[str | None, Option("of the job", metavar="NAME")]
    time: Annotated[
        int | str | None, Option("limit of the job, as sbatch takes it", metavar="TIME")
    ]
    sbatch: Annotated[
        Sequence[str] | None,
        Option("further options of sbatch, such as --account=lab", metavar="OPTION"),
    ]


class Several(HostsOptions, JobOptions, total=False):
    """All that is said of a server over several hosts."""


class LaunchOptions(ModelOptions, LimitOptions, Several, total=False):
    """The keywords of :func:`garcon_jupyter.launch` beside the server's name."""


GROUPS: dict[str, tuple[type, ...]] = {
    "": (NameOption, ModelOptions),
    "limits": (LimitOptions,),
    "several hosts, the same command on each": (HostsOptions,),
    "by Slurm": (JobOptions,),
}
"""What is said above the options that belong together, and their declarations."""


def declared(group: str, declaration: type) -> Iterator[Option]:
    """The options of a declaration, each with its name, its types and its group."""
    for name, hint in get_type_hints(declaration, include_extras=True).items():
        annotated, option = get_args(hint)
        yield replace(option, name=name, type=annotated, group=group)


OPTIONS: dict[str, Option] = {
    option.name: option
    for group, declarations in GROUPS.items()
    for declaration in declarations
    for option in declared(group, declaration)
}
"""All options of a launch by name, in the order in which they are shown."""


def grouped() -> dict[str, list[Option]]:
    """The options by what is said above those that belong together; "" for the first."""
    found: dict[str, list[Option]] = {}
    for option in OPTIONS.values():
        found.setdefault(option.group, []).append(option)
    return found


def part(options: Mapping[str, Any], declaration: type) -> dict[str, Any]:
    """Those of the options that a declaration has."""
    return {word: value for word, value in options.items() if word in declaration.__annotations__}
