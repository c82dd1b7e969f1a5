"""Parts of a text put together from the bytes of single tokens."""

from __future__ import annotations

import random

from garcon_jupyter.wire.token_parts import BROKEN, escaped, plain, whole

TEXT = "naïve – 世界 🙂 e\u0301 end"


def test_bytes_come_back() -> None:
    for byte in range(256):
        assert escaped(bytes([byte])).encode("utf-8", "surrogateescape") == bytes([byte])
    assert plain(escaped(b"a\xe4")) == f"a{BROKEN}" and plain("ä") == "ä"


def test_characters_that_are_cut_anywhere_are_whole_again() -> None:
    data, drawn = TEXT.encode(), random.Random(0)
    for _ in range(200):
        cuts = sorted(drawn.sample(range(1, len(data)), drawn.randrange(1, len(data))))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        parts = whole([escaped(piece) for piece in pieces])
        assert "".join(parts) == TEXT and len(parts) == len(pieces)
        read = ended = 0  # no character is the text of a token before the one in which it begins
        for piece, part in zip(pieces, parts, strict=True):
            ended, read = ended + len(piece), read + len(part.encode())
            assert read >= len(data[:ended].decode(errors="ignore").encode())


def test_bytes_that_are_no_character_stay_broken() -> None:
    assert "".join(whole([escaped(b"\xe4"), "a", escaped(b"\xb8")])) == f"{BROKEN}a{BROKEN}"
    assert whole(["a", " b", ""]) == ["a", " b", ""]
