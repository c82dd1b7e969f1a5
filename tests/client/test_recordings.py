"""What probes save: save contexts, snapshots, handles, shards, and the contracts of probes."""

from __future__ import annotations

import collections
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from garcon_jupyter import (
    BadProbe,
    BadRequest,
    NoRecording,
    RemoteModel,
    UnknownPoint,
    WrongValue,
)
from tests.oracle import PROMPT, Plain, close

NEURONS = "layers.2.mlp.post_activation"
OUT = "layers.2.mlp.out"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def ablate(save_ctx: Any, tensor: Tensor) -> None:
    tensor[:, :, 5] = 0


def double(save_ctx: Any, tensor: Tensor) -> Tensor:
    return tensor * 2


# -- which probes run ----------------------------------------------------------------------------


def test_a_change_in_place_and_a_returned_value_are_the_same_edit(
    either: RemoteModel, plain: Plain
) -> None:
    def replaced(save_ctx: Any, tensor: Tensor) -> Tensor:
        new = tensor.clone()
        new[:, :, 5] = 0
        return new

    def unit_five(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        new = args[0].clone()
        new[:, :, 5] = 0
        return (new,)

    handle = plain.module("model.layers.2.mlp.down_proj").register_forward_pre_hook(unit_five)
    expected = plain.logits(PROMPT)
    handle.remove()
    point = either.probe_points[NEURONS]
    assert close(either.forward(PROMPT, probes=[point.probe(ablate)]), expected)
    assert close(either.forward(PROMPT, probes=[point.probe(replaced)]), expected)
    assert not close(expected, plain.logits(PROMPT), 1e-3)


def test_rebinding_edits_nothing(rmodel: RemoteModel, plain: Plain) -> None:
    def rebound(save_ctx: Any, tensor: Tensor) -> None:
        tensor = tensor * 0

    logits = rmodel.forward(PROMPT, probes=[rmodel.probe_points[NEURONS].probe(rebound)])
    assert close(logits, plain.logits(PROMPT))


def test_attached_probes_apply_only_where_no_probes_are_given(
    rmodel: RemoteModel, plain: Plain
) -> None:
    rmodel.attach(rmodel.probe_points[NEURONS].probe(ablate))
    clean, edited = plain.logits(PROMPT), rmodel.forward(PROMPT)
    assert not close(edited, clean, 1e-3)
    assert close(rmodel.forward(PROMPT, probes=[]), clean)
    other = rmodel.probe_points[OUT].probe(keep)
    assert close(rmodel.forward(PROMPT, probes=[other]), clean)
    assert close(rmodel.forward(PROMPT, logits="last"), edited[:, -1])
    rmodel.detach(NEURONS)
    assert close(rmodel.forward(PROMPT), clean)


def test_attached_probes_apply_to_every_kind_of_pass(rmodel: RemoteModel) -> None:
    def count(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.runs = getattr(save_ctx, "runs", 0) + 1

    rmodel.attach(rmodel.probe_points[OUT].probe(count))
    rmodel.forward(PROMPT, logits="none")
    rmodel.backward(PROMPT, Tensor.mean)
    rmodel.generate(PROMPT, max_new_tokens=2)
    assert rmodel.recordings()[OUT].runs == 4
    rmodel.generate(PROMPT, max_new_tokens=2, probes=[])
    rmodel.backward(PROMPT, Tensor.mean, probes=[])
    rmodel.look(PROMPT).fetch(NEURONS)
    assert rmodel.recordings()[OUT].runs == 4


def test_attaching_again_replaces(rmodel: RemoteModel) -> None:
    point = rmodel.probe_points[NEURONS]
    rmodel.attach(point.probe(ablate), point.probe(keep, name="kept"))
    rmodel.attach(point.probe(keep))
    assert [key[2] for key in rmodel.attached] == [None, "kept"]
    rmodel.forward(PROMPT, logits="none")
    assert set(rmodel.recordings()) == {NEURONS, (NEURONS, "kept")}


def test_probes_run_in_list_order_and_share_their_context(
    either: RemoteModel, plain: Plain
) -> None:
    def first(save_ctx: Any, tensor: Tensor) -> Tensor:
        save_ctx.trace = ["first"]
        save_ctx.before = tensor
        return tensor + 1

    def second(save_ctx: Any, tensor: Tensor) -> Tensor:
        save_ctx.trace.append("second")
        save_ctx.between = tensor
        return tensor * 2

    def last(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.after = tensor

    point = either.probe_points[OUT]
    either.forward(
        PROMPT, probes=[point.probe(first), point.probe(second), point.probe(last, name="other")]
    )
    recorded = either.recordings()
    clean = plain.output("model.layers.2.mlp", PROMPT)
    assert recorded[OUT].trace == ["first", "second"]
    assert close(recorded[OUT].before, clean)
    assert close(recorded[OUT].between, clean + 1)
    assert recorded[OUT, "other"].keys() == ["after"]
    assert close(recorded[OUT, "other"].after, (clean + 1) * 2)


def test_a_probe_runs_once_whatever_the_degree(either: RemoteModel) -> None:
    def count(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.runs = getattr(save_ctx, "runs", 0) + 1
        save_ctx.shape = list(tensor.shape)

    probe = either.probe_points[NEURONS].probe(count)
    for expected in (1, 2, 3):
        either.forward(PROMPT, probes=[probe], logits="none")
        assert either.recordings()[NEURONS].runs == expected
    assert either.recordings()[NEURONS].shape == [2, 6, 80]


# -- what is saved stays as it was ---------------------------------------------------------------


def test_saved_then_ablated_by_the_same_probe(either: RemoteModel, plain: Plain) -> None:
    def both(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.tensor = tensor
        save_ctx.rows = [tensor[0], tensor[1]]
        save_ctx.by_name = {"all": tensor, "nested": [(tensor,)]}
        tensor[:] = 0

    either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(both)])
    saved, clean = either.recordings()[NEURONS], plain.neurons(2, PROMPT)
    assert close(saved.tensor, clean)
    assert close(saved.rows[1], clean[1])
    assert close(saved.by_name["all"], clean)
    assert close(saved.by_name["nested"][0][0], clean)


def test_gathered_then_ablated_by_the_same_probe(either: RemoteModel, plain: Plain) -> None:
    def both(save_ctx: Any, tensor: Tensor) -> None:
        if not hasattr(save_ctx, "rows"):
            save_ctx.rows, save_ctx.named = [], {}
        save_ctx.rows.append(tensor)
        save_ctx.named["view"] = tensor[:, 1]
        save_ctx.array = tensor.numpy()
        tensor[:] = 0
        save_ctx.rows.append(tensor)

    point = either.probe_points[NEURONS]
    for _ in range(2):
        either.forward(PROMPT, probes=[point.probe(both)])
        saved, clean = either.recordings()[NEURONS], plain.neurons(2, PROMPT)
        assert clean.abs().max() > 0
        assert close(saved.named["view"], clean[:, 1])
        assert close(torch.from_numpy(saved.array), clean)
    assert type(saved.rows) is list and len(saved.rows) == 4
    for before, after in (saved.rows[:2], saved.rows[2:]):
        assert close(before, clean) and not after.any()


def test_what_cannot_be_told_is_refused(either: RemoteModel) -> None:
    def hides(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.queue = collections.deque()
        save_ctx.queue.append(tensor)
        tensor[:] = 0

    with pytest.raises(WrongValue, match="save_ctx.queue was given is the tensor itself"):
        either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(hides)])


def gathered(save_ctx: Any, tensor: Tensor) -> None:
    """Puts the value into containers without an assignment to the context."""
    if not hasattr(save_ctx, "rows"):
        save_ctx.rows, save_ctx.deep, save_ctx.named = [], {"a": []}, {}
    save_ctx.rows.append(tensor)
    save_ctx.deep["a"].append((tensor, {"view": tensor[:, 1]}))
    save_ctx.named["x"] = tensor.view(-1)


def test_saved_then_ablated_by_a_later_probe(either: RemoteModel, plain: Plain) -> None:
    point = either.probe_points[NEURONS]
    either.forward(
        PROMPT, probes=[point.probe(keep), point.probe(gathered), point.probe(ablate, name="a")]
    )
    saved, clean = either.recordings()[NEURONS], plain.neurons(2, PROMPT)
    assert clean[..., 5].abs().max() > 0
    assert close(saved.tensor, clean)
    assert close(saved.rows[0], clean)
    assert close(saved.deep["a"][0][0], clean)
    assert close(saved.deep["a"][0][1]["view"], clean[:, 1])
    assert close(saved.named["x"], clean.view(-1))


def test_what_was_saved_of_a_returned_value_stays_too(either: RemoteModel, plain: Plain) -> None:
    def doubled(save_ctx: Any, tensor: Tensor) -> Tensor:
        new = tensor * 2
        save_ctx.rows = []
        save_ctx.rows.append(new)
        return new

    point = either.probe_points[NEURONS]
    either.forward(PROMPT, probes=[point.probe(doubled), point.probe(ablate, name="a")])
    assert close(either.recordings()[NEURONS].rows[0], 2 * plain.neurons(2, PROMPT))


def test_saved_gradients_stay_too(rmodel: RemoteModel) -> None:
    def gathered_gradient(save_ctx: Any, gradient: Tensor) -> None:
        save_ctx.rows = []
        save_ctx.rows.append(gradient)

    point = rmodel.probe_points[NEURONS]
    loss = torch.Tensor.mean
    rmodel.backward(PROMPT, loss, probes=[point.probe(keep, grad=True, name="clean")])
    rmodel.backward(
        PROMPT,
        loss,
        probes=[
            point.probe(gathered_gradient, grad=True),
            point.probe(ablate, grad=True, name="a"),
        ],
    )
    recorded = rmodel.recordings()
    assert close(recorded[NEURONS].rows[0], recorded[NEURONS, "clean"].tensor)


def test_saved_values_are_off_the_graph(rmodel: RemoteModel) -> None:
    rmodel.backward(PROMPT, torch.Tensor.mean, probes=[rmodel.probe_points[NEURONS].probe(keep)])
    tensor = rmodel.recordings()[NEURONS].tensor
    assert not tensor.requires_grad
    tensor[0] = 5  # and the notebook's own


def test_state_persists_over_requests(either: RemoteModel, plain: Plain) -> None:
    def accumulate(save_ctx: Any, tensor: Tensor) -> None:
        total = tensor.sum((0, 1))
        save_ctx.total = total if not hasattr(save_ctx, "total") else save_ctx.total + total

    probe = either.probe_points[NEURONS].probe(accumulate)
    for _ in range(3):
        either.forward(PROMPT, probes=[probe], logits="none")
    expected = 3 * plain.neurons(2, PROMPT).sum((0, 1))
    assert close(either.recordings()[NEURONS].total, expected)


# -- snapshots -----------------------------------------------------------------------------------


def test_two_snapshots_differ_even_when_fetched_last(either: RemoteModel) -> None:
    def mutate(save_ctx: Any, tensor: Tensor) -> None:
        if not hasattr(save_ctx, "rows"):
            save_ctx.rows, save_ctx.deep, save_ctx.running = [], {"n": [0]}, torch.zeros(())
        save_ctx.rows.append(len(save_ctx.rows))
        save_ctx.deep["n"][0] += 1
        save_ctx.running += 1  # in place
        save_ctx.latest = tensor[0, 0, 0] + len(save_ctx.rows)

    probe = either.probe_points[NEURONS].probe(mutate)
    snapshots = []
    for _ in range(3):
        either.forward(PROMPT, probes=[probe], logits="none")
        snapshots.append(either.recordings()[NEURONS])
    either.clear_recordings()
    assert [s.rows for s in snapshots] == [[0], [0, 1], [0, 1, 2]]
    assert [s.deep["n"] for s in snapshots] == [[1], [2], [3]]
    assert [float(s.running) for s in snapshots] == [1, 2, 3]
    assert len({float(s.latest) for s in snapshots}) == 3


def test_a_snapshot_survives_what_cannot_be_copied(either: RemoteModel) -> None:
    """A value that no copy can be made of must not break the probes that go on."""

    def held(save_ctx: Any, tensor: Tensor) -> None:
        if not hasattr(save_ctx, "source_of_numbers"):
            save_ctx.source_of_numbers = iter(n for n in range(100))
        save_ctx.number = next(save_ctx.source_of_numbers)

    probe = either.probe_points[NEURONS].probe(held)
    numbers = []
    for _ in range(3):
        either.forward(PROMPT, probes=[probe], logits="none")
        numbers.append(either.recordings()[NEURONS])
    assert [r.number for r in numbers] == [0, 1, 2]


def test_nothing_is_fetched_until_it_is_touched(rmodel: RemoteModel) -> None:
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[NEURONS].probe(keep)], logits="none")
    recording = rmodel.recordings()[NEURONS]
    assert recording._fetched == {}
    assert "tensor: Tensor [2, 6, 80] float32" in repr(recording)
    assert recording.tensor is recording.tensor


