"""How much every head attends to the token before, to earlier copies of a token, and to what followed them: one pass for all heads.

found = experiments.head_scores(rmodel)
found.at(score="induction")                 # [layer, head], a share of attention
found.more["control"]                       # the same on text in which nothing repeats
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, need
from garcon_jupyter.experiments.result import ExperimentResult, Label

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

PATTERN = "layers.{i}.attn.pattern"

SCORES = ("previous token", "duplicate token", "induction")

POOL = 8
"""So many times as many tokens as a text has are drawn from."""

ASKED = 2048
"""Tokens whose text is asked for at a time."""

SAYS = "share of a head's attention that goes there, mean over queries"


@dataclass(frozen=True)
class _Data:
    """Random tokens with a period, and as many in which none occurs twice.

    Attributes:
        ids: int64 [row, p]; the first half of the rows repeats, the second does not.
        weights: float32 [score, row of a half, query, key]: what of the pattern a score is made of; both halves are read by
            the same.
        periods: of each repeating row.
    """

    ids: Tensor
    weights: Tensor
    periods: list[int]


def head_scores(
    rmodel: Client,
    rows: int = 8,
    periods: tuple[int, int] = (6, 24),
    seed: int = 0,
) -> ExperimentResult:
    """Previous-token, duplicate-token and induction scores of all heads, from one pass over random tokens that repeat.

    A row is drawn once, and repeats with a period until it is as long as all others. What a head does with it is known beforehand
    (Elhage et al. 2021; Olsson et al. 2022):

    - *previous token*: attention to the token before the query;
    - *duplicate token*: attention to earlier copies of the query's token;
    - *induction*: attention to the tokens that came after earlier copies, of which the next token is a copy.

    The last two are of queries with an earlier copy. Each row has a period of its own: with one period for all, a head that attends so
    many places back would pass for an induction head. The control is the same places of attention on rows in which no token
    occurs twice: a head of positions scores there as well, one that matches tokens does not.

    Args:
        rows: texts that repeat; as many do not.
        periods: the shortest and the longest, drawn evenly; rows have twice the longest.
        seed: of periods and tokens.

    Returns:
        ``values`` [score, layer, head], between 0 and 1; layers that attend. ``more["control"]`` has the same axes, and
        ``more["chance"]`` [score] is what attention that is spread evenly over all that a query sees would score. ``more["ids"]`` are
        the texts, [row, p], first those that repeat.

    Raises:
        PointUnavailable: the model's attention cannot be looked into.
        BadRequest: numbers that make no such text, or a vocabulary too small for one.

    Examples:
        >>> found = experiments.head_scores(rmodel)
        >>> induction = found.at(score="induction")
        >>> induction.shape
        torch.Size([30, 9])
        >>> bool(induction.max() > 10 * found.more["chance"][2])
        True
    """
    need(rmodel, "A score of heads", PATTERN)
    data = _drawn(rmodel, rows, periods, seed)
    points = [address.name for address in rmodel.catalog.select(PATTERN.replace("{i}", "*"))]
    with contexts(rmodel, "heads") as name:
        probes = rmodel.probe_points[PATTERN.replace("{i}", "*")].probes(
            _reader(data), name=name, read_only=True
        )
        rmodel.forward(data.ids, probes=probes, logits="none")
        recordings = rmodel.recordings(fetch=False)
        found = rmodel.fetch(*(recordings[point, name].handle("scores") for point in points))
    values, control = _by_layer(found if len(points) > 1 else [found])
    layers = rmodel.catalog.layers[PATTERN]
    heads = tuple(range(values.shape[-1]))
    axes: dict[str, tuple[Label, ...]] = {"score": SCORES, "layer": layers, "head": heads}
    facts = {
        "model": rmodel.facts["name"],
        "rows": rows,
        "periods": data.periods,
        "seed": seed,
        "limits": [
            "where a head attends, on random tokens; not what it reads there, nor what it writes"
        ],
    }
    more = {"control": control, "chance": _chance(data), "ids": data.ids}
    return ExperimentResult("head_scores", values, axes, SAYS, facts, more)


def _reader(data: _Data) -> Callable[[Any, Any], None]:
    """A probe that leaves the scores of a layer's heads, [half, score, head]."""
    weights, rows = data.weights, len(data.periods)

    def read(save_ctx: Any, tensor: Any) -> None:
        import torch

        halves = tensor.float().view(2, rows, *tensor.shape[1:])
        save_ctx.scores = torch.einsum("srqk,xrhqk->xsh", weights.to(tensor.device), halves).cpu()

    return read


