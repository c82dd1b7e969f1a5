"""``garcon …``, and ``python -m garcon_jupyter …``."""

from __future__ import annotations

import sys

from garcon_jupyter.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
