"""Whether a model's tokenizer has the levels as single tokens.

Probabilities are of tokens. Where "10" is two of them, as with SmolLM2's tokenizer, the probability of "1" is that of 1 *and* of 10, and
an expected value of it is wrong without a sign that it is. Such a model is refused as a simulator of levels up to 10, and may be
asked for levels up to 9.
"""

from __future__ import annotations

from collections.abc import Sequence

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.explanations.language_models.protocol import LanguageModel, NoUsableReply


def check_levels(model: LanguageModel, candidates: Sequence[str], before: str) -> None:
    """That each candidate is a token by itself, and what stands before it does not run into it.

    No more is assumed: not that a tokenizer puts a token of its own at the beginning of a text, nor that it does not.

    Args:
        model: the simulator.
        candidates: such as "0" to "10".
        before: the end of what stands before them, such as a tab.

    Raises:
        BadRequest: it is not so; says which, and what to do.
    """
    for candidate in candidates:
        try:
            tokens = _tokens(model, before + candidate)
        except NoUsableReply as error:
            raise BadRequest(
                f"{model.name} does not tell how {candidate!r} is cut into tokens: {error}.",
                'Use method="json", which needs no tokens.',
            ) from None
        if tokens and tokens[-1] == candidate and "".join(tokens).endswith(before + candidate):
            continue
        shown = " ".join(map(repr, tokens))
        raise BadRequest(
            f"{model.name} does not have {candidate!r} as one token: {before + candidate!r} is {shown}.",
            _remedy(candidate),
        )


def _tokens(model: LanguageModel, text: str) -> list[str]:
    """The tokens of a text; where the model does not tell them, those that it writes when it is asked to write it."""
    tokens = model.tokens_of(text)
    if tokens is not None:
        return tokens
    wanted = text.strip()
    messages = [{"role": "user", "content": f"Write the number {wanted} and nothing else."}]
    written = model.complete(messages, max_tokens=4, top_logprobs=1).tokens
    at = next((n for n in range(len(written)) if "".join(written[n:]).strip() == wanted), None)
    if at is None:
        raise BadRequest(
            f"{model.name} does not tell its tokens, and does not write {wanted!r} when asked to.",
            'Simulate with method="json", which needs no tokens.',
        )
    # What surrounds it in an answer (a space, an end) is not of the number.
    return [
        text[: len(text) - len(wanted)],
        *(part.strip() for part in written[at:] if part.strip()),
    ]


def _remedy(candidate: str) -> str:
    if candidate == "10":
        return 'Give top=9, for levels from 0 to 9, or method="json", which needs no tokens.'
    return 'Use another model, or method="json", which needs no tokens.'
