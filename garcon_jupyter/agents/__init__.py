"""The operations as tools of agents: bounded answers, costs told before, budgets, controls, and a log that is a notebook.

    garcon mcp NAME

A language model that looks into another gets few numbers at a time. The rest is kept here, behind a name, and is read in slices. What it
may do, and how much of it, the owner says on the command line.

Not here: what can be asked (``operations``), and how a model is asked over HTTP (``http_door``).

``allowances``     what an agent may do, and how much of it
``estimates``      what a request costs, before it is run
``kept_arrays``    numbers that are kept, told in short, and read in slices
``bounding``       answers, made small
``controls``       what chance would have found: beside effects, patches and attributions
``drawing``        heat maps as PNG and as text
``agent_session``  one agent with one model: what it asked, what it was told, what it has left
``agent_tools``    the tools: of each operation, and those of the session itself
``session_tools``  tools that ask the model nothing: what is kept, what is left, what goes on, the log
``tasks``          what goes on while the agent does something else
``replay``         the log as a notebook, whose cells give the same numbers
``stdio``          the tools over the Model Context Protocol, at standard input and output
``in_jupyter``     the tools where Jupyter's own MCP server finds them
"""
