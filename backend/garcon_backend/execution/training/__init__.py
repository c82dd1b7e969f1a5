"""Dictionaries in training on one rank: whose they are, the activations that they are given, and the model with them in its place.

Not here: how a dictionary learns (``dictionaries.training``), and what data comes (``runs``).

``trainings``  the trainers of a rank, by session and run
``rows``       the activations of a batch, as rows
``splicing``   the loss of the model, as it is and with a reconstruction in it
"""
