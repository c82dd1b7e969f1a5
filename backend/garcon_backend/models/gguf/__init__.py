"""GGUF files, converted once to a snapshot of Hugging Face.

Not here: loading the snapshot.

``keys``     every key of a file, as a configuration of transformers
``rope``     how a file scales rotary frequencies
``tensors``  every tensor of a file: read, or known to hold nothing, or refused by name
"""
