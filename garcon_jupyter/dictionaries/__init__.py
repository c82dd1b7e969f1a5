"""What a dictionary of activations is, in words: its formula, its sizes, and the points that it reads and writes.

Not here: reading its files and computing with it, which the server does.

``form``         the choices that make one formula of all formats
``formula``      a form as one line of text
``description``  what is known of a dictionary without its weights
``places``       names of other libraries as points
``hook_names``   the table of those names
``fetching``     a path, or the files of a hub id
"""

from garcon_jupyter.dictionaries.description import Description, NamedPoint, check_belongs
from garcon_jupyter.dictionaries.form import Activation, Form, InputNorm
from garcon_jupyter.dictionaries.formula import formula
from garcon_jupyter.dictionaries.places import point_of

__all__ = [
    "Activation",
    "Description",
    "Form",
    "InputNorm",
    "NamedPoint",
    "check_belongs",
    "formula",
    "point_of",
]
