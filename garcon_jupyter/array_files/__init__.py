"""Directories of plain arrays that are mapped, and not read: how what is kept of all units of a model lies on disk.

Not here: which arrays there are, and what they say (``atlas``, and the connectome of ``experiments``).

``directories``  a directory that can be written, and files whose room is taken at once
"""

from __future__ import annotations

from garcon_jupyter.array_files.directories import create, prepare, take_room

__all__ = ["create", "prepare", "take_room"]
