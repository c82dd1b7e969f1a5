"""The picture of ranks says what each one holds, and loads nothing."""

from __future__ import annotations

import base64
import re

from garcon_jupyter.widgets import ShardingPicture

RANKS = [
    {
        "rank": stage * 2 + shard,
        "host": f"h<{stage}>",
        "device": "cpu",
        "stage": stage,
        "tp_rank": shard,
        "replica": 0,
        "layers": list(range(stage * 2, stage * 2 + 2)),
        "parameter_bytes": 3 << 20,
        "memory": 5 << 30,
    }
    for stage in range(2)
    for shard in range(2)
]


def picture() -> ShardingPicture:
    return ShardingPicture("m", {"tp": 2, "pp": 2, "dp": 1}, RANKS, {"heads": 4, "neurons": 10})


def svg_of(html: str) -> str:
    found = re.search(r"base64,([A-Za-z0-9+/=]+)", html)
    assert found
    return base64.b64decode(found[1]).decode()


def test_each_rank_has_its_layers_and_its_share() -> None:
    drawn = svg_of(picture().html)
    assert drawn.count("<text") == 2 + 4 * len(RANKS)
    assert "layers 0 to 1 · heads 0 to 1, neurons 0 to 4" in drawn
    assert "layers 2 to 3 · heads 2 to 3, neurons 5 to 9" in drawn
    assert "heads 0 to 3" not in drawn  # nobody holds them all
    assert "3.0 MiB of parameters · 5.0 GiB in use" in drawn


def test_hosts_are_told_where_there_are_several() -> None:
    assert "h&lt;0&gt; cpu" in svg_of(picture().html) and "on h<1> cpu:" in repr(picture())
    single = ShardingPicture("m", {"tp": 2, "pp": 1, "dp": 1}, RANKS[:2], {"heads": 4})
    assert "h&lt;" not in svg_of(single.html) and "on cpu:" in repr(single)


def test_names_are_escaped_and_nothing_is_loaded() -> None:
    html = picture().html
    assert "h&lt;1&gt;" in svg_of(html)
    assert "http" not in html
    assert not re.search(r"(src|href)=\"http", svg_of(html))


def test_in_words() -> None:
    assert "4 ranks: tensor-parallel degree 2, pipeline-parallel degree 2" in repr(picture())
