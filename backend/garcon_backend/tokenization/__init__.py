"""Text to tokens and back, on rank 0.

Not here: the model.

``tokenizer``      texts and chats to tokens, and back
``token_strings``  the text of single tokens
"""
