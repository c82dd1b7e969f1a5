"""A lens from a file of any kind, held against a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from garcon_jupyter.experiments.lenses.jacobian_lens import JacobianLens
from garcon_jupyter.experiments.lenses.lens import Lens
from garcon_jupyter.experiments.lenses.tuned_lens import TunedLens

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def load_lens(rmodel: Client, path: str | os.PathLike[str]) -> Lens:
    """A tuned or Jacobian lens from a file on this side, if it is of this model.

    What it is, its content says: a directory with ``config.json`` and ``params.pt`` is a tuned lens as the package tuned-lens 0.2
    saves it; a ``.pt`` file with ``J`` a Jacobian lens as it is published (Anthropic's reference, Neuronpedia, TransformerLens 4.3), or the
    sums of a fit as the reference puts them down; ``.safetensors`` one that was saved here. No code in them is run.

    Returns:
        The lens: for ``rmodel.lens(text, lens=lens)``, and for :func:`~garcon_jupyter.experiments.lenses.read_lens.read_lens`. A Jacobian
        matrix of layer l is [D, D], and reads a layer's stream h as unembed(norm(J[l] · h)); a translator as unembed(norm(h + A · h + b)).

    Raises:
        BadRequest: it cannot be read, contradicts itself, or is of a model of another width, other layers or another last
            layer; names the key.

    Examples:
        >>> lens = experiments.fit_jacobian_lens(rmodel, "The capital of France is", 28, skip=3)
        >>> import tempfile
        >>> path = lens.save(f"{tempfile.mkdtemp()}/france.safetensors")
        >>> experiments.load_lens(rmodel, path)
        <Jacobian lens: 1 layers, 28 to 28 of [576]>
    """
    lens: Lens
    if Path(path).is_dir():
        lens = TunedLens.load(path)
        lens.check(rmodel)
        lens.check_unembedding(rmodel)
        return lens
    lens = JacobianLens.load(path)
    lens.check(rmodel)
    return lens
