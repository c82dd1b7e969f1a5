"""The check at launch: a loaded model is held against its own implementation before it is served.

Not here: how a model is run eagerly by its own code (``models``), and what a server says of the outcome (``kernel``).

``check``             what is compared, and what is said of it
``readings``          what is read, as it is served and by its own implementation
``cut_check``         cut layers held against whole ones
``rounding``          how far rounding alone moves what a model says
``first_difference``  where two passes part
``idle_cores``        how many threads these few tokens are read with
``known_check``       what it came to, before a rank was lost
"""
