"""A dictionary that predicts a token's latents from earlier tokens, and encodes what is new (Lubana et al. 2025)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from garcon_backend.dictionaries import selection, sparse
from garcon_backend.dictionaries.dictionary import Dictionary
from garcon_backend.dictionaries.sparse import SparseLatents
from garcon_jupyter.errors import BadRequest

_EPS = 1e-6


class InContext(Dictionary):
    """SAELens's TemporalSAE. Its latents are those of what is new in a token; what is predicted comes with the decoding.

    It reads whole texts [..., positions, D] from their first token: a token alone has other latents. Tensors beside those of the form:
    for each layer of attention ``q``, ``k``, ``v``, ``out`` and their biases, by ``attention_i_q`` and so on.
    """

    kind = "context"

    def _read(self, x: Tensor) -> Tensor:
        if x.dim() < 3:
            raise BadRequest(
                f"A value {list(x.shape)} was given to a dictionary that reads tokens with all that are before them.",
                "Give whole texts, [texts, positions, units].",
            )
        return super()._read(x)

    @property
    def _weights(self) -> Tensor:
        return self.decoder if self.form.tied else self.tensors["encoder"]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is new of each token, and the latents that are predicted."""
        left = self._z(x)
        factor = self.form.options["factor"]
        predicted = left.new_zeros(*left.shape[:-1], len(self.decoder))
        for layer in range(int(self.form.options["layers"])):
            seen = (functional.linear(left * factor, self._weights)).relu()
            earlier = functional.pad(seen[..., :-1, :], (0, 0, 1, 0))
            guess = self._attend(layer, earlier, seen).relu()
            direction = guess @ self.decoder
            length = direction.norm(dim=-1, keepdim=True) + _EPS
            share = (direction * left).sum(-1, keepdim=True) / length.pow(2)
            predicted = predicted + guess * share
            left = left - share * direction
        return left, predicted

    def _attend(self, layer: int, earlier: Tensor, seen: Tensor) -> Tensor:
        heads = int(self.form.options["heads"])

        def projected(part: str, value: Tensor) -> Tensor:
            name = f"attention_{layer}_{part}"
            return functional.linear(value, self.tensors[name], self.tensors.get(f"{name}_bias"))

        def split(value: Tensor) -> Tensor:
            by_head: Tensor = value.unflatten(-1, (heads, -1))
            return by_head.transpose(-2, -3)

        q, k, v = (
            split(projected("q", seen)),
            split(projected("k", earlier)),
            split(projected("v", earlier)),
        )
        mixed: Tensor = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return projected("out", mixed.transpose(-2, -3).flatten(-2))

    def pre_activation(self, x: Tensor) -> Tensor:
        """What the activation reads."""
        left, _ = self._split(self._read(x))
        return functional.linear(left * self.form.options["factor"], self._weights)

    def encode(self, x: Tensor) -> Tensor:
        """The latents of what is new in each token, [..., positions, F]."""
        self._check_alone()
        return selection.passed(self.pre_activation(x), self.form.activation)

    def encode_sparse(self, x: Tensor, tile: int = 1 << 22) -> SparseLatents:
        """The latents that are not 0, of one text at a time."""
        texts = x.reshape(-1, *x.shape[-2:])
        parts = []
        for number, text in enumerate(texts):
            rows, latents, values = sparse.nonzero(self.encode(text[None])[0], 0)
            parts.append((rows + number * text.shape[0], latents, values))
        return sparse.of_parts(parts, (*x.shape[:-1], len(self.decoder)))

    def decode(self, latents: Tensor, x: Tensor | None = None) -> Tensor:
        """The activations that these latents stand for together with what earlier tokens predict."""
        if x is None:
            return super().decode(latents, None)
        _, predicted = self._split(self._read(x))
        return self.finished(self.written(latents.to(self.dtype) + predicted), x)

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        """As :meth:`decode`."""
        return self.decode(latents.dense(), x)
