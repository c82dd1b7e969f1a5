"""Probes that misbehave: they hurt their own request, and nobody else's.

After each, another session on the same server gets the reference's numbers, from weights that are what they
were, and its earlier recording is still there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.probing.results import unshared
from garcon_backend.save_contexts.save_context import uses
from garcon_jupyter import CannotTravel, ProbeError, RemoteModel, WrongValue
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"
RESID = "layers.1.resid_post"
LATER = "layers.3.mlp.out"
NEURONS = "layers.2.mlp.post_activation"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


@pytest.fixture(autouse=True)
def another(either: RemoteModel, plain: Plain) -> Iterator[RemoteModel]:
    """A session of somebody else, whom nothing of this reaches."""
    other = garcon.connect(either.server.name)
    other.forward(PROMPT, probes=[other.probe_points[OUT].probe(keep)], logits="none")
    yield other
    assert close(other.forward(PROMPT), plain.logits(PROMPT))
    assert close(other.recordings()[OUT].tensor, plain.output("model.layers.2.mlp", PROMPT))
    weights = plain.module("model.layers.2.mlp.down_proj").weight
    assert torch.equal(other.get_parameter("layers.2.mlp.down_proj"), weights)
    other.close()


def run(model: RemoteModel, function: Callable[..., Any], point: str = OUT, **more: Any) -> Any:
    """A forward with one probe."""
    return model.forward(PROMPT, probes=[model.probe_points[point].probe(function, **more)])


# -- who keeps the tensor ------------------------------------------------------------------------


def test_what_is_kept_in_a_global_and_changed_later_reaches_nothing(
    either: RemoteModel, plain: Plain
) -> None:
    """The residual stream is the model's own tensor, which later layers read."""

    def hoards(save_ctx: Any, tensor: Tensor) -> None:
        import builtins

        builtins.hoard = tensor  # type: ignore[attr-defined]
        save_ctx.saved = tensor

    def spoils(save_ctx: Any, tensor: Tensor) -> None:
        import builtins

        builtins.hoard.fill_(99.0)  # type: ignore[attr-defined]

    points = either.probe_points
    probes = [points[RESID].probe(hoards), points["layers.2.attn.out"].probe(spoils)]
    assert close(either.forward(PROMPT, probes=probes), plain.logits(PROMPT))
    saved = either.recordings()[RESID].saved
    assert close(saved, plain.output("model.layers.1", PROMPT))
    run(either, spoils)  # in a later request
    assert close(either.recordings()[RESID].saved, saved)


