"""The ``garcon`` command.

Not here: anything that cannot be done in plain Python as well.

``app``     its subcommands
``doctor``  what this machine has, what is wrong with it, and what to do
"""
