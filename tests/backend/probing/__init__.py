"""Tests of the room ``probing``."""
