"""A model in the process of whoever asks: what a server does, by calls.

Not here: how a request is run (``lockstep``, ``execution``), and what is asked (the notebook's half).

``opening``     a model is loaded, or taken as it is, and can be connected to
``serving``     questions and requests answered, with sessions, as the kernel does it
``connection``  the line of a client to it

To debug a probe, or to test analysis code of one's own in milliseconds::

    import garcon_jupyter as garcon
    from garcon_backend.in_process import open_here

    rmodel = garcon.connect(open_here("smollm2"))

Everything travels as to a server: what cannot be pickled is refused by the same error, and nothing that a probe keeps or
changes is the notebook's own. But ``breakpoint()`` in a probe stops where somebody can type.
"""

from garcon_backend.in_process.opening import ModelHere, open_here

__all__ = ["ModelHere", "open_here"]
