"""The ``garcon`` command.

Not here: anything that cannot be done in plain Python as well.

``app``         its subcommands
``doors``       ``serve`` and ``ask``: the table of operations over HTTP, and from a terminal
``agent_door``  ``mcp``: the same as tools of an agent, at standard input and output
``doctor``      what this machine has, what is wrong with it, and what to do
"""
