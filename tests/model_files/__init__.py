"""Tests of the room ``model_files``."""
