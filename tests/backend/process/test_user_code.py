"""Code of the user's: its own random stream, its prints, its settings; and everything as it was afterwards."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from garcon_backend.probing.rank import Rank
from garcon_backend.process.interrupts import Cancelled, Interrupts
from garcon_backend.process.output import UserOutput
from garcon_backend.process.user_code import UserFailure, user_code

CPU = torch.device("cpu")


@pytest.fixture
def rank() -> Rank:
    return Rank.around(torch.nn.Linear(2, 2))


def draws(seed: int | None) -> list[float]:
    with user_code(CPU, UserOutput(), Interrupts(True), seed):
        return [float(torch.rand(1)), float(np.random.rand())]


def test_the_same_seed_gives_the_same_numbers_and_moves_no_others() -> None:
    torch.manual_seed(3)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert draws(7) == draws(7) != draws(8)
    assert torch.equal(torch.rand(1), after)


def test_without_a_seed_it_draws_from_the_process() -> None:
    torch.manual_seed(3)
    expected = float(torch.rand(1))
    torch.manual_seed(3)
    assert draws(None)[0] == expected


def test_what_it_sets_is_put_back_and_what_it_prints_is_passed_on() -> None:
    output, told = UserOutput(), list[tuple[str, str]]()
    output.to(lambda stream, text: told.append((stream, text)))
    interrupts, out = Interrupts(True), sys.stdout
    with user_code(CPU, output, interrupts):
        assert interrupts.in_user_code
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        print("mine")
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    assert told == [("stdout", "mine\n")]
    assert not interrupts.in_user_code and sys.stdout is out


def test_its_error_is_told_with_what_it_is(rank: Rank) -> None:
    error = ZeroDivisionError("mine")

    def fails(word: str) -> None:
        torch.set_grad_enabled(False)
        raise error

    with pytest.raises(UserFailure) as raised:
        rank.call("the loss function", fails, "word", seed=1)
    assert raised.value.error is error and raised.value.where == "the loss function"
    assert torch.is_grad_enabled()
    assert rank.call("the loss function", "{}!".format, "word") == "word!"


def test_an_interrupt_is_no_error_of_its(rank: Rank) -> None:
    def cancelled() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        rank.call("a probe", cancelled, seed=1)
