"""Generation against plain transformers with plain hooks: tokens, what each forward is given, what is text.

On one process, and the same over stages, and over replicas of which the last reads a row that only fills up.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria

from garcon_backend.process.user_code import UserFailure
from garcon_jupyter.errors import BadRequest, BadTokens
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.generating_run import IDS, MASK, NEW, OPTIONS, by_us, on_ranks, plainly
from tests.backend.ranks import run_on_ranks

LAYOUTS: list[dict[str, int]] = [{}, {"pp": 2}, {"dp": 2}]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def ours(path: Path) -> BareRank:
    return BareRank(path)


@pytest.fixture(scope="module")
def expected(path: Path) -> dict[str, dict[str, Any]]:
    return plainly(path)


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: str(layout) or "alone")
def found(
    request: pytest.FixtureRequest,
    path: Path,
    ours: BareRank,
    expected: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """What one layout gives: answers of the rank that answers, and what probes were told."""
    if not request.param:
        return by_us(ours, expected["end"])
    folder = tmp_path_factory.mktemp("ranks")
    world = math.prod(request.param.values())
    run_on_ranks(world, on_ranks, str(path), str(folder), request.param, expected["end"])
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]
    return {
        name: {
            "answer": next(r[name]["answer"] for r in ranks if r[name]["answer"] is not None),
            "read": next((r[name]["read"] for r in ranks if r[name]["read"]), []),
        }
        for name in OPTIONS
    }


@pytest.mark.processes
@pytest.mark.parametrize("name", OPTIONS)
def test_tokens_and_scores_are_transformers_own(
    name: str, found: dict[str, Any], expected: dict[str, Any]
) -> None:
    answer, output = found[name]["answer"], expected[name]["output"]
    assert torch.equal(answer.ids, output.sequences)
    scores = torch.stack(output.scores)
    assert answer.scores.shape == scores.shape
    finite = scores.isfinite()
    assert torch.equal(answer.scores.isfinite(), finite)
    assert torch.allclose(answer.scores[finite], scores[finite], atol=1e-4)
    if name.endswith("beams"):
        assert torch.allclose(answer.sequences_scores, output.sequences_scores, atol=1e-5)
        assert torch.equal(answer.beam_indices, output.beam_indices)


@pytest.mark.processes
@pytest.mark.parametrize("name", OPTIONS)
def test_probes_are_told_what_each_forward_was_given(
    name: str, found: dict[str, Any], expected: dict[str, Any]
) -> None:
    told, given = found[name]["read"], expected[name]["read"]
    assert [one["step"] for one in told] == list(range(len(given)))
    for ours, theirs in zip(told, given, strict=True):
        rows = len(theirs["tokens"])
        assert (ours["rows"], ours["width"]) == tuple(theirs["tokens"].shape)
        assert torch.equal(ours["tokens"], theirs["tokens"])
        assert torch.equal(ours["mask"], theirs["mask"])
        assert torch.equal(ours["positions"], theirs["positions"].expand(rows, -1))


@pytest.mark.processes
@pytest.mark.parametrize("name", OPTIONS)
def test_text_ends_where_it_ended(name: str, found: dict[str, Any], expected: Any) -> None:
    answer, end = found[name]["answer"], expected["end"]
    prompt = IDS.shape[1]
    of = torch.arange(len(answer.ids)) // (len(answer.ids) // len(IDS))
    assert torch.equal(answer.mask[:, :prompt], MASK[of].bool())
    for row, (ids, mask) in enumerate(zip(answer.ids.tolist(), answer.mask.tolist(), strict=True)):
        new, real = ids[prompt:], mask[prompt:]
        if name == "criteria":
            length = min(len(new), 9 + row - prompt)
        else:
            length = new.index(end) + 1 if end in new else len(new)
        if name.endswith("beams"):  # that are shorter than the longest without having ended
            length = min(length, len(new) - new[::-1].index(next(t for t in new[::-1] if t != 2)))
        assert real == [True] * length + [False] * (len(new) - length)


def test_rows_of_several_lengths_are_told_apart(expected: Any, ours: BareRank) -> None:
    """The case tells: without an early end, or with the prompt's mask by order of rows, it would not."""
    answer = ours.generated(IDS, MASK, max_new_tokens=NEW, eos_token_id=expected["end"])
    assert answer is not None and len(set(answer.mask.sum(1).tolist())) > 1
    several = ours.generated(IDS, MASK, max_new_tokens=2, num_return_sequences=2, num_beams=2)
    assert several is not None
    assert several.mask[:, :7].sum(1).tolist() == [7, 7, 4, 4, 6, 6]


