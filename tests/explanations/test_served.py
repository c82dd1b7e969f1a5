"""SmolLM2, which Garçon serves, as a language model: its numbers against transformers' own."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.explanations import (
    Explanation,
    ExplanationStore,
    ScoredExplanation,
    ServedModel,
    explain,
    of_head,
    prompts,
)
from garcon_jupyter.explanations.scoring.simulating import simulator
from tests.explanations.conftest import made_record
from tests.oracle import Plain

PIECES = ["Say a number.\n cat\t", "unknown\n sat\t", "unknown\n far\t"]


def test_log_probabilities_are_those_of_the_whole_prompt(smollm2: garcon.RemoteModel) -> None:
    model = ServedModel(smollm2, "smollm2")
    digits = [str(n) for n in range(10)]
    found = model.score(PIECES, digits)
    plain = Plain(smollm2.facts["path"])
    rows = [smollm2.encode(piece, special=False).tolist()[0] for piece in PIECES]
    ids = [smollm2.encode(digit, special=False).tolist()[0] for digit in digits]
    assert all(len(one) == 1 for one in ids)
    with torch.no_grad():
        logits = (
            plain.model(torch.tensor([list(itertools.chain.from_iterable(rows))]))
            .logits[0]
            .double()
        )
    ends = np.cumsum([len(row) for row in rows]) - 1
    expected = logits.log_softmax(-1)[ends.tolist()][:, [one[0] for one in ids]]
    assert found == pytest.approx(expected.numpy(), abs=1e-4)
    # The wrong place: one token further.
    moved = logits.log_softmax(-1)[(ends - 1).tolist()][:, [one[0] for one in ids]]
    assert np.abs(found - moved.numpy()).max() > 0.5


def test_its_tokenizer_has_10_as_two_tokens_so_levels_go_to_9(smollm2: garcon.RemoteModel) -> None:
    model = ServedModel(smollm2)
    assert model.tokens_of("\t10") == ["\t", "1", "0"]
    with pytest.raises(
        BadRequest, match=r"'10' as one token: '\\t10' is '\\t' '1' '0'. Give top=9"
    ):
        simulator(model)
    with pytest.raises(BadRequest, match="'10' as 2 tokens"):
        model.score(PIECES, ["10"])
    said = simulator(model, top=9).simulate("words for weather", (" The", " rain", " fell"))
    assert len(said.expected) == 3 and all(0 <= level <= 9 for level in said.expected)
    assert said.mass is not None and 0 < said.mass <= 1


def test_it_writes_and_tells_what_was_likely(smollm2: garcon.RemoteModel) -> None:
    model = ServedModel(smollm2)
    asked = [{"role": "user", "content": "Say yes."}]
    said = model.complete(asked, max_tokens=3, top_logprobs=2)
    tokens = smollm2.encode(asked, chat=True)
    first = smollm2.forward(tokens, logits="last")[0].double().log_softmax(-1)
    likely = first.topk(2)
    assert list(said.top[0].values()) == pytest.approx(likely.values.tolist(), abs=1e-4)
    assert said.tokens[0] == smollm2.decode(likely.indices[:1].tolist())
    assert said.prompt_tokens == tokens.shape[1] and "/" not in model.name


def test_it_runs_no_probe_of_the_notebook(smollm2: garcon.RemoteModel) -> None:
    def fail(save_ctx: object, tensor: object) -> None:
        raise RuntimeError("it ran")

    smollm2.attach(smollm2.probe_points["layers.0.resid_post"].probe(fail))
    model = ServedModel(smollm2)
    assert model.score(["a\t"], ["0"]).shape == (1, 1)
    assert model.complete([{"role": "user", "content": "Hi"}], max_tokens=1).completion_tokens <= 1


def test_a_unit_is_scored_by_it_and_the_numbers_are_reported(
    smollm2: garcon.RemoteModel, tmp_path: Path
) -> None:
    """Not that they are good: that they are numbers, of all texts, beside those of another unit's explanation."""
    record = made_record(0, top=4, sample=3, length=4)
    others = Explanation(record.point, 1, "words of another kind")
    ExplanationStore(tmp_path).add([ScoredExplanation(others)])
    (one,) = explain(
        [record],
        judge_with=ServedModel(smollm2),
        said={(record.point, 0): "words of a kind"},
        top=9,
        score=["simulation"],
        calibration="none",
        where=tmp_path,
        show=False,
    )
    assert one.simulation and one.simulation.method == "all-at-once"
    assert (one.simulation.attempts.n, one.simulation.attempts.failed) == (2, 0)
    assert -1 <= (one.scores["correlation"].value or 0) <= 1
    assert [control.text for control in one.controls] == [others.text]
    assert one.standing("correlation").of == 2


def test_a_heads_pairs_are_its_patterns(rmodel: garcon.RemoteModel) -> None:
    rng = np.random.default_rng(2)
    ids = [rng.integers(3, 263, 8).tolist() for _ in range(6)]
    texts = [str(rmodel.decode(row)) for row in ids]
    pairs = of_head(rmodel, 1, 4, texts, each=2)
    assert pairs.point == "layers.1.attn.pattern" and len(pairs.train) == 2
    for one in (*pairs.train, *pairs.test, *pairs.quiet):
        tokens = rmodel.encode(
            texts[[tuple(rmodel.token_strings(t)[0]) for t in texts].index(one.tokens)]
        )
        pattern = rmodel.look(tokens)["layers.1.attn.pattern"][0, 4]
        assert one.value == pytest.approx(float(pattern[one.query, one.key]), abs=1e-6)
    assert prompts.marked_pair(pairs.train[0]).count("[[") == 1
