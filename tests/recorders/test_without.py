"""Recorders that leave out tokens: what they keep is what they keep of the other tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_jupyter import recorders
from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders import Recorder, alone, seen

TOKENS = torch.tensor([[0, 5, 6, 1, 7], [2, 2, 0, 8, 5], [0, 1, 9, 5, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
SPECIAL = [0, 1, 2]
FIRST = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()

EVERY: list[Recorder[Any]] = [
    recorders.TopK(3),
    recorders.BottomK(3),
    recorders.Moments(),
    recorders.Histogram(),
    recorders.Quantiles(),
    recorders.Firing(),
    recorders.Reservoir(2),
    recorders.EqualCountReservoir(2, 2),
    recorders.TokenStatistics(),
    recorders.Covariance(),
    recorders.Coactivation(),
    recorders.Sketch(16),
]


def values() -> Tensor:
    found = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    found[FIRST] *= 1000  # as those of the first token are in real models
    return found


def kept(state: Any) -> dict[str, Tensor]:
    return {name: value for name, value in vars(state).items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("recorder", EVERY, ids=lambda recorder: type(recorder).__name__)
@pytest.mark.parametrize(
    ("which", "left_out"),
    [
        (("first",), FIRST),
        (("special",), torch.isin(TOKENS, torch.tensor(SPECIAL))),
        (("first", 5), FIRST | (TOKENS == 5)),
    ],
)
def test_every_recorder_keeps_what_it_would_of_the_others(
    recorder: Recorder[Any], which: tuple[Any, ...], left_out: Tensor
) -> None:
    class Context:
        here = alone(TOKENS, MASK, special=SPECIAL)

    context = Context()
    recorder.without(*which)(context, values())
    state = vars(context)[recorder.name]
    others = Context.here
    others.mask = MASK & ~left_out  # as if they were padding; positions stay
    wanted = recorder.update(None, seen(values(), others))
    assert state.tokens_seen == int((MASK & ~left_out).sum())
    for name, value in kept(wanted).items():
        assert torch.equal(kept(state)[name].nan_to_num(7), value.nan_to_num(7)), name
    clean = recorder.update(None, seen(values(), alone(TOKENS, MASK)))
    assert clean.tokens_seen > state.tokens_seen


def test_what_is_left_out_stands_in_windows() -> None:
    recorder = recorders.TopK(1, before=2, after=1).without("first", "special")
    state = recorder.update(
        None, seen(values(), alone(TOKENS, MASK, special=SPECIAL)).without(*recorder.left_out)
    )
    for document, offset, window in zip(
        state.documents[:, 0].tolist(),
        state.offsets[:, 0].tolist(),
        state.tokens[:, 0].tolist(),
        strict=True,
    ):
        row = TOKENS[document][MASK[document]].tolist()
        assert window == [
            row[at] if 0 <= at < len(row) else -1 for at in range(offset - 2, offset + 2)
        ]
        assert row[offset] not in SPECIAL and offset > 0


def test_a_batch_of_which_nothing_is_left_changes_nothing() -> None:
    class Context:
        here = alone(TOKENS[:, :1], special=SPECIAL)

    for recorder in EVERY:
        context = Context()
        recorder.without("first")(context, values()[:, :1])
        assert not hasattr(context, recorder.name)


def test_together_and_apart() -> None:
    both = recorders.Together([recorders.TopK(2).without(5), recorders.Moments()]).without("first")

    class Context:
        here = alone(TOKENS, MASK)

    context = Context()
    both(context, values())
    assert vars(context)["topk"].tokens_seen == int((MASK & ~FIRST & (TOKENS != 5)).sum())
    assert vars(context)["moments"].tokens_seen == int((MASK & ~FIRST).sum())


def test_words_that_mean_no_tokens_are_refused() -> None:
    assert repr(recorders.Moments().without("first", 7)).endswith(".without('first', 7)")
    for word in ("last", True, 1.5, None):
        with pytest.raises(BadProbe, match="means no tokens"):
            recorders.Moments().without(word)  # type: ignore[arg-type]
    with pytest.raises(BadProbe, match="special"):
        seen(values(), alone(TOKENS)).without("special")
