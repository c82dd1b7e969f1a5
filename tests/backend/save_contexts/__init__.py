"""Tests of the room ``save_contexts``."""
