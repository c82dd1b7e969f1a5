"""A real server that speaks S3, on this machine: moto's. Where it, or s3fs, is not installed, tests of addresses are skipped."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NEEDED = ("moto.server", "s3fs")

START = 60.0
"""Seconds in which it starts."""


def there_is_one() -> bool:
    """Whether it can be started here."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in NEEDED)
    except ModuleNotFoundError:
        return False


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """It runs; yields the environment by which processes find it, with a bucket of the name ``garcon``."""
    if not there_is_one():
        pytest.skip(f"{' and '.join(NEEDED)} are not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(process, address)
        bucket = urllib.request.Request(f"{address}/garcon", method="PUT", data=b"")
        urllib.request.urlopen(bucket, timeout=20).read()
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("The object store did not start.")