def test_released_snapshots_are_forgotten(rmodel: RemoteModel) -> None:
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[NEURONS].probe(keep)], logits="none")
    handle = rmodel.recordings()[NEURONS].handle("tensor")
    rmodel.forward(PROMPT, probes=[], logits="none")
    assert handle.fetch().shape == (2, 6, 80)  # it keeps the snapshot by itself
    handle._owner = None
    # The snapshot is gone, without the collector, and the next request says so.
    rmodel.forward(PROMPT, probes=[], logits="none")
    with pytest.raises(NoRecording, match="released"):
        handle.fetch()
    assert rmodel.recordings()[NEURONS].tensor.shape == (2, 6, 80)


def test_clearing_by_point_by_name_and_all(rmodel: RemoteModel) -> None:
    points = [rmodel.probe_points[f"layers.{n}.mlp.out"] for n in (0, 1)]
    rmodel.forward(PROMPT, probes=[p.probe(keep) for p in points])
    rmodel.forward(PROMPT, probes=[points[0].probe(keep, name="mine")])
    before = rmodel.recordings()
    rmodel.clear_recordings(name="mine")
    assert set(rmodel.recordings()) == {"layers.0.mlp.out", "layers.1.mlp.out"}
    rmodel.clear_recordings("layers.0.mlp.*")
    assert set(rmodel.recordings()) == {"layers.1.mlp.out"}
    rmodel.clear_recordings()
    assert len(rmodel.recordings()) == 0
    assert before["layers.0.mlp.out", "mine"].tensor.shape == (2, 6, 48)


