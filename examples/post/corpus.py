"""The text: pages of an encyclopedia as words with numbers, and a batch of them for each step.

gensim comes with an excerpt of a dump of the English Wikipedia, of 106 articles. Its own functions take the markup out; then words are told apart as
by torchtext's ``basic_english``, which the post used: all in lower case, punctuation by itself.
"""

from __future__ import annotations

import bz2
import functools
import re
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
ROWS, PLACES = 20, 35
"""Data of a batch, and words of a datum."""

UNKNOWN = "<unk>"

_RULES = {
    "'": " '  ",
    '"': "",
    ".": " . ",
    ",": " , ",
    "(": " ( ",
    ")": " ) ",
    "!": " ! ",
    "?": " ? ",
    ";": " ",
    ":": " ",
}
_MARKS = str.maketrans(_RULES)


def split(text: str) -> list[str]:
    """The words of a text, as ``basic_english`` has them."""
    return text.lower().replace("<br />", " ").translate(_MARKS).split()


@functools.cache
def encyclopedia() -> list[str]:
    """The words of all articles, one after the other."""
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    from gensim.test.utils import datapath

    with bz2.open(datapath(DUMP)) as file:
        texts = [filter_wiki(text) for _, text, _ in extract_pages(file, ("0",))]
    return [word for text in texts for word in split(re.sub(r"'{2,}", "", text))]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as numbers.

    Attributes:
        ids: of its words, one after the other.
        words: by number; the first is that of all that are too rare.
    """

    ids: Tensor
    words: list[str]

    @property
    def texts(self) -> dict[int, str]:
        """Words by number, as tables of tokens take them."""
        return dict(enumerate(self.words))

    def number(self, word: str) -> int:
        """The number of a word."""
        return self.words.index(word)

    def data(self) -> Tensor:
        """[steps, ROWS, PLACES + 1]: each row of a batch goes on where it ended in the batch before; the last word is the
        next one's first."""
        steps = (len(self.ids) // ROWS - 1) // PLACES
        rows = self.ids[: len(self.ids) // ROWS * ROWS].view(ROWS, -1)
        windows = [rows[:, n * PLACES : (n + 1) * PLACES + 1] for n in range(steps)]
        return torch.stack(windows)


def corpus(at_least: int = 3, most: int | None = None) -> Corpus:
    """The encyclopedia with the words that occur so often, or with so many of the commonest."""
    text = encyclopedia()
    counted = Counter(text).most_common(None if most is None else most - 1)
    words = [UNKNOWN, *(word for word, count in counted if count >= at_least)]
    numbers = {word: number for number, word in enumerate(words)}
    return Corpus(torch.tensor([numbers.get(word, 0) for word in text]), words)
