"""What a server does when things go wrong."""

from tests.served import either, rmodel, smollm2  # noqa: F401
