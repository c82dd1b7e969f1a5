"""A log that nobody can fill."""

from __future__ import annotations

import logging

from garcon_backend.kernel.log_limit import MOST, WINDOW, LogLimit


def test_what_is_too_much_is_counted_and_left_out() -> None:
    time = [0.0]
    limit = LogLimit(lambda: time[0])
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "bad %s", ("one",), None)
    assert sum(limit.filter(record) for _ in range(MOST + 7)) == MOST
    assert record.getMessage() == "bad one"
    time[0] = WINDOW + 1
    assert limit.filter(record)
    assert record.getMessage() == "bad one (7 left out)"