def test_what_a_reader_saves_is_its_own(either: RemoteModel, plain: Plain) -> None:
    """The value of several ranks is put together for the probe alone, so it is kept without a copy; once."""

    def saves(save_ctx: Any, tensor: Tensor) -> None:
        import builtins

        save_ctx.first = tensor
        save_ctx.second = tensor
        save_ctx.listed = [tensor]
        if save_ctx.here.layer == 2:
            builtins.hoard = tensor  # type: ignore[attr-defined]

    def spoils(save_ctx: Any, tensor: Tensor) -> None:
        import builtins

        builtins.hoard.fill_(99.0)  # type: ignore[attr-defined]

    def changes_the_first(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.first.zero_()

    points, before = either.probe_points, "layers.1.mlp.post_activation"
    readers = [
        points[name].probe(saves, name=reader, read_only=True)
        for name in (NEURONS, before)
        for reader in ("one", "two")
    ]
    either.forward(PROMPT, probes=readers)
    run(either, spoils)
    change = points[before].probe(changes_the_first, name="two", read_only=True)
    either.forward(PROMPT, probes=[change])
    found = either.recordings()
    for name, layer in ((NEURONS, 2), (before, 1)):
        expected = plain.neurons(layer, PROMPT)
        for reader in ("one", "two"):
            entry = found[name, reader]
            if (name, reader) == (before, "two"):
                assert not entry.first.any()
            else:
                assert close(entry.first, expected)
            assert close(entry.second, expected) and close(entry.listed[0], expected)


def test_what_was_returned_and_is_changed_later_reaches_nothing(
    either: RemoteModel, plain: Plain
) -> None:
    def returns(save_ctx: Any, tensor: Tensor) -> Tensor:
        import builtins

        builtins.hoard = tensor * 2  # type: ignore[attr-defined]
        return builtins.hoard  # type: ignore[attr-defined]

    def spoils(save_ctx: Any, tensor: Tensor) -> None:
        import builtins

        builtins.hoard.fill_(99.0)  # type: ignore[attr-defined]

    points = either.probe_points
    probes = [points[RESID].probe(returns), points["layers.2.attn.out"].probe(spoils)]
    with plain.hooked("model.layers.1", lambda out: out * 2):
        expected = plain.logits(PROMPT)
    assert close(either.forward(PROMPT, probes=probes), expected)
    assert not close(expected, plain.logits(PROMPT), 1e-3)


def test_what_a_thread_changes_later_reaches_nothing(either: RemoteModel, plain: Plain) -> None:
    def hands_on(save_ctx: Any, tensor: Tensor) -> None:
        import threading

        go_on, done = threading.Event(), threading.Event()

        def spoil() -> None:
            go_on.wait(10)
            tensor.fill_(99.0)
            done.set()

        threading.Thread(target=spoil, daemon=True).start()
        save_ctx.events = [go_on, done]
        save_ctx.saved = tensor

    def lets_it(save_ctx: Any, tensor: Tensor) -> None:
        import gc
        import threading

        for thread in threading.enumerate():
            if thread.name.endswith("(spoil)"):
                go_on, done = (
                    cell.cell_contents
                    for cell in thread._target.__closure__[::-1]  # type: ignore[attr-defined]
                    if isinstance(cell.cell_contents, threading.Event)
                )
                go_on.set(), done.set()
                thread.join(10)
        gc.collect()

    points = either.probe_points
    probes = [points[RESID].probe(hands_on), points["layers.2.attn.out"].probe(lets_it)]
    assert close(either.forward(PROMPT, probes=probes), plain.logits(PROMPT))
    assert close(either.recordings()[RESID].saved, plain.output("model.layers.1", PROMPT))


def test_what_a_probe_is_told_is_its_own(either: RemoteModel, plain: Plain) -> None:
    """Positions of padded rows go into every layer; a probe of the first may change its copy."""

    def spoils(save_ctx: Any, tensor: Tensor) -> None:
        here = save_ctx.here
        save_ctx.positions = here.positions
        for told in (here.tokens, here.mask, here.positions):
            if told is not None:
                told.zero_()

    tokens = either.encode(["a b c d", "a b"])
    clean = either.forward(tokens)
    probes = [either.probe_points["embed.out"].probe(spoils)]
    assert close(either.forward(tokens, probes=probes), clean)
    assert torch.equal(either.generate(tokens, probes=probes).ids, either.generate(tokens).ids)


def test_a_parameter_that_was_saved_and_changed_is_a_copy(either: RemoteModel) -> None:
    def spoils(save_ctx: Any, tensor: Tensor) -> None:
        weight = save_ctx.params["layers.2.mlp.down_proj"]
        save_ctx.weight = weight
        save_ctx.held = [weight]
        weight.zero_()

    run(either, spoils, params=["layers.2.mlp.down_proj"])
    assert either.recordings()[OUT].weight.abs().max() > 0


def test_only_what_somebody_keeps_is_copied() -> None:
    def asked(function: Callable[[Tensor], Any]) -> tuple[Any, bool]:
        """What the model goes on with, and whether that is what the function returned."""
        value = torch.ones(3)
        users = uses(value)
        result = function(value)
        going_on = unshared(result, value, users)
        return going_on, going_on is result

    kept: list[Any] = []
    assert asked(lambda value: None)[1]
    assert asked(lambda value: value)[1]
    assert asked(lambda value: value * 2)[1]
    assert asked(lambda value: "no tensor")[1]
    for keeps in (
        lambda value: kept.append(value),
        lambda value: kept.append(value) or value,
        lambda value: kept.append(value[1:]),
        lambda value: kept.append(value * 1) or kept[-1],
        lambda value: value[:],
    ):
        going_on, same = asked(keeps)
        assert not same and torch.equal(going_on, torch.ones(3))


# -- threads -------------------------------------------------------------------------------------


def test_threads_that_print_and_raise(
    either: RemoteModel, another: RemoteModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a thread prints while its probe runs is shown; later on it is in nobody's cell."""

    def starts(save_ctx: Any, tensor: Tensor) -> None:
        import builtins
        import threading

        builtins.talk = threading.Event()  # type: ignore[attr-defined]

        def chat() -> None:
            print("at once")
            first.set()
            while not builtins.talk.wait(0.001):  # type: ignore[attr-defined]
                print("and on and on")
            raise RuntimeError("in a thread")

        first = threading.Event()
        threading.Thread(target=chat, daemon=True, name="chat").start()
        first.wait(10)

    def listens(save_ctx: Any, tensor: Tensor) -> None:
        import time

        time.sleep(0.05)
        print("mine")

    def ends(save_ctx: Any, tensor: Tensor) -> None:
        import builtins
        import threading

        builtins.talk.set()  # type: ignore[attr-defined]
        for thread in threading.enumerate():
            if thread.name == "chat":
                thread.join(10)

    run(either, starts)
    assert capsys.readouterr().out.startswith("at once\n")
    run(another, listens)
    assert capsys.readouterr() == ("mine\n", "")
    run(another, ends)
    assert capsys.readouterr() == ("", "")


# -- the state of the process --------------------------------------------------------------------


def _report(save_ctx: Any, tensor: Tensor) -> None:
    import gc
    import os
    import signal
    import sys
    import warnings

    import numpy as np

    save_ctx.state = {
        "grad": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "threads": torch.get_num_threads(),
        "numpy": np.geterr(),
        "directory": os.getcwd(),  # noqa: PTH109
        "environment": sorted(os.environ.items()),
        "path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
        "collecting": gc.isenabled(),
        "filters": [str(entry) for entry in warnings.filters],
        "handlers": [str(signal.getsignal(s)) for s in (signal.SIGTERM, signal.SIGUSR1)],
        "alarm": signal.getitimer(signal.ITIMER_REAL),
        "streams": [type(s).__name__ for s in (sys.stdout, sys.stderr)],
    }


def _upset(save_ctx: Any, tensor: Tensor) -> None:
    import gc
    import io
    import os
    import random
    import signal
    import sys
    import warnings

    import numpy as np

    torch.set_grad_enabled(not torch.is_grad_enabled())
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.set_autocast_enabled("cpu", True)
    torch.set_num_threads(7)
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    np.seterr(all="raise")
    os.chdir("/")
    os.environ["OMP_NUM_THREADS"] = "3"
    os.environ.pop("PATH", None)
    sys.path.clear()
    sys.setrecursionlimit(120)
    gc.disable()
    warnings.simplefilter("error")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 3600)
    sys.stdout = sys.stderr = io.StringIO()


def test_the_state_of_the_process_is_put_back(either: RemoteModel, another: RemoteModel) -> None:
    run(another, _report)
    before = another.recordings()[OUT].state
    run(either, _upset)
    run(another, _report)
    assert another.recordings()[OUT].state == before


def test_upset_state_does_not_reach_the_rest_of_the_same_pass(
    either: RemoteModel, plain: Plain
) -> None:
    """Without a gradient on one rank only, the backward would wait for ever."""
    assert close(run(either, _upset, point="embed.out"), plain.logits(PROMPT))
    clean = either.backward(PROMPT, Tensor.mean, parameters=["layers.1.mlp.up_proj"])[1]
    probes = [either.probe_points["layers.0.mlp.out"].probe(_upset)]
    upset = either.backward(PROMPT, Tensor.mean, probes, parameters=["layers.1.mlp.up_proj"])[1]
    (name,) = clean
    assert close(upset[name], clean[name])

    def loss(logits: Tensor) -> Tensor:
        torch.set_default_device("meta")
        torch.set_autocast_enabled("cpu", True)
        return logits.mean()

    again = either.backward(PROMPT, loss, parameters=["layers.1.mlp.up_proj"])[1]
    assert close(again[name], clean[name])


def test_a_child_that_a_probe_forked_does_not_serve(either: RemoteModel, plain: Plain) -> None:
    def forks(save_ctx: Any, tensor: Tensor) -> Tensor | None:
        import os

        child = os.fork()
        if child:
            save_ctx.status = os.waitpid(child, 0)[1]
            return None
        return tensor * 0

    assert close(run(either, forks), plain.logits(PROMPT))
    assert either.recordings()[OUT].status == 0


# -- what it raises ------------------------------------------------------------------------------


def recursion() -> None:
    recursion()


def test_endless_recursion(either: RemoteModel) -> None:
    def deep(save_ctx: Any, tensor: Tensor) -> None:
        recursion()

    with pytest.raises(RecursionError, match="maximum recursion depth") as caught:
        run(either, deep)
    assert isinstance(caught.value, ProbeError)
    assert caught.value.frames[0][2] == "deep"
    assert 1 < len(caught.value.frames) <= 20


class Mute(ValueError):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class Holding(LookupError):
    """An exception that cannot travel."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__("held")
        self.held = threading.Lock()
        self.first, self.second = first, second


def _mute() -> None:
    raise Mute


def _huge() -> None:
    raise ValueError("x" * 50_000_000)


def _holding() -> None:
    raise Holding(1, 2)


def _group() -> None:
    raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])


def _local() -> None:
    class Local(OSError):
        def __reduce__(self) -> Any:
            raise RuntimeError("not to be pickled")

    raise Local("of this call only")


def _stops() -> None:
    raise StopIteration(3)


def _generator_exit() -> None:
    raise GeneratorExit


@pytest.mark.parametrize(
    ("raises", "kind", "message"),
    [
        (_mute, ValueError, r"Mute: \(its __str__ raised ZeroDivisionError\)"),
        (_huge, ValueError, r"x… \(49,980,000 more characters\)"),
        (_holding, LookupError, "Holding: held"),
        (_group, ProbeError, "ExceptionGroup: several"),
        (_local, OSError, "Local: of this call only"),
        (_stops, StopIteration, "StopIteration: 3"),
        (_generator_exit, ProbeError, "GeneratorExit"),
    ],
    ids=[
        "a broken __str__",
        "fifty megabytes of text",
        "one that holds a lock",
        "a group",
        "a class of the call",
        "StopIteration",
        "GeneratorExit",
    ],
)
def test_exceptions_that_are_hard_to_tell(
    either: RemoteModel, raises: Callable[[], None], kind: type[Exception], message: str
) -> None:
    def fails(save_ctx: Any, tensor: Tensor) -> None:
        raises()

    with pytest.raises(kind, match=message) as caught:
        run(either, fails)
    error: Any = caught.value
    assert isinstance(error, ProbeError)
    assert [name for _, _, name in error.frames][:2] == ["fails", raises.__name__]
    assert f"{OUT} [2, 6, 48] float32, whole" in str(error)
    with pytest.raises(kind):  # and in the functions that are no probes
        either.forward(PROMPT, logits=lambda logits: raises())


# -- what it returns -----------------------------------------------------------------------------


class Loud(Tensor):
    """A tensor that raises in everything the model would do with it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("linear", "add", "__add__", "to", "pow", "mul"):
            raise RuntimeError("touched")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_subclass_is_made_plain(either: RemoteModel, plain: Plain) -> None:
    def returns(save_ctx: Any, tensor: Tensor) -> Tensor:
        save_ctx.mine = (tensor + 1).as_subclass(Loud)
        return (tensor + 1).as_subclass(Loud)

    with plain.hooked("model.layers.2.mlp", lambda out: out + 1):
        expected = plain.logits(PROMPT)
    assert close(run(either, returns), expected)
    mine = either.recordings()[OUT].mine
    assert close(mine, plain.output("model.layers.2.mlp", PROMPT) + 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c, t: torch.nested.nested_tensor([t[0], t[1]]), "nested tensor"),
        (
            lambda c, t: torch.nested.nested_tensor([t[0], t[1]], layout=torch.jagged),
            "nested tensor",
        ),
        (lambda c, t: torch.empty_like(t, device="meta"), "device meta"),
        (lambda c, t: t.to_sparse(), "sparse_coo"),
        (lambda c, t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "qint8"),
    ],
    ids=["nested", "jagged", "meta", "sparse", "quantised"],
)
def test_tensors_of_other_kinds(
    either: RemoteModel, wrong: Callable[..., Any], message: str
) -> None:
    with pytest.raises(WrongValue, match=message):
        run(either, wrong)


