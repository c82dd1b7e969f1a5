"""What the hosts of a server derive from the secret that they share.

The secret is a file that its owner put on every host by a way of their own (``scp``, a shared home
directory). It never travels. From it every host derives the same keys, one for each purpose, so that
hosts recognise each other without ever having exchanged anything.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

RANKS_KEY = "GARCON_RANKS_KEY"
"""Environment variable in which the ranks of one host find the key that they share."""


def derived(secret_file: Path, purpose: str) -> bytes:
    """32 bytes for one purpose: HMAC-SHA256 of the purpose, keyed by the secret."""
    return hmac.new(secret_file.read_bytes().strip(), purpose.encode(), hashlib.sha256).digest()


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, in ZMQ's own writing of 40 characters each."""

    public: bytes
    secret: bytes

    @classmethod
    def derived(cls, secret_file: Path, purpose: str) -> KeyPair:
        """The pair for a purpose; the same on every host."""
        secret = z85.encode(derived(secret_file, purpose))
        return cls(zmq.curve_public(secret), secret)
