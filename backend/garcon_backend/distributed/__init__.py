"""The ranks that hold one model: met, arranged in a mesh, and what they say to each other.

Not here: their processes (``supervision``), requests, and what a model is.

``rank_failures``    what was lost, and whether to start anew
``host_rendezvous``  how the hosts of a server meet
``rendezvous``       torch's rendezvous, within one process or sealed
``secret``           what hosts derive from the secret that they share
``mesh``             which rank holds what: tensor-parallel shards, pipeline stages, replicas
``collectives``      gather, scatter, broadcast over one group, with the autograd functions between them
``gather_group``     all ranks that hold a piece of the same value
``stage_exchange``   values that one pipeline stage has and the others need
"""
