"""The documentation says what is so: pages are up to date, and what they show runs as they show it."""
