"""Several checkpoints of one architecture, asked as one: on a server each, or in turn on one.

Not here: what a single server is asked (``model``), and how one is launched (``servers``).

``launching``     bringing the members up, or finding those that run
``fleet``         the fleet in a notebook: what its members recorded and are, side by side
``asking``        the same asked of every member
``in_turn``       one server whose weights are exchanged
``picture``       what is drawn of the members
``labels``        what a label says: a server's name, a step
``side_by_side``  work on several threads, of which an interrupt stops all
``likeness``      whether checkpoints differ in their weights only
``budget``        whether the members fit into memory together
"""
