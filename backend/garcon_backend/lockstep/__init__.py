"""How all ranks run a request in unison, and who watches that they do.

Not here: what a rank does with a request (``execution``).

``coordinator``      rank 0: prepares, goes, and combines
``worker``           every other rank: does what it is told
``outcome``          what became of a request on one rank
``recorded``         what is recorded where, over all ranks
``turns``            which request is next
``command_sockets``  the sockets by which rank 0 commands the others
``answers``          large answers of ranks, straight from the rank that has them
``watchdog``         noticing that ranks hang or do not listen
``rank_status``      where each of them is
``liveness``         noticing, over hosts, that a rank was lost
"""
