"""Tests of the room ``execution``."""
