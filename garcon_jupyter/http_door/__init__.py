"""The operations over HTTP: a small web server beside a model's server, which goes on listening at no port.

    garcon serve NAME --port 8484

It is one more client of the model's server, with a session of its own, so that notebooks and web pages take turns. The Jupyter server extension
has the same operations below ``garcon/servers/NAME/v1/``.

Not here: what can be asked (``operations``), and Jupyter's own web server (``server_extension``).

``desk``     requests that wait for the model, are run in turn, and called off when their asker has gone
``guard``    who may come in: token, names of the host, origins, bytes of a request
``app``      the routes, as an ASGI application
``serving``  the process: its token, its address, its end
"""
