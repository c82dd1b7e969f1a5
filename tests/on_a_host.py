"""What a notebook on a host does with a server: ``python tests/on_a_host.py SERVER IDS FILE``.

Its numbers go into FILE, for a test to compare.
"""

from __future__ import annotations

import json
import sys

import torch

import garcon_jupyter as garcon

POINT = "layers.1.mlp.post_activation"
LATE = "layers.3.resid_post"
MANY = 60
"""Times that the tokens are read, so that the answer is a large one."""


def save(save_ctx, tensor):
    print("seen", tuple(tensor.shape))
    save_ctx.value = tensor


def ablate(save_ctx, tensor):
    """Across the border of two shards of 40 neurons."""
    tensor[:, :, 37:43] = 0


FAULT = """
if rank == 1:
    last = [layer for layer in model.model.layers if hasattr(layer, "mlp")][-1]

    def once(*args, former=last.__dict__["forward"], **kwargs):
        last.__dict__["forward"] = former
        torch.empty(1 << 45)

    last.__dict__["forward"] = once
"""
"""Memory of rank 1 ends in a layer of the next pass."""


def fail_alone(model, tokens):
    """Afterwards the same ranks go on."""
    pids = [rank["pid"] for rank in model.status()["ranks"]]
    model.run_on_ranks(FAULT)
    try:
        model.forward(tokens, probes=[])
    except garcon.OutOfMemory as error:
        print(error)
    else:
        raise AssertionError("it did not fail")
    assert [rank["pid"] for rank in model.status()["ranks"]] == pids


def main(server: str, ids: str, file: str) -> None:
    tokens = json.loads(ids)
    model = garcon.connect(server)
    fail_alone(model, tokens)
    points = [model.probe_points[name] for name in (POINT, LATE)]
    found = {"logits": model.forward(tokens, probes=[point.probe(save) for point in points])}
    found["many"] = model.forward(tokens * MANY, probes=[])
    recordings = model.recordings()
    found |= {name: recordings[name].value for name in (POINT, LATE)}
    found["ablated"] = model.forward(tokens, probes=[points[0].probe(ablate)])
    seen = points[0].probe(save, grad=True, name="gradient")
    found["loss"] = model.backward(tokens, lambda logits: (logits[0, -1] ** 2).sum(), probes=[seen])
    found["gradient"] = model.recordings()[POINT, "gradient"].value
    found["parameter"] = model.get_parameter("layers.1.mlp.down_proj")
    found["hosts"] = [rank["host"] for rank in model.status()["ranks"]]
    torch.save(found, file)
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
