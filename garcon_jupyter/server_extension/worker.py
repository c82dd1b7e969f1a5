"""One launch in a process of its own: words as JSON on stdin, a message as JSON a line on stdout.

``{"line": …}`` is progress; the last message is ``{"server": NAME}``, or ``{"problem": …, "remedy": …}``. An
interrupt ends what was started.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from garcon_jupyter.api import launch
from garcon_jupyter.errors import GarconError


def main() -> int:
    """Launch; 0 where a server runs now."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below some shells
    words = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no message

    def say(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        server = launch(words.pop("path"), **words, progress=lambda line: say(line=line))
    except (GarconError, KeyboardInterrupt) as error:
        problem = getattr(error, "problem", "The launch was stopped.")
        say(problem=problem, remedy=getattr(error, "remedy", ""))
        return 1
    say(server=server.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
