"""Tests of the room ``experiments.activation_patching``."""
