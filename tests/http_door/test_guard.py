"""Who may come in, and who may not."""

from __future__ import annotations

import http.client

import pytest

from tests.http_door.conftest import LISTED, TOKEN, OpenDoor

ERRORS = [
    ("describe", {}, {}, 200),
    ("forward", {}, {}, 422),
    ("nothing", {}, {}, 404),
    ("describe", {}, {"Authorization": "Bearer wrong"}, 401),
    ("/v2/nothing", {}, {}, 404),
    ("forward", b" " * (1 << 21), {}, 413),
]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Bearer \xfc"}])  # fmt: skip
def test_without_the_token(door: OpenDoor, headers: dict[str, str]) -> None:
    found = door.ask("describe", headers=headers, token=False)
    assert found.status == 401 and found.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in found.body.decode()


def test_a_token_in_the_address_is_none(door: OpenDoor) -> None:
    assert door.ask(f"/v1/describe?token={TOKEN}", token=False).status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil.example"])  # fmt: skip
def test_a_host_of_another_name(door: OpenDoor, host: str) -> None:
    """A page that lets its own name point to this machine comes no further, whatever it has."""
    for path in ("describe", "/health", "/"):
        assert door.ask(path, method="GET", headers={"Host": host}).status in (400, 403)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "localhost:1234", "LOCALHOST", "[::1]:80"]
)
def test_a_host_of_its_own(door: OpenDoor, host: str) -> None:
    assert door.ask("describe", headers={"Host": host}).status == 200


@pytest.mark.parametrize(("name", "content", "headers", "status"), ERRORS)
def test_another_origin_reads_nothing(
    door: OpenDoor, name: str, content: object, headers: dict[str, str], status: int
) -> None:
    """Not on any status."""
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        f"{LISTED}.evil",
    ):
        found = door.ask(name, content, headers={**headers, "Origin": origin})
        assert found.status == status
        assert not any(each.startswith("access-control") for each in found.headers)


@pytest.mark.parametrize(("name", "content", "headers", "status"), ERRORS)
def test_a_listed_origin_reads_errors_as_well(
    door: OpenDoor, name: str, content: object, headers: dict[str, str], status: int
) -> None:
    found = door.ask(name, content, headers={**headers, "Origin": LISTED})
    assert found.status == status
    assert found.headers["access-control-allow-origin"] == LISTED
    assert found.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in found.headers


def test_preflights(door: OpenDoor) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    found = door.ask("forward", method="OPTIONS", headers={"Origin": LISTED, **asked}, token=False)
    assert found.status == 204 and found.headers["access-control-allow-origin"] == LISTED
    assert "Authorization" in found.headers["access-control-allow-headers"]
    evil = {"Origin": "https://evil.example", **asked}
    assert door.ask("forward", method="OPTIONS", headers=evil, token=False).status == 403


def test_a_long_body_is_refused_before_it_is_read(door: OpenDoor) -> None:
    """By what it says of itself: not a byte of it was sent."""
    line = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    line.putrequest("POST", "/v1/forward")
    line.putheader("Authorization", f"Bearer {TOKEN}")
    line.putheader("Content-Length", str(10 << 20))
    line.endheaders()
    assert line.getresponse().status == 413
    line.close()


def test_a_body_that_does_not_say_how_long_it_is(door: OpenDoor) -> None:
    line = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    chunks = (b" " * (1 << 16) for _ in range(64))
    line.request(
        "POST", "/v1/forward", chunks, {"Authorization": f"Bearer {TOKEN}"}, encode_chunked=True
    )
    answer = line.getresponse()
    assert answer.status == 413 and b"body_bytes" in answer.read()
    line.close()


def test_what_a_browser_may_do_with_the_page(door: OpenDoor) -> None:
    found = door.ask("/", method="GET", token=False)
    assert found.status == 200
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert found.headers["x-content-type-options"] == "nosniff"


def test_no_file_beside_the_page(door: OpenDoor) -> None:
    for path in (
        "/app.py",
        "/../app.py",
        "/page/../guard.py",
        "/%2e%2e/app.py",
        "/page.js/../app.py",
    ):
        assert door.ask(path, method="GET").status in (404, 405)
