"""A text read by a lens, as a result of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.experiments.clean_passes import one_text, whole_pieces
from garcon_jupyter.experiments.lenses.lens import LOGIT, Lens
from garcon_jupyter.experiments.lenses.readouts import STATISTICS, Target, read_layers
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def read_lens(
    rmodel: Client,
    text: Any,
    lens: Lens | None = None,
    target: Target = "last",
    choices: int = 5,
    answer: str | int | None = None,
) -> ExperimentResult:
    """What every layer would predict of one text, by any lens.

    With h[l, t] the stream that leaves layer l at position t, and T[l] the map of the lens (nothing for the logit lens, h + A · h + b
    for a tuned one, J[l] · h for a Jacobian one), the layer predicts

        q[l, t] = softmax(unembed(norm(T[l](h[l, t]))))

    and is told by its top probability, probability and rank of an answer, its entropy −Σ q log q, and KL(p ‖ q) from what the model
    predicts, p, both in nats. Of every layer a few numbers travel for each position. Layers that the lens has no map of are NaN; the last one is
    read as it is by every lens, and is what the model predicts.

    Args:
        text: a text or tokens.
        lens: of ``load_lens``, ``fit_jacobian_lens`` or ``train_tuned_lens``; by default the logit lens.
        target: of which token answer probability and rank are: "last", what the model predicts in the end, or "next", the one that
            follows in the text.
        choices: how many likely tokens are kept of each prediction.
        answer: a token, as text or id, that they are of instead, everywhere.

    Returns:
        values: float32 [statistic, layer, position].
        more: ``ids`` int64 [layer, position, choice], the likeliest tokens, −1 where a layer was not read, and their ``probabilities``;
            ``answers`` [position].
        facts: the lens, and the text's tokens.

    Sources: nostalgebraist 2020, *Interpreting GPT: the logit lens*; Belrose et al. 2023, *Eliciting latent predictions from transformers
    with the tuned lens*; Gurnee et al. 2026, *Verbalizable representations form a global workspace in language models*.

    Raises:
        BadRequest: a lens of another model; several texts; an answer of several tokens; a model whose logits are more than final norm
            and unembedding.

    Examples:
        >>> found = experiments.read_lens(rmodel, "The capital of France is", answer=" Paris")
        >>> found.at(statistic="answer rank", position=4)[-6:]
        tensor([...])
        >>> rmodel.decode(found.more["ids"][-1, 4, 0])
        ' Paris'
    """
    tokens = one_text(rmodel, text)
    lens = LOGIT if lens is None else lens
    found = read_layers(rmodel, tokens, target, choices, answer, lens)
    import torch

    layers, positions = found.statistics.shape[:2]
    axes: dict[str, Any] = {
        "statistic": STATISTICS,
        "layer": range(layers),
        "position": range(positions),
    }
    pieces = whole_pieces(rmodel, tokens)
    facts = {
        "model": rmodel.facts["model"]["architecture"],
        "lens": lens.kind,
        "tokens": tokens.tolist()[0],
        "target": target if answer is None else "answer",
        "names": {"position": {str(number): piece for number, piece in enumerate(pieces)}},
    }
    more = {
        "ids": torch.from_numpy(found.ids),
        "probabilities": torch.from_numpy(found.probabilities),
        "answers": torch.from_numpy(found.answers),
    }
    values = torch.from_numpy(found.statistics).movedim(-1, 0).contiguous()
    says = f"{lens.kind}: what each layer predicts, told by statistics; entropy and KL in nats"
    return ExperimentResult("read_lens", values, axes, says, facts, more)
