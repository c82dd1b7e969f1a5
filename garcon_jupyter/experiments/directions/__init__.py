"""Directions: linear probes that find them, and what a direction does when it is added, taken out or read off.

Not here: what a whole layer looks like (``layer_views``).

``linear_probe``  which of two labels a text has, read off a point by a linear classifier
``labels``        texts with labels, and how they are split
``picked``        a recorder: whole vectors of the tokens that stand for a text
``classifiers``   the fits, on the server
``direction``     a direction as an object: kept, saved, added, taken out, read off
``edits``         the probes that do so
``places``        at which positions of a text
"""