@pytest.mark.parametrize(
    "same",
    [
        lambda c, t: t.clone().requires_grad_(),
        lambda c, t: torch.nn.Parameter(t.clone()),
        lambda c, t: t[:1, :1, :1].expand_as(t) * 0 + t,
        lambda c, t: t.transpose(0, 1).contiguous().transpose(0, 1),
        lambda c, t: torch.inference_mode()(lambda: t * 1)(),
        lambda c, t: [t.requires_grad_()] and None,
    ],
    ids=["requires grad", "a parameter", "expanded", "strided", "of inference mode", "in place"],
)
def test_odd_tensors_that_are_right(
    either: RemoteModel, plain: Plain, same: Callable[..., Any]
) -> None:
    def odd(save_ctx: Any, tensor: Tensor) -> Any:
        returned = same(save_ctx, tensor)
        save_ctx.returned = tensor if returned is None else returned
        return returned

    assert close(run(either, odd), plain.logits(PROMPT))
    saved = either.recordings()[OUT].returned
    assert close(saved, plain.output("model.layers.2.mlp", PROMPT)) and not saved.requires_grad
    wanted = ["layers.1.mlp.up_proj"]
    clean = either.backward(PROMPT, Tensor.mean, parameters=wanted)[1]
    probes = [either.probe_points[OUT].probe(lambda c, t: t * 1)]
    assert close(
        either.backward(PROMPT, Tensor.mean, probes, parameters=wanted)[1][wanted[0]],
        clean[wanted[0]],
    )


