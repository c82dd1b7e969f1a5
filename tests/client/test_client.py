"""Encode, forward, backward, generate: values against plain transformers, on one and on two ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, RemoteModel
from tests.oracle import PROMPT, Plain, close

NEURONS = "layers.2.mlp.post_activation"
UNEQUAL = ["France", "The capital of Italy is Rome", "Hi"]


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


# -- tokens --------------------------------------------------------------------------------------


def test_encode_is_the_tokenizers_own(rmodel: RemoteModel, plain: Plain) -> None:
    tokens = rmodel.encode("The capital of France")
    expected = plain.tokenizer("The capital of France")["input_ids"]
    assert tokens.tolist() == [expected]
    assert tokens.mask.all()
    assert tokens.tolist()[0][0] == 0  # this tokenizer begins with <bos>
    assert "".join(tokens.strings[0][1:]) == "The capital of France"


def test_special_tokens_are_the_users_choice(rmodel: RemoteModel) -> None:
    with_bos, without = rmodel.encode("Hello"), rmodel.encode("Hello", special=False)
    assert with_bos.tolist()[0] == [0, *without.tolist()[0]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_unequal_texts_are_padded_on_the_stated_side(
    rmodel: RemoteModel, plain: Plain, side: str
) -> None:
    tokens = rmodel.encode(UNEQUAL, padding=side)
    rows = [plain.tokenizer(text)["input_ids"] for text in UNEQUAL]
    width = max(map(len, rows))
    assert tokens.shape == (3, width)
    for row, ids, mask in zip(rows, tokens.tolist(), tokens.mask.tolist(), strict=True):
        padding = width - len(row)
        sides = [[True] * len(row), [False] * padding]
        left, right = sides if side == "right" else sides[::-1]
        assert mask == left + right
        assert [t for t, real in zip(ids, mask, strict=True) if real] == row
    assert tokens.lengths == [len(row) for row in rows]


def test_chats_are_written_by_the_template(rmodel: RemoteModel, plain: Plain) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    tokens = rmodel.encode(messages, chat=True)
    text = plain.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokens.tolist() == [plain.tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert tokens.tolist()[0].count(0) == 1  # the template writes <bos>, so the tokenizer must not
    both = rmodel.encode([messages, [*messages, *messages]], chat=True)
    assert both.shape[0] == 2
    assert both.tolist()[0][: both.lengths[0]] == tokens.tolist()[0]


def test_messages_without_chat_are_refused(rmodel: RemoteModel) -> None:
    with pytest.raises(BadRequest, match="chat=True"):
        rmodel.encode([{"role": "user", "content": "Hi"}])


def test_decode_undoes_encode(rmodel: RemoteModel) -> None:
    tokens = rmodel.encode("garçon, please", special=False)
    assert rmodel.decode(tokens.ids) == ["garçon, please"]
    assert rmodel.decode(tokens.ids[0]) == "garçon, please"
    assert rmodel.decode(tokens.tolist()[0]) == "garçon, please"
    assert rmodel.decode(int(tokens.ids[0, 0])) == "g"


def test_decoding_tokens_leaves_padding_out(rmodel: RemoteModel) -> None:
    assert rmodel.decode(rmodel.encode(UNEQUAL, special=False)) == UNEQUAL


# -- forward -------------------------------------------------------------------------------------


def test_logits_are_transformers_own(either: RemoteModel, plain: Plain) -> None:
    logits = either.forward(PROMPT)
    assert logits.shape == (2, 6, 263)
    assert logits.dtype == torch.float32
    assert close(logits, plain.logits(PROMPT))


@pytest.mark.parametrize(
    "form",
    [
        lambda ids: ids,
        lambda ids: torch.tensor(ids),
        lambda ids: torch.tensor(ids, dtype=torch.int32),
        lambda ids: np.array(ids),
        lambda ids: tuple(map(tuple, ids)),
    ],
    ids=["lists", "tensor", "int32", "array", "tuples"],
)
def test_tokens_come_in_many_forms(rmodel: RemoteModel, plain: Plain, form: Any) -> None:
    assert close(rmodel.forward(form(PROMPT)), plain.logits(PROMPT))


def test_one_row_and_plain_text_are_tokens_too(rmodel: RemoteModel, plain: Plain) -> None:
    assert close(rmodel.forward(PROMPT[0]), plain.logits(PROMPT[:1]))
    ids = plain.tokenizer("Hello there")["input_ids"]
    assert close(rmodel.forward("Hello there"), plain.logits([ids]))


def test_last_none_and_reduced_logits(either: RemoteModel, plain: Plain) -> None:
    whole = plain.logits(PROMPT)
    assert close(either.forward(PROMPT, logits="last"), whole[:, -1])
    assert either.forward(PROMPT, logits="none") is None
    best = either.forward(PROMPT, logits=lambda logits: logits[:, -1].topk(3).indices)
    assert torch.equal(best, whole[:, -1].topk(3).indices)
    told = either.forward(PROMPT, logits=lambda logits: {"shape": list(logits.shape), "by": "me"})
    assert told == {"shape": [2, 6, 263], "by": "me"}


def test_last_logits_of_a_padded_batch_are_those_of_the_last_real_token(
    either: RemoteModel, plain: Plain
) -> None:
    alone = [plain.logits([plain.tokenizer(text)["input_ids"]])[0, -1] for text in UNEQUAL]
    for side in ("right", "left"):
        last = either.forward(either.encode(UNEQUAL, padding=side), logits="last")
        assert close(last, torch.stack(alone))


def test_only_the_asked_logits_are_computed(rmodel: RemoteModel) -> None:
    def width(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.rows = tensor.shape[1]

    probe = rmodel.probe_points["module:lm_head.input"].probe(width)
    for logits, rows in (("all", 6), ("last", 1)):
        rmodel.forward(PROMPT, probes=[probe], logits=logits)
        assert rmodel.recordings()["module:lm_head.input"].rows == rows


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_batch_gives_each_text_its_own_numbers(
    either: RemoteModel, plain: Plain, side: str
) -> None:
    tokens = either.encode(UNEQUAL, padding=side)
    points = ["layers.3.attn.z", NEURONS]
    logits = either.forward(tokens, probes=[either.probe_points[p].probe(keep) for p in points])
    recorded = either.recordings()
    for row, text in enumerate(UNEQUAL):
        ids = plain.tokenizer(text)["input_ids"]
        assert close(logits[row][tokens.mask[row]], plain.logits([ids])[0])
        neurons = recorded[NEURONS].tensor[row][tokens.mask[row]]
        assert close(neurons, plain.neurons(2, [ids])[0])


# -- backward ------------------------------------------------------------------------------------


def mean_of_last(logits: Tensor) -> Tensor:
    return logits[:, -1, :10].logsumexp(-1).mean()


def test_loss_and_gradients_of_parameters(either: RemoteModel, plain: Plain) -> None:
    names = {
        "layers.1.mlp.up_proj": "model.layers.1.mlp.up_proj.weight",
        "layers.3.attn.k_proj": "model.layers.3.self_attn.k_proj.weight",
        "layers.0.attn.norm.weight": "model.layers.0.input_layernorm.weight",
        "unembed.weight": "lm_head.weight",
    }
    loss, gradients = either.backward(PROMPT, mean_of_last, parameters=list(names))
    expected = mean_of_last(plain.model(torch.tensor(PROMPT)).logits)
    wanted = [plain.model.get_parameter(path) for path in names.values()]
    with torch.enable_grad():
        by_hand = torch.autograd.grad(expected, wanted)
    assert close(loss, expected)
    assert set(gradients) == set(names)
    for name, gradient in zip(names, by_hand, strict=True):
        assert close(gradients[name], gradient, 1e-4), name


def test_a_gradient_probe_sees_the_gradient(either: RemoteModel, plain: Plain) -> None:
    point = either.probe_points[NEURONS]
    loss = either.backward(PROMPT, mean_of_last, probes=[point.probe(keep, grad=True)])
    caught: list[Tensor] = []

    def hold(module: Any, args: Any) -> None:
        args[0].retain_grad()
        caught.append(args[0])

    handle = plain.module("model.layers.2.mlp.down_proj").register_forward_pre_hook(hold)
    expected = mean_of_last(plain.model(torch.tensor(PROMPT)).logits)
    expected.backward()
    handle.remove()
    plain.model.zero_grad()
    assert loss.shape == () and close(loss, expected)
    assert close(either.recordings()[NEURONS].tensor, caught[0].grad, 1e-4)


def test_a_replaced_gradient_flows_on(either: RemoteModel, plain: Plain) -> None:
    def doubled(save_ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient

    below, above = either.probe_points["layers.0.resid_pre"], either.probe_points["layers.3.mlp.in"]
    either.backward(PROMPT, mean_of_last, probes=[below.probe(keep, grad=True)])
    before = either.recordings()["layers.0.resid_pre"].tensor
    everything = either.probe_points["logits"].probe(doubled, grad=True)
    either.backward(PROMPT, mean_of_last, probes=[everything, below.probe(keep, grad=True)])
    assert close(either.recordings()["layers.0.resid_pre"].tensor, 2 * before, 1e-4)

    def stopped(save_ctx: Any, gradient: Tensor) -> None:
        gradient.zero_()

    either.backward(
        PROMPT, mean_of_last, probes=[above.probe(stopped, grad=True), below.probe(keep, grad=True)]
    )
    after = either.recordings()["layers.0.resid_pre"].tensor
    assert not close(after, before, 1e-2)  # the way through the last MLP is cut …
    assert after.abs().max() > 0  # … the residual stream is not


def test_a_loss_may_use_values_of_points(either: RemoteModel, plain: Plain) -> None:
    def loss_fn(logits: Tensor, values: list[Tensor]) -> Tensor:
        return logits[:, -1].mean() + values[0].pow(2).sum()

    name = "layers.1.attn.q_proj"
    loss, gradients = either.backward(PROMPT, loss_fn, values=[NEURONS], parameters=[name])
    caught: list[Tensor] = []
    handle = plain.module("model.layers.2.mlp.down_proj").register_forward_pre_hook(
        lambda module, args: caught.append(args[0])
    )
    logits = plain.model(torch.tensor(PROMPT)).logits
    handle.remove()
    expected = loss_fn(logits, caught)
    parameter = plain.model.get_parameter("model.layers.1.self_attn.q_proj.weight")
    (by_hand,) = torch.autograd.grad(expected, [parameter])
    assert close(loss, expected)
    assert close(gradients[name], by_hand, 1e-4)


def test_the_gradient_is_that_of_the_edited_value(either: RemoteModel, plain: Plain) -> None:
    def halved(save_ctx: Any, tensor: Tensor) -> Tensor:
        return tensor * 0.5

    name = "layers.2.mlp.up_proj"
    _, gradients = either.backward(
        PROMPT, mean_of_last, probes=[either.probe_points[NEURONS].probe(halved)], parameters=[name]
    )
    handle = plain.module("model.layers.2.mlp.down_proj").register_forward_pre_hook(
        lambda module, args: (args[0] * 0.5,)
    )
    expected = mean_of_last(plain.model(torch.tensor(PROMPT)).logits)
    handle.remove()
    parameter = plain.model.get_parameter("model.layers.2.mlp.up_proj.weight")
    (by_hand,) = torch.autograd.grad(expected, [parameter])
    assert close(gradients[name], by_hand, 1e-4)


def test_a_backward_leaves_no_gradient_behind(rmodel: RemoteModel) -> None:
    name = "layers.1.mlp.up_proj"
    first = rmodel.backward(PROMPT, mean_of_last, parameters=[name])[1][name]
    again = rmodel.backward(PROMPT, mean_of_last, parameters=[name])[1][name]
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda logits: logits.mean(-1), r"\[2, 6\], not a scalar"),
        (lambda logits: 3.0, "float, not a scalar"),
        (lambda logits: logits.detach().mean(), "does not depend on the logits"),
    ],
    ids=["a matrix", "a number", "detached"],
)
def test_a_loss_that_is_none_is_refused(either: RemoteModel, loss_fn: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        either.backward(PROMPT, loss_fn)
    assert either.backward(PROMPT, mean_of_last).shape == ()


# -- generate ------------------------------------------------------------------------------------


def expected_ids(plain: Plain, ids: Any, new: int, **kwargs: Any) -> list[list[int]]:
    ids = torch.as_tensor(ids)
    mask = torch.ones_like(ids)
    return plain.model.generate(
        ids, attention_mask=mask, max_new_tokens=new, do_sample=False, **kwargs
    ).tolist()


def test_greedy_ids_are_transformers_own(either: RemoteModel, plain: Plain) -> None:
    tokens = either.generate(PROMPT, max_new_tokens=8)
    assert tokens.tolist() == expected_ids(plain, PROMPT, 8)
    assert tokens.mask.all()


def test_unequal_prompts_continue_as_they_do_alone(either: RemoteModel, plain: Plain) -> None:
    tokens = either.generate(either.encode(UNEQUAL), max_new_tokens=5, eos_token_id=None)
    for row, text in enumerate(UNEQUAL):
        ids = plain.tokenizer(text)["input_ids"]
        alone = expected_ids(plain, [ids], 5, eos_token_id=None)[0]
        real = [
            t for t, r in zip(tokens.tolist()[row], tokens.mask.tolist()[row], strict=True) if r
        ]
        assert real == alone


def test_probes_run_on_every_step_and_see_the_new_positions(either: RemoteModel) -> None:
    def note(save_ctx: Any, tensor: Tensor) -> None:
        here = save_ctx.here
        if not hasattr(save_ctx, "steps"):
            save_ctx.steps = []
        save_ctx.steps.append((here.step, list(tensor.shape), here.positions.tolist()))

    points = ["layers.1.attn.pattern", NEURONS]
    either.generate(
        PROMPT[:1], max_new_tokens=3, probes=[either.probe_points[p].probe(note) for p in points]
    )
    recorded = either.recordings()
    first = list(range(6))
    assert recorded[NEURONS].steps == [
        (0, [1, 6, 80], [first]),
        (1, [1, 1, 80], [[6]]),
        (2, [1, 1, 80], [[7]]),
    ]
    assert [shape for _, shape, _ in recorded["layers.1.attn.pattern"].steps] == [
        [1, 6, 6, 6],
        [1, 6, 1, 7],
        [1, 6, 1, 8],
    ]


@pytest.mark.parametrize("point", ["layers.1.attn.k_rot", "layers.1.attn.v", "layers.1.attn.k"])
def test_edits_reach_the_cache(either: RemoteModel, plain: Plain, point: str) -> None:
    """An edit of the prompt's keys or values alone changes what later steps attend to."""

    def edit(save_ctx: Any, tensor: Tensor) -> Tensor | None:
        return tensor * 3 - 1 if save_ctx.here.step == 0 else None

    tokens = either.generate(
        PROMPT[:1], max_new_tokens=6, probes=[either.probe_points[point].probe(edit)]
    )
    ids = torch.tensor(PROMPT[:1])
    for _ in range(6):  # without a cache, the edit is made anew on the prompt's positions
        changed = either.probe_points[point].probe(_edit_first_six)
        logits = either.forward(ids, probes=[changed], logits="last")
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    assert tokens.tolist() == ids.tolist()
    assert tokens.tolist() != expected_ids(plain, PROMPT[:1], 6)


