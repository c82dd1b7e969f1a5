"""A plotly figure that leaves a still picture in the saved notebook."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go

from garcon_jupyter.widgets import still, svg


class Distribution(go.Figure):
    """A histogram: one trace of bars, a title and a subtitle.

    plotly's own display leaves either nothing to see without JavaScript or a script to load;
    this one shows interactive plotly in JupyterLab and Notebook (by plotly's bundled extension)
    and carries an SVG for everything else.
    """

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        title, subtitle = self.layout.title.text or "", self.layout.title.subtitle.text or ""
        bars = self.data[0]
        picture = still.histogram(np.asarray(bars.x), np.asarray(bars.y), title, subtitle)
        return {
            "application/vnd.plotly.v1+json": json.loads(self.to_json()),
            "text/html": svg.figure(picture, title, subtitle),
            "text/plain": f"<Distribution {title}: {subtitle}>",
        }