@pytest.mark.parametrize("cached", [True, False])
def test_edits_of_keys_reach_all_later_steps(ours: BareRank, cached: bool) -> None:
    """An edit at certain positions gives the same tokens with a cache, without, and by forwards from the start."""

    def edit(context: Any, keys: Tensor) -> Tensor:
        chosen = (context.here.positions == 2)[..., None, None]
        return torch.where(chosen, keys * 3 - 1, keys)

    ids = IDS[:1]
    answer = ours.generated(
        ids,
        None,
        {"layers.1.attn.k_rot": edit},
        use_cache=cached,
        max_new_tokens=6,
        eos_token_id=[],
    )
    for _ in range(6):
        logits = ours.forward(ids, see={"layers.1.attn.k_rot": _third})
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert answer is not None and torch.equal(answer.ids, ids)
    assert not torch.equal(ids, ours.generate(IDS[:1], 6))


def _third(keys: Tensor) -> Tensor:
    keys = keys.clone()
    keys[:, 2] = keys[:, 2] * 3 - 1
    return keys


# -- options -------------------------------------------------------------------------------------


def test_a_config_of_ones_own_goes_before_our_defaults(ours: BareRank, path: Path) -> None:
    config = GenerationConfig(max_new_tokens=3, num_beams=2, eos_token_id=None)
    answer = ours.generated(IDS, MASK, generation_config=config)
    theirs = ours.model.generate(IDS, attention_mask=MASK, generation_config=config)
    assert answer is not None and torch.equal(answer.ids, theirs)
    assert answer.ids.shape[1] == IDS.shape[1] + 3


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cache_implementation", "static"),
        ("return_dict_in_generate", True),
        ("use_cache", False),
        ("max_new_tokens", 2),
        ("output_attentions", True),
    ],
)
def test_settings_of_a_checkpoint_work(
    ours: BareRank, monkeypatch: pytest.MonkeyPatch, setting: str, value: Any
) -> None:
    clean = ours.generated(IDS, MASK, max_new_tokens=4)
    monkeypatch.setattr(ours.model.generation_config, setting, value)
    answer = ours.generated(IDS, MASK, max_new_tokens=4)
    assert answer is not None and clean is not None and torch.equal(answer.ids, clean.ids)
    assert answer.scores is None


@pytest.mark.parametrize(
    ("setting", "value"), [("num_return_sequences", 3), ("cache_implementation", "quantized")]
)
def test_settings_that_cannot_work_are_named_as_the_checkpoints(
    ours: BareRank, monkeypatch: pytest.MonkeyPatch, setting: str, value: Any
) -> None:
    monkeypatch.setattr(ours.model.generation_config, "_from_model_config", False)
    monkeypatch.setattr(ours.model.generation_config, "do_sample", True)
    monkeypatch.setattr(ours.model.generation_config, setting, value)
    with pytest.raises(BadRequest, match=f"generation_config.json says {setting}={value!r}"):
        ours.generated(IDS, MASK, max_new_tokens=4)
    other = {"num_return_sequences": 1, "cache_implementation": "dynamic"}[setting]
    assert ours.generated(IDS, MASK, max_new_tokens=4, **{setting: other}) is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"past_key_values": 3}, "past_key_values"),
        ({"output_hidden_states": True}, "output_hidden_states"),
        ({"streamer": object()}, "streamer"),
        ({"stop_strings": ["a"]}, "tokenizer"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"max_new_tokens": "many"}, "options"),
        ({"generation_config": {"do_sample": True}}, "GenerationConfig"),
        ({"stopping_criteria": 3}, "stopping_criteria"),
        ({"num_beams": 0}, "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_had_is_said(ours: BareRank, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        ours.generated(IDS, MASK, **options)
    assert "generation_config.json" not in str(refused.value)


def test_too_long_is_refused_by_either_option(ours: BareRank) -> None:
    for options in ({"max_new_tokens": 500}, {"max_length": 500}):
        with pytest.raises(BadTokens, match="at most 128"):
            ours.generated(IDS, MASK, **options)


class Fails(StoppingCriteria):
    def __call__(self, ids: Any, scores: Any, **kwargs: Any) -> Any:
        return 1 / 0


def test_errors_of_ones_own_code_are_ones_own(ours: BareRank) -> None:
    def wrong(ids: Any, scores: Any) -> Any:
        return scores[:, :3]

    for options, where in (
        ({"stopping_criteria": [Fails()]}, "a stopping criterion"),
        ({"logits_processor": [wrong]}, "a logits processor"),
        ({"prefix_allowed_tokens_fn": lambda batch, ids: 1 / 0}, "the function of allowed tokens"),
    ):
        with pytest.raises(UserFailure) as failed:
            ours.generated(IDS, MASK, **options)
        assert failed.value.where == where
