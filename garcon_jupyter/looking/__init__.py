"""From a served model to a picture: what is computed on the server, and what travels.

The pictures (:mod:`garcon_jupyter.widgets`) take plain arrays and plain functions. Here are the passes that
make those: each runs on the server and sends only what is drawn, a few numbers for each cell. No pass
of this package runs the probes that you attached, and none leaves anything in your recordings.
"""

from __future__ import annotations
