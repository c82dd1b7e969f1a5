"""A small configuration of each architecture, by transformers' ``model_type``, for the checkpoints that tests are made on.

``parts``     what several have in common
``decoders``  those that attend, dense or with experts
``kin``       those that differ from these by little
``mixtures``  mixtures beside a shared expert, and latent attention
``hybrids``   those whose layers do not all attend
"""

from __future__ import annotations

from typing import Any

from tests.configurations.decoders import DECODERS
from tests.configurations.hybrids import HYBRIDS
from tests.configurations.kin import KIN
from tests.configurations.mixtures import MIXTURES
from tests.multimodal import TEXT_PARTS

FAMILIES: dict[str, dict[str, Any]] = {**DECODERS, **KIN, **MIXTURES, **HYBRIDS, **TEXT_PARTS}
"""Configuration of each family, by transformers' ``model_type``."""
