"""What is known to fail before a model is loaded: an architecture that nobody knows, degrees that do not divide, devices that
are not there.

The server checks the same again. Here it costs a person nothing: no minutes, and no log. The first process of a
server imports meanwhile; where something is refused it ends, and leaves nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from garcon_jupyter.model_files import degrees, embedded, quantised, snapshots
from garcon_jupyter.servers import placement
from garcon_jupyter.servers.settings import Settings


def check(settings: Settings) -> None:
    """Refuse settings that cannot serve their model.

    Raises:
        BadDegrees: they do not divide it; with its numbers, and the degrees that do.
        NotAModel: its weights are packed for a device that is not there.
    """
    if embedded.cache_dir() not in Path(settings.path).parents:  # ours are known
        snapshots.check_architecture(Path(settings.path), bool(settings.trust_remote_code))
    asked = {"tp": settings.tp or 1, "pp": settings.pp or 1, "dp": settings.dp or 1}
    said = json.loads((Path(settings.path) / "config.json").read_text(encoding="utf-8"))
    if quantised.method_of(said):
        quantised.check_place(said, settings.path, placement.device_of(settings), asked)
    if min(asked.values()) < 1 or (asked["tp"] == 1 and asked["pp"] == 1):
        return  # nothing to divide; what is no degree at all is refused where it is read
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            settings.path, local_files_only=True, trust_remote_code=False
        )
    except Exception:  # noqa: BLE001 - the server, which reads it too, says what is wrong with it
        return
    degrees.check(config, asked["tp"], asked["pp"])
