"""What probes keep: saved, limited, versioned, written, merged.

Not here: when user code runs, and how a request is answered.

``contexts``     what probes keep, per session and point, and snapshots of it
``save_context`` the namespace that a probe saves into, and what it is told there
``walking``      saved values as trees, looked at and made anew in one way
``containers``   lists and dictionaries of a save context
``copies``       what is saved is saved then: copies with memory of their own
``quota``        how much may be kept
``as_left``      a saved value as a request left it, held without a copy
``backups``      what outlives a lost rank
``value_files``  backups that are too large for the journal, in files of their own
``pace``         when a thread may write, beside requests that shall not wait for it
``ledger``       what there is a backup of, and where
``journal``      a file of records that outlives its process
``checkpoints``  what recorders hold, with the position in the data
``merging``      recorded values on their way out: described and cut where they are, merged where they are parts
"""
