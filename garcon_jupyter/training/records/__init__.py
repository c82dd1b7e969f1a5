"""A record on disk: streams and a journal, which only grow.

Not here: what a record is asked (``questions``).

``files``    streams and a journal
``chunks``   outliers on disk
``writing``  a record, written
``journal``  a record, read: journal, data, outliers
``tables``   outliers as columns
``exports``  in the layouts that others read
"""
