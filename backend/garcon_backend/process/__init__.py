"""What one rank's process has that user code may change, and how it is put back.

Not here: what a request is, or that there are other ranks.

``memory``            how much there is, a limit that leaves the machine alive, errors with numbers
``interrupts``        when an interrupt may raise
``cooperative_stop``  how ranks that depend on each other stop in the middle of a forward
``output``            what user code prints appears in the cell that caused it
``randomness``        random streams of user code, seeded by the request
``state``             what else user code changes of the process
``user_code``         what is set up around a call of user code, and put back
"""
