"""Lines to servers; test_connection.py has those of all kinds."""

from tests.served import either, rmodel, smollm2  # noqa: F401
