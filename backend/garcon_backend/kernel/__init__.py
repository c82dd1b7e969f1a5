"""Rank 0 as a Jupyter kernel: messages in, replies out, who is there, and when it ends.

Not here: how a request is run (``lockstep``, ``execution``).

``startup``       rank 0 becomes a kernel and says where it can be reached
``application``   Jupyter's kernel application, with less that strangers could reach or fill
``log_limit``     a log that nobody can fill
``context``       what the kernel serves, and who is there
``messages``      messages read and sent
``kernel``        requests in their turn
``answering``     a request as it came, and its answer as it goes
``exchanging``    whether the model's weights may be exchanged now
``control``       short questions, answered while the model runs
``sessions``      whose save contexts a request touches, and who is there
``forgetting``    sessions whose clients are gone for good, and what they recorded
``queue_places``  who waits is told for how many requests
``orphans``       which request runs on without its client
``outcomes``      what became of requests that nobody waited for
``idle``          the one clock that ends an unused server
``data_socket``   the socket for large values between hosts
``probe_cache``   probes that clients name by digest
"""
