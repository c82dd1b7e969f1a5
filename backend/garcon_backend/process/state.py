"""What user code changes of the process is put back.

A server is everybody's. Grad mode, the default dtype, the working directory, signal handlers: a probe may
change them for itself, and the next request of anybody finds them as they were. What the model's own pass
depends on is put back after each call of user code, since a rank on which it changed would not do the same
collectives as the others; the rest once for each request.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Setting:
    """Something of the process that can be asked and set."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _autocast(device: str) -> Setting:
    return Setting(
        lambda: torch.is_autocast_enabled(device),
        lambda on: torch.set_autocast_enabled(device, on),
    )


def _environment() -> dict[bytes, bytes]:
    # As it is stored: to decode it takes longer than a small request.
    return dict(os.environ._data)  # type: ignore[attr-defined]


def _set_environment(variables: dict[bytes, bytes]) -> None:
    os.environ.clear()
    os.environ.update({os.fsdecode(name): os.fsdecode(text) for name, text in variables.items()})


_SIGNALS = tuple(
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "ALRM", "USR1", "USR2")
    if hasattr(signal, f"SIG{name}")
)


def _signal_handlers() -> dict[int, Any]:
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    return {number: handler for number, handler in handlers.items() if handler is not None}


def _set_signal_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


OF_THE_PASS = (
    Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    Setting(torch.get_default_dtype, torch.set_default_dtype),
    # The server sets no default device; to set one again would be a mode that slows everything.
    Setting(lambda: torch.empty(0).device, lambda _: torch.set_default_device(None)),
    Setting(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    _autocast("cpu"),
    _autocast("cuda"),
)
"""What the model's pass depends on."""

OF_THE_PROCESS = (
    *OF_THE_PASS,
    Setting(torch.get_num_threads, torch.set_num_threads),
    Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting(np.geterr, lambda kinds: np.seterr(**kinds)),
    Setting(os.getcwd, os.chdir),
    Setting(_environment, _set_environment),
    Setting(lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
    Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    Setting(sys.gettrace, sys.settrace),
    Setting(sys.getprofile, sys.setprofile),
    Setting(gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Setting(_signal_handlers, _set_signal_handlers),
    # An alarm that user code left set would end the process later.
    Setting(
        lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        lambda _: signal.setitimer(signal.ITIMER_REAL, 0),
    ),
)
"""What the next request depends on."""


class KeptSettings:
    """Whatever is set while this is entered, these settings are afterwards what they were.

    On the main thread, around each call of each probe.
    """

    __slots__ = ("_before", "_process", "_settings")

    def __init__(self, settings: Sequence[Setting] = OF_THE_PASS) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        self._before = [setting.read() for setting in self._settings]
        self._process = os.getpid()

    def __exit__(self, *raised: object) -> None:
        if os.getpid() != self._process:  # user code forked: a second server must not go on
            os._exit(0)
        for setting, value in zip(self._settings, self._before, strict=True):
            _put_back(setting, value)


def _put_back(setting: Setting, value: Any) -> None:
    try:
        now = setting.read()
    except Exception:  # noqa: BLE001 - such as a working directory that was removed
        now = None
    if now != value:
        with contextlib.suppress(Exception):
            setting.write(value)


def unchanged(run: Callable[[], Any]) -> Callable[[], Any]:
    """What runs a request, so that it leaves the process as it was."""

    def guarded() -> Any:
        with warnings.catch_warnings(), KeptSettings(OF_THE_PROCESS):
            return run()

    return guarded
