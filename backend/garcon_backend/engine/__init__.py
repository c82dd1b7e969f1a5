"""The processes that hold one model, and what they say to each other.

``collectives``  gather, scatter, say: over one group of ranks, with the autograd functions between
them ``mesh``         which rank holds what: tensor-parallel shards, pipeline stages, replicas
"""
