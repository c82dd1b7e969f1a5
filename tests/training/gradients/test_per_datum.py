"""Gradients of each datum, of every parameter, against a backward pass of each datum alone in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from garcon_jupyter import training
from garcon_jupyter.errors import BadData, BadRequest
from tests.training.by_backwards import PLACES, ROWS, apart, losses, tiny, tokens, truth

CASES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "gpt2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": True},
    "mixtral": {},
}
RELATIVES = ["gpt_neox", "apertus", "deepseek_v3", "falcon", "opt", "bloom", "olmoe", "phi3"]


def recorded(
    model: nn.Module, path: Path, ids: Tensor, of: Any = None, **options: Any
) -> training.PerDatum:
    """The gradients of one batch by datum."""
    given = {
        key: options.pop(key)
        for key in ("weights", "position_ids", "attention_mask")
        if key in options
    }
    with training.record(model, path, **options) as record:
        losses(model, ids, **given).sum().backward()
        return record.data(range(len(ids)) if of is None else of)


def assert_all_right(batch: training.PerDatum, expected: dict[str, Tensor], within: float) -> None:
    assert set(batch.parameters) == set(expected)
    wrong = {n: apart(batch.gradient(n), e) for n, e in expected.items() if e.abs().max() > 0}
    assert max(wrong.values()) < within, wrong
    for name, each in expected.items():
        if not each.abs().max():
            assert not batch.gradient(name).any()


@pytest.mark.parametrize("family", CASES)
def test_every_parameter_of_each_datum_is_that_of_a_backward_of_its_own(
    family: str, tmp_path: Path
) -> None:
    model, ids = tiny(family, **CASES[family]), tokens()
    expected = truth(model, ids)
    batch = recorded(model, tmp_path / "a", ids)
    assert_all_right(batch, expected, 1e-8)
    for name, each in expected.items():  # norms by the ghost identity, tied weights too
        flat = each.flatten(1)
        assert apart(batch.squares(name), flat.square().sum(1)) < 1e-7, name
    dots = sum(each.flatten(1) @ each.flatten(1).T for each in expected.values())
    assert isinstance(dots, Tensor) and apart(batch.dots(), dots) < 1e-7


@pytest.mark.sampled
@pytest.mark.parametrize("family", RELATIVES)
def test_modules_of_any_class_are_covered(family: str, tmp_path: Path) -> None:
    """Norms, routers, experts, and matrix products of classes of their own, by running them again."""
    model, ids = tiny(family), tokens()
    # Some norms compute in float32 whatever they are given, and two orders of sums then differ by so much.
    assert_all_right(recorded(model, tmp_path / "a", ids), truth(model, ids), 2e-7)


def test_one_site_of_a_tied_weight_is_not_its_gradient(tmp_path: Path) -> None:
    model, ids = tiny("llama", tie_word_embeddings=True), tokens()
    name = "model.embed_tokens.weight"
    expected, batch = truth(model, ids)[name], recorded(model, tmp_path / "a", ids)
    sites = batch.sites[name]
    assert len(sites) == 2 and batch.gradient("lm_head.weight").equal(batch.gradient(name))
    assert all(apart(site.gradient(), expected) > 0.01 for site in sites)
    bare = sum(site.square() for site in sites)  # without the cross term
    assert isinstance(bare, Tensor) and apart(bare, expected.flatten(1).square().sum(1)) > 0.01


def test_the_last_token_alone_is_not_a_datum(tmp_path: Path) -> None:
    model, ids = tiny("llama"), tokens()
    expected = truth(model, ids)
    last = torch.zeros_like(ids)
    last[:, -1] = 1
    only = truth(model, ids, weights=last)
    batch = recorded(model, tmp_path / "a", ids)
    name = "model.layers.1.mlp.down_proj.weight"
    assert (
        apart(batch.gradient(name), expected[name]) < 1e-8 < 0.3 < apart(only[name], expected[name])
    )


def test_the_table_of_positions_is_no_batch_sum(tmp_path: Path) -> None:
    """GPT-2 reads it once for all rows, unless it is given positions for each."""
    model, ids = tiny("gpt2"), tokens()
    name = "transformer.wpe.weight"
    expected = truth(model, ids)[name]
    places = torch.arange(PLACES).expand(ROWS, PLACES)
    for number, options in enumerate(({}, {"position_ids": places})):
        batch = recorded(model, tmp_path / str(number), ids, **options)
        assert apart(batch.gradient(name), expected) < 1e-8
    total = expected.sum(0, keepdim=True)
    assert apart(total.expand(ROWS, -1, -1) / ROWS, expected) > 0.3


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side: str, tmp_path: Path) -> None:
    # Eager attention in float64 masks with numbers that are infinite in the float32 of its softmax.
    model, ids = tiny("llama", torch.float32), tokens(2, 7)
    mask, padded = torch.zeros(2, 10), torch.full((2, 10), 2)
    at = slice(3, None) if side == "left" else slice(0, 7)
    padded[:, at], mask[:, at] = ids, 1
    mask[1, 3 if side == "left" else 6] = 0  # the second is shorter
    counted = mask.clone()
    counted[:, 3 if side == "left" else 0] = 0
    counted[1, 4 if side == "left" else 0] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0).long()
    batch = recorded(
        model, tmp_path / "a", padded, weights=counted, attention_mask=mask, position_ids=places
    )
    short = ids[1, 1:] if side == "left" else ids[1, :6]
    total = counted.sum()
    for row, each in enumerate((ids[0], short)):
        model.zero_grad()
        one = losses(model, each[None])[0]
        (one * (len(each) - 1) / total).backward()
        for name, parameter in model.named_parameters():
            assert apart(batch.gradient(name)[row], parameter.grad) < 2e-5, name
    assert batch.tokens == [ids[0].tolist(), short.tolist()]


def packed(family: str) -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """(model, tokens [2, 11], data, weights, block-diagonal mask): data 7 and 3 in the first row, 5 and padding in the other."""
    model, ids = tiny(family, tie_word_embeddings=True), tokens(2, 11)
    of = torch.tensor([[7] * 5 + [3] * 6, [5] * 8 + [-1] * 3])
    weights = (of >= 0).float()
    for row, start in ((0, 0), (0, 5), (1, 0)):
        weights[row, start] = 0
    together = of[:, :, None] == of[:, None, :]
    mask = together & torch.ones(11, 11, dtype=torch.bool).tril()
    bias = torch.zeros(2, 1, 11, 11, dtype=torch.float64).masked_fill(~mask[:, None], -1e30)
    return model, ids, of, weights, bias


@pytest.mark.parametrize("family", ["llama", "qwen3", "mixtral"])
def test_several_data_in_a_row_count_by_datum(family: str, tmp_path: Path) -> None:
    model, ids, of, weights, bias = packed(family)
    places = torch.tensor([[*range(5), *range(6)], [*range(8), *range(3)]])
    batch = recorded(
        model, tmp_path / "a", ids, of, weights=weights, attention_mask=bias, position_ids=places
    )
    assert batch.data == [3, 5, 7]
    alone = [ids[0, 5:], ids[1, :8], ids[0, :5]]
    assert batch.tokens == [each.tolist() for each in alone]
    for number, each in enumerate(alone):
        model.zero_grad()
        (losses(model, each[None])[0] * (len(each) - 1) / weights[:, 1:].sum()).backward()
        for name, parameter in model.named_parameters():
            zero = torch.zeros_like(parameter)
            expected = zero if parameter.grad is None else parameter.grad
            if expected.any():
                assert apart(batch.gradient(name)[number], expected) < 1e-6, name


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_counts_once(reentrant: bool, tmp_path: Path) -> None:
    model, ids = tiny("llama", tie_word_embeddings=True), tokens()
    expected = truth(model, ids)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert_all_right(recorded(model, tmp_path / "a", ids), expected, 1e-8)


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_with_dropout_the_sum_is_the_gradient_of_the_same_pass(family: str, tmp_path: Path) -> None:
    changed = {"gpt2": {"resid_pdrop": 0.2, "attn_pdrop": 0.2, "embd_pdrop": 0.2}}
    model = tiny(family, torch.float32, **changed.get(family, {"attention_dropout": 0.3}))
    torch.manual_seed(3)
    batch = recorded(model, tmp_path / "a", tokens())
    for name, each in model.named_parameters():
        if each.grad is not None:
            assert apart(batch.gradient(name).sum(0), each.grad) < 2e-6, name


def test_autocast_is_followed(tmp_path: Path) -> None:
    model, ids = tiny("llama", torch.float32), tokens()
    with training.record(model, tmp_path / "a") as record:
        with torch.autocast("cpu", torch.bfloat16):
            loss = losses(model, ids).sum()
        loss.backward()
        batch = record.data(range(ROWS))
    for name, each in model.named_parameters():
        assert apart(batch.gradient(name).sum(0), each.grad) < 2e-2, name


def test_accumulated_batches_are_those_of_one(tmp_path: Path) -> None:
    model, ids = tiny("llama"), tokens()
    expected = truth(model, ids)
    with training.record(model, tmp_path / "a") as record:
        for half in (slice(0, 2), slice(2, 4)):
            (losses(model, ids[half]).sum() / 2).backward()
            batch = record.data(range(half.start, half.stop))
            for name, each in expected.items():
                assert apart(batch.gradient(name), each[half]) < 1e-8, name


class SeedModel(nn.Module):
    """Post-norm layers as torch has them, with attention in one module, and the batch as the second dimension."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, dropout)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 50)

    def forward(self, ids: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(len(ids), dtype=torch.float64)
        return self.head(self.layers(self.table(ids), mask=causal))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_torchs_own_attention_with_the_batch_second(dropout: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SeedModel(dropout).double()
    ids = torch.randint(0, 50, (7, 3))

    def loss() -> Tensor:
        each = functional.cross_entropy(
            model(ids[:-1]).reshape(-1, 50), ids[1:].reshape(-1), reduction="none"
        )
        return each.view(6, 3).sum(0) / 18

    with training.record(model, tmp_path / "a", batch_dim=1) as record:
        loss().sum().backward()
        batch = record.data([4, 2, 9])
    total = {name: each.grad.clone() for name, each in model.named_parameters()}
    for name, each in total.items():
        assert apart(batch.gradient(name).sum(0), each) < 1e-12, name
    if not dropout:
        for row in range(3):
            model.zero_grad()
            loss()[row].backward()
            for name, parameter in model.named_parameters():
                assert apart(batch.gradient(name)[row], parameter.grad) < 1e-8, name


# -- what is refused -------------------------------------------------------------------------


class Behind(nn.Module):
    """A weight that is used by its module, and once more without it."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.table, self.tied = nn.Embedding(20, 6), tied
        self.inner, self.scale = nn.Linear(6, 6), nn.Parameter(torch.ones(6))
        self.unused = nn.Linear(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.inner(self.table(ids))
        if self.tied:
            return hidden @ self.table.weight.T
        return functional.linear(hidden, self.unused.weight)


@pytest.mark.parametrize(("tied", "name"), [(True, "table.weight"), (False, "unused.weight")])
def test_a_weight_that_is_used_behind_its_module_is_named(
    tied: bool, name: str, tmp_path: Path
) -> None:
    model, ids = Behind(tied), torch.randint(0, 20, (3, 5))
    with training.record(model, tmp_path / "a") as record:
        model(ids).square().mean().backward()
        with pytest.raises(BadRequest, match=rf"not covered: {name}"):
            record.data(range(3))
    with training.record(model, tmp_path / "b", uncovered=(name,)) as record:
        model.zero_grad()
        model(ids).square().mean().backward()
        assert name not in record.data(range(3)).parameters


def test_what_hooks_do_not_see_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(BadRequest, match="mixes the data of a batch"):
        training.record(model, tmp_path / "a")
    with pytest.raises(BadRequest, match="sparse=True"):
        training.record(nn.Sequential(nn.Embedding(4, 4, sparse=True)), tmp_path / "a")
    frozen = nn.Linear(4, 4).requires_grad_(False)
    with pytest.raises(BadRequest, match="No parameter"):
        training.record(frozen, tmp_path / "a")


@pytest.mark.lasting  # it imports torch's compiler
def test_a_compiled_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="is compiled"):
        training.record(torch.compile(nn.Linear(4, 4)), tmp_path / "a")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 3], r"shape \[3\] do not match a batch of 4 rows"),
        ([1, 2, 2, 3], "Datum 2 is in the batch twice"),
        ([0.5, 1, 2, 3], "of type"),
        ([-1, 1, 2, 3], "-1 is no id"),
        (torch.zeros(4, 8, dtype=torch.int64), "do not match"),
        (torch.full((4, 9), -1), "No position"),
    ],
)
def test_ids_that_do_not_match_the_batch_are_refused(ids: Any, words: str, tmp_path: Path) -> None:
    model = tiny("llama")
    with training.record(model, tmp_path / "a") as record:
        losses(model, tokens()).sum().backward()
        with pytest.raises(BadData, match=words):
            record.data(ids)


def test_a_loss_whose_terms_are_no_data_is_refused(tmp_path: Path) -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.pair = nn.Linear(3, 3), nn.Linear(6, 1)

        def forward(self, rows: Tensor) -> Tensor:
            each = self.one(rows)
            n = len(each)
            both = torch.cat([each[:, None].expand(-1, n, -1), each[None].expand(n, -1, -1)], -1)
            return self.pair(both.reshape(n * n, 6))

    model = Pairs()
    with training.record(model, tmp_path / "a") as record:
        model(torch.randn(5, 3)).mean().backward()
        with pytest.raises(BadData, match=r"pair.input has a tensor of shape \[25, 6\]"):
            record.data(range(5))


def test_data_are_named_after_a_backward(tmp_path: Path) -> None:
    model = tiny("llama")
    with training.record(model, tmp_path / "a") as record:
        losses(model, tokens())
        with pytest.raises(BadData, match="No backward pass"):
            record.data(range(ROWS))
