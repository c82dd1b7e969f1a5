"""A plotly figure that leaves a still picture in the saved notebook."""

from __future__ import annotations

import json
from typing import Any, Self

import numpy as np
import plotly.graph_objects as go

from garcon_jupyter.widgets import still, svg
from garcon_jupyter.widgets.values import Values


class Distribution(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A histogram: one trace of bars, a title and a subtitle.

    plotly's own display leaves either nothing to see without JavaScript or a script to load;
    this one shows interactive plotly in JupyterLab and Notebook (by plotly's bundled extension)
    and carries an SVG for everything else.
    """

    @property
    def values(self) -> Values:
        """How many values are in each bin, [bin]; the labels are the bins' centres."""
        bars = self.data[0]
        centres = tuple(f"{centre:.6g}" for centre in np.asarray(bars.x).tolist())
        title = str(self.layout.title.text or "count")
        return Values(np.asarray(bars.y), ("bin",), {"bin": centres}, title)

    def wait(self, timeout: float | None = None) -> Self:
        """Itself: it is whole from the beginning."""
        return self

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
