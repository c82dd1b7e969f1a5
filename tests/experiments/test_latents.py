"""Experiments on latents of a dictionary: they are points, so cells of them are patched and attributed like any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments
from garcon_jupyter.client.dictionaries import ServedDictionary
from tests import checkpoints
from tests.dictionaries.making import saelens

CLEAN = list(range(5, 14))
CORRUPTED = [*CLEAN[:3], 40, *CLEAN[4:]]
ANSWERS = (7, 9)
LATENTS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[garcon.RemoteModel]:
    found = garcon.connect(open_here(checkpoints.make("llama", tmp_path_factory.mktemp("llama"))))
    yield found
    found.close()


@pytest.fixture(scope="module")
def sae(model: garcon.RemoteModel, tmp_path_factory: pytest.TempPathFactory) -> ServedDictionary:
    width, folder = model.catalog.sizes["D"], tmp_path_factory.mktemp("sae")
    return model.dictionaries.load(
        saelens(folder, width, LATENTS, "blocks.1.hook_resid_post", "topk", k=5)
    )


def by_hand(model: garcon.RemoteModel, sae: ServedDictionary) -> torch.Tensor:
    """Each latent at each position given the clean run's value, a forward for each."""

    def keep(save_ctx, tensor):
        save_ctx.value = tensor

    def metric(logits: torch.Tensor) -> float:
        return float(logits[0, ANSWERS[0]] - logits[0, ANSWERS[1]])

    model.forward([CLEAN], probes=[sae.latents.probe(keep)])
    source = model.recordings()[sae.latents.name]
    low, high = (
        metric(model.forward([ids], probes=[], logits="last")) for ids in (CORRUPTED, CLEAN)
    )
    found = torch.zeros(len(CLEAN), LATENTS)
    for position in range(3, len(CLEAN)):  # before it the runs are the same
        for latent in range(LATENTS):

            def put(save_ctx, tensor, position=position, latent=latent):
                tensor[:, position, latent] = save_ctx.source.value[:, position, latent]

            probe = sae.latents.probe(put, source=source)
            logits = model.forward([CORRUPTED], probes=[probe], logits="last")
            found[position, latent] = (metric(logits) - low) / (high - low)
    return found


def test_latents_are_patched_and_attributed(
    model: garcon.RemoteModel, sae: ServedDictionary
) -> None:
    wanted = by_hand(model, sae)
    assert wanted.abs().max() > 0.1
    for exact in (True, False):
        found = experiments.patch(
            model,
            CLEAN,
            CORRUPTED,
            sae.latents.name,
            by=("position", "unit"),
            units=range(LATENTS),
            answers=ANSWERS,
            exact=exact,
        )
        assert torch.allclose(found.values, wanted, atol=1e-4)
    by_gradients = experiments.attribute(
        model, CLEAN, CORRUPTED, sae.latents.name, by=("position", "unit"), answers=ANSWERS
    )
    both = torch.stack([by_gradients.values.flatten(), wanted.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.8
