"""Tests of the room ``distributed``."""
