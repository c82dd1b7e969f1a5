"""A small configuration of each architecture, by transformers' ``model_type``, for the checkpoints that tests are made on.

``parts``     what several have in common
``decoders``  those that attend, dense or with experts
``kin``       those that differ from these by little
``mixtures``  mixtures beside a shared expert, and latent attention
``hybrids``   those whose layers do not all attend
"""

from __future__ import annotations

from typing import Any

import transformers

from garcon_jupyter.libraries.releases import minor
from tests.configurations.decoders import DECODERS
from tests.configurations.hybrids import HYBRIDS
from tests.configurations.kin import KIN
from tests.configurations.mixtures import MIXTURES
from tests.multimodal import TEXT_PARTS

SINCE = {"internlm3": (5, 23)}
"""Of what not every release of transformers has that Garçon admits, the first that does."""

FAMILIES: dict[str, dict[str, Any]] = {
    family: configuration
    for family, configuration in (DECODERS | KIN | MIXTURES | HYBRIDS | TEXT_PARTS).items()
    if minor(transformers.__version__) >= SINCE.get(family, (0, 0))
}
"""Configuration of each family that the installed transformers has, by its ``model_type``."""
