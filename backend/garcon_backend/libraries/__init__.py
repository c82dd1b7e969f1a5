"""What the server takes of torch, transformers and Jupyter that they promise nobody, each library's in one file.

Not here: what is done with it, and what the libraries document (modules import that themselves).

``transformers_internals``  how models attend, are cut while they load, generate, and come out of a GGUF file
``torch_internals``         placements, meshes, memory, and the agent that starts ranks
``jupyter_internals``       the kernel of rank 0
``quick_import``            transformers, imported without what only takes time
"""