def test_a_row_of_one_value_for_all(either: RemoteModel, plain: Plain) -> None:
    """An expanded tensor has one number in memory, which nothing may write to twice."""
    with plain.hooked("model.layers.2.mlp", lambda out: out[:1, :1, :1].expand_as(out).clone()):
        expected = plain.logits(PROMPT)
    assert close(run(either, lambda c, t: t[:1, :1, :1].expand_as(t)), expected)


def test_not_a_number_stays_in_its_request(either: RemoteModel) -> None:
    assert run(either, lambda c, t: t * np.nan).isnan().all()


# -- what it saves -------------------------------------------------------------------------------


def test_a_save_context_that_holds_itself(either: RemoteModel) -> None:
    def cyclic(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.good = tensor
        save_ctx.me = save_ctx
        save_ctx.ring = []
        save_ctx.ring.append(save_ctx.ring)
        save_ctx.knot = {}
        save_ctx.knot["a"] = [save_ctx.knot]
        save_ctx.rule = lambda value: value + 1
        save_ctx.rows = (row for row in tensor)
        save_ctx.meta = torch.empty(3, device="meta")
        with torch.inference_mode():
            save_ctx.inferred = tensor * 2
        save_ctx.thread = threading.current_thread()

    run(either, cyclic)
    recording = either.recordings()[OUT]
    assert recording.good.shape == (2, 6, 48)
    assert recording.rule(1) == 2 and close(recording.inferred, recording.good * 2)
    ring, knot = recording.ring, recording.knot
    assert ring[0] is ring and knot["a"][0] is knot
    for name in ("me", "rows", "meta", "thread"):
        with pytest.raises(CannotTravel, match=rf"layers\.2\.mlp\.out\.{name} cannot be fetched"):
            getattr(recording, name)
    run(either, keep)  # on top of what a snapshot holds and nobody can copy
    assert either.recordings()[OUT].tensor.shape == (2, 6, 48)


def test_a_list_that_contains_itself_is_kept_as_one(either: RemoteModel) -> None:
    def saves(save_ctx: Any, tensor: Tensor) -> None:
        ring: list[Any] = [tensor]
        ring.append(ring)
        save_ctx.ring = ring
        tensor.zero_()

    run(either, keep)
    clean = either.recordings()[OUT].tensor
    run(either, saves)
    ring = either.recordings()[OUT].ring
    assert ring[1] is ring and close(ring[0], clean)


def test_objects_that_leave_when_they_are_looked_at(either: RemoteModel) -> None:
    class Leaves:
        def __reduce__(self) -> Any:
            raise SystemExit(1)

        def __deepcopy__(self, memo: Any) -> Any:
            raise SystemExit(1)

        def __repr__(self) -> str:
            raise SystemExit(1)

    def saves(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.leaves = Leaves()
        save_ctx.tensor = tensor

    run(either, saves)
    recording = either.recordings()[OUT]
    with pytest.raises(CannotTravel, match="leaves cannot be fetched"):
        recording.leaves  # noqa: B018
    run(either, keep)
    assert recording.tensor.shape == (2, 6, 48)
    run(either, lambda save_ctx, tensor: None, point=NEURONS, sharded=True)