def test_what_is_not_recorded_says_what_is(rmodel: RemoteModel) -> None:
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[NEURONS].probe(keep)])
    recorded = rmodel.recordings()
    with pytest.raises(NoRecording, match=r"Nothing is recorded at layers\.0\.mlp\.out.*Recorded"):
        recorded["layers.0.mlp.out"]
    with pytest.raises(UnknownPoint, match="Did you mean"):
        recorded["layers.2.mlp.post_activations"]
    with pytest.raises(AttributeError, match="Saved there: tensor"):
        recorded[NEURONS].tensr  # noqa: B018
    assert NEURONS in recorded and "layers.0.mlp.out" not in recorded
    assert recorded.get("layers.0.mlp.out") is None


def test_names_that_are_ours_too_can_be_saved(rmodel: RemoteModel) -> None:
    def many(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.keys, save_ctx.values, save_ctx.handle = 1, 2, 3

    rmodel.forward(PROMPT, probes=[rmodel.probe_points[NEURONS].probe(many)])
    recording = rmodel.recordings()[NEURONS]
    assert (recording.keys, recording.values, recording.handle) == (1, 2, 3)


@pytest.mark.parametrize("name", ["here", "params", "source", "shard"])
def test_names_that_garcon_uses_are_refused(rmodel: RemoteModel, name: str) -> None:
    def overwrite(save_ctx: Any, tensor: Tensor) -> None:
        setattr(save_ctx, name, tensor)

    with pytest.raises(AttributeError, match=f"{name}.*another name"):
        rmodel.forward(PROMPT, probes=[rmodel.probe_points[NEURONS].probe(overwrite)])


# -- handles -------------------------------------------------------------------------------------


def test_handles_are_cut_and_reduced_on_the_server(either: RemoteModel, plain: Plain) -> None:
    either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(keep)], logits="none")
    handle = either.recordings(fetch=False)[NEURONS].tensor
    clean = plain.neurons(2, PROMPT)
    assert (handle.shape, handle.dtype, handle.nbytes) == ((2, 6, 80), "float32", 2 * 6 * 80 * 4)
    assert close(handle.fetch(), clean)
    assert close(handle[:, -2:].fetch(), clean[:, -2:])
    assert close(handle[0].mean(0).fetch(), clean[0].mean(0))
    assert close(handle[..., 3].fetch(), clean[..., 3])
    assert close(handle.norm(dim=-1).fetch(), clean.norm(dim=-1))
    assert torch.equal(handle.topk(4).fetch().indices, clean.topk(4).indices)


