"""The table of probe points and parameters, and the grammar of their names.

Not here: where a point is in a model (the server's families), and what a probe does there.

``table``      every point, declared once
``parameters`` every parameter, declared once
``names``      the grammar of names: patterns, modules, the nearest names
``catalog``    what one model has of the table
``dictionary_points``  points of dictionaries that a server has loaded
"""

from garcon_jupyter.points.catalog import Catalog
from garcon_jupyter.points.dictionary_points import DictionaryPoints, KnownDictionaries
from garcon_jupyter.points.names import (
    MODULE_PREFIX,
    MODULE_SIDES,
    Address,
    fill,
    is_pattern,
    parameter_order,
    parse_parameter,
    parse_point,
    pattern_regex,
    point_spec,
    template_regex,
)
from garcon_jupyter.points.parameters import PARAMETERS, ParameterSpec
from garcon_jupyter.points.table import POINTS, PointSpec

__all__ = [
    "MODULE_PREFIX",
    "MODULE_SIDES",
    "PARAMETERS",
    "POINTS",
    "Address",
    "Catalog",
    "DictionaryPoints",
    "KnownDictionaries",
    "ParameterSpec",
    "PointSpec",
    "fill",
    "is_pattern",
    "parameter_order",
    "parse_parameter",
    "parse_point",
    "pattern_regex",
    "point_spec",
    "template_regex",
]
