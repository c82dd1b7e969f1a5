"""What a newcomer gets wrong: a typed error with a sentence of what to do, and nothing has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_jupyter import (
    BadProbe,
    BadRequest,
    BadTokens,
    GarconError,
    NoRecording,
    RemoteModel,
    UnknownParameter,
    UnknownPoint,
    recorders,
)
from tests.oracle import PROMPT

OUT = "layers.2.mlp.out"
EVERY = "layers.*.mlp.out"
UP = "layers.2.mlp.up_proj"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def total(logits: Tensor) -> Tensor:
    return logits.sum()


WRONG: dict[str, tuple[Callable[[RemoteModel], Any], type[GarconError], str]] = {
    "a recorder's class": (
        lambda m: m.probe_points[OUT].probe(recorders.TopK),  # type: ignore[arg-type]
        BadProbe,
        r"TopK is the class of a recorder.*Make one: probe\(TopK\(",
    ),
    "a class": (lambda m: m.probe_points[OUT].probe(dict), BadProbe, "dict is a class"),
    "no function": (lambda m: m.probe_points[OUT].probe(None), BadProbe, "not a NoneType"),  # type: ignore[arg-type]
    "too few parameters": (
        lambda m: m.probe_points[OUT].probe(lambda tensor: None),
        BadProbe,
        r"called as fn\(save_ctx, tensor\)",
    ),
    "a pattern": (lambda m: m.probe_points[EVERY].probe(keep), BadProbe, r"selects 4.*\.probes\("),
    "a number for a point": (lambda m: m.probe_points[3], UnknownPoint, "3 is no name of a probe"),  # type: ignore[index]
    "None for a point": (lambda m: m.probe_points[None], UnknownPoint, "None is no name"),  # type: ignore[index]
    "a tuple for a point": (lambda m: m.probe_points["layers", 0], UnknownPoint, "one name or pat"),  # type: ignore[index]
    "a word for a switch": (
        lambda m: m.probe_points[OUT].probe(keep, grad="yes"),  # type: ignore[arg-type]
        BadProbe,
        "neither True nor False",
    ),
    "a number for a name": (
        lambda m: m.probe_points[OUT].probe(keep, name=5),  # type: ignore[arg-type]
        BadProbe,
        "name=5 is no name",
    ),
    "a number for params": (
        lambda m: m.probe_points[OUT].probe(keep, params=5),  # type: ignore[arg-type]
        BadRequest,
        "params=5 is no list of names",
    ),
    "a pattern in params": (
        lambda m: m.probe_points[OUT].probe(keep, params=["layers.*.mlp.up_proj"]),
        UnknownParameter,
        "pattern of 4 parameters.*Such as layers.0.mlp.up_proj",
    ),
    "a name for a source": (
        lambda m: m.probe_points[OUT].probe(keep, source=OUT),  # type: ignore[arg-type]
        BadProbe,
        r"no recording.*recordings\(\)\[name\]",
    ),
    "all recordings for a source": (
        lambda m: m.probe_points[OUT].probe(keep, source=m.recordings()),  # type: ignore[arg-type]
        BadProbe,
        "is no recording",
    ),
    "probes is a name": (
        lambda m: m.forward(PROMPT, probes=OUT),  # type: ignore[arg-type]
        BadProbe,
        rf"is no list.*probe_points\['{OUT}'\]\.probe\(function\)",
    ),
    "probes has a name": (lambda m: m.forward(PROMPT, probes=[OUT]), BadProbe, "is no probe"),  # type: ignore[list-item]
    "probes has a function": (
        lambda m: m.forward(PROMPT, probes=[keep]),  # type: ignore[list-item]
        BadProbe,
        r"\.probe\(keep\)",
    ),
    "probes is a point": (
        lambda m: m.forward(PROMPT, probes=m.probe_points[OUT]),  # type: ignore[arg-type]
        BadProbe,
        rf"\['{OUT}'\]\.probe\(function\)",
    ),
    "probes is a dictionary": (
        lambda m: m.forward(PROMPT, probes={OUT: keep}),  # type: ignore[arg-type]
        BadProbe,
        "is no list",
    ),
    "probes is a probe": (
        lambda m: m.forward(PROMPT, probes=m.probe_points[OUT].probe(keep)),  # type: ignore[arg-type]
        BadProbe,
        r"probes=\[probe\]",
    ),
    "probes has a list": (
        lambda m: m.forward(PROMPT, probes=[m.probe_points[EVERY].probes(keep)]),  # type: ignore[list-item]
        BadProbe,
        "into one list",
    ),
    "gradients in a forward": (
        lambda m: m.forward(PROMPT, probes=[m.probe_points[OUT].probe(keep, grad=True)]),
        BadProbe,
        "would never run: forward has no gradients.*backward",
    ),
    "gradients in a generation": (
        lambda m: m.generate(PROMPT, probes=[m.probe_points[OUT].probe(keep, grad=True)]),
        BadProbe,
        "would never run: generate has no gradients",
    ),
    "tokens are None": (lambda m: m.forward(None), BadTokens, "cannot be read as tokens"),
    "tokens are a dictionary": (
        lambda m: m.forward({"ids": PROMPT}),
        BadTokens,
        "cannot be read as tokens",
    ),
    "tokens are floats": (lambda m: m.forward(torch.ones(1, 2)), BadTokens, "are integers"),
    "a negative token": (lambda m: m.forward([[-1]]), BadTokens, "Token -1 is out of range"),
    "a token too high": (lambda m: m.forward([[999]]), BadTokens, "Token 999 is out of range"),
    "no tokens": (lambda m: m.forward([]), BadTokens, "no tokens"),
    "no such logits": (lambda m: m.forward(PROMPT, logits="first"), BadRequest, "all, last, none"),
    "logits function of two": (
        lambda m: m.forward(PROMPT, logits=lambda a, b: a),
        BadProbe,
        r"called as fn\(logits\)",
    ),
    "a word for a seed": (lambda m: m.forward(PROMPT, seed="x"), BadRequest, "seed='x' is no int"),  # type: ignore[arg-type]
    "half a seed": (lambda m: m.forward(PROMPT, seed=1.5), BadRequest, "seed=1.5 is no integer"),  # type: ignore[arg-type]
    "a loss of two": (
        lambda m: m.backward(PROMPT, lambda logits, values: logits.sum()),
        BadProbe,
        r"called as fn\(logits\)",
    ),
    "a loss of one": (
        lambda m: m.backward(PROMPT, total, values=[OUT]),
        BadProbe,
        r"called as fn\(logits, values\)",
    ),
    "a loss that is no number": (
        lambda m: m.backward(PROMPT, lambda logits: logits),
        BadRequest,
        "not a scalar",
    ),
    "a loss off the graph": (
        lambda m: m.backward(PROMPT, lambda logits: logits.detach().sum()),
        BadRequest,
        "does not depend on the logits",
    ),
    "values is a number": (lambda m: m.backward(PROMPT, total, values=3), BadRequest, "no list of"),  # type: ignore[arg-type]
    "values has a point": (
        lambda m: m.backward(PROMPT, lambda a, b: a.sum(), values=[m.probe_points[OUT]]),  # type: ignore[list-item]
        UnknownPoint,
        f"Give '{OUT}'",
    ),
    "parameters is True": (
        lambda m: m.backward(PROMPT, total, parameters=True),  # type: ignore[arg-type]
        BadRequest,
        "parameters=True is no list",
    ),
    "a pattern of parameters": (
        lambda m: m.get_parameter("layers.*.mlp.up_proj"),
        UnknownParameter,
        "pattern of 4 parameters, where the name of one is needed",
    ),
    "a number for a parameter": (
        lambda m: m.get_parameter(3),  # type: ignore[arg-type]
        UnknownParameter,
        "3 is no name of a parameter",
    ),
    "a recording by number": (lambda m: m.recordings()[0], BadRequest, "0 is no key of recordings"),  # type: ignore[index]
    "nothing recorded": (lambda m: m.recordings()[OUT], NoRecording, "Nothing is recorded at"),
    "an item that is not there": (
        lambda m: recorded(m)["other"],
        NoRecording,
        "Saved there: tensor",
    ),
    "a handle gone through": (
        lambda m: list(recorded(m).handle("tensor")),
        BadRequest,
        "is on the server.*handle.fetch",
    ),
    "fetch of a name": (lambda m: m.fetch(OUT), BadRequest, "is no handle"),  # type: ignore[arg-type]
    "fetch of a recording": (lambda m: m.fetch(recorded(m)), BadRequest, "is no handle"),
    "a list to clear": (lambda m: m.clear_recordings([OUT]), UnknownPoint, "one name or pattern"),  # type: ignore[arg-type]
    "a probe to detach": (
        lambda m: m.detach(m.probe_points[OUT].probe(keep)),  # type: ignore[arg-type]
        UnknownPoint,
        f"Give '{OUT}'",
    ),
    "a list to attach": (
        lambda m: m.attach(m.probe_points[EVERY].probes(keep)),  # type: ignore[arg-type]
        BadProbe,
        r"\[\*some, \*others\]",
    ),
    "a function for ranks": (
        lambda m: m.run_on_ranks(keep),
        BadRequest,
        "takes the text of Python",
    ),  # type: ignore[arg-type]
}


def recorded(model: RemoteModel) -> Any:
    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(keep)], logits="none")
    return model.recordings()[OUT]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_is_told(rmodel: RemoteModel, name: str) -> None:
    call, kind, sentence = WRONG[name]
    with pytest.raises(kind, match=sentence) as caught:
        call(rmodel)
    assert caught.value.remedy


def test_what_is_saved_is_found_as_an_item_too(rmodel: RemoteModel) -> None:
    recording = recorded(rmodel)
    assert recording["tensor"] is recording.tensor