def _by_layer(found: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of repeating rows and of the others, [score, layer, head]."""
    import torch

    repeating, others = torch.stack(list(found), dim=2)
    return repeating, others


def _chance(data: _Data) -> Tensor:
    """What each score is where a query attends evenly to all that it sees, [score]."""
    import torch

    length = data.weights.shape[-1]
    even = torch.ones(length, length).tril()
    even = even / even.sum(-1, keepdim=True)
    return torch.einsum("srqk,qk->s", data.weights, even)


def _drawn(rmodel: Client, rows: int, periods: tuple[int, int], seed: int) -> _Data:
    """The texts, and what of a pattern each score is made of."""
    import torch

    low, high = _checked(rows, periods)
    draw = random.Random(seed)
    first, words = _begin(rmodel), _words(rmodel, 2 * high, draw)
    drawn = [draw.randint(low, high) for _ in range(rows)]
    begins, length = len(first), len(first) + 2 * high
    repeating = []
    for period in drawn:
        once = draw.sample(words, period)
        repeating.append([*first, *(once[at % period] for at in range(2 * high))])
    others = [[*first, *draw.sample(words, 2 * high)] for _ in range(rows)]
    weights = torch.zeros(len(SCORES), rows, length, length)
    for row, period in enumerate(drawn):
        for query in range(begins, length):
            copies = range(query - period, begins - 1, -period)
            if query > begins:
                weights[0, row, query, query - 1] = 1
            weights[1, row, query, list(copies)] = 1
            weights[2, row, query, [copy + 1 for copy in copies]] = 1
    queries = weights.any(-1).sum((1, 2))
    return _Data(torch.tensor([*repeating, *others]), weights / queries[:, None, None, None], drawn)


def _checked(rows: int, periods: tuple[int, int]) -> tuple[int, int]:
    """The shortest and the longest period, where they make a text."""
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise BadRequest(f"rows={rows!r} is no number of texts.", "Give at least 1.")
    low, high = periods
    if not 3 <= low <= high:
        raise BadRequest(
            f"periods={tuple(periods)!r} are no shortest and longest period.",
            "Give two, of at least 3: the token before, a copy and what followed it are three places.",
        )
    return low, high


def _begin(rmodel: Client) -> list[int]:
    """What the tokenizer puts before a text."""
    with_special, bare = (
        rmodel.encode("a", special=special).tolist()[0] for special in (None, False)
    )
    return with_special[: with_special.index(bare[0])]


def _words(rmodel: Client, count: int, draw: random.Random) -> list[int]:
    """Tokens to draw texts from, of so many that a text can have no token twice: letters, with or without a space before.

    What stands for no text (special tokens, places of images) is none of them.
    """
    candidates = draw.sample(range(size := rmodel.catalog.sizes["V"]), size)
    found: list[int] = []
    while candidates and len(found) < POOL * count:
        part, candidates = candidates[:ASKED], candidates[ASKED:]
        (strings,) = rmodel.token_strings([part], alone=True)
        found += [
            token for token, word in zip(part, strings, strict=True) if word.strip().isalpha()
        ]
    if len(found) < count:
        raise BadRequest(
            f"Of the {size} tokens {len(found)} are words, and {count} must differ.",
            "Give shorter periods, such as periods=(4, 8).",
        )
    return found
