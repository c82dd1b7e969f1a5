"""A served model as an object: tokens, passes, probes, recordings, runs.

Not here: how anything looks (``display``, ``widgets``), and how bytes travel (``connection``).

``client``            what a session is: tokens, passes, probes and what they saved
``connected``         a session on a server, held while its object lives
``tokenizing``        text to tokens and back
``passes``            forward, backward, generation, and the probes that they apply
``server_questions``  what a session asks of the server itself
``display_hooks``     how what this room holds shows itself, which ``display`` says
``resuming``          which session is this notebook's own
``tokens``            what ``encode`` gives and the model reads
``encoding``          what ``encode`` and ``decode`` may be given
``dictionaries``      dictionaries on the server: loaded, and gone through
``dictionary_fit``    at which point a dictionary explains most
``probes``            what the user composes: points, and probes on them
``function_checks``   what can be told of a function before it goes
``shipping``          functions on their way to the server
``probe_cache``       probes travel once
``recordings``        what probes saved
``out_buffers``       values that are put where the user has room for them
``run``               data streamed past probes
``storing``           activations of a run, stored on disk
``dictionary_training``  a dictionary in training
``jobs``              what takes long, on servers and in directories, whoever began it
``look``              one context as it passes through a model
``preload``           what the first answer needs is imported before it comes
"""
