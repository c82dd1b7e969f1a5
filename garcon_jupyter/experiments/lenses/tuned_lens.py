"""Tuned lenses, and their files: those of the package tuned-lens 0.2.

Its layers are counted by the stream that *enters* them, in order: translator 0 is of the stream before the first layer, and translator
l + 1 of the one that leaves layer l. What a translator makes is added to the stream.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts
from garcon_jupyter.experiments.lenses.files import read_pt
from garcon_jupyter.experiments.lenses.lens import BEFORE, LayerMap, Lens, known_map

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

KIND = "tuned lens"
CONFIG, PARAMS = "config.json", "params.pt"
TYPE = "linear_tuned_lens"
TRAINED = "trained_layers"
"""Key of a file that says which layers were trained, where not all were; tuned-lens leaves it out with a warning."""

_ONE = "Give the directory of a lens, with config.json and params.pt, as tuned-lens 0.2 saves it."


@dataclass(frozen=True, eq=False, repr=False)
class TunedLens(Lens):
    """A tuned lens: an affine map for each layer, trained to predict what the model does.

    Attributes:
        momentum: what its optimiser keeps, by layer, as maps; nothing in a lens that comes from a file.
    """

    momentum: Mapping[int, LayerMap] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        translators: Mapping[int, tuple[Tensor, Tensor | None]],
        facts: Mapping[str, Any],
        momentum: Mapping[int, LayerMap] | None = None,
    ) -> TunedLens:
        """From weight [D, D] and bias [D] of each layer, counted as in every lens: −1 is the stream before the first."""
        maps = {
            layer: LayerMap(weight.float(), None if bias is None else bias.float(), residual=True)
            for layer, (weight, bias) in sorted(translators.items())
        }
        return cls(KIND, maps, dict(facts), momentum or {})

    def check(self, rmodel: Client) -> None:
        """As of any lens; and the model must have as many layers as the file says, and, for a warning, its unembedding."""
        super().check(rmodel)
        said, layers = self.facts.get("num_hidden_layers"), rmodel.catalog.n_layers
        if said is not None and said != layers:
            raise BadRequest(
                f"num_hidden_layers of this tuned lens is {said}, and the model has {layers} layers.",
                "Give a lens of this model.",
            )

    def check_unembedding(self, rmodel: Client) -> None:
        """Warn where the file names another unembedding than the model's, as tuned-lens does."""
        said = self.facts.get("unembed_hash")
        if said and said != unembed_hash(rmodel):
            warnings.warn(
                "unembed_hash of this tuned lens is of another unembedding than the model's: it may be of another model.",
                stacklevel=3,
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it into a directory as tuned-lens 0.2 does, which reads it.

        Layers that were not trained are written as zeros, which reads their stream as it is.

        Raises:
            BadRequest: it does not say how many layers the model has.
        """
        import torch

        layers = self.facts.get("num_hidden_layers")
        if not isinstance(layers, int):
            raise BadRequest(
                "This tuned lens does not say of how many layers its model is.",
                'Give facts with "num_hidden_layers".',
            )
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        width = len(next(iter(self.maps.values())).weight)
        biased = any(one.bias is not None for one in self.maps.values())
        state: dict[str, Tensor] = {}
        for number in range(layers):
            one = self.maps.get(number + BEFORE)
            zeros = torch.zeros(width, width)
            state[f"{number}.weight"] = zeros if one is None else one.weight
            if biased:
                none = one is None or one.bias is None
                state[f"{number}.bias"] = torch.zeros(width) if none else one.bias  # type: ignore[union-attr,assignment]
        config = {
            "base_model_name_or_path": self.facts.get("base_model_name_or_path", ""),
            "d_model": width,
            "num_hidden_layers": layers,
            "bias": biased,
            "base_model_revision": self.facts.get("base_model_revision"),
            "unembed_hash": self.facts.get("unembed_hash"),
            "lens_type": TYPE,
        }
        if len(self.maps) < layers:
            config[TRAINED] = sorted(self.maps)
        torch.save(state, directory / PARAMS)
        (directory / CONFIG).write_text(json.dumps(config))
        return directory

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TunedLens:
        """A lens from a directory as tuned-lens 0.2 has it. Only tensors are read of it, and no code is run.

        Raises:
            BadRequest: a file is missing or cannot be read, or what it holds contradicts the other; names the key.
        """
        directory = Path(path)
        config = _config(directory / CONFIG)
        width, layers = config["d_model"], config["num_hidden_layers"]
        state = read_pt(directory / PARAMS)
        biased = config.get("bias", True)
        wanted = [
            f"{n}.{part}" for n in range(layers) for part in ("weight", *(["bias"] * bool(biased)))
        ]
        _same_keys(directory / PARAMS, wanted, list(state), layers)
        trained = config.get(TRAINED, [n + BEFORE for n in range(layers)])
        found: dict[int, tuple[Tensor, Tensor | None]] = {}
        for layer in trained:
            key = f"{layer - BEFORE}"
            weight = known_map(state[f"{key}.weight"], width, f"{key}.weight", directory / PARAMS)
            bias = _bias(state, f"{key}.bias", width, directory / PARAMS) if biased else None
            found[layer] = weight, bias
        return cls.of(found, config)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror or error}.", _ONE) from None
    except ValueError as error:
        raise BadRequest(f"{path} is no JSON: {error}.", _ONE) from None
    if not isinstance(config, dict):
        raise BadRequest(f"{path} holds a {type(config).__name__}, no keys.", _ONE)
    for key in ("d_model", "num_hidden_layers"):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise BadRequest(f"{path}: {key} is {config.get(key)!r}, no number.", _ONE)
    if config.get("lens_type", TYPE) != TYPE:
        raise BadRequest(
            f"{path}: lens_type is {config['lens_type']!r}, and what is read is {TYPE!r}.", _ONE
        )
    return config


def _same_keys(path: Path, wanted: list[str], there: list[str], layers: int) -> None:
    missing, more = sorted({*wanted} - {*there}), sorted({*there} - {*wanted})
    if missing or more:
        wrong = f"{missing[0]} is missing" if missing else f"{more[0]} is too much"
        raise BadRequest(
            f"{path}: {wrong}, by the {layers} layers and the bias that {CONFIG} tells of.",
            "Correct num_hidden_layers or bias there, or give the file that belongs to it.",
        )


def _bias(state: Mapping[str, Any], key: str, width: int, path: Path) -> Tensor:
    bias = state[key]
    if tuple(getattr(bias, "shape", ())) != (width,) or not bool(bias.isfinite().all()):
        raise BadRequest(
            f"{path}: {key} is no bias of {width} numbers.", "Give a file whose keys agree."
        )
    found: Tensor = bias.float()
    return found


def unembed_hash(rmodel: Client) -> str:
    """What tuned-lens 0.2 knows an unembedding by: a hash of how NumPy prints it with one digit."""

    def keep_hash(save_ctx: Any, tensor: Any) -> None:
        import hashlib

        import numpy as np

        weight = save_ctx.params["unembed.weight"].float().cpu().numpy()
        printed = np.array_str(weight, precision=1)
        save_ctx.hash = hashlib.sha256(printed.encode()).hexdigest()

    with contexts(rmodel, "hash") as name:
        point = rmodel.probe_points["layers.0.resid_post"]
        probe = point.probe(keep_hash, name=name, read_only=True, params=["unembed.weight"])
        rmodel.forward([[0]], probes=[probe], logits="none")
        found: str = rmodel.recordings()[point.name, name].hash
    return found
