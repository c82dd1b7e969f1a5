"""What language models are asked, word for word, with the name of its version.

An answer is kept by that name: who changes a prompt gives it another, and no kept answer is taken for one to the new. The worked examples are
made up for this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from garcon_jupyter.explanations.language_models.protocol import Message
from garcon_jupyter.explanations.records.excerpts import TOP, Excerpt, levels
from garcon_jupyter.explanations.records.token_pairs import TokenPair

VERSIONS = {
    "explain": "explain-1",
    "explain-pairs": "explain-pairs-1",
    "all-at-once": "all-at-once-1",
    "token-by-token": "token-by-token-1",
    "json": "json-1",
    "detection": "detection-1",
    "fuzzing": "fuzzing-1",
    "intruder": "intruder-1",
    "pairs": "pairs-1",
}
"""The version of each prompt, by what it is for."""

WORDS = 20
"""Words that an explanation has at most, as the prompt asks."""

PLACEHOLDER = " ".join(["word"] * (WORDS // 2))
"""In place of an explanation that is not written yet, where only the length of a prompt is asked for."""

UNKNOWN = "unknown"
"""What stands for a level, in the prompt of a simulator that tells all at once."""

_WORKED: tuple[tuple[str, tuple[tuple[tuple[str, int], ...], ...]], ...] = (
    (
        "words for weather",
        (
            (
                *(("The", 0), (" storm", 10), (" passed", 1), (" by", 0), (" noon", 0), (",", 0)),
                *((" and", 0), (" then", 0), (" came", 0), (" light", 0), (" rain", 9), (".", 0)),
            ),
            (("She", 0), (" sold", 0), (" the", 0), (" old", 0), (" piano", 0), (".", 0)),
        ),
    ),
    (
        "the second part of a number with a decimal point",
        (
            (
                *(("It", 0), (" costs", 0), (" 3", 0), (".", 2), ("75", 10), (" a", 0)),
                *((" kilo", 0), (",", 0), (" not", 0), (" 4", 0), (".", 1), ("20", 10)),
            ),
            (("Page", 0), (" 12", 0), (" is", 0), (" missing", 0), (".", 0)),
        ),
    ),
    (
        "verbs of speaking, after a quotation",
        (
            (
                *(('"', 0), ("Go", 0), (" home", 0), ('"', 1), (",", 2), (" he", 1)),
                *((" whispered", 10), (",", 0), (" and", 0), (" left", 0), (".", 0)),
            ),
            (("We", 0), (" asked", 3), (" for", 0), (" two", 0), (" tickets", 0), (".", 0)),
        ),
    ),
)
"""Made-up units: what each fires for, and texts with a level from 0 to 10 for each token."""

_WORKED_PAIRS = (
    (
        "from a closing bracket to the opening bracket that it closes",
        "He (my uncle) laughed.",
        (")", "("),
    ),
    ("from a pronoun to the name that it stands for", "Ada said that she knew.", (" she", "Ada")),
)


def written(token: str) -> str:
    """A token on one line, in which no tokenizer sees a special token."""
    shown = token.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown)
    return shown.replace("<|", "<\u00a6")


def _scaled(level: int, top: int) -> int:
    return level * top // TOP


def _lines(tokens: Sequence[str], known: Sequence[int]) -> str:
    pairs = zip(tokens, known, strict=True)
    return "\n".join(f"{written(token)}\t{level}" for token, level in pairs)


def _plain(tokens: Sequence[str]) -> str:
    return written("".join(tokens))


# -- explaining ------------------------------------------------------------------------------------

_EXPLAIN = (
    "You study a unit of a neural network that reads text. You are shown texts with one token on a line, and after a tab the level "
    f"at which the unit fires there, from 0 (not at all) to {TOP} (its strongest). Say what the unit fires for: what the tokens "
    f"with high levels, or what stands before them, have in common. Answer with a phrase of at most {WORDS} words and nothing else. Do not speak of "
    "tokens, levels or the unit."
)


def explain(excerpts: Sequence[Excerpt], largest: float) -> list[Message]:
    """Ask what a unit fires for.

    Args:
        excerpts: on which it fires.
        largest: its largest value.
    """
    messages: list[Message] = [{"role": "system", "content": _EXPLAIN}]
    for answer, texts in _WORKED:
        shown = [_lines([t for t, _ in text], [level for _, level in text]) for text in texts]
        messages.append({"role": "user", "content": _numbered(shown)})
        messages.append({"role": "assistant", "content": answer})
    shown = [_lines(one.tokens, levels(one.values, largest)) for one in excerpts]
    messages.append({"role": "user", "content": _numbered(shown)})
    return messages


def explain_pairs(pairs: Sequence[TokenPair]) -> list[Message]:
    """Ask what an attention head attends to, and from where."""
    task = (
        "You study an attention head of a language model. In each text [[double brackets]] mark the token that attends, and "
        f"{{{{double braces}}}} the earlier token that it attends to. Say in at most {WORDS} words from what to what the head attends. "
        "Answer with the phrase and nothing else."
    )
    messages: list[Message] = [{"role": "system", "content": task}]
    for answer, text, (query, key) in _WORKED_PAIRS:
        marked = text.replace(query, f"[[{query}]]", 1).replace(key, f"{{{{{key}}}}}", 1)
        messages.append({"role": "user", "content": _numbered([marked])})
        messages.append({"role": "assistant", "content": answer})
    messages.append({"role": "user", "content": _numbered([marked_pair(one) for one in pairs])})
    return messages


def marked_pair(pair: TokenPair) -> str:
    """A text in which the two tokens of a pair are marked."""
    marks = {pair.query: ("[[", "]]"), pair.key: ("{{", "}}")}
    if pair.query == pair.key:
        marks = {pair.key: ("[[{{", "}}]]")}
    parts = []
    for n, token in enumerate(pair.tokens):
        before, after = marks.get(n, ("", ""))
        parts.append(f"{before}{written(token)}{after}")
    return "".join(parts)


def _numbered(texts: Sequence[str]) -> str:
    return "\n\n".join(f"Text {n}:\n{text}" for n, text in enumerate(texts, 1))


# -- simulating ------------------------------------------------------------------------------------


def all_at_once(explanation: str, tokens: Sequence[str], top: int) -> list[str]:
    """The pieces of a prompt, after each of which stands the level of one token; :data:`UNKNOWN` stands in its place.

    A text that goes on, and no conversation: models that were never taught to answer understand it as well.
    """
    head = [
        "A unit of a neural network reads texts token by token. After each token stands the level at which it fires, "
        f"from 0 (not at all) to {top} (its strongest). Most levels are 0.\n\n"
    ]
    for answer, texts in _WORKED:
        shown = [
            _lines([t for t, _ in text], [_scaled(level, top) for _, level in text])
            for text in texts
        ]
        head.append(f"The unit fires for: {answer}\n" + "\n\n".join(shown) + "\n\n")
    head.append(f"The unit fires for: {written(explanation)}\n")
    pieces = [f"{written(token)}\t" for token in tokens]
    pieces[1:] = [f"{UNKNOWN}\n{piece}" for piece in pieces[1:]]
    pieces[0] = "".join(head) + pieces[0]
    return pieces


def token_by_token(explanation: str, tokens: Sequence[str], at: int, top: int) -> list[Message]:
    """Ask for the level of one token, given those before it."""
    task = (
        f"A unit of a neural network fires for something, at a level from 0 (not at all) to {top} (its strongest). You are told for what, and a text up to "
        "some token. Answer with the level at that token: one number and nothing else. Most levels are 0."
    )
    messages: list[Message] = [{"role": "system", "content": task}]
    for answer, texts in _WORKED:
        known = [token for token, _ in texts[0]]
        strongest = max(range(len(known)), key=lambda n: texts[0][n][1])
        for place in (0, strongest):
            messages.append({"role": "user", "content": _up_to(answer, known, place)})
            level = _scaled(texts[0][place][1], top)
            messages.append({"role": "assistant", "content": str(level)})
    messages.append({"role": "user", "content": _up_to(explanation, tokens, at)})
    return messages


def _up_to(explanation: str, tokens: Sequence[str], at: int) -> str:
    return (
        f"The unit fires for: {written(explanation)}\nText: {_plain(tokens[: at + 1])}\n"
        f"Token: {written(tokens[at])}"
    )


def as_json(explanation: str, tokens: Sequence[str], top: int) -> list[Message]:
    """Ask for the levels of all tokens, as JSON."""
    task = (
        "A unit of a neural network fires for something. You are told for what, and given the tokens of a text as a JSON list. Answer with JSON of the form "
        '{"levels": [{"token": "…", "level": 0}, …]}: every token of the list, in its order and none left out, each with a whole number from 0 '
        f"(the unit does not fire) to {top} (its strongest). Most levels are 0. Answer with the JSON and nothing else."
    )
    messages: list[Message] = [{"role": "system", "content": task}]
    for answer, texts in _WORKED[:2]:
        rows = [{"token": written(t), "level": _scaled(level, top)} for t, level in texts[0]]
        messages.append(
            {"role": "user", "content": _asked_as_json(answer, [t for t, _ in texts[0]])}
        )
        messages.append(
            {"role": "assistant", "content": json.dumps({"levels": rows}, ensure_ascii=False)}
        )
    messages.append({"role": "user", "content": _asked_as_json(explanation, tokens)})
    return messages


def _asked_as_json(explanation: str, tokens: Sequence[str]) -> str:
    listed = json.dumps([written(token) for token in tokens], ensure_ascii=False)
    return f"The unit fires for: {written(explanation)}\nTokens: {listed}"


def levels_schema(top: int) -> dict[str, Any]:
    """The JSON schema of the answer to :func:`as_json`."""
    row = {
        "type": "object",
        "properties": {
            "token": {"type": "string"},
            "level": {"type": "integer", "minimum": 0, "maximum": top},
        },
        "required": ["token", "level"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"levels": {"type": "array", "items": row}},
        "required": ["levels"],
        "additionalProperties": False,
    }


# -- judging ---------------------------------------------------------------------------------------

_JUDGED = {
    "detection": "Does something in the text match this description?",
    "fuzzing": "In the text some tokens are marked with [[double brackets]]. Do the marked tokens match this description?",
    "pairs": (
        "In the text [[double brackets]] mark a token that attends, and {{double braces}} an earlier one. "
        "Does the pair match this description of an attention head?"
    ),
}


def judge(kind: str, explanation: str, texts: Sequence[str]) -> list[Message]:
    """Ask of each text whether what is said holds for it.

    Args:
        kind: "detection", "fuzzing" or "pairs".
        texts: as :func:`shown` and :func:`marked` write them.
    """
    task = (
        f"{_JUDGED[kind].replace('the text', 'each text').replace('The text', 'Each text')} Answer with JSON of the form "
        '{"answers": [1, 0, …]}: for each text, in their order, 1 for yes and 0 for no. Answer with the JSON and nothing else.'
    )
    return [
        {"role": "system", "content": task},
        {"role": "user", "content": f"Description: {written(explanation)}\n\n{_numbered(texts)}"},
    ]


def rate(kind: str, explanation: str, text: str) -> str:
    """A prompt after which "yes" or "no" stands, for a model that tells its probabilities."""
    return (
        f"Question: {_JUDGED[kind]}\nDescription: {written(explanation)}\n"
        f"Text: {text}\nAnswer, yes or no:"
    )


YES_NO = (" yes", " no")
"""What may stand after :func:`rate`."""


def answers_schema(count: int) -> dict[str, Any]:
    """The JSON schema of the answer to :func:`judge`."""
    items = {"type": "integer", "enum": [0, 1]}
    return {
        "type": "object",
        "properties": {
            "answers": {"type": "array", "items": items, "minItems": count, "maxItems": count}
        },
        "required": ["answers"],
        "additionalProperties": False,
    }


def intruder(explanation: str, texts: Sequence[str]) -> list[Message]:
    """Ask which of several texts does not belong."""
    task = (
        "All but one of these texts have something that matches the description. Which does not? "
        'Answer with JSON of the form {"intruder": 1}, the number of that text, and nothing else.'
    )
    return [
        {"role": "system", "content": task},
        {"role": "user", "content": f"Description: {written(explanation)}\n\n{_numbered(texts)}"},
    ]


def intruder_schema(count: int) -> dict[str, Any]:
    """The JSON schema of the answer to :func:`intruder`."""
    return {
        "type": "object",
        "properties": {"intruder": {"type": "integer", "minimum": 1, "maximum": count}},
        "required": ["intruder"],
        "additionalProperties": False,
    }


def shown(excerpt: Excerpt) -> str:
    """A text on one line."""
    return _plain(excerpt.tokens)


def marked(excerpt: Excerpt, places: Sequence[int]) -> str:
    """A text on one line in which some tokens are marked."""
    chosen = set(places)
    return "".join(
        f"[[{written(token)}]]" if n in chosen else written(token)
        for n, token in enumerate(excerpt.tokens)
    )


def cleaned(said: str) -> str:
    """An explanation as a model says it, without what it often puts around: quotation marks, a full stop, an introduction."""
    text = " ".join(said.split())
    text = re.sub(r"^(the unit fires for|explanation)\s*:?\s*", "", text, flags=re.I)
    return text.strip().strip("\"'“”`").rstrip(".").strip()
