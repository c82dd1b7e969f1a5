"""A shuffle on a disk that fills up again and again: ``python -m tests.exchanges.on_a_small_disk DISK STORE``."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.exchanges import shuffle
from garcon_jupyter.exchanges.engines.local import HereEngine
from tests.exchanges.conftest import numbers_in, plan_for
from tests.small_disks import fill, filler


def main(disk: Path, store: str) -> None:
    source = open_store(store)
    plan, out = plan_for(source, 400, 2), disk / "mixed"
    with filler(disk) as file:  # nothing can be begun, and nothing is there afterwards
        fill(file, 0)
        print(refused(lambda: shuffle(source, out, 7, plan=plan)))
    for life in itertools.count(1):
        with filler(disk) as file:
            lines = itertools.count()

            def told(line: str, file: Path = file, life: int = life) -> None:
                if next(lines) == life - 1:  # noqa: B023 - of this life
                    fill(file, (0, 3000, 12_000, 40_000)[life % 4])

            try:
                shuffle(source, out, 7, plan=plan, engine=HereEngine(), progress=told)
            except garcon.DoesNotFit as error:
                print(error)
                assert not list(out.rglob("*.writing")), "half a file was left"
            else:
                break
        assert life < 40
    numbers_in(open_store(out))
    open_store(out).verify()
    print("full", life - 1)


def refused(call: object) -> str:
    try:
        call()  # type: ignore[operator]
    except garcon.DoesNotFit as error:
        return str(error)
    raise AssertionError("it fitted")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
