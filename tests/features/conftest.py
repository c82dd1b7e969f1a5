"""Small stores and dictionaries, and what must come of them: by brute force, over all values at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.dictionaries import load
from garcon_jupyter.activation_stores import ActivationStore, from_arrays
from garcon_jupyter.exchanges.engines.local import HereEngine
from garcon_jupyter.features import FeaturesPlan, features, planned
from garcon_jupyter.features.arrays import FeatureSizes
from tests.dictionaries.making import saelens

ROWS, D, LATENTS = 3000, 16, 600
POINT = "layers.0.resid_post"
KEPT: dict[str, int] = {"k": 5, "sample": 40, "before": 3, "after": 2}


def places_of(count: int, longest: int, seed: int = 0) -> np.ndarray:
    """Places of documents of random lengths."""
    lengths = np.random.default_rng(seed).integers(1, longest, count)
    documents = np.repeat(np.arange(count), lengths)[:count]
    offsets = np.concatenate([np.arange(n) for n in lengths])[:count]
    return documents << 32 | offsets


@pytest.fixture(scope="session")
def acts(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """Rows in the order of documents, over several files that end where no tile does."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(ROWS, D)).astype(np.float32)
    tokens = rng.integers(0, 300, ROWS)
    where = tmp_path_factory.mktemp("features") / "acts"
    return from_arrays(
        where, values, places_of(ROWS, 50), tokens, POINT, dtype="float32", file_bytes=60_000
    )


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "jumprelu": {},
    "topk": {"k": 12},
    "standard": {},
}


@pytest.fixture(scope="session")
def dictionary(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a dictionary of an architecture."""
    root = tmp_path_factory.mktemp("dictionaries")

    def make(architecture: str) -> Path:
        path = root / architecture
        if not path.exists():
            more = ARCHITECTURES[architecture]
            saelens(path, D, LATENTS, "blocks.0.hook_resid_post", architecture, **more)
        return path

    return make


def latents(store: ActivationStore, path: Path) -> np.ndarray:
    """All latents of all rows, as the dictionary computes them of all rows at once; float32 [rows, F]."""
    with torch.inference_mode():
        return load(path).encode(store.read(0, len(store)).activations.float()).numpy()


def sharded(
    store: ActivationStore, units: int, data: int, shards: int, groups: int, **more: Any
) -> FeaturesPlan:
    """Four passes over so many shards."""
    row = store.point_rows().layout.row_bytes
    plan = planned(len(store), row, units, FeatureSizes(units, **KEPT), 1 << 30, 1, 30, 1 << 20, D)
    cut = {"data_shards": data, "feature_shards": shards, "groups": groups}
    return replace(plan, **{"passes": 4, "encoder_parts": 1, **cut, **more})


def made(
    store: ActivationStore, out: Path, path: Path | None, plan: FeaturesPlan | None, **more: Any
) -> garcon.Atlas:
    """Features in this process."""
    return features(store, out, path, plan=plan, engine=HereEngine(), **{**KEPT, **more})


def content(atlas: garcon.Atlas) -> str:
    """A digest of all files of an atlas."""
    found = hashlib.sha256()
    for path in sorted(atlas.path.iterdir()):
        if path.suffix in (".npy", ".json"):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
