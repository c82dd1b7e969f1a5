"""Code that arrives in another process than its own."""

from tests.served import either, rmodel, smollm2  # noqa: F401
