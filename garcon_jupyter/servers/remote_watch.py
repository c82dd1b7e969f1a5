"""What runs on another machine to watch a server there, and what it says of it.

It is a few lines of shell (:data:`WATCH`), which read the server's connection file and say whenever it changes; so nothing
there needs to be named but the server.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from garcon_jupyter.wire.private_files import write_private

SeenFrom = Callable[[dict[str, Any]], dict[str, Any]]
"""What a connection file of there says on this side."""

WATCH = r"""
d=$2;
case $d in "~"*) d=$HOME${d#"~"};; esac;
if [ -z "$d" ]; then d=${GARCON_RUNTIME:-}; fi;
if [ -z "$d" ]; then
  if [ "$(uname)" = Darwin ]; then data=$HOME/Library/Jupyter;
  else data=${XDG_DATA_HOME:-$HOME/.local/share}/jupyter; fi;
  d=${JUPYTER_RUNTIME_DIR:-${JUPYTER_DATA_DIR:-$data}/runtime}/garcon;
fi;
f=$d/$1.json;
said=; seen=; pid=;
say() { if [ "$said" != "$*" ]; then said=$*; printf "garcon %s\n" "$*"; fi; };
look() {
  text=$(cat "$f" 2>/dev/null);
  if [ "$text" != "$seen" ]; then
    seen=$text;
    pid=$(sed -n "s/^  .supervisor.: *\([0-9]*\).*/\1/p" "$f" 2>/dev/null);
    host=$(sed -n "s/^  .host.: *.\([^\",]*\).*/\1/p" "$f" 2>/dev/null);
    if [ "$host" != "$(hostname)" ]; then pid=; fi;
  fi;
  if [ -n "$text" ] && { [ -z "$pid" ] || kill -0 "$pid" 2>/dev/null; }; then
    say here "$(printf %s "$text" | tr -d "\n")";
  else say gone "$(tr -d "\n" <"${f%.json}.tombstone.json" 2>/dev/null)"; fi;
};
say names $(ls "$d" 2>/dev/null | sed -n "s/\.json$//p");
{ while look && echo; do sleep 1; done; } &
cat >/dev/null; kill $!
"""
"""What runs there: says ``names`` of the servers, then whenever it changes ``here`` with the connection file,
or ``gone`` with the tombstone. An empty line each second finds out when nobody listens any more; it also ends when
its input does, which is when the process here has ended, however that came about. A supervisor of that
host that was killed cannot take its file away, so whether it lives is asked as well."""


class RemoteWatch:
    """What the process there says, heard by a thread.

    Attributes:
        info: the connection file there; None while there is none.
        names: of the servers there.
        tombstone: why and when the last server of the name ended, or nothing.
        lost: whether the process has ended.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.info: dict[str, Any] | None = None
        self.names: list[str] = []
        self.tombstone = ""
        self.lost = False
        self._heard = threading.Event()
        self._copy: tuple[Path, SeenFrom] | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, args=(stream,), daemon=True, name="ssh").start()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:  # a login shell may say something of its own first
            word, _, rest = line.removeprefix("garcon ").strip().partition(" ")
            if line.startswith("garcon "):
                with self._lock:
                    self._hear(word, rest)
        with self._lock:
            self.info, self.lost = None, True
            self._write()
        self._heard.set()

    def _hear(self, word: str, rest: str) -> None:
        if word == "names":
            self.names = [name for name in rest.split() if not name.endswith(".tombstone")]
            return
        with contextlib.suppress(ValueError):
            told = json.loads(rest) if rest else {}
            self.info = told if word == "here" else None
            self.tombstone = _ended(told) if word == "gone" else ""
            self._write()
            self._heard.set()

    @property
    def heard(self) -> bool:
        """Whether it is known if the server is there."""
        return self._heard.is_set()

    def await_word(self, seconds: float) -> None:
        """Wait until it is known whether the server is there, or that nothing will be heard."""
        self._heard.wait(seconds)

    def copy_to(self, file: Path, seen_from: SeenFrom) -> None:
        """From now on keep a copy of the connection file, with what is true of the server on this side."""
        with self._lock:
            self._copy = (file, seen_from)
            self._write()

    def _write(self) -> None:
        if self._copy is None:
            return
        file, seen_from = self._copy
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if self.info is None:
                file.unlink()
            else:
                write_private(file, seen_from(self.info))


def _ended(tombstone: dict[str, Any]) -> str:
    if not {"reason", "time"} <= set(tombstone):
        return ""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(tombstone["time"]))
    return f"{tombstone['reason']}, {when}"
