"""The line to one server: messages out, replies and prints in.

Not here: which servers there are (``servers``), and what is asked of them (``client``).

``connection_file``      how a server is reached, and that it runs
``sockets``              Jupyter's sockets, and messages on them
``liveness``             whether the server lives, hangs, has ended or starts anew
``connection``           what a client needs of the line to a model, whatever it is made of
``channel``              the line by sockets: questions and requests, and the wait for their answers
``async_channel``        the same for an event loop, with several requests under way
``route``                what a tunnel is to a connection
``pending``              what of a request has come
``lines``                the line of cells, and one beside it
``background``           work that stands behind what persons run
``data_line``            the line for large values, where there is no shared memory
``called_off``           work on other threads that an interrupt stops
``deferred_interrupts``  an interrupt that waits until a message is whole
``prints``               what code prints on the server, shown here
``progress``             one line that changes while something long goes on
"""
