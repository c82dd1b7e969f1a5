"""What ranks of tests import, and the classes of all families: a process imports it once, and ranks are forked from that."""

from __future__ import annotations

import gc

gc.disable()

from transformers import AutoConfig  # noqa: E402
from transformers.models.auto.modeling_auto import (  # noqa: E402
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

import tests.backend.parity_run  # noqa: E402, F401
from tests import checkpoints  # noqa: E402
from tests.backend.cases import EVERY  # noqa: E402

for family in {family for family, _ in EVERY.values()}:
    multimodal = family in checkpoints.MULTIMODAL
    models = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if multimodal else MODEL_FOR_CAUSAL_LM_MAPPING
    models[type(AutoConfig.for_model(family))]  # a look imports the class

gc.freeze()  # no rank looks through all of this again and again for what it does not need any more
gc.enable()
