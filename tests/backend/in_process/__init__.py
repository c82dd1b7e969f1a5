"""Tests of the room ``in_process``."""
