"""Documents streamed past probes, in turns, with checkpoints.

Not here: what recorders keep (``save_contexts``).

``run``          one run, and its steps
``dictionary_run``  one that trains a dictionary
``stored_batches``  rows of a store as batches
``server_runs``  the runs of a server, and what can be asked of them
``sources``      documents from memory, or a file that the server reads
``batches``      documents to rows of tokens
``portions``     a batch in portions, so that none holds the model for long
"""
