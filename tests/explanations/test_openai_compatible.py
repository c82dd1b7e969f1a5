"""The client of OpenAI's protocol, against a real server on this machine that speaks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from garcon_jupyter.errors import BadRequest, LanguageModelRefused
from garcon_jupyter.explanations import NoUsableReply, OpenAICompatible, explain
from garcon_jupyter.explanations.language_models import openai_compatible
from garcon_jupyter.explanations.scoring.simulating import simulator
from tests.explanations.conftest import LARGEST, as_reply, asked_tokens, known_levels, made_record

KEY = "sk-not-a-real-key"

Reply = Callable[[str, Mapping[str, Any]], "tuple[int, Any]"]


class Server:
    """A server whose replies are a function; what it was sent is kept."""

    def __init__(self) -> None:
        self.reply: Reply = lambda path, body: (200, {})
        self.headers: list[Mapping[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.more: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.headers.append(dict(self.headers))
                outer.bodies.append(body)
                status, said = outer.reply(self.path, body)
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, value in outer.more.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(openai_compatible, "_pause", lambda attempt, after: 0.0)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def chat(text: Any, finish: str = "stop", logprobs: Any = None) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 11, "completion_tokens": 2}
    return {"choices": [{**choice, "logprobs": logprobs}], "usage": usage}


ASKED = [{"role": "user", "content": "What?"}]


def test_a_completion_is_asked_for_and_read(server: Server) -> None:
    tops = [{"token": "cats", "logprob": -0.1}, {"token": "dogs", "logprob": -2.5}]
    logs = {"content": [{"token": "cats", "logprob": -0.1, "top_logprobs": tops}]}
    server.reply = lambda path, body: (200, chat("cats", "length", logs))
    model = OpenAICompatible(server.url + "/", "some-model", extra={"seed": 7})
    said = model.complete(
        ASKED, max_tokens=9, stop=["."], schema={"type": "object"}, top_logprobs=2
    )
    assert (said.text, said.cut, said.tokens) == ("cats", True, ("cats",))
    assert said.top == ({"cats": -0.1, "dogs": -2.5},)
    assert (said.prompt_tokens, said.completion_tokens) == (11, 2)
    (body,) = server.bodies
    assert body["model"] == "some-model" and body["messages"] == ASKED
    assert (body["max_tokens"], body["temperature"], body["stop"], body["seed"]) == (9, 0, ["."], 7)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "Authorization" not in server.headers[0]


def test_the_key_comes_from_the_variable_and_is_shown_nowhere(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadRequest, match="variable SOME_KEY is not set"):
        OpenAICompatible(server.url, "m", "SOME_KEY")
    monkeypatch.setenv("SOME_KEY", KEY)
    model = OpenAICompatible(server.url, "m", "SOME_KEY")
    server.reply = lambda path, body: (200, chat("cats"))
    model.complete(ASKED, max_tokens=1)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(model) and KEY not in str(vars(model))
    server.reply = lambda path, body: (401, {"error": {"message": "wrong key"}})
    with pytest.raises(LanguageModelRefused, match="status 401: wrong key") as caught:
        model.complete(ASKED, max_tokens=1)
    assert KEY not in str(caught.value) and len(server.bodies) == 2


def test_a_redirection_takes_the_key_nowhere(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    thief = Server()
    server.more = {"Location": thief.url + "/chat/completions"}
    for status in (301, 302, 307, 308):
        server.reply = lambda path, body, status=status: (status, {})
        with pytest.raises(LanguageModelRefused, match=f"status {status}"):
            OpenAICompatible(server.url, "m", "SOME_KEY").complete(ASKED, max_tokens=1)
    assert not thief.headers
    thief.http.shutdown()
    thief.http.server_close()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/v1", "host/v1", "http:///v1"])
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="no address"):
        OpenAICompatible(url, "m")


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(BadRequest, match="holds a password") as caught:
        OpenAICompatible("http://me:secret@host/v1", "m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_error_that_may_pass_is_asked_again_so_often_and_no_more(
    server: Server, status: int
) -> None:
    model = OpenAICompatible(server.url, "m", retries=2)
    server.reply = lambda path, body: (
        (status, {"error": "busy"}) if len(server.bodies) < 3 else (200, chat("cats"))
    )
    assert model.complete(ASKED, max_tokens=1).text == "cats" and len(server.bodies) == 3
    server.bodies.clear()
    server.reply = lambda path, body: (status, {"error": "busy"})
    with pytest.raises(NoUsableReply) as caught:
        model.complete(ASKED, max_tokens=1)
    assert caught.value.reason == f"status {status}" and caught.value.detail == "busy"
    assert len(server.bodies) == 3


def test_pauses_are_what_the_server_asks_for_and_bounded() -> None:
    pause = openai_compatible._pause
    assert pause(0, "2") == 2.0 and pause(0, "900") == 30.0 and pause(0, "-5") == 0.0
    assert pause(0, "Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert 0.3 < pause(0, None) < 0.7 and 1.4 < pause(2, "soon") < 2.6 and pause(40, None) == 30.0


def test_no_connection_and_no_reply_in_time_have_their_reasons(server: Server) -> None:
    closed = Server()
    closed.http.shutdown()
    closed.http.server_close()
    with pytest.raises(NoUsableReply) as caught:
        OpenAICompatible(closed.url, "m", retries=1).complete(ASKED, max_tokens=1)
    assert caught.value.reason == "no connection"
    release = threading.Event()

    def late(path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        release.wait(20)
        return 200, chat("cats")

    server.reply = late
    try:
        with pytest.raises(NoUsableReply) as caught:
            OpenAICompatible(server.url, "m", timeout=0.1, retries=0).complete(ASKED, max_tokens=1)
    finally:
        release.set()
    assert caught.value.reason == "no reply in time"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"<html>", "reply is not JSON"),
        ([], "reply is not an object"),
        ({}, "no answer in the reply"),
        ({"choices": []}, "no answer in the reply"),
        (chat(None), "no text in the answer"),
        (chat("x", logprobs={"content": [{"logprob": 1}]}), "log-probabilities of another form"),
        (chat("x", logprobs={"content": [3]}), "log-probabilities of another form"),
    ],
)
def test_replies_of_another_form_have_their_reasons(server: Server, said: Any, reason: str) -> None:
    server.reply = lambda path, body: (200, said)
    with pytest.raises(NoUsableReply) as caught:
        OpenAICompatible(server.url, "m").complete(ASKED, max_tokens=1)
    assert caught.value.reason == reason and len(server.bodies) == 1


def test_a_request_that_is_refused_alone_is_one_failure(server: Server) -> None:
    server.reply = lambda path, body: (400, {"error": {"message": "too long"}})
    with pytest.raises(NoUsableReply, match="status 400: too long"):
        OpenAICompatible(server.url, "m").complete(ASKED, max_tokens=1)


# -- log-probabilities of a prompt -----------------------------------------------------------------


def split(prompt: str, digits: bool = True) -> list[str]:
    """Tokens of a prompt: tabs, line breaks, numbers, and the rest."""
    found: list[str] = []
    for char in prompt:
        joins = found and char not in "\t\n" and found[-1] not in "\t\n"
        both = (
            joins and char.isdigit() == found[-1][-1].isdigit() and (digits or not char.isdigit())
        )
        if both:
            found[-1] += char
        else:
            found.append(char)
    return found


def echoing(
    top: Callable[[list[str], int], Mapping[str, float]], begun: str = "", **more: Any
) -> Reply:
    """``/completions`` with ``echo``, as servers of one's own have it; some count the token at the beginning."""

    def reply(path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        assert path == "/v1/completions" and body["echo"] and body["max_tokens"] == 1
        tokens = ([begun] if begun else []) + split(body["prompt"], **more)
        places = np.cumsum([0, *map(len, tokens)])[:-1].tolist()
        rows: list[Any] = [top(tokens, n) for n in range(len(tokens))]
        rows[0] = None
        tokens, places, rows = [*tokens, "!"], [*places, places[-1] + 1], [*rows, {"!": -0.1}]
        logs = {"tokens": tokens, "text_offset": places, "top_logprobs": rows}
        return 200, {"choices": [{"text": "", "logprobs": logs}]}

    return reply


@pytest.mark.parametrize("begun", ["", "<s>"])
def test_levels_are_read_at_their_places_of_the_prompt(server: Server, begun: str) -> None:
    """Whether or not the tokenizer puts a token of its own at the beginning."""

    def top(tokens: list[str], n: int) -> dict[str, float]:
        level = "10" if tokens[n - 2] == " cat" else "0"
        return (
            {level: float(np.log(0.75)), "4": float(np.log(0.25))} if tokens[n - 1] == "\t" else {}
        )

    server.reply = echoing(top, begun)
    model = OpenAICompatible(server.url, "m", prompt_logprobs=True)
    made = simulator(model)
    assert made.method == "all-at-once"
    said = made.simulate("cats", ("The", " cat", " sat"))
    assert said.expected == pytest.approx([1.0, 8.5, 1.0])


def test_a_server_whose_tokenizer_has_10_as_two_tokens_is_refused(server: Server) -> None:
    server.reply = echoing(lambda tokens, n: {}, digits=False)
    model = OpenAICompatible(server.url, "m", prompt_logprobs=True)
    with pytest.raises(BadRequest, match="'10' as one token"):
        simulator(model)
    assert simulator(model, top=9).top == 9


def test_a_hosted_server_that_ignores_echo_is_an_error(server: Server) -> None:
    server.reply = lambda path, body: (200, {"choices": [{"text": "!", "logprobs": None}]})
    model = OpenAICompatible(server.url, "m", prompt_logprobs=True)
    with pytest.raises(NoUsableReply, match="no log-probabilities"):
        model.score(["a\t"], ["0"])
    with pytest.raises(BadRequest, match="does not tell how '0' is cut into tokens"):
        simulator(model)


# -- all of it -------------------------------------------------------------------------------------


def test_a_unit_is_explained_and_scored_over_http(server: Server) -> None:
    record = made_record()
    known = known_levels(record)

    def reply(path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if "\nTokens: " not in body["messages"][-1]["content"]:
            return 200, chat("a thing")
        tokens = asked_tokens(body["messages"])
        return 200, chat(as_reply(tokens, known[tokens]))

    server.reply = reply
    model = OpenAICompatible(server.url, "m", at_once=6)
    (one,) = explain([record], with_=model, score=["simulation"], show=False)
    assert one.explanation.text == "a thing" and record.largest == LARGEST
    assert one.scores["r_squared"].value == pytest.approx(1.0)
    assert len(server.bodies) == 21
    schema = server.bodies[-1]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["levels"]["items"]["properties"]["level"]["maximum"] == 10


def test_a_wrong_key_ends_the_run_at_once(server: Server) -> None:
    server.reply = lambda path, body: (403, {"error": "no"})
    model = OpenAICompatible(server.url, "m", at_once=1)
    with pytest.raises(LanguageModelRefused, match="status 403"):
        explain([made_record(n) for n in range(4)], with_=model, show=False)
    assert len(server.bodies) == 1
