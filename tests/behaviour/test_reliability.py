"""The page on reliability states the times that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from garcon_backend.distributed import rank_failures
from garcon_backend.kernel import orphans, outcomes
from garcon_backend.lockstep import command_sockets, watchdog
from garcon_backend.save_contexts import backups
from garcon_backend.supervision import agent
from garcon_jupyter import errors

PAGE = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
MODULES = {
    m.__name__.rpartition(".")[2]: m
    for m in (agent, backups, command_sockets, rank_failures, orphans, outcomes, watchdog)
}


def test_constants_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| (\d+)( s| bytes)? \|", PAGE, re.MULTILINE)
    assert len(rows) == 15
    for module, name, value, _ in rows:
        assert getattr(MODULES[module], name) == float(value), f"{module}.{name}"


def test_errors_that_it_names_exist() -> None:
    faults = PAGE.split("## Re-attaching")[0]
    named = set(re.findall(r"`([A-Z]\w+[a-z]\w*)`", faults))
    assert {"Interrupted", "ServerRestarted", "DoesNotFit"} <= named
    assert all(hasattr(errors, name) for name in named), named
