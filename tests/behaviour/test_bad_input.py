"""Every line of bad input: a clear error at once, nothing lost, the server lives.

After each mistake the same server still answers rightly and earlier recordings are still there; the
fixture :func:`intact` checks that.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from garcon_jupyter import (
    BadProbe,
    BadTokens,
    CannotTravel,
    Interrupted,
    ModelError,
    PointUnavailable,
    ProbeError,
    RemoteModel,
    UnknownParameter,
    UnknownPoint,
    WrongValue,
)
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"
NEURONS = "layers.2.mlp.post_activation"
EARLIER = "layers.0.mlp.out"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


@pytest.fixture(autouse=True)
def intact(either: RemoteModel, plain: Plain) -> Iterator[None]:
    """After the mistake the server answers rightly, and what was recorded before it is there."""
    either.forward(PROMPT, probes=[either.probe_points[EARLIER].probe(keep)], logits="none")
    yield
    assert close(either.forward(PROMPT, probes=[]), plain.logits(PROMPT))
    expected = plain.output("model.layers.0.mlp", PROMPT)
    assert close(either.recordings()[EARLIER].tensor, expected)


@contextmanager
def at_once(seconds: float = 2.0) -> Iterator[None]:
    """What happens inside takes no longer than a user is willing to wait."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


# -- names ---------------------------------------------------------------------------------------


def test_an_unknown_point_has_neighbours(either: RemoteModel) -> None:
    with pytest.raises(UnknownPoint, match=r"Did you mean layers\.2\.mlp\.post_activation"):
        either.probe_points["layers.2.mlp.post_activatoin"]
    with pytest.raises(UnknownPoint, match="the model has layers 0 to 3"):
        either.probe_points["layers.4.mlp.out"]


def test_an_unknown_parameter_has_neighbours(either: RemoteModel) -> None:
    with pytest.raises(UnknownParameter, match=r"Did you mean layers\.2\.attn\.q_proj"):
        either.get_parameter("layers.2.attn.q_prj")
    with pytest.raises(UnknownParameter, match=r"layers\.2\.mlp\.up_proj"):
        either.probe_points[OUT].probe(keep, params=["layers.2.mlp.up_projj"])
    with pytest.raises(UnknownParameter, match="unembed"):
        either.backward(PROMPT, Tensor.mean, parameters=["unembd.weight"])


@pytest.mark.parametrize(
    "name", ["layers.0.mlp.router.logits", "pos_embed.out", "layers.1.attn.q_normed"]
)
def test_a_point_that_the_architecture_lacks_says_why(either: RemoteModel, name: str) -> None:
    with pytest.raises(PointUnavailable, match=r"This model has no .*: \S+.*"):
        either.probe_points[name]


# -- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[0, 263]], r"Token 263 is out of range: the vocabulary has 263 tokens"),
        ([[0, -1]], r"Token -1 is out of range"),
        ([], "no tokens"),
        ([[]], r"no batch"),
        (torch.zeros(2, 0, dtype=torch.long), r"\[2, 0\] are no batch"),
        ([[1, 2], [3]], r"unequal lengths: \[1, 2\].*pads them"),
        ([[1, 2], 3], r"cannot be read as tokens"),
        ([[0] * 129], r"129 tokens are too long: the model reads at most 128"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"\[1, 2, 3\] are no batch"),
        (torch.zeros(1, 4), "Tokens are integers; these are float32"),
        (np.array([["a"]]), "cannot be read as tokens"),
        ([[2**70]], "cannot be read as tokens"),
        (None, "NoneType cannot be read as tokens"),
        ({"ids": [1]}, "cannot be read as tokens"),
        (5, "no batch"),
    ],
    ids=[
        "beyond the vocabulary",
        "negative",
        "nothing",
        "an empty row",
        "an empty tensor",
        "ragged",
        "mixed",
        "too long",
        "three dimensions",
        "floats",
        "an array of texts",
        "beyond int64",
        "None",
        "a dictionary",
        "a number",
    ],
)
def test_tokens_that_are_none(either: RemoteModel, tokens: Any, message: str) -> None:
    with at_once(), pytest.raises(BadTokens, match=message):
        either.forward(tokens)


