"""What a record, or a series of checkpoints, says: which data and tokens moved which neuron, and what that does.

Not here: how it is drawn (``display``).

``neurons``      what a record knows of neurons and heads
``notable``      the tokens of the data that moved them
``ablation``     what they do to predictions
``checkpoints``  a series of checkpoints, without a training
``bigrams``      what embedding and unembedding say of one token after another, over checkpoints
``influences``   of data on queries, and the truth by leaving out
"""
