"""Clients of a served model in other languages, and what they are generated from."""
