"""What all live widgets share: they draw themselves twice, and never keep a cell waiting.

A saved notebook must show the picture with no kernel and no network, and a living one should show
only the widget. One mimebundle cannot do both: nbconvert prefers a widget's view to its HTML
wherever the widget's state is stored, and then needs a CDN to draw it. So a picture makes two
outputs, the still picture and, after it, the widget. The widget's style sheet hides a still picture
that stands directly before a living widget; when the widget goes (its kernel restarted, the notebook
reopened) the picture is there again, and the "model not found" line is hidden in its stead.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any, Self

import anywidget
import traitlets

from garcon_jupyter.errors import BadRequest, NotFinished
from garcon_jupyter.widgets import colours, headless
from garcon_jupyter.widgets.values import Values
from garcon_jupyter.widgets.worker import Task, WidgetWorker

WIDGET_MIMETYPE = "application/vnd.jupyter.widget-view+json"

HIDE_DEAD_WIDGET = (
    "<style>.jp-OutputArea-child:has(.garcon-still)"
    "+.jp-OutputArea-child:has(.jupyter-widgets):not(:has(.garcon-live)){display:none}</style>"
)


def display_twice(html: str, widget: anywidget.AnyWidget, words: str) -> Any:
    """Display a still picture and, after it, the widget that stands for it while it lives.

    Returns:
        IPython's handle of the still picture, by which another can take its place.
    """
    from IPython.display import display

    bundle = widget._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle or {}
    handle = display(_still(html, words), raw=True, display_id=True)
    # The empty HTML is what nbconvert takes where the widget's state was not saved.
    display({WIDGET_MIMETYPE: data[WIDGET_MIMETYPE], "text/html": ""}, raw=True)
    return handle


def _still(html: str, words: str) -> dict[str, str]:
    return {"text/html": html + HIDE_DEAD_WIDGET, "text/plain": words}


class Picture(anywidget.AnyWidget):
    """A widget with a still picture of itself, and a worker for what takes time.

    Attributes:
        title: what is shown.
        busy: whether it waits for values.
        filling: whether it fills piece by piece, which :meth:`stop` ends.
        unfinished: why it is not whole, in a few words; "" where it is.
        trouble: what went wrong with the last of them; "" where nothing did.
    """

    title = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    filling = traitlets.Bool(False).tag(sync=True)
    unfinished = traitlets.Unicode().tag(sync=True)
    trouble = traitlets.Unicode().tag(sync=True)
    palette = traitlets.Bytes().tag(sync=True)

    TOKEN_TRAIT = ""
    """The trait that says which token is selected, or which dots are, for :func:`link`."""

    def __init__(self, **traits: Any) -> None:
        self._telling = threading.RLock()
        self._failure: Exception | None = None
        super().__init__(palette=colours.palette().tobytes(), **traits)
        self.on_msg(self._told)

    @cached_property
    def _displayed(self) -> list[Any]:
        """Handles of the still pictures of it in the notebook."""
        return []

    @cached_property
    def worker(self) -> WidgetWorker:
        """Does what takes time, beside the kernel."""
        return WidgetWorker(self._work_changed, self._work_failed)

    def still(self) -> str:
        """The picture as HTML that needs no kernel, no JavaScript and no network."""
        raise NotImplementedError

    @property
    def values(self) -> Values:
        """The plain numbers of what is shown, by named axes; NaN where there is none (yet).

        Raises:
            BadRequest: it is no picture of numbers.
        """
        raise BadRequest(
            f"{type(self).__name__} is no picture of numbers.", "Its traits tell what it shows."
        )

    @property
    def summary(self) -> str:
        """What is shown, in a few words."""
        return ""

    # -- what takes time -------------------------------------------------------------------------

    def later(self, kind: str, task: Task) -> None:
        """Do something that may take time, beside the kernel: a function, or the pieces of something long."""
        self.trouble, self._failure = "", None
        self.worker.submit(kind, task)
        self._tell_state()

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until nothing is left to do, so that what is drawn is there: ``rmodel.lens(text).wait().values``.

        Args:
            timeout: seconds after which to give up; None for never.

        Returns:
            The picture. One that was stopped is as it was left.

        Raises:
            NotFinished: it was given up.
            GarconError: what the drawing failed with, as any other exception.
        """
        if not self.worker.wait(timeout):
            raise NotFinished(
                f"{self!r} is not finished after {timeout:.3g} seconds.",
                "wait() goes on waiting, stop() leaves off; what is there is in .values.",
            )
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> Self:
        """Leave off filling, after the piece that is computed now; the picture keeps what it has, and says so."""
        self.worker.stop()
        return self

    def _told(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """What the page says: that somebody looks, or has pressed the button."""
        word = content.get("do") if isinstance(content, dict) else None
        if word == "seen":
            headless.watched()
        elif word == "leave off":
            self.stop()

    @cached_property
    def _links(self) -> list[Any]:
        """What ties its selection to that of others."""
        return []

    def close(self) -> None:
        """End the widget, what it waits for, and its links."""
        self.worker.close()
        for each in self._links:
            each.close()
        super().close()

    def _tell_state(self) -> None:
        with self._telling, self.hold_sync():  # the last word is the latest
            self.busy, self.filling = self.worker.busy, self.worker.filling
            self.unfinished = self._why_unfinished()

    def _work_changed(self) -> None:
        self._tell_state()
        if not self.busy:  # what is saved from now on is what is seen now
            self.refresh_still()

    def _why_unfinished(self) -> str:
        if self.worker.filling:
            return "not finished"
        if self.worker.stopped:
            return "stopped, not finished"
        return "failed, not finished" if self.worker.left else ""

    def _work_failed(self, error: Exception) -> None:
        self._failure = error
        self.trouble = f"{type(error).__name__}: {error}"

    def refresh_still(self) -> None:
        """Put what is seen now in the place of the still pictures that were displayed."""
        if self._displayed:
            still = _still(self.still(), repr(self))
            for handle in self._displayed:
                handle.update(still, raw=True)

    def _ipython_display_(self) -> None:
        handle = display_twice(self.still(), self, repr(self))
        if handle is not None:  # there is none outside of a notebook
            self._displayed.append(handle)
            headless.shown(self)

    def __repr__(self) -> str:
        title = f"{self.title}: " if self.title else ""
        left = f", {self.unfinished}" if self.unfinished else ""
        return f"<{type(self).__name__} {title}{self.summary}{left}>"


def link(*widgets: Picture) -> None:
    """Let the selected token of several widgets be one and the same, or the selected dots of several maps.

    The widgets follow each other in the browser, so they do it while the kernel is busy too. A link ends
    with either of its widgets.

    Args:
        widgets: of tokens, activations, attention (its query token), lens or patching, of one text; or maps of the same dots.

    Raises:
        TypeError: a widget that has no selected token, or maps beside what is no map.
    """
    import ipywidgets

    ends = []
    for widget in widgets:
        trait = getattr(widget, "TOKEN_TRAIT", "")
        if not trait:
            raise TypeError(f"{type(widget).__name__} has no selected token to link.")
        ends.append((widget, trait))
    if len({type(widget.traits()[trait]) for widget, trait in ends}) > 1:
        raise TypeError(
            "A map selects several dots, and the others one token: link like with like."
        )
    for end in ends[1:]:
        tie = ipywidgets.jslink(ends[0], end)
        for widget, _ in (ends[0], end):
            widget._links.append(tie)
