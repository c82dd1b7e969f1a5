"""The libraries that Garçon stands on: which of their releases passed its tests, and what it takes of them that they promise nobody.

Not here: what is taken (that is where it is used; of torch, transformers and Jupyter in the server's own room of this name).

``releases``      the table of pairs of torch and transformers that are tested, and what it says of those that are installed
``internals``     what a library promises nobody, declared, and looked for before it is used
``side_threads``  threads that may touch torch, which have to be over before Python is
"""
