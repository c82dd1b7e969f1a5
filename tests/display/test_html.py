"""What variables show of themselves: read back from the HTML, beside what is known otherwise."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

import garcon_jupyter as garcon

NEURONS = "layers.2.mlp.post_activation"


def rows(shown: str) -> list[list[str]]:
    """The texts of a table's cells, row by row."""
    body = re.search(r"<tbody>(.*?)</tbody>", shown, re.S)
    assert body
    found = re.findall(r"<tr>(.*?)</tr>", body[1], re.S)
    return [list(map(words, re.findall(r"<td.*?>(.*?)</td>", row, re.S))) for row in found]


def words(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


def as_shown(value: Any) -> str:
    """Its HTML, as a notebook asks for it; a text stands beside it for where there is no HTML."""
    data, _ = DisplayFormatter().format(value)
    assert data["text/plain"] == repr(value)
    assert "http" not in data["text/html"] and "<script" not in data["text/html"]
    return data["text/html"]


def save(save_ctx: Any, tensor: torch.Tensor) -> None:
    save_ctx.tensor = tensor
    save_ctx.note = "<b>&"


def test_a_model_says_what_it_is_and_where(rmodel_tp2: garcon.RemoteModel) -> None:
    requests = rmodel_tp2.requests
    shown = as_shown(rmodel_tp2)
    assert "tiny-tp2" in shown and "LlamaForCausalLM" in shown and "tp=2" in shown
    ranks = rows(shown)
    assert [row[0] for row in ranks] == ["0", "1"]
    assert all(row[1:3] == ["cpu", "0-3"] for row in ranks)
    assert f"{len(rmodel_tp2.probe_points)} probe points" in words(shown)
    assert "layers.{i}.attn.pattern" in shown and "b × 6 × p_q × p_k" in shown
    host = rmodel_tp2.facts["ranks"][0]["host"]
    assert host not in words(shown)  # of a single host nobody asks which it is
    assert rmodel_tp2.requests == requests  # nothing is asked of the server


def test_a_point_and_a_pattern(rmodel: garcon.RemoteModel) -> None:
    shown = as_shown(rmodel.probe_points["layers.1.attn.head_out"])
    assert dict(rows(shown)) == {
        "shape": "b × p × 6 × 48",
        "tensor parallel": "sharded along H; a probe sees it whole",
        "computed": "only when probed",
    }
    assert 'rmodel.show("layers.1.attn.head_out", "a text")' in words(shown)
    assert "b batch, p position" in words(shown)
    pattern = rows(as_shown(rmodel.probe_points["layers.*.mlp.out"]))
    assert [row[:2] for row in pattern] == [
        [f"layers.{layer}.mlp.out", "b × p × 48"] for layer in range(4)
    ]
    everything = as_shown(rmodel.probe_points)
    assert ["logits", "b × p × 263", "", "scores of the next token"] in rows(everything)
    module = as_shown(rmodel.probe_points["module:model.norm.output"])
    assert dict(rows(module)) == {"shape": "as the module has it"}


def test_recordings_and_handles_are_shown_without_fetching(rmodel: garcon.RemoteModel) -> None:
    assert "no probe has saved anything" in as_shown(rmodel.recordings())
    points = rmodel.probe_points
    tokens = [[1, 2, 3]]
    probes = [points[NEURONS].probe(save), points["logits"].probe(save, name='by "me"')]
    rmodel.forward(tokens, probes=probes)
    recordings = rmodel.recordings()
    requests = rmodel.requests
    shown = as_shown(recordings)
    named = 'logits of by "me"'
    look = f'rmodel.show("{NEURONS}", attribute="tensor")'
    look_named = r'rmodel.show(("logits", "by \"me\""), attribute="tensor")'
    assert rows(shown) == [
        [NEURONS, "tensor", "1 × 3 × 80", "float32", "960 bytes", look],
        [NEURONS, "note", "'<b>&'", "str", "", ""],
        [named, "tensor", "1 × 3 × 263", "float32", "3.1 KiB", look_named],
        [named, "note", "'<b>&'", "str", "", ""],
    ]
    assert "<b>&'" not in shown  # what a user saved is no markup
    assert rows(as_shown(recordings[NEURONS]))[0][:4] == rows(shown)[0][1:5]
    handle = rmodel.recordings(fetch=False)[NEURONS].tensor
    requests += 1  # for the snapshot
    assert dict(rows(as_shown(handle))) == {
        "kind": "Tensor",
        "shape": "1 × 3 × 80",
        "dtype": "float32",
        "device": "cpu",
        "bytes": "960 bytes",
    }
    assert "cut on the server" in as_shown(handle[:, -1].mean())
    assert rmodel.requests == requests


def test_long_tables_end(rmodel: garcon.RemoteModel) -> None:
    shown = as_shown(rmodel.probe_points["layers.*.*.*"])
    assert len(rows(shown)) == 60 and re.search(r"and \d+ more", words(shown))


@pytest.mark.parametrize("cut", [False, True])
def test_a_handle_keeps_what_it_is_of(rmodel: garcon.RemoteModel, cut: bool) -> None:
    rmodel.forward([[1, 2, 3]], probes=[rmodel.probe_points[NEURONS].probe(save)])
    whole = rmodel.recordings()[NEURONS].tensor
    handle = rmodel.recordings(fetch=False)[NEURONS].tensor  # of a snapshot that nobody holds
    handle = handle[:, 1:] if cut else handle
    rmodel.clear_recordings()
    assert torch.equal(handle.fetch(), whole[:, 1:] if cut else whole)