def _edit_first_six(save_ctx: Any, tensor: Tensor) -> Tensor:
    new = tensor.clone()
    new[:, :6] = tensor[:, :6] * 3 - 1
    return new


def test_sampling_repeats_with_its_seed(either: RemoteModel) -> None:
    def sample(seed: int) -> list[list[int]]:
        return either.generate(PROMPT, max_new_tokens=8, do_sample=True, seed=seed).tolist()

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_bad_generation_options_are_named(either: RemoteModel, plain: Plain) -> None:
    with pytest.raises(BadRequest, match="max_tokens"):
        either.generate(PROMPT, max_tokens=3)
    with pytest.raises(BadRequest, match="temperature"):
        either.generate(PROMPT, do_sample=True, temperature=-1.0)
    assert either.generate(PROMPT, max_new_tokens=2).tolist() == expected_ids(plain, PROMPT, 2)


# -- parameters ----------------------------------------------------------------------------------


def test_parameters_are_oriented_out_in(either: RemoteModel, plain: Plain) -> None:
    up = either.get_parameter("layers.2.mlp.up_proj")
    assert up.shape == (80, 48)
    assert torch.equal(up, plain.model.get_parameter("model.layers.2.mlp.up_proj.weight"))
    cut = either.get_parameter("layers.2.mlp.up_proj", (slice(3, 5), 7))
    assert torch.equal(cut, up[3:5, 7])
    assert torch.equal(
        either.get_parameter("unembed.weight"), plain.model.get_parameter("lm_head.weight")
    )


def test_an_index_out_of_range_is_the_users_mistake(either: RemoteModel) -> None:
    with pytest.raises(BadRequest, match=r"index 99|out of bounds|out of range"):
        either.get_parameter("final_norm.weight", 99)


def test_one_process_and_two_ranks_give_the_same_numbers(
    rmodel: RemoteModel, rmodel_tp2: RemoteModel
) -> None:
    points = ["layers.0.attn.q", "layers.1.attn.k", "layers.2.attn.pattern", NEURONS, "logits"]
    values = []
    for model in (rmodel, rmodel_tp2):
        model.forward(PROMPT, probes=[model.probe_points[p].probe(keep) for p in points])
        recorded = model.recordings()
        values.append([recorded[p].tensor for p in points])
    for point, one, two in zip(points, *values, strict=True):
        assert close(two, one), point


def test_the_real_model_says_paris(smollm2: RemoteModel) -> None:
    logits = smollm2.forward("The capital of France is", logits="last")
    assert smollm2.decode(logits.argmax(-1)) == " Paris"


def test_repr_says_what_it_is(rmodel_tp2: garcon.RemoteModel) -> None:
    text = repr(rmodel_tp2)
    assert "tiny-tp2" in text and "tp=2" in text and "4 layers" in text
