"""Forward, attention and generation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from garcon_jupyter.connection import prints
from garcon_jupyter.errors import (
    BadRequest,
    BadTokens,
    DoesNotFit,
    PointUnavailable,
    UnknownName,
    UnknownPoint,
)
from garcon_jupyter.operations.edits import Editing, PointEdit
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.plain_data import (
    Array,
    Form,
    LikelyToken,
    Plain,
    PlainAnswer,
    TextTokens,
    array,
)
from garcon_jupyter.operations.prompts import Prompt, Prompts, likely, read, read_one, told
from garcon_jupyter.operations.readings import PointAnswer, PointReads, Read

if TYPE_CHECKING:
    from garcon_jupyter.client.tokens import Tokens

POINT_ERRORS = (BadTokens, BadRequest, UnknownPoint, PointUnavailable, DoesNotFit)
"""What a request that names prompts and points may be answered with."""


def new_name() -> str:
    """A name for what one request keeps on the server.

    It is the same for all: a door asks one thing after the other, and clears it away; and what a server was sent before under the same name
    need not be sent again.
    """
    return "asked"


class Splicing(Plain):
    """Dictionaries that the model goes on through."""

    dictionaries: list[str] = Field(min_length=1, description="names that the owner loaded")
    error: Literal["live", "frozen", "none"] = "live"


class ForwardRequest(Plain):
    """Texts to run the model on, what to change meanwhile, and what to answer."""

    prompts: Prompts
    reads: list[Read] = Field(default=[])
    edits: list[PointEdit] = Field(default=[])
    splice: Splicing | None = None
    logits: Literal["none", "last", "all"] = "none"
    likely: int = Field(default=0, ge=0, description="how many likely next tokens are answered")
    at: Literal["last", "all"] = Field(
        default="last", description="after which tokens of a text the likely next ones are"
    )
    adapter: str | None = Field(
        default=None, description="of those that the server was launched with"
    )
    form: Form = "lists"


class ForwardAnswer(PlainAnswer):
    """What the model made of the texts."""

    tokens: list[TextTokens]
    activations: list[PointAnswer]
    likely: list[list[list[LikelyToken]]] = Field(
        description="of each text, after each token asked for, likeliest first"
    )
    logits: Array | None = Field(
        default=None, description='"last": [text, V]; "all": [text, position, V]'
    )


@operation(
    "one forward pass, and one of each prompt that is patched from", (*POINT_ERRORS, UnknownName)
)
def forward(at: Door, asked: ForwardRequest) -> ForwardAnswer:
    """Run the model on texts; answer with activations, likely next tokens and logits, with the model as it is or edited.

    Edits hold for this request alone, and are made before what is read at the same point. Reductions are made where the value is, so that
    a few numbers travel and not the value.
    """
    at.limits.check("strongest", asked.likely, f"{asked.likely:,} likely tokens are asked for")
    tokens = read(at, asked.prompts)
    name = new_name()
    reading, editing = (
        PointReads(at, asked.reads, tokens, name),
        Editing(at, asked.edits, tokens, name),
    )
    if asked.logits != "none":
        places = tokens.shape[0] * (tokens.shape[1] if asked.logits == "all" else 1)
        size = places * at.model.catalog.sizes["V"] * 4
        at.limits.check("answer_bytes", size, f"The logits have {size:,} bytes")
    try:
        with spliced(at, asked.splice):
            logits, best = at.model.forward(
                tokens,
                probes=[*editing.probes(), *reading.probes()],
                logits=_wanted(asked.logits, asked.likely, asked.at, _ends(tokens)),
                adapter=asked.adapter,
            )
        activations = reading.found(asked.form)
    finally:
        reading.clear()
        editing.clear()
    words = []
    if best is not None:
        real = tokens.mask if asked.at == "all" else tokens.mask[:, :1] | True
        rows = zip(*best, real, strict=True)
        words = [likely(at, ids[kept], chances[kept]) for ids, chances, kept in rows]
    return ForwardAnswer(
        tokens=told(at, tokens),
        activations=activations,
        likely=words,
        logits=None if logits is None else array(logits, asked.form),
    )


@contextmanager
def spliced(at: Door, splice: Splicing | None) -> Iterator[None]:
    """The model goes through dictionaries meanwhile, where a request says so.

    Raises:
        UnknownName: no dictionary of that name is loaded.
    """
    if splice is None:
        yield
        return
    with at.model.spliced(*splice.dictionaries, error=splice.error):
        yield


def _ends(tokens: Tokens) -> list[int]:
    """The position of each text's last token."""
    return [max(n for n, real in enumerate(row) if real) for row in tokens.mask.tolist()]


