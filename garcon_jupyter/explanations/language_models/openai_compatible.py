"""A language model behind an address that speaks OpenAI's protocol: a provider's, or a server of one's own (vLLM, llama.cpp, Ollama, …).

``POST /chat/completions`` is enough for explaining, for levels as JSON, for one token at a time (where the server gives
``logprobs``) and for judging. Log-probabilities of the prompt are given by servers of one's own alone, by ``POST /completions`` with ``echo``: say
``prompt_logprobs=True`` of one that does.

The key is read from the environment, by the *name* of the variable, when a request is made; it is in no file, no message and no
representation of this object. It is sent to the address that was given, and nowhere else: a redirection is an error.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadRequest, LanguageModelRefused
from garcon_jupyter.explanations.language_models.protocol import (
    CHAT,
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    Completion,
    Message,
    NoUsableReply,
)

LARGEST_REPLY = 32 << 20
"""Bytes of a reply that are read."""

LONGEST_PAUSE = 30.0
"""Seconds between two attempts, whatever a server asks for."""

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""

HOPELESS = frozenset({401, 402, 403, 404, 405})
"""Statuses that every request would get."""


class OpenAICompatible:
    """A model behind an address.

    Args:
        base_url: up to and with the version, such as "http://localhost:8000/v1".
        model: as the server calls it.
        key_variable: *name* of the environment variable that holds the key; "" for a server that wants none.
        timeout: seconds for a reply.
        retries: how often a request is repeated after an error that may pass, with pauses that double, or are as the server asks; at most 30 seconds.
        at_once: questions at a time.
        prompt_logprobs: whether ``/completions`` gives log-probabilities of the prompt with ``echo``.
        token_logprobs: whether ``/chat/completions`` gives ``logprobs``.
        known: candidates that are looked for among the likeliest tokens of a place; servers allow 20, and some 5.
        length_field: how the field is called that bounds an answer; "max_completion_tokens" for some models.
        extra: more fields for the body of each request, which go before ours: {"temperature": 1} for a model that has no other.

    Raises:
        BadRequest: the address is none, or the variable is not set.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_variable: str = "",
        timeout: float = 60.0,
        retries: int = 3,
        at_once: int = 4,
        prompt_logprobs: bool = False,
        token_logprobs: bool = True,
        known: int = 20,
        length_field: str = "max_tokens",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadRequest(
                f"{base_url!r} is no address of a server.",
                'Give one such as "http://host:8000/v1".',
            )
        if parts.username or parts.password:
            raise BadRequest(
                "The address holds a password.", "Give key_variable, the name of a variable."
            )
        self.name, self.at_once = model, max(1, at_once)
        self._base, self._key_variable = base_url.rstrip("/"), key_variable
        self._timeout, self._retries, self._known = timeout, retries, known
        self._extra, self._length_field = dict(extra or {}), length_field
        more = [TOKEN_LOGPROBS] * token_logprobs + [PROMPT_LOGPROBS] * prompt_logprobs
        self.can = frozenset([CHAT, *more])
        self._key()

    def __repr__(self) -> str:
        return f"<{self.name} at {self._base}>"

    # -- what it is asked --------------------------------------------------------------------------

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
        top_logprobs: int = 0,
    ) -> Completion:
        """Ask ``/chat/completions``; a schema is sent as ``response_format``."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(one) for one in messages],
            self._length_field: max_tokens,
            "temperature": temperature,
        }
        if stop:
            body["stop"] = list(stop)
        if schema is not None:
            named = {"name": "answer", "strict": True, "schema": dict(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if top_logprobs:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        return _completion(self._post("/chat/completions", body))

    def score(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Ask ``/completions`` with ``echo``, for the likeliest tokens at each place of the prompt."""
        prompt = "".join(pieces)
        _, places, top = self._echoed(prompt + candidates[0])
        found = np.full((len(pieces), len(candidates)), -np.inf)
        at = {place: n for n, place in enumerate(places)}
        end = 0
        for row, piece in enumerate(pieces):
            end += len(piece)
            if end not in at:
                raise NoUsableReply("tokens run into each other", f"none begins after {piece!r}")
            likely = top[at[end]] or {}
            found[row] = [float(likely.get(one, -np.inf)) for one in candidates]
        return found

    def tokens_of(self, text: str) -> list[str] | None:
        """The tokens of a text, where the server echoes them; None where it does not."""
        if PROMPT_LOGPROBS not in self.can:
            return None
        before = "word"  # in the midst of a text: what a tokenizer puts at a beginning is not of it
        tokens, places, _ = self._echoed(before + text)
        rows = zip(tokens, places, strict=True)
        return [token for token, place in rows if place >= len(before)]

    def _echoed(self, prompt: str) -> tuple[list[str], list[int], list[Mapping[str, float] | None]]:
        """The tokens of a prompt, where each begins, and the likeliest ones at its place."""
        body = {
            "model": self.name,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": self._known,
        }
        reply = self._post("/completions", body)
        try:
            logs = reply["choices"][0]["logprobs"]
            tokens, places, top = logs["tokens"], logs["text_offset"], logs["top_logprobs"]
            if not len(tokens) == len(places) == len(top):
                raise ValueError("lists of unequal lengths")
            rows = zip(tokens, _places(tokens, places, prompt), top, strict=True)
            mine = [(str(t), p, _likely(all)) for t, p, all in rows if 0 <= p < len(prompt)]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise NoUsableReply("no log-probabilities in the reply", str(error)) from None
        if not mine:
            raise NoUsableReply("no log-probabilities in the reply", "the prompt was not echoed")
        return [t for t, _, _ in mine], [p for _, p, _ in mine], [likely for _, _, likely in mine]

    # -- how it is asked ---------------------------------------------------------------------------

    def _key(self) -> str:
        if not self._key_variable:
            return ""
        key = os.environ.get(self._key_variable, "")
        if not key:
            raise BadRequest(
                f"The environment variable {self._key_variable} is not set.",
                "Set it to the key before the notebook or the server is started.",
            )
        return key

    def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request, again where that may help.

        Raises:
            NoUsableReply: there was no reply to it.
            LanguageModelRefused: there would be none to any.
        """
        data = json.dumps({**body, **self._extra}).encode()
        wrong = NoUsableReply("no reply")
        for attempt in range(self._retries + 1):
            try:
                return self._once(path, data)
            except _Passing as error:
                wrong = error.reply
                if attempt < self._retries:
                    time.sleep(_pause(attempt, error.after))
        raise wrong

    def _once(self, path: str, data: bytes) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._base + path, data, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=self._timeout) as reply:
                text = reply.read(LARGEST_REPLY + 1)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except TimeoutError:
            raise _Passing(NoUsableReply("no reply in time", f"{self._timeout:g} s")) from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                late = NoUsableReply("no reply in time", f"{self._timeout:g} s")
                raise _Passing(late) from None
            raise _Passing(NoUsableReply("no connection", str(error))) from None
        if len(text) > LARGEST_REPLY:
            raise NoUsableReply("reply too long", f"more than {LARGEST_REPLY} bytes")
        try:
            found = json.loads(text)
        except ValueError as error:
            raise NoUsableReply("reply is not JSON", str(error)) from None
        if not isinstance(found, dict):
            raise NoUsableReply("reply is not an object", type(found).__name__)
        return found

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            said = _said(error.read(4096))
        told = NoUsableReply(f"status {error.code}", said)
        if error.code in AGAIN:
            return _Passing(told, error.headers.get("Retry-After"))
        if error.code in HOPELESS or 300 <= error.code < 400:
            what = f"{self._base} answers with status {error.code}{f': {said}' if said else ''}."
            remedy = "See that address, model and key are right; redirections are not followed."
            return LanguageModelRefused(what, remedy)
        return told


class _Passing(Exception):
    """An error after which the same request may succeed."""

    def __init__(self, reply: NoUsableReply, after: str | None = None) -> None:
        self.reply, self.after = reply, after
        super().__init__(str(reply))


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        """None: a redirected request would take the key with it."""


_OPENER = urllib.request.build_opener(_NoRedirection)


def _places(tokens: list[str], places: list[int], prompt: str) -> list[int]:
    """Where in the prompt each token begins; before 0 for one that the tokenizer put at the beginning, whose text some servers count."""
    whole = "".join(tokens)
    shift = whole.find(prompt)
    if shift < 0:  # bytes of characters, which are no text by themselves: as the server says
        return [int(place) for place in places]
    lengths = np.cumsum([0, *map(len, tokens)])[:-1]
    return [int(length) - shift for length in lengths]


def _likely(all: Mapping[str, Any] | None) -> Mapping[str, float] | None:
    return None if all is None else {str(k): float(v) for k, v in all.items()}


def _pause(attempt: int, after: str | None) -> float:
    """Seconds before the next attempt: what the server asks for, or twice as many as before, and not all at the same time."""
    wished = _seconds(after)
    if wished is None:
        wished = 0.5 * 2**attempt * (0.75 + random.random() / 2)
    return min(max(wished, 0.0), LONGEST_PAUSE)


def _seconds(after: str | None) -> float | None:
    """What Retry-After says: seconds, or a date."""
    if not after:
        return None
    try:
        return float(after)
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(after).timestamp() - time.time()
    except (TypeError, ValueError):
        return None


def _said(body: bytes) -> str:
    """What a server says of an error, in a line."""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        told = found.get("error", found) if isinstance(found, dict) else found
        text = str(told.get("message", told) if isinstance(told, dict) else told)
    except ValueError:
        pass
    return " ".join(text.split())[:300]


def _completion(reply: Mapping[str, Any]) -> Completion:
    """A completion from what ``/chat/completions`` answers.

    Raises:
        NoUsableReply: it has no text.
    """
    try:
        choice = reply["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise NoUsableReply("no answer in the reply", "choices[0].message.content") from None
    if not isinstance(text, str):
        raise NoUsableReply("no text in the answer", type(text).__name__)
    try:
        logs = (choice.get("logprobs") or {}).get("content") or []
        tokens = tuple(str(one["token"]) for one in logs)
        top = tuple(
            {str(each["token"]): float(each["logprob"]) for each in one.get("top_logprobs", ())}
            for one in logs
        )
        usage = reply.get("usage") or {}
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NoUsableReply("log-probabilities of another form", str(error)) from None
    return Completion(text, tokens, top, choice.get("finish_reason") == "length", *counts)
