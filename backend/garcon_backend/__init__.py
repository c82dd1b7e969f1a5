"""The server: one process per device in lockstep around one sharded model.

Read in this order: ``__main__`` (how ranks start), ``kernel`` (messages in, replies out),
``lockstep`` (how every rank runs a request in unison), ``executor`` (what a rank does with one),
``probing`` (how a point is read and edited), ``models`` (where the points of each family are).
"""
