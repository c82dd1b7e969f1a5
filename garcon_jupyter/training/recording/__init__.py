"""What goes on while a training is recorded: a context around the loop, which keeps something of each step and changes no bit of it.

Not here: the gradients themselves (``gradients``), and files (``records``).

``context``    the context
``starting``   how one begins
``keeping``    what is kept of each datum
``steps``      what an optimizer makes of gradients: shares of a step
``axes``       which axis of a weight has the neurons
``ranks``      a training of several processes: one writes
``callbacks``  for trainers of transformers and Lightning
"""
