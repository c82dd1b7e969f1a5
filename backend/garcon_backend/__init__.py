"""The server: one process per device in lockstep around one sharded model.

A stack of rooms, each of which uses those below it and none above: ``__main__`` (how ranks start), ``kernel`` (messages
in, replies out; ``in_process`` is the same by calls), ``runs`` (documents streamed past probes), ``lockstep`` (how every
rank runs a request in unison), ``execution`` (what a rank does with one), ``probing`` (how a point is read and edited),
``models`` (where the points of each family are), ``hook_sites`` and ``save_contexts`` (how a hook reaches a value, and
what is kept of it), ``tokenization``, ``distributed`` and ``process`` (the ranks, and one rank's process). Read it in
this order.
"""
