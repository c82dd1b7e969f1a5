"""A matrix of low rank as two factors, so that it is never made: circuits of heads are D × D, and of rank d."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class FactoredMatrix:
    """The product of two factors, ``left @ right``, which is not carried out.

    Attributes:
        left: float32 [m, r].
        right: float32 [r, n].
    """

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Of the product, (m, n)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """r: the rank of the product is at most this."""
        return self.left.shape[1]

    @property
    def T(self) -> FactoredMatrix:
        """Transposed."""
        return FactoredMatrix(self.right.T, self.left.T)

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: FactoredMatrix) -> FactoredMatrix: ...
    def __matmul__(self, other: Tensor | FactoredMatrix) -> Tensor | FactoredMatrix:
        """With a vector [n], a matrix [n, k], or another of its kind, whose product is again one."""
        if not isinstance(other, FactoredMatrix):
            return self.left @ (self.right @ other)
        middle = self.right @ other.left
        return FactoredMatrix(self.left @ middle, other.right)

    def norm(self) -> float:
        """Frobenius norm."""
        return float(((self.left.T @ self.left) * (self.right @ self.right.T)).sum().sqrt())

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Singular vectors and values, the largest first: U [m, r], S [r], V [n, r]; the product is ``U·diag(S)·Vᵀ``."""
        import torch

        q_left, r_left = torch.linalg.qr(self.left)
        q_right, r_right = torch.linalg.qr(self.right.T)
        u, s, v = torch.linalg.svd(r_left @ r_right.T)
        return q_left @ u, s, q_right @ v.T

    def singular_values(self) -> Tensor:
        """[r], the largest first."""
        return self.svd()[1]

    def eigenvalues(self) -> Tensor:
        """Complex [r]: those of ``right @ left``, which are those of the product but for zeros.

        Raises:
            BadRequest: the product is not square.
        """
        import torch

        if self.shape[0] != self.shape[1]:
            raise BadRequest(
                f"A matrix of shape {self.shape} has no eigenvalues.", "singular_values() has any."
            )
        found: Tensor = torch.linalg.eigvals(self.right @ self.left)
        return found

    def dense(self) -> Tensor:
        """The product itself, [m, n]."""
        return self.left @ self.right

    def __repr__(self) -> str:
        return f"<{self.shape[0]} × {self.shape[1]} of rank {self.rank}>"


def root(gram: Tensor) -> Tensor:
    """R with ``R·Rᵀ`` = a Gram matrix [..., n, n], whatever its rank: ``‖X·W‖ = ‖X·R‖`` where gram is ``W·Wᵀ``."""
    import torch

    values, vectors = torch.linalg.eigh(gram.double())
    found: Tensor = vectors * values.clamp_min(0).sqrt()[..., None, :]
    return found.to(gram.dtype)
