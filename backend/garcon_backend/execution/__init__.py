"""What one rank does with a request: admit it, prepare it, run it, answer.

Not here: that other ranks do the same (``lockstep``), and who asked (``kernel``).

``rank_loading``        how a process becomes a rank that runs requests
``launch_check``        a loaded model held against its own implementation
``executor``            prepare and run, whatever the request
``requests``            one file for each kind of request: what there is to do
``tools``               what these work with
``code_loading``        shipped functions, as functions of this process
``probe_loading``       probes, made ready to run
``inputs``              a batch, checked and on the device
``passes``              forward and backward, with the probes of one request
``losses``              what a user's function may give as a loss
``generation``          token after token
``generation_options``  what is asked of a generation, by the caller and by the checkpoint
``token_choice``        the caller's own code in a generation; where a text ended
``row_chunks``          a forward over more rows than fit at once
``patching``            runs in which places are given other values
``training``            dictionaries in training
``jacobians``           rows of the Jacobian of a stream, by backwards through one forward
``admission``           whether a pass will fit
``recorder_admission``  whether what recorders will keep has room
``parameters``          weights by name
``whole_weights``       parameters whole on every rank, for functions of the weights
``stateless``           functions that cannot remember anything
``failing_module``      in which module of the model an error happened
"""
