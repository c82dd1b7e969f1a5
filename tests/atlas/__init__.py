"""Tests of the room ``atlas``."""
