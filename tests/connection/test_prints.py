"""What ranks print, line by line."""

from __future__ import annotations

import pytest

from garcon_jupyter.connection.prints import ByRank


def test_lines_are_whole_and_labelled(capsys: pytest.CaptureFixture[str]) -> None:
    show = ByRank()
    show(0, "stdout", "half a ")
    show(1, "stdout", "one\ntwo\nthr")
    show(0, "stdout", "line\n")
    show(1, "stderr", "oh\n")
    captured = capsys.readouterr()
    assert captured.out == "[rank 1] one\n[rank 1] two\n[rank 0] half a line\n"
    assert captured.err == "[rank 1] oh\n"
    show.end()
    assert capsys.readouterr().out == "[rank 1] thr\n"
    show.end()
    assert capsys.readouterr().out == ""
