"""Which releases are tested, and what is taken of libraries that they promise nobody."""
