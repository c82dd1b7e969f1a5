"""What is known of a unit, parted for explaining, calibrating and scoring.

Not here: what a language model is asked about it (``prompts``).

``excerpts``     neurons and latents: values on stretches of text, from an atlas
``token_pairs``  attention heads: pairs of tokens, from patterns
"""
