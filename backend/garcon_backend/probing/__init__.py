"""User code at a point, once, forward and backward, wherever the shards are.

Not here: where a point is (``hook_sites``), and what a request is (``execution``).

``rank``            what one rank is: a frozen object that goes down to here
``probed_pass``     a probe runs once: gather, run, scatter, forward and backward
``point_places``    where a point is visited on this rank, and how its value lies
``user_calls``      user code: its random stream, its save context, its errors
``autograd``        what a visit leaves in the autograd graph
``results``         what a probe hands back, made a tensor of the model's own
``loaded_dictionaries``  the dictionaries that a rank holds beside its part of the model
``dictionary_visits``    their latents visited in a pass, and what they become written back
``several_points_visits``  the same of those whose points come one after the other
``called_modules``  which of the probed modules a pass has called
"""
