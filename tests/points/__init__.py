"""Tests of the room ``points``."""
