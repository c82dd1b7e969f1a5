"""What client and server say to each other.

Not here: sockets (``connection``, and the server's ``kernel``), and what is done about a request.

``protocol``             names of the messages, version, connection facts
``requests``             the requests, one dataclass each: with those about dictionaries the only declaration of what can be asked
``dictionary_requests``  those about dictionaries
``request_parts``        what they are made of
``runs``                 what is said of data streamed past probes
``dictionary_training``  dictionaries in training: what to train, and how it goes
``tokenizer_messages``   questions to the tokenizer, and its answers
``contents``             what the contents of other messages must look like
``checking``             whether they do
``forking``              how a process that has imported everything is asked for a fork
``surroundings``         in what surroundings a process starts: environment, packages, interpreter
``launch_spec``          what a server is launched with
``codec``                any Python value to bytes and buffers, tensors out of band, digests on every buffer
``transport``            where buffers travel: inside the message, or a file in shared memory on one host
``shared_files``         such files
``transfers``            large values between hosts, chunk by chunk
``failures``             errors across the wire: user frames, original type
``private_files``        files that only their owner can read
``token_parts``          the parts of a text that its tokens stand for
"""
