"""Tests of the room ``user_code``."""
