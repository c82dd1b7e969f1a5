"""Several checkpoints of one architecture, a server each, asked as one.

Not here: what a single server is asked (``model``), and how one is launched (``servers``).

``launching``     bringing the members up, or finding those that run
``fleet``         the fleet in a notebook: the same request to every member
``side_by_side``  work on several threads, of which an interrupt stops all
``likeness``      whether checkpoints differ in their weights only
``budget``        whether the members fit into memory together
"""
