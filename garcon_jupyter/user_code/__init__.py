"""Functions and classes of the user's own as bytes: what travels by value, what by name, and where it arrives.

Not here: what a function is for (``client``), and how bytes travel (``wire``).

``own_modules``   which modules are the user's own
``source_lines``  the lines of a function travel with it
``reaching``      what code uses of own modules
``pickling``      cloudpickle, with own modules by value
``moved``         modules by the names that earlier versions had for them, in files and in scripts
``guests``        own modules where they arrive
``blame``         whose fault an error is: the user's, the model's, or ours
"""