def _wanted(logits: str, k: int, where: str, ends: list[int]) -> Callable[[Any], Any]:
    """A function of the logits [b, p, V] on the server: those that were asked for, and the likeliest tokens."""

    def wanted(found: Any) -> Any:
        import torch

        rows = torch.arange(len(found), device=found.device)
        last = found[rows, torch.tensor(ends, device=found.device)]
        kept = {"none": None, "last": last, "all": found}[logits]
        best = None
        if k:
            chances = (found if where == "all" else last[:, None]).float().softmax(-1).topk(k, -1)
            best = chances.indices.cpu(), chances.values.cpu()
        return None if kept is None else kept.float().cpu(), best

    return wanted


class AttentionRequest(Plain):
    """A text, and whose attention is asked for."""

    prompt: Prompt
    layers: list[int] = Field(min_length=1)
    heads: list[int] | None = Field(default=None, description="all where null")
    edits: list[PointEdit] = Field(default=[])
    form: Form = "lists"


class AttentionAnswer(PlainAnswer):
    """Attention patterns: [head, query position, key position] of each layer."""

    tokens: TextTokens
    patterns: list[PointAnswer]


@operation("one forward pass with eager attention in the layers asked for", POINT_ERRORS)
def attention(at: Door, asked: AttentionRequest) -> AttentionAnswer:
    """Where the heads of some layers look: the attention pattern, whose rows add up to 1."""
    tokens = read_one(at, asked.prompt)
    reads = [
        Read(point=f"layers.{layer}.attn.pattern", units=asked.heads) for layer in asked.layers
    ]
    name = new_name()
    reading = PointReads(at, reads, tokens, name)
    editing = Editing(at, asked.edits, tokens, name)
    try:
        probes = [*editing.probes(), *reading.probes()]
        at.model.forward(tokens, probes=probes, logits="none")
        found = reading.found(asked.form)
    finally:
        reading.clear()
        editing.clear()
    return AttentionAnswer(tokens=told(at, tokens)[0], patterns=found)


class GenerateRequest(Plain):
    """Texts to go on with."""

    prompts: Prompts
    max_new_tokens: int = Field(default=20, ge=1)
    temperature: float = Field(
        default=0, ge=0, description="0 takes the likeliest token; else tokens are drawn"
    )
    top_p: float = Field(default=1, gt=0, le=1)
    stop: list[str] = Field(default=[], max_length=16, description="texts that end it")
    seed: int | None = Field(default=None, description="of what is drawn")
    edits: list[PointEdit] = Field(default=[])
    splice: Splicing | None = None
    adapter: str | None = None


class GenerateAnswer(PlainAnswer):
    """What the model went on with."""

    prompts: list[TextTokens]
    new: list[TextTokens] = Field(description="the new tokens of each prompt")
    texts: list[str] = Field(description="the new tokens of each prompt, as one text")


@operation(
    "one forward pass of each prompt, and one of each new token",
    (*POINT_ERRORS, UnknownName),
    streams='`{"tokens": [id, …]}` at each step, one id for each prompt',
)
def generate(at: Door, asked: GenerateRequest) -> GenerateAnswer:
    """Go on with texts, with the model as it is or edited at every step.

    What is streamed are the ids of each step; the answer has them as text.
    """
    at.limits.check(
        "new_tokens", asked.max_new_tokens, f"{asked.max_new_tokens:,} new tokens are asked for"
    )
    tokens = read(at, asked.prompts)
    editing = Editing(at, asked.edits, tokens, new_name(), grows=True)
    options: dict[str, Any] = {"max_new_tokens": asked.max_new_tokens}
    if asked.temperature:
        options |= {"do_sample": True, "temperature": asked.temperature, "top_p": asked.top_p}
    if asked.stop:
        options["stop_strings"] = asked.stop
    with spliced(at, asked.splice), prints.shown_by(_steps(at)):
        made = at.model.generate(
            tokens,
            probes=editing.probes(),
            seed=asked.seed,
            adapter=asked.adapter,
            stopping_criteria=[_printing_step],
            **options,
        )
    start = tokens.shape[1]
    ids = [
        [token for token, real in zip(row[start:], mask[start:], strict=True) if real]
        for row, mask in zip(made.tolist(), made.mask.tolist(), strict=True)
    ]
    strings = [at.model.token_strings([row])[0] if row else [] for row in ids]
    return GenerateAnswer(
        prompts=told(at, tokens),
        new=[TextTokens(ids=a, strings=b) for a, b in zip(ids, strings, strict=True)],
        texts=[str(at.model.decode(row)) if row else "" for row in ids],
    )


_MARK = "\x1egarcon step "


def _printing_step(ids: Any, scores: Any, **_: Any) -> Any:
    """A criterion that ends nothing, and prints the newest token of each text, which is how it reaches the client at once."""
    import torch

    print(f"{_MARK}{ids[:, -1].tolist()}", flush=True)
    return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def _steps(at: Door) -> prints.Show:
    """Takes the ids of steps out of what is printed, and tells of them."""
    begun = ""

    def show(rank: int, stream: str, text: str) -> None:
        nonlocal begun
        *lines, begun = (begun + text).split("\n")
        for line in lines:
            if line.startswith(_MARK):
                at.tell({"tokens": json.loads(line.removeprefix(_MARK))})

    return show