def test_several_handles_travel_in_one_go_and_in_another_dtype(
    either: RemoteModel, plain: Plain
) -> None:
    points = [NEURONS, "layers.0.attn.z"]
    either.forward(PROMPT, probes=[either.probe_points[p].probe(keep) for p in points])
    recorded = either.recordings(fetch=False)
    handles = [recorded[p].tensor for p in points]
    one, two = either.fetch(*handles)
    assert close(one, plain.neurons(2, PROMPT)) and two.shape == (2, 6, 6, 16)
    half, _ = either.fetch(*handles, dtype=torch.float16)
    assert half.dtype == torch.float16
    assert torch.equal(half, one.half())
    assert either.fetch(handles[0], dtype="bfloat16").dtype == torch.bfloat16


def test_a_cut_that_is_impossible_is_the_users_mistake(either: RemoteModel) -> None:
    either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(keep)])
    handle = either.recordings(fetch=False)[NEURONS].tensor
    with pytest.raises(BadRequest, match=r"post_activation\.tensor.*(out of bounds|index 99)"):
        handle[99].fetch()
    with pytest.raises(BadRequest, match="float99"):
        handle.fetch(dtype="float99")
    with pytest.raises(AttributeError, match="reduced by"):
        handle.tolist()
    assert handle[0].fetch().shape == (6, 80)


