"""Tests of the room ``execution.patching``."""