def test_all_passes_check_their_tokens(either: RemoteModel) -> None:
    with pytest.raises(BadTokens, match="out of range"):
        either.backward([[0, 999]], Tensor.mean)
    with pytest.raises(BadTokens, match="out of range"):
        either.generate([[0, 999]])
    with pytest.raises(BadTokens, match=r"100 tokens and 60 new ones.*at most 28 new"):
        either.generate([[0] * 100], max_new_tokens=60)


# -- what a probe returns ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda save_ctx, tensor: tensor[:, :1],
            r"shape \[2, 1, 48\]; the point's is \[2, 6, 48\]",
        ),
        (lambda save_ctx, tensor: tensor.double(), r"dtype torch.float64; .* torch.float32"),
        (lambda save_ctx, tensor: tensor.to("meta"), r"device meta; the point's is cpu"),
        (lambda save_ctx, tensor: tensor.to_sparse(), r"layout torch.sparse_coo"),
        (lambda save_ctx, tensor: tensor.tolist(), "returned a list, not a tensor"),
        (lambda save_ctx, tensor: tensor.numpy(), "returned a ndarray, not a tensor"),
        (lambda save_ctx, tensor: 0, "returned a int, not a tensor"),
        (lambda save_ctx, tensor: [tensor.unsqueeze_(0)] and None, r"shape \[1, 2, 6, 48\]"),
    ],
    ids=["shape", "dtype", "device", "layout", "list", "array", "number", "shape, in place"],
)
def test_a_probe_returns_something_else(
    either: RemoteModel, wrong: Callable[..., Any], message: str
) -> None:
    with at_once(), pytest.raises(WrongValue, match=message) as caught:
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(wrong)])
    assert isinstance(caught.value, ProbeError)
    assert "None to leave it" in str(caught.value)
    assert f"{OUT} [2, 6, 48] float32" in str(caught.value)


def test_a_gradient_probe_returns_something_else(either: RemoteModel) -> None:
    probe = either.probe_points[OUT].probe(lambda save_ctx, gradient: gradient[0], grad=True)
    with pytest.raises(WrongValue, match=r"the gradient at layers\.2\.mlp\.out"):
        either.backward(PROMPT, Tensor.mean, probes=[probe], parameters=["unembed.weight"])


# -- what a probe does ---------------------------------------------------------------------------


def test_a_body_that_does_not_pickle(either: RemoteModel) -> None:
    lock = threading.Lock()

    def locked(save_ctx: Any, tensor: Tensor) -> None:
        with lock:
            save_ctx.tensor = tensor

    with pytest.raises(BadProbe, match=r"locked cannot be shipped: 'lock', a lock, cannot be pick"):
        either.probe_points[OUT].probe(locked)
    with pytest.raises(BadProbe, match="'either'"):
        either.probe_points[OUT].probe(lambda save_ctx, tensor: either.forward(tensor))


def raises(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.before = tensor
    return helper(tensor)


def helper(tensor: Tensor) -> None:
    {}["neuron 7"]  # the line that is to blame


def test_a_body_that_raises(either: RemoteModel) -> None:
    with at_once(), pytest.raises(KeyError) as caught:
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(raises)])
    error: Any = caught.value
    assert isinstance(error, ProbeError)
    assert error.original == "KeyError"
    assert [name for _, _, name in error.frames] == ["raises", "helper"]
    assert "the line that is to blame" in str(error)
    assert f"{OUT} [2, 6, 48] float32, whole" in str(error)
    assert "KeyError: 'neuron 7'" in error.problem


def test_it_raises_in_one_shard_only(either: RemoteModel) -> None:
    def second(save_ctx: Any, tensor: Tensor) -> None:
        if save_ctx.shard.index == save_ctx.shard.count - 1:
            raise ValueError("not this shard")

    with at_once(), pytest.raises(ValueError, match="not this shard"):
        either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(second, sharded=True)])


@pytest.mark.parametrize("grad", [False, True], ids=["forward", "gradient"])
def test_it_raises_in_a_backward(either: RemoteModel, grad: bool) -> None:
    def fails(save_ctx: Any, tensor: Tensor) -> None:
        raise ZeroDivisionError("in passing")

    probe = either.probe_points[OUT].probe(fails, grad=grad)
    with at_once(), pytest.raises(ZeroDivisionError, match="in passing"):
        either.backward(PROMPT, Tensor.mean, probes=[probe], parameters=["layers.0.mlp.up_proj"])


