"""Every class of every format has the latents and the reconstruction that its own library computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from garcon_backend.dictionaries import describe, load
from garcon_backend.dictionaries.formats import FORMATS
from garcon_jupyter.errors import BadRequest
from tests.dictionaries.fixtures import ARCHIVE, expected, names
from tests.dictionaries.making import saelens

NAMES = names()
CLOSE = 1e-5
IN_CONTEXT = [name for name in NAMES if "temporal" in name]
BY_TOKEN = [name for name in NAMES if name not in IN_CONTEXT]


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.reshape(wanted.shape) - wanted).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_latents_and_reconstruction_are_the_librarys(name: str) -> None:
    want = expected(name)
    dictionary = load(want.path)
    latents = dictionary.encode(want.x)
    assert off(latents, want.codes) < CLOSE
    assert off(dictionary.decode(latents, want.x), want.reconstruction) < CLOSE


@pytest.mark.parametrize("name", NAMES)
def test_tile_by_tile_the_latents_are_the_same(name: str) -> None:
    want = expected(name)
    dictionary = load(want.path)
    sparse = dictionary.encode_sparse(want.x, tile=64)
    assert off(sparse.dense(), want.codes) < CLOSE
    assert off(dictionary.decode_sparse(sparse, want.x), want.reconstruction) < CLOSE
    assert len(sparse.values) == int((want.codes != 0).sum())


@pytest.mark.parametrize("name", BY_TOKEN)
def test_a_tokens_latents_are_its_own(name: str) -> None:
    """Alone, in a batch, in a batch of other shape, and beside rows of padding."""
    want = expected(name)
    dictionary = load(want.path)
    alone = torch.cat([dictionary.encode(token[None]) for token in want.x])
    assert off(alone, want.codes) < CLOSE
    shaped = want.x.reshape(2, -1, *want.x.shape[1:])
    padded = torch.nn.functional.pad(shaped, (0, 0) * (shaped.dim() - 2) + (3, 0))
    assert off(dictionary.encode(padded)[:, 3:], want.codes) < CLOSE
    assert off(dictionary.encode(shaped), want.codes) < CLOSE


@pytest.mark.parametrize("name", IN_CONTEXT)
def test_what_depends_on_context_says_so_and_reads_whole_texts(name: str) -> None:
    want = expected(name)
    dictionary = load(want.path)
    assert not dictionary.form.per_token
    with pytest.raises(BadRequest, match="all that are before them"):
        dictionary.encode(want.x[0])
    one_by_one = torch.cat(
        [dictionary.encode(want.x[:, i : i + 1]) for i in range(want.x.shape[1])], 1
    )
    assert off(one_by_one, want.codes) > 1e-2
    assert off(dictionary.encode(want.x[:, :4]), want.codes[:, :4]) < CLOSE


def test_every_class_of_the_table_has_a_fixture() -> None:
    found = {
        (each.format, each.kind.removesuffix(", tied"))
        for each in (describe(expected(name).path) for name in NAMES)
    }
    declared = {(each.name, kind) for each in FORMATS for kind in each.kinds}
    without = {
        (
            "Llama Scope, first releases",
            "topk",
        ),  # no writer, and no reader that computes them, is there to ask
        ("Llama Scope, first releases", "relu"),
        ("sparsify", "groupmax, transcode"),
    }
    assert declared - found == without


FIRST_LEFT_OUT = ("circuit_tracer", "gemma_scope", "llama_scope")
"""Libraries whose dictionaries have never seen the first token of a text."""


@pytest.mark.parametrize("name", NAMES)
def test_which_have_not_seen_first_tokens(name: str) -> None:
    told = describe(expected(name).path)
    assert told.untrained == ((0,) if name.startswith(FIRST_LEFT_OUT) else ())


@pytest.mark.parametrize(
    ("metadata", "untrained"),
    [
        ({"seqpos_slice": [2, None]}, (0, 1)),
        ({"seqpos_slice": [None]}, ()),
        ({"exclude_special_tokens": True}, (0,)),
        ({"exclude_special_tokens": [1, 2], "prepend_bos": False}, ()),
        ({"excluded_tokens": ["first"]}, (0,)),
        ({"excluded_tokens": [0]}, ()),
    ],
)
def test_what_saelens_says_of_first_tokens(
    metadata: dict[str, object], untrained: tuple[int, ...], tmp_path: Path
) -> None:
    files = saelens(tmp_path, 8, 16, "blocks.1.hook_resid_post")
    config = json.loads((files / "cfg.json").read_text())
    config["metadata"] |= metadata
    (files / "cfg.json").write_text(json.dumps(config))
    assert describe(files).untrained == untrained


def test_the_archive_is_small() -> None:
    assert ARCHIVE.stat().st_size < 300_000
    assert len(NAMES) >= 25


def test_files_of_a_part_are_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A description reads no weight, and a part of the latents only theirs."""
    from garcon_backend.dictionaries import plan

    read: list[tuple[str, slice]] = []
    original = plan.StoredWeight.read

    def noted(self: plan.StoredWeight, latents: slice, dtype: torch.dtype) -> torch.Tensor:
        read.append((self.stored.key, latents))
        return original(self, latents, dtype)

    monkeypatch.setattr(plan.StoredWeight, "read", noted)
    path = expected("saelens-jumprelu").path
    describe(path)
    assert not read
    part = load(path, latents=range(8, 24))
    assert read and all(latents == slice(8, 24) for _, latents in read)
    assert (
        part.encoder.shape == (16, 16)
        and part.threshold is not None
        and part.threshold.shape == (16,)
    )
