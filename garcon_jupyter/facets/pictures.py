"""The pictures that a served model makes of itself: one method each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.client import Client
from garcon_jupyter.client.look import Look
from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from garcon_jupyter.display.points import Shown
    from garcon_jupyter.experiments.lenses.lens import Lens
    from garcon_jupyter.experiments.lenses.readouts import Target
    from garcon_jupyter.widgets import (
        AttentionWidget,
        Edit,
        LensWidget,
        LiveWidget,
        NeuronWidget,
        PatchingWidget,
        ServerCard,
        ShardingPicture,
        TokensWidget,
        View,
    )


class Pictures(Client):
    """Pictures of a :class:`~garcon_jupyter.RemoteModel`. None of them runs attached probes, or leaves
    anything in the session's recordings.

    What takes long fills a picture that is there already, behind what you run meanwhile. ``picture.wait()`` waits for
    it, ``picture.stop()`` leaves off, and ``picture.values`` are its numbers.
    """

    def look(self, text: Any) -> Look:
        """One context as it passes through the model; see :func:`garcon_jupyter.easy_garcon`."""
        return Look(self, text)

    def show(
        self,
        what: Shown,
        text: Any = None,
        attribute: str | None = None,
        rows: str | Sequence[str] | None = None,
        columns: str | Sequence[str] | None = None,
        title: str = "",
    ) -> View | AttentionWidget:
        """A picture of a point: what was recorded there, or, with `text`, of a clean pass over it.

        Args:
            what: name of the point, or (point, name of the probe); or a probe point, a recording, or a
                handle itself. "layers.*.attn.pattern" is all layers at a glance. Or an array of your own.
            text: tokens or text to run; None to show the recording.
            attribute: which saved tensor to show; by default the first of the point's shape.
            rows, columns: what the axes of an array are: ``rmodel.show(scores, rows="layer", columns="head")``.
            title: of an array.
        """
        from garcon_jupyter.display.points import show

        return show(self, what, text, attribute, rows, columns, title)

    def show_sharding(self) -> ShardingPicture:
        """A picture of which rank holds what, and how much memory it uses."""
        from garcon_jupyter.display.sharding import sharding_picture

        return sharding_picture(self)

    def show_tokens(
        self, text: Any, metrics: Mapping[str, Any] | None = None, title: str = ""
    ) -> TokensWidget:
        """A text coloured by the model's loss, probability, rank or entropy at each token.

        Args:
            text: one text or its tokens.
            metrics: values of your own, name to [p]; they come first.
            title: what is shown.
        """
        from garcon_jupyter.display.tokens import tokens_picture

        if metrics is not None and not isinstance(metrics, Mapping):
            raise BadRequest(
                f"metrics is a {type(metrics).__name__}, without names.",
                'Give name to values, one for each token: {"mine": values}.',
            )
        return tokens_picture(self, text, metrics, title)

    def lens(
        self,
        text: Any,
        target: Target = "last",
        statistic: str = "top probability",
        answer: str | int | None = None,
        lens: Lens | None = None,
    ) -> LensWidget:
        """A lens: layer × position of what every layer would predict.

        Args:
            text: one text or its tokens.
            target: of which token "answer probability" and "answer rank" tell: "last", what the model
                predicts in the end, or "next", what follows in the text.
            statistic: which is shown first; see :data:`garcon_jupyter.widgets.lens.STATISTICS`.
            answer: a token, as text (" Mary", with its space) or id, that they tell of instead, at every position.
            lens: a tuned or a Jacobian lens, of ``rmodel.experiments.load_lens(path)``, by which the layers that it has are read; by
                default the logit lens.

        Raises:
            BadRequest: a lens of another model; an answer of several tokens; the model's logits are more than its final norm and unembedding.
        """
        from garcon_jupyter.display.lens import lens_picture
        from garcon_jupyter.experiments.lenses.lens import LOGIT

        return lens_picture(self, text, target, statistic, answer, LOGIT if lens is None else lens)

    def show_attention(
        self, text: Any, layer: int | None = None, hide_first: bool = False
    ) -> AttentionWidget:
        """The attention pattern of every head: all layers at a glance, of which a click opens one.

        Args:
            text: one text or its tokens.
            layer: the layer to begin with; None for all of them.
            hide_first: whether to leave out the first token, on which many heads rest most of their weight; a
                button of the picture does so too.
        """
        from garcon_jupyter.display.attention import attention_picture

        return attention_picture(self, text, layer, hide_first)

    def patching(
        self,
        clean: Any,
        corrupted: Any,
        answers: tuple[Any, Any] | None = None,
        metric: Callable[[Any], Any] | None = None,
        points: Sequence[str] = ("layers.*.resid_pre", "layers.*.attn.z"),
    ) -> PatchingWidget:
        """Activation patching over layer × position and layer × head, filling as it runs.

        Args:
            clean, corrupted: texts of equally many tokens.
            answers: the token that answers each, as text (" Mary", with its space) or id; by default what the
                model predicts.
            metric: logits [cell, p, V] to [cell], run on the server; by default the logit of the clean
                answer less that of the corrupted one. 0 is the corrupted run, 1 the clean one.
            points: a pattern for each heatmap; a point with heads is swept by head, else by position.

        Raises:
            BadRequest: unequal lengths; an answer of several tokens; nothing to restore.
        """
        from garcon_jupyter.display.patching import patching_picture

        return patching_picture(self, clean, corrupted, answers, metric, points)

    def live(
        self,
        text: str,
        points: Sequence[str] | str = (),
        edits: Sequence[Edit] = (),
        directions: Mapping[str, Any] | None = None,
    ) -> LiveWidget:
        """Type, move a slider, and see at once what becomes of prediction and activations.

        Args:
            text: to begin with.
            points: that edits can be made at and whose values are shown; names or patterns.
            edits: to begin with.
            directions: name to vector, that can be added at a point of its size.
        """
        from garcon_jupyter.display.live import live_picture

        return live_picture(self, text, points, edits, directions)

    def show_neuron(
        self, point: str, unit: int, texts: Any, text: str = "", record: Any = None
    ) -> NeuronWidget:
        """The dashboard of one unit, with a field to try texts of your own.

        Args:
            point: of shape [b, p, units], such as ``layers.4.mlp.post_activation``.
            unit: its number.
            texts: to find examples in.
            text: that is tried first.
            record: of the unit, such as an atlas has; then `texts` are not run.
        """
        from garcon_jupyter.display.neuron import neuron_picture

        return neuron_picture(self, point, unit, texts, text, record)

    def card(self) -> ServerCard:
        """What the server is doing, how long it will stay, and buttons to keep it and to stop it."""
        from garcon_jupyter.display.server_card import server_card

        return server_card(self)