def test_a_loss_or_a_logits_function_raises(either: RemoteModel) -> None:
    with at_once(), pytest.raises(IndexError, match="the loss function"):
        either.backward(PROMPT, lambda logits: logits[:, 99].mean(), parameters=["unembed.weight"])
    with at_once(), pytest.raises(IndexError, match="the logits function"):
        either.forward(PROMPT, logits=lambda logits: logits[:, 99])


def beyond(save_ctx: Any, ids: Tensor) -> Tensor:
    return ids + 10**6


def test_the_model_cannot_go_on_with_what_a_probe_put_there(rmodel: RemoteModel) -> None:
    """In one process: a table that is cut over ranks takes any id for one of another rank."""
    edits = rmodel.probe_points["module:model.embed_tokens.input"].probe(beyond)
    for request in (rmodel.forward, rmodel.generate):
        with (
            at_once(10.0),
            pytest.raises(ModelError, match="IndexError: index out of range") as caught,
        ):
            request(PROMPT, probes=[edits])
        assert "in model.embed_tokens)" in caught.value.problem
        edited = "Edited before it: beyond at module:model.embed_tokens.input."
        assert edited in caught.value.remedy and "bug of" not in str(caught.value)
    assert rmodel.forward(PROMPT).shape[:2] == (2, 6)


def asks(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.answer = input("Which? ")


def stops(save_ctx: Any, tensor: Tensor) -> None:
    breakpoint()


@pytest.mark.parametrize(("code", "sentence"), [(asks, "input"), (stops, "print")])
def test_a_probe_that_waits_for_somebody(either: RemoteModel, code: Any, sentence: str) -> None:
    with (
        at_once(),
        pytest.raises(BadProbe, match=f"nobody could type.*{sentence}|{sentence}.*type"),
    ):
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(code)])


def test_it_raises_while_generating(either: RemoteModel) -> None:
    def third(save_ctx: Any, tensor: Tensor) -> None:
        if save_ctx.here.step == 2:
            raise RuntimeError("no further")

    with at_once(), pytest.raises(RuntimeError, match="no further"):
        either.generate(PROMPT, probes=[either.probe_points[OUT].probe(third)])
    assert either.generate(PROMPT, max_new_tokens=3).shape == (2, 9)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Interrupt this process, as the stop button does, and expect it to be over soon."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with at_once(seconds + 2.0), pytest.raises(Interrupted, match="interrupted"):
            yield
    finally:
        timer.cancel()
        timer.join()


def forever(save_ctx: Any, tensor: Tensor) -> None:
    while True:
        save_ctx.here.step += 1


def test_a_body_that_loops_forever(either: RemoteModel) -> None:
    with interrupted_after(0.3):
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(forever)])


def test_one_shard_that_loops_forever(either: RemoteModel) -> None:
    def last(save_ctx: Any, tensor: Tensor) -> None:
        while save_ctx.shard.index == save_ctx.shard.count - 1:
            pass

    with interrupted_after(0.3):
        either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(last, sharded=True)])


def test_a_gradient_probe_that_loops_forever(either: RemoteModel) -> None:
    probe = either.probe_points[OUT].probe(forever, grad=True)
    with interrupted_after(0.3):
        either.backward(PROMPT, Tensor.mean, probes=[probe], parameters=["unembed.weight"])


def test_a_loss_that_loops_forever(either: RemoteModel) -> None:
    def loss(logits: Tensor) -> Tensor:
        while True:
            pass

    with interrupted_after(0.3):
        either.backward(PROMPT, loss, parameters=["unembed.weight"])


def test_a_body_that_swallows_exceptions_is_interrupted_all_the_same(either: RemoteModel) -> None:
    def stubborn(save_ctx: Any, tensor: Tensor) -> None:
        while True:
            try:
                time.sleep(0.01)
            except Exception:  # noqa: BLE001 - what careless code does
                continue

    with interrupted_after(0.3):
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(stubborn)])


def test_a_long_generation_is_interrupted_between_its_steps(either: RemoteModel) -> None:
    def slow(save_ctx: Any, tensor: Tensor) -> None:
        time.sleep(0.02)

    with interrupted_after(0.3):
        either.generate(
            PROMPT[:1],
            max_new_tokens=120,
            eos_token_id=None,
            probes=[either.probe_points[OUT].probe(slow)],
        )


