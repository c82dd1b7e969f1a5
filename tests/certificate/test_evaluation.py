"""Which form of an identity is taken, where several hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from garcon_jupyter.certificate.evaluation import nearest
from garcon_jupyter.certificate.formulas import Formula
from garcon_jupyter.certificate.identity import Identity
from garcon_jupyter.certificate.values import ParameterReader, PointValues
from garcon_jupyter.points import Catalog

GIVEN = torch.tensor([[[3.0, -4.0, 12.0]]], dtype=torch.float64)


def values() -> PointValues:
    catalog = Catalog({}, 1, 0, {})
    parameters = ParameterReader(lambda name: torch.empty(0), catalog)
    return PointValues(catalog, {}, parameters, torch.tensor([[1]]))


def off_by(error: float) -> Formula:
    """A form that is off by so much, relative to the value."""

    def formula(n: PointValues) -> tuple[Tensor, Tensor]:
        return GIVEN, GIVEN * (1 + error)

    return formula


def form(forms: Mapping[str, Formula]) -> str:
    found = nearest(Identity("embed.out", "made of", (), forms), values(), "float32")
    assert found is not None
    return found.form


def test_of_those_that_hold_the_first() -> None:
    """Which of two is nearer is rounding: that would make the form depend on the machine."""
    assert form({"": off_by(1e-7), "side by side": off_by(0.0)}) == ""
    assert form({"": off_by(0.1), "side by side": off_by(1e-7), "last": off_by(0.0)}) == (
        "side by side"
    )


def test_of_those_that_do_not_hold_the_nearest() -> None:
    assert form({"": off_by(0.3), "side by side": off_by(0.1), "last": off_by(0.2)}) == (
        "side by side"
    )


def test_of_those_that_fit_numbers_the_nearest() -> None:
    forms = {"clipped": off_by(1e-7), "soft-capped": off_by(0.0), "": off_by(0.1)}
    assert form(forms) == "soft-capped"
    assert form({**forms, "": off_by(1e-6)}) == "", "they are not tried where another holds"
