"""Activation patching: what comes back of an answer, when a place of a run is given what it has in another.

Not here: the forwards (the server's ``execution.patching``), and the picture that fills (``display``).

``patch``       every cell of points × layers × positions × heads × units
``path_patch``  what a sender tells a receiver directly, through the residual stream alone
``faithfulness``  what a circuit keeps by itself, all outside of it ablated
``pairs``       prompt pairs: their tokens, where they differ, what each is given
``measures``    what is measured of each run
``grid``        the cells, by the axes that they are laid out on
``requests``    cells cut into requests, and what came of each
``results``     all cells run, and laid out
"""