# -- what a probe knows --------------------------------------------------------------------------


def test_here_says_where_it_is(either: RemoteModel) -> None:
    def note(save_ctx: Any, tensor: Tensor) -> None:
        here = save_ctx.here
        save_ctx.point, save_ctx.layer, save_ctx.step = here.point, here.layer, here.step
        save_ctx.tokens, save_ctx.mask, save_ctx.positions = here.tokens, here.mask, here.positions
        save_ctx.no_shard = here.shard is None

    tokens = either.encode(["Hi", "Hi there"], padding="left")
    either.forward(tokens, probes=[either.probe_points[NEURONS].probe(note)])
    saved = either.recordings()[NEURONS]
    assert (saved.point, saved.layer, saved.step, saved.no_shard) == (NEURONS, 2, 0, True)
    assert torch.equal(saved.tokens, tokens.ids)
    assert torch.equal(saved.mask, tokens.mask)
    padding = int((~tokens.mask[0]).sum())
    assert saved.positions[0, padding:].tolist() == list(range(tokens.lengths[0]))
    assert saved.positions[1].tolist() == list(range(tokens.lengths[1]))


def noise(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.own = torch.rand(4, generator=save_ctx.here.generator)
    save_ctx.torch = torch.rand(4)
    save_ctx.numpy = np.random.rand(4).tolist()
    save_ctx.python = [random.random() for _ in range(4)]


def drawn(model: RemoteModel, seed: int, point: str = NEURONS) -> list[Any]:
    model.forward(PROMPT, probes=[model.probe_points[point].probe(noise)], seed=seed)
    saved = model.recordings()[point]
    return [saved.own.tolist(), saved.torch.tolist(), saved.numpy, saved.python]


def test_the_same_seed_gives_the_same_randomness(
    rmodel: RemoteModel, rmodel_tp2: RemoteModel
) -> None:
    first = drawn(rmodel, 3)
    assert drawn(rmodel, 3) == first
    assert drawn(rmodel_tp2, 3) == first
    other = drawn(rmodel, 4)
    elsewhere = drawn(rmodel, 3, OUT)
    for one, two, three in zip(first, other, elsewhere, strict=True):
        assert one != two and one != three


def test_the_servers_own_randomness_is_untouched(rmodel: RemoteModel) -> None:
    def peek() -> str:
        code = "import numpy, random\nprint(hash((torch.get_rng_state().numpy().tobytes(), "
        code += "str(numpy.random.get_state()), str(random.getstate()))))"
        return printed(rmodel, code)

    def loss(logits: Tensor) -> Tensor:
        return (logits * torch.rand(logits.shape[-1])).mean()

    before = peek()
    drawn(rmodel, 3)
    rmodel.generate(PROMPT, max_new_tokens=2, do_sample=True)
    rmodel.forward(PROMPT, logits=lambda logits: torch.rand(3))
    rmodel.backward(PROMPT, loss)
    assert peek() == before


def printed(model: RemoteModel, code: str) -> str:
    """What code prints on rank 0."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        model.run_on_ranks(code)
    return text.getvalue()


def test_losses_and_logits_functions_are_seeded_too(rmodel: RemoteModel) -> None:
    def loss(logits: Tensor) -> Tensor:
        return (logits * torch.rand(logits.shape[-1])).mean()

    assert rmodel.backward(PROMPT, loss, seed=1) == rmodel.backward(PROMPT, loss, seed=1)
    assert rmodel.backward(PROMPT, loss, seed=1) != rmodel.backward(PROMPT, loss, seed=2)

    def pick(logits: Tensor) -> Tensor:
        return torch.rand(3)

    first = rmodel.forward(PROMPT, logits=pick, seed=1)
    assert torch.equal(first, rmodel.forward(PROMPT, logits=pick, seed=1))


def test_free_variables_are_those_of_the_moment(rmodel: RemoteModel, plain: Plain) -> None:
    factor = torch.tensor(2.0)
    seen: list[int] = []

    def scaled(save_ctx: Any, tensor: Tensor) -> Tensor:
        seen.append(len(seen))
        save_ctx.seen = list(seen)
        return tensor * factor

    probe = rmodel.probe_points[OUT].probe(scaled)
    factor *= 0
    seen.append(100)
    with plain.hooked("model.layers.2.mlp", lambda out: out * 2):
        expected = plain.logits(PROMPT)
    for _ in range(2):  # and what the function does to them does not outlive the request
        assert close(rmodel.forward(PROMPT, probes=[probe]), expected)
        assert rmodel.recordings()[OUT].seen == [0]
    assert seen == [100]
    assert "factor" in repr(probe) and "bytes" in repr(probe)


def test_params_give_a_logit_lens(either: RemoteModel, plain: Plain) -> None:
    point = "layers.1.resid_post"

    def lens(save_ctx: Any, tensor: Tensor) -> None:
        gain = save_ctx.params["final_norm.weight"]
        scale = (tensor.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
        save_ctx.logits = (tensor * scale * gain) @ save_ctx.params["unembed.weight"].T

    names = ["unembed.weight", "final_norm.weight"]
    either.forward(PROMPT, probes=[either.probe_points[point].probe(lens, params=names)])
    hidden = plain.model(torch.tensor(PROMPT), output_hidden_states=True).hidden_states[2]
    with torch.no_grad():
        expected = plain.model.lm_head(plain.model.model.norm(hidden))
    assert plain.model.config.rms_norm_eps == 1e-6
    assert close(either.recordings()[point].logits, expected)


def test_a_probe_cannot_damage_the_parameters_it_is_given(
    either: RemoteModel, plain: Plain
) -> None:
    def vandal(save_ctx: Any, tensor: Tensor) -> None:
        for weight in save_ctx.params.values():
            weight.zero_()

    names = ["unembed.weight", "layers.3.mlp.up_proj", "final_norm.weight"]
    probe = either.probe_points["layers.1.resid_post"].probe(vandal, params=names)
    either.forward(PROMPT, probes=[probe])
    assert close(either.forward(PROMPT, probes=[]), plain.logits(PROMPT))


def patched(save_ctx: Any, tensor: Tensor) -> Tensor:
    return save_ctx.source.tensor


def test_an_earlier_recording_is_patched_in_on_the_server(
    either: RemoteModel, plain: Plain
) -> None:
    point = either.probe_points[OUT]
    other = [row[::-1] for row in PROMPT]
    either.forward(other, probes=[point.probe(keep)])
    source = either.recordings(fetch=False)[OUT]
    either.clear_recordings()
    patch = point.probe(patched, source=source)
    logits = either.forward(PROMPT, probes=[patch])
    donor = plain.output("model.layers.2.mlp", other)
    with plain.hooked("model.layers.2.mlp", lambda out: donor):
        expected = plain.logits(PROMPT)
    assert close(logits, expected)
    # A later probe that edits the patched value in place leaves the recording as it is.
    either.forward(PROMPT, probes=[patch, point.probe(ablate, name="a")])
    assert close(source.handle("tensor").fetch(), donor)


def test_a_source_that_was_released_says_so(rmodel: RemoteModel) -> None:
    point = rmodel.probe_points[OUT]
    rmodel.forward(PROMPT, probes=[point.probe(keep)])
    patch = point.probe(patched, source=rmodel.recordings()[OUT])
    rmodel.forward(PROMPT, probes=[])
    with pytest.raises(NoRecording, match="released"):
        rmodel.forward(PROMPT, probes=[patch])


# -- shards --------------------------------------------------------------------------------------


def shard(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor
    save_ctx.total = tensor.sum()
    save_ctx.where = torch.tensor([[save_ctx.shard.start, save_ctx.shard.stop or 0]])


def test_shards_are_put_together(either: RemoteModel, plain: Plain) -> None:
    either.forward(PROMPT, probes=[either.probe_points[NEURONS].probe(shard, sharded=True)])
    clean = plain.neurons(2, PROMPT)
    handle = either.recordings(fetch=False)[NEURONS].tensor
    assert handle.shape == (2, 6, 80)
    assert close(handle.fetch(), clean)
    assert close(handle[..., 60].fetch(), clean[..., 60])
    assert close(handle.sum(-1).fetch(), clean.sum(-1))
    assert handle.fetch(dtype="float16").shape == (2, 6, 80)


def test_heads_are_put_together_along_their_own_dimension(
    either: RemoteModel, rmodel: RemoteModel
) -> None:
    points = ["layers.1.attn.pattern", "layers.1.attn.k", "layers.1.attn.z"]
    for model in (either, rmodel):
        sharded = model is either
        model.forward(
            PROMPT, probes=[model.probe_points[p].probe(keep, sharded=sharded) for p in points]
        )
    for point in points:
        whole = rmodel.recordings()[point].tensor
        assert close(either.recordings()[point].tensor, whole), point


def test_sums_of_shards(either: RemoteModel, plain: Plain) -> None:
    probe = either.probe_points[NEURONS].probe(shard, sharded=True, merge="sum")
    either.forward(PROMPT, probes=[probe])
    assert close(either.recordings()[NEURONS].total, plain.neurons(2, PROMPT).sum(), 1e-4)


def test_the_largest_over_all_shards(either: RemoteModel, plain: Plain) -> None:
    def largest(save_ctx: Any, tensor: Tensor) -> None:
        best = tensor.topk(5, -1)
        indices = best.indices + save_ctx.shard.start
        save_ctx.best = {"values": best.values, "indices": indices}

    probe = either.probe_points[NEURONS].probe(largest, sharded=True, merge="topk")
    either.forward(PROMPT, probes=[probe])
    best, expected = either.recordings()[NEURONS].best, plain.neurons(2, PROMPT).topk(5, -1)
    assert close(best["values"], expected.values)
    assert torch.equal(best["indices"], expected.indices)


def test_a_merge_of_the_users_own(either: RemoteModel, plain: Plain) -> None:
    probe = either.probe_points[NEURONS].probe(
        shard, sharded=True, merge=lambda parts: torch.stack([p.max() for p in parts]).max()
    )
    either.forward(PROMPT, probes=[probe])
    assert close(either.recordings()[NEURONS].tensor, plain.neurons(2, PROMPT).max())


def test_a_merge_that_raises_is_the_users_error(rmodel_tp2: RemoteModel) -> None:
    probe = rmodel_tp2.probe_points[NEURONS].probe(
        shard, sharded=True, merge=lambda parts: parts[7]
    )
    rmodel_tp2.forward(PROMPT, probes=[probe])
    with pytest.raises(IndexError, match="merge"):
        rmodel_tp2.recordings()[NEURONS].tensor  # noqa: B018
    assert rmodel_tp2.forward(PROMPT, probes=[]).shape == (2, 6, 263)


def test_a_replicated_value_has_one_shard(either: RemoteModel, plain: Plain) -> None:
    either.forward(PROMPT, probes=[either.probe_points[OUT].probe(keep, sharded=True)])
    expected = plain.output("model.layers.2.mlp", PROMPT)
    assert close(either.recordings()[OUT].tensor, expected)


def test_edits_of_shards_are_edits_of_the_whole(either: RemoteModel, plain: Plain) -> None:
    def by_shard(save_ctx: Any, tensor: Tensor) -> None:
        first = save_ctx.shard.start or 0
        units = torch.arange(first, first + tensor.shape[-1])
        tensor[..., (units == 5) | (units == 70)] = 0

    def whole(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        new = args[0].clone()
        new[..., [5, 70]] = 0
        return (new,)

    handle = plain.module("model.layers.2.mlp.down_proj").register_forward_pre_hook(whole)
    expected = plain.logits(PROMPT)
    handle.remove()
    probe = either.probe_points[NEURONS].probe(by_shard, sharded=True)
    assert close(either.forward(PROMPT, probes=[probe]), expected)


def test_a_whole_probe_after_a_sharded_one_is_whole(either: RemoteModel, plain: Plain) -> None:
    point, clean = either.probe_points[NEURONS], plain.neurons(2, PROMPT)
    either.forward(PROMPT, probes=[point.probe(shard, sharded=True)])
    sharded = either.recordings()
    either.forward(PROMPT, probes=[point.probe(keep)])
    whole = either.recordings()
    assert close(whole[NEURONS].tensor, clean)
    assert close(sharded[NEURONS].tensor, clean)  # taken before, fetched after
    either.forward(PROMPT, probes=[point.probe(shard, sharded=True)])
    assert close(either.recordings()[NEURONS].tensor, clean)


def test_shards_that_no_rule_fits_say_so(rmodel_tp2: RemoteModel) -> None:
    probe = rmodel_tp2.probe_points[NEURONS].probe(shard, sharded=True)
    rmodel_tp2.forward(PROMPT, probes=[probe])
    with pytest.raises(BadRequest, match=r"total.*cannot be put together.*rule"):
        rmodel_tp2.recordings()[NEURONS].total  # noqa: B018


# -- probes that make no sense -------------------------------------------------------------------


def test_options_that_make_no_sense_are_refused(rmodel: RemoteModel) -> None:
    point = rmodel.probe_points[NEURONS]
    with pytest.raises(BadProbe, match="no merge rule 'best'"):
        point.probe(keep, sharded=True, merge="best")
    with pytest.raises(BadProbe, match="sharded=True"):
        point.probe(keep, merge="sum")
    with pytest.raises(BadProbe, match="4 points"):
        rmodel.probe_points["layers.*.mlp.out"].probe(keep)
    with pytest.raises(BadProbe, match="not a str"):
        point.probe("save it")  # type: ignore[arg-type]
    with pytest.raises(BadProbe, match="is no probe"):
        rmodel.forward(PROMPT, probes=[keep])  # type: ignore[list-item]
    with pytest.raises(BadProbe, match="list"):
        rmodel.forward(PROMPT, probes=point.probe(keep))  # type: ignore[arg-type]
    assert len(rmodel.probe_points["layers.*.mlp.out"].probes(keep)) == 4


def test_a_read_only_probe_that_edits_is_refused(either: RemoteModel, plain: Plain) -> None:
    point = either.probe_points[NEURONS]
    for edit in (ablate, double):
        with pytest.raises(TypeError, match="read-only probe edited"):
            either.forward(PROMPT, probes=[point.probe(edit, read_only=True)])
    logits = either.forward(PROMPT, probes=[point.probe(keep, read_only=True)])
    assert close(logits, plain.logits(PROMPT))


# -- many points at once -------------------------------------------------------------------------


def test_a_pattern_is_a_part_of_the_recordings(rmodel: RemoteModel) -> None:
    points = rmodel.probe_points["layers.*.mlp.out"]
    named = rmodel.probe_points[OUT].probe(keep, name="again")
    rmodel.forward(PROMPT, probes=[*points.probes(keep), named], logits="none")
    recordings = rmodel.recordings()
    assert list(recordings["layers.1-2.mlp.out"]) == ["layers.1.mlp.out", OUT]
    assert recordings["layers.*.mlp.out"][OUT] is recordings[OUT]
    assert list(recordings["layers.*.mlp.out", "again"]) == [(OUT, "again")]
    with pytest.raises(NoRecording, match=r"Nothing is recorded at layers\.\*\.attn\.z"):
        recordings["layers.*.attn.z"]
    with pytest.raises(UnknownPoint, match=r"layers\.0\.mlp\.outt"):
        recordings["layers.*.mlp.outt"]
    for wrong in (0, None, ("a", 1), ("a", "b", "c")):
        with pytest.raises(BadRequest, match="is no key of recordings"):
            recordings[wrong]  # type: ignore[index]


def test_what_all_layers_saved_is_one_tensor(either: RemoteModel, plain: Plain) -> None:
    def last_row(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.score = tensor[:, :, -1]
        save_ctx.largest = tensor.max().item()
        save_ctx.note = "no number"

    expected = torch.stack([plain.output(f"model.layers.{n}.mlp", PROMPT) for n in range(4)])
    modules = either.probe_points["module:model.layers.*.mlp.output"].probes(keep)
    patterns = either.probe_points["layers.*.attn.pattern"].probes(last_row, name="rows")
    either.forward(PROMPT, probes=[*modules, *patterns], logits="none")
    recordings = either.recordings()
    assert close(recordings.stack("module:model.layers.*.mlp.output"), expected)
    scores = recordings.stack("layers.*.attn.pattern", "score", name="rows")
    largest = recordings.stack("layers.*.attn.pattern", "largest", name="rows")
    assert scores.shape == (4, 2, 6, 6)
    for layer in range(4):
        one = recordings[f"layers.{layer}.attn.pattern", "rows"]
        assert torch.equal(scores[layer], one.score) and largest[layer] == one.largest
    assert not torch.equal(scores[0], scores[1])
    with pytest.raises(BadRequest, match="is a str, which cannot be stacked"):
        recordings.stack("layers.*.attn.pattern", "note", name="rows")
    with pytest.raises(NoRecording, match="has no 'scores'.*score, largest, note"):
        recordings.stack("layers.*.attn.pattern", "scores", name="rows")


def test_a_stack_has_every_point_at_its_place(rmodel: RemoteModel) -> None:
    """Layer 2 must not be found at place 0 because layers 0 and 1 have no recording."""
    points = rmodel.probe_points["layers.2-3.mlp.out"]
    wide = rmodel.probe_points["layers.2.mlp.post_activation"].probe(keep)
    rmodel.forward(PROMPT, probes=[*points.probes(keep), wide], logits="none")
    recordings = rmodel.recordings()
    with pytest.raises(NoRecording, match=r"at 2: layers\.0\.mlp\.out, layers\.1\.mlp\.out"):
        recordings.stack("layers.*.mlp.out")
    assert torch.equal(
        recordings.stack("layers.2-3.mlp.out")[1], recordings["layers.3.mlp.out"].tensor
    )
    with pytest.raises(
        BadRequest,
        match=r"\[2, 6, 80\] at layers.2.mlp.post_activation and \[2, 6, 48\]|\[2, 6, 48\] at layers.2.mlp.out and \[2, 6, 80\]",
    ):
        recordings.stack("layers.2.mlp.{out,post_activation}")
