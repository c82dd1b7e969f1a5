"""Tests of the room ``lockstep``."""
