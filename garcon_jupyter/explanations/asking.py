"""Questions to a language model: kept answers, failures counted by their reasons, what it costs, and how far it is.

A *question* says by what its answer is kept: the model, the version of the prompt, the explanation and the record that it is about. An answer that
came is kept at once, so that a run which is killed goes on where it was. One that could not be used is not kept: it is asked again
by the next run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from garcon_jupyter.errors import Interrupted
from garcon_jupyter.explanations.checked_lines import CheckedLines
from garcon_jupyter.explanations.language_models.protocol import LanguageModel, NoUsableReply
from garcon_jupyter.explanations.records.excerpts import digest_of

CHARACTERS = 3
"""Of a prompt to a token, about: what a run will cost is told before any tokenizer is asked."""


@dataclass(frozen=True)
class Question:
    """Something to ask of a language model.

    Attributes:
        model: that is asked.
        version: of the prompt.
        explanation: that it is about; "" where it asks for one.
        record: digest of what it is about.
        prompt: all of its text.
        answer: asks it; returns what JSON can hold, or raises :class:`NoUsableReply`.
        requests: how many requests that takes.
        longest: tokens of the answer, about.
        more: what else the answer depends on.
    """

    model: LanguageModel
    version: str
    explanation: str
    record: str
    prompt: str
    answer: Callable[[], Any]
    requests: int = 1
    longest: int = 30
    more: tuple[str | int, ...] = ()

    @property
    def key(self) -> str:
        """By which its answer is kept."""
        return digest_of(
            [self.model.name, self.version, self.explanation, self.record, list(self.more)]
        )


@dataclass(frozen=True)
class FailedReply:
    """In place of an answer that could not be used.

    Attributes:
        reason: the same for all of a kind.
        detail: what it was of this one.
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Attempts:
    """How many questions were asked, and how many of them have no usable answer.

    Attributes:
        n: questions.
        failed: of these.
        reasons: how many failed for which reason.
    """

    n: int
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(answers: Sequence[Any]) -> Attempts:
        """Of answers, some of which are :class:`FailedReply`."""
        reasons = Counter(one.reason for one in answers if isinstance(one, FailedReply))
        return Attempts(len(answers), reasons.total(), dict(sorted(reasons.items())))

    def __str__(self) -> str:
        if not self.failed:
            return f"{self.n} asked"
        told = ", ".join(f"{reason} ×{count}" for reason, count in self.reasons.items())
        return f"{self.failed} of {self.n} failed ({told})"


@dataclass(frozen=True)
class ExplanationCost:
    """What a run will ask, beyond what is kept.

    Attributes:
        requests: to language models; those that are repeated after an error not counted.
        prompt_tokens, completion_tokens: about, at three characters to a token.
        kept: questions whose answers are there.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    kept: int

    def __str__(self) -> str:
        there = f"; {self.kept:,} answers are kept" if self.kept else ""
        return (
            f"{self.requests:,} requests, about {self.prompt_tokens:,} tokens to read "
            f"and {self.completion_tokens:,} to write{there}"
        )


Progress = Callable[[int, int, str], None]
"""(questions that are answered, of how many, what they are about)"""


class AnswerStore:
    """Answers that are kept, in a file.

    Args:
        file: where; None for in memory only.

    Attributes:
        damaged: lines of the file that could not be read.
    """

    def __init__(self, file: CheckedLines | None) -> None:
        self._file = file
        rows, self.damaged = file.read() if file else ([], 0)
        self._known: dict[str, Any] = {row["key"]: row["answer"] for row in rows}
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def keep(self, key: str, answer: Any) -> None:
        """Keep an answer, now."""
        with self._lock:
            if self._file:
                self._file.add([{"key": key, "answer": answer}])
            self._known[key] = answer


class Asking:
    """Asks questions, or adds up what they would cost.

    Args:
        answers: that are kept.
        dry: nothing is asked; what is not kept is answered by a placeholder.
        progress: told of each answer.
        cancelled: looked at before each question.
        total: of the questions, where that is known.
    """

    def __init__(
        self,
        answers: AnswerStore,
        dry: bool = False,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        total: int = 0,
    ) -> None:
        self._answers, self.dry = answers, dry
        self._progress, self._cancelled, self._total = progress, cancelled, total
        self._lock = threading.Lock()
        self.done = self.kept = self.requests = self.read = self.written = 0

    @property
    def cost(self) -> ExplanationCost:
        """What was asked, or would be."""
        return ExplanationCost(self.requests, self.read, self.written, self.kept)

    def all(
        self, questions: Iterable[Question], what: str, placeholder: Any = None
    ) -> list[Any | FailedReply]:
        """Answers in the order of the questions.

        Args:
            questions: of one model.
            what: they are about, as progress tells.
            placeholder: an answer of those that are not kept, where nothing is asked.

        Raises:
            Interrupted: it was cancelled; what was answered is kept.
        """
        asked = list(questions)
        if self.dry:
            return [self._counted(one, placeholder) for one in asked]
        at_once = min([max(1, one.model.at_once) for one in asked], default=1)
        if at_once == 1 or len(asked) < 2:
            return [self._answered(one, what) for one in asked]
        with ThreadPoolExecutor(at_once) as pool:
            waiting = [pool.submit(self._answered, one, what) for one in asked]
            try:
                return [one.result() for one in waiting]
            except BaseException:
                for one in waiting:
                    one.cancel()
                raise

    def _counted(self, question: Question, placeholder: Any) -> Any:
        self.done += 1
        if question.key in self._answers:
            self.kept += 1
            return self._answers[question.key]
        self._add(question)
        return placeholder

    def _add(self, question: Question) -> None:
        with self._lock:
            self.requests += question.requests
            self.read += -(-len(question.prompt) // CHARACTERS)
            self.written += question.longest

    def _answered(self, question: Question, what: str) -> Any | FailedReply:
        key = question.key
        if key in self._answers:
            with self._lock:
                self.kept += 1
            found = self._answers[key]
        else:
            if self._cancelled is not None and self._cancelled():
                raise Interrupted(
                    "Explaining was cancelled.", "The same call goes on; what was answered is kept."
                )
            self._add(question)
            try:
                found = question.answer()
            except NoUsableReply as error:
                found = FailedReply(error.reason, error.detail)
            else:
                self._answers.keep(key, found)
        with self._lock:
            self.done += 1
            done = self.done
        if self._progress is not None:
            self._progress(done, max(self._total, done), what)
        return found
