"""Parts add up to the difference of logits in every architecture, or what stands in the way is told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments
from tests import checkpoints
from tests.backend.cases import EVERY

IDS = [[0, 40, 41, 42, 99, 11, 42]]
ANSWERS = (17, 23)

MIXTURE = "post_activation, which this model has not: (its MLP is a mixture of experts|no layer)"
NOTHING_ATTENDS = "which this model has not: nothing attends here"
NO_NEURONS = "which this model has not: its layers have a mixer alone, and no MLP"

MIXTURES = (
    *("mixtral", "olmoe", "gpt_oss", "flex_olmo", "granitemoe", "phimoe", "minimax_m2"),
    *("hunyuan_v1_moe", "qwen3_5_moe_text", "granitemoehybrid"),
)

REFUSED: dict[str, dict[str, str]] = {
    "minimax": {"head": "no sum of what its parts add", "neuron": MIXTURE},
    "gemma3n_text": dict.fromkeys(("head", "neuron"), "several streams"),
    "zamba2": dict.fromkeys(("head", "neuron"), "No layer of this model adds"),
    "mamba": {"head": NOTHING_ATTENDS, "neuron": NO_NEURONS},
    "mamba2": {"head": NOTHING_ATTENDS, "neuron": NO_NEURONS},
    "gemma4_text": {"neuron": "no multiple and no norm of what it puts out"},
    **{family: {"neuron": MIXTURE} for family in MIXTURES},
}
"""By what architectures are not told, and the reason that stands in the error."""


@pytest.mark.sampled
@pytest.mark.parametrize("name", EVERY)
def test_parts_add_up_or_the_reason_is_told(name: str, tmp_path: Path) -> None:
    family, config = EVERY[name]
    path = checkpoints.make(family, tmp_path, **config)
    rmodel = garcon.connect(open_here(path, unchecked=True))
    first, second = rmodel.forward(IDS, probes=[], logits="last")[0, list(ANSWERS)].double()
    for by in ("head", "neuron"):
        if reason := REFUSED.get(name, {}).get(by):
            with pytest.raises(garcon.GarconError, match=reason):
                experiments.direct_logit_attribution(rmodel, IDS, ANSWERS, by=by)
            continue
        found = experiments.direct_logit_attribution(rmodel, IDS, ANSWERS, by=by)
        cap = _cap(rmodel, found.facts["limits"], path)
        capped = [cap * math.atanh(float(x) / cap) if cap else float(x) for x in (first, second)]
        sizes = float(found.values.abs().nansum() + found.more["rest"].abs().sum())
        total = float(found.values.nansum() + found.more["rest"].sum())
        assert abs(total - (capped[0] - capped[1])) < 1e-5 * max(sizes, abs(total))
    rmodel.close()


def _cap(rmodel: garcon.RemoteModel, limits: list[str], path: Path) -> float:
    """What logits are soft-capped at, as the checkpoint says it; 0 where they are not, which a result then does not say either."""
    import json

    config = json.loads((path / "config.json").read_text())
    config = config.get("text_config", config)
    cap = float(config.get("final_logit_softcapping") or 0.0)
    assert any("soft-capped" in limit for limit in limits) == bool(cap)
    return cap
