"""Principal components with signs fixed. Functions here are sent by name."""

from __future__ import annotations

import torch
from torch import Tensor


def components(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors and eigenvalues of a covariance, the largest first.

    The sign of a component is such that its entry of largest size is positive; of several as large, the first.

    Returns:
        (float64 [component, unit], float64 [component]).
    """
    variances, vectors = torch.linalg.eigh(covariance.double())
    return signed(vectors.T.flip(0)), variances.flip(0).clamp(min=0)


def signed(vectors: Tensor) -> Tensor:
    """Vectors [k, units] with the entry of largest size of each positive."""
    at = vectors.abs().argmax(1, keepdim=True)
    signs = vectors.gather(1, at).sign()
    return vectors * torch.where(signs == 0, torch.ones_like(signs), signs)


def scores(rows: Tensor, k: int) -> Tensor:
    """Scores of rows [n, f] on their k first principal components, float64 [n, k]."""
    centred = rows.double() - rows.double().mean(0)
    if centred.shape[0] >= centred.shape[1]:
        vectors, _ = components(centred.T @ centred)
        return centred @ vectors[:k].T
    # Of fewer rows than columns the eigenvectors of the smaller product lead to the same components.
    variances, left = torch.linalg.eigh(centred @ centred.T)
    left, lengths = left.flip(1)[:, :k], variances.flip(0)[:k].clamp(min=0).sqrt()
    vectors = (centred.T @ left).T
    at = vectors.abs().argmax(1, keepdim=True)
    flips = torch.where(vectors.gather(1, at) < 0, -1.0, 1.0)
    found: Tensor = left * lengths * flips.T
    return found
