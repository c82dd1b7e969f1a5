"""How things show themselves: as text, as HTML, as a picture.

Not here: what is shown.

``listings``  the one look of lists, in notebooks and on the command line
``html``      models, points and recordings as small tables
``points``    from a point to a picture
``card``      the card of a server
``values``    the plain numbers of a picture, with names for their axes
"""
