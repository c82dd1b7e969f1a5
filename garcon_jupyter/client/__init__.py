"""A served model as an object: tokens, passes, probes, recordings, runs.

Not here: how anything looks (``display``, ``widgets``), and how bytes travel (``connection``).

``client``           passes, probes, recordings and questions of one session
``resuming``         which session is this notebook's own
``tokens``           what ``encode`` gives and the model reads
``encoding``         what ``encode`` and ``decode`` may be given
``probes``           what the user composes: points, and probes on them
``function_checks``  what can be told of a function before it goes
``shipping``         functions on their way to the server
``probe_cache``      probes travel once
``recordings``       what probes saved
``out_buffers``      values that are put where the user has room for them
``run``              data streamed past probes
``look``             one context as it passes through a model
``preload``          what the first answer needs is imported before it comes
"""