def test_a_body_that_prints_a_gigabyte(
    either: RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def talkative(save_ctx: Any, tensor: Tensor) -> None:
        print("first")
        line = "x" * 1_000_000
        for _ in range(1_000):
            print(line)

    with at_once(20.0):
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(talkative)], logits="none")
    out, err = capsys.readouterr()
    assert out.startswith("first\n")
    assert len(out) < 3_000_000
    assert "999 more lines were cut" in err


def test_many_small_prints_from_every_shard(
    either: RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def dots(save_ctx: Any, tensor: Tensor) -> None:
        for _ in range(5_000):
            print(".", end="", flush=True)

    with at_once(20.0):
        either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(dots, sharded=True)])
    assert capsys.readouterr().out.count(".") >= 1_000


def test_prints_appear_in_the_cell_that_caused_them(
    either: RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def talks(save_ctx: Any, tensor: Tensor) -> None:
        import sys

        print("seen", list(tensor.shape))
        print("careful", file=sys.stderr)

    either.forward(PROMPT, probes=[either.probe_points[OUT].probe(talks)])
    out, err = capsys.readouterr()
    assert out == "seen [2, 6, 48]\n"  # once, whatever the degree
    assert err == "careful\n"


@pytest.mark.parametrize(
    "leave",
    [lambda: exit(), lambda: exit(3), lambda: (_ for _ in ()).throw(KeyboardInterrupt)],
    ids=["exit()", "exit(3)", "KeyboardInterrupt"],
)
def test_a_body_that_leaves(either: RemoteModel, leave: Callable[[], Any]) -> None:
    def leaves(save_ctx: Any, tensor: Tensor) -> None:
        leave()

    with at_once(), pytest.raises(ProbeError, match="SystemExit|KeyboardInterrupt") as caught:
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(leaves)])
    assert not isinstance(caught.value, SystemExit)


def test_sys_exit_in_a_body(either: RemoteModel) -> None:
    def leaves(save_ctx: Any, tensor: Tensor) -> None:
        import sys

        sys.exit("enough")

    with at_once(), pytest.raises(ProbeError, match="SystemExit: enough"):
        either.forward(PROMPT, probes=[either.probe_points[OUT].probe(leaves)])


# -- what a save context holds -------------------------------------------------------------------


def holds(save_ctx: Any, tensor: Tensor) -> None:
    import threading

    save_ctx.good = tensor[0, 0]
    save_ctx.lock = threading.Lock()
    save_ctx.nested = {"deep": [iter([1])]}
    save_ctx.also_good = "text"


def test_what_cannot_travel_is_named(either: RemoteModel) -> None:
    either.forward(PROMPT, probes=[either.probe_points[OUT].probe(holds)])
    recording = either.recordings()[OUT]
    with pytest.raises(CannotTravel, match=r"layers\.2\.mlp\.out\.lock cannot be fetched.*lock"):
        recording.lock  # noqa: B018
    handles = [recording.handle(name) for name in ("good", "lock", "also_good")]
    with pytest.raises(CannotTravel, match=r"out\.lock cannot be fetched"):
        either.fetch(*handles)
    assert recording.good.shape == (48,)
    assert recording.also_good == "text"
    assert set(recording.keys()) == {"good", "lock", "nested", "also_good"}


def test_what_cannot_travel_from_a_shard_is_named_too(either: RemoteModel) -> None:
    probe = either.probe_points[NEURONS].probe(holds, sharded=True)
    either.forward(PROMPT, probes=[probe])
    with pytest.raises(CannotTravel, match=r"post_activation\.lock cannot be fetched"):
        either.recordings()[NEURONS].lock  # noqa: B018


def test_logits_that_cannot_travel(either: RemoteModel) -> None:
    def reduced(logits: Tensor) -> Any:
        return (row for row in logits)

    with pytest.raises(CannotTravel, match="reduced returned cannot be fetched.*generator"):
        either.forward(PROMPT, logits=reduced)


def test_an_object_that_cannot_say_what_it_is(either: RemoteModel) -> None:
    def odd(save_ctx: Any, tensor: Tensor) -> None:
        class Odd:
            def __repr__(self) -> str:
                raise RuntimeError("who knows")

        save_ctx.odd = Odd()
        save_ctx.tensor = tensor

    either.forward(PROMPT, probes=[either.probe_points[OUT].probe(odd)])
    recording = either.recordings()[OUT]
    assert "odd: <Odd" in repr(recording)
    assert recording.tensor.shape == (2, 6, 48)
