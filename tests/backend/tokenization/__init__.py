"""Tests of the room ``tokenization``."""
