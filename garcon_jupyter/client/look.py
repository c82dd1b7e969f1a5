"""One context as it passes through a model, looked at without ceremony.

    look = garcon.easy_garcon(rmodel, "The capital of France is")
    look["layers.4.mlp.post_activation"]      # a tensor [1, 5, 1536]
    look.layers[4].attn.pattern               # the same points by attribute
    look.token(-1)["layers.*.resid_post"]     # one position of many points
    look.compare("The capital of Italy is")["layers.*.mlp.out"]

What is asked for together is fetched in one clean forward: attached probes never run here, and nothing
is left in the session's recordings.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client import display_hooks
from garcon_jupyter.points import is_pattern

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

_NAMES = (f"easy_garcon {n}" for n in itertools.count())


def _keep(save_ctx: Any, tensor: Any) -> None:
    save_ctx.tensor = tensor


class Look:
    """A text and everything the model computes on it, fetched when asked for.

    Attributes:
        tokens: the text as tokens.
    """

    def __init__(self, rmodel: Client, text: Any) -> None:
        self._model = rmodel
        self.tokens = rmodel._tokens(text)
        self._values: dict[str, Tensor] = {}
        self._logits: Tensor | None = None

    @property
    def strings(self) -> list[str]:
        """The text of each token of the first row."""
        return self._model.token_strings(self.tokens)[0]

    @property
    def logits(self) -> Tensor:
        """[b, p, V]."""
        if self._logits is None:
            self._logits = self._model.forward(self.tokens, probes=[])
        return self._logits

    def top(self, k: int = 5, position: int = -1) -> list[tuple[str, float]]:
        """The k likeliest next tokens after a position, with their probabilities."""
        best = self.logits[0, position].float().softmax(-1).topk(k)
        texts = self._model.token_strings(best.indices, alone=True)[0]
        return list(zip(texts, best.values.tolist(), strict=True))

    def fetch(self, *patterns: str) -> dict[str, Tensor]:
        """The values of points, by name: everything that is missing in one forward."""
        rmodel = self._model
        names = [a.name for pattern in patterns for a in rmodel.catalog.select(pattern)]
        missing = [name for name in dict.fromkeys(names) if name not in self._values]
        if missing:
            self._values |= read(rmodel, self.tokens, missing)
        return {name: self._values[name] for name in names}

    def __getitem__(self, pattern: str) -> Any:
        """One point's value, or, for a pattern, a dictionary of them."""
        values = self.fetch(pattern)
        return values if is_pattern(pattern) else values[pattern]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _at(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_following(self, "")]

    def token(self, position: int) -> TokenView:
        """One position of everything."""
        return TokenView(self, position)

    def compare(self, text: Any) -> Comparison:
        """This context beside another, which has as many tokens."""
        return Comparison(self, Look(self._model, text))

    def show(self, point: str) -> Any:
        """A picture of a point."""
        return display_hooks.drawn(self, "show", point)

    def __repr__(self) -> str:
        return f"<look at {self.tokens!r}>"


def read(rmodel: Client, tokens: Any, names: Sequence[str]) -> dict[str, Tensor]:
    """Values of points of a clean forward; the session's recordings are left as they were."""
    label = next(_NAMES)
    probes = [rmodel.probe_points[name].probe(_keep, read_only=True, name=label) for name in names]
    rmodel.forward(tokens, probes=probes, logits="none")
    try:
        recordings = rmodel.recordings(fetch=False)
        handles = [recordings[name, label].tensor for name in names]
        fetched = rmodel.fetch(*handles)
    finally:
        rmodel.clear_recordings(name=label)
    return dict(zip(names, [fetched] if len(names) == 1 else fetched, strict=True))


class TokenView:
    """One position of a context: values without their batch and position axes."""

    def __init__(self, look: Look, position: int) -> None:
        self._look, self.position = look, position

    @property
    def string(self) -> str:
        """The token."""
        return self._look.strings[self.position]

    def __getitem__(self, pattern: str) -> Any:
        values = self._look.fetch(pattern)
        cut = {name: self._cut(name, value) for name, value in values.items()}
        return cut if is_pattern(pattern) else cut[pattern]

    def _cut(self, name: str, value: Tensor) -> Tensor:
        spec = self._look._model.catalog.point(name).spec
        if spec is not None and "p_q" in getattr(spec, "dims", ()):
            return value[0, :, self.position]
        return value[0, self.position]


class Comparison:
    """Two contexts of equally many tokens, point by point."""

    def __init__(self, one: Look, other: Look) -> None:
        self.one, self.other = one, other

    def __getitem__(self, pattern: str) -> Any:
        """other − one: a tensor, or, for a pattern, a dictionary of them.

        Raises:
            ValueError: the contexts have different numbers of tokens.
        """
        if self.one.tokens.shape != self.other.tokens.shape:
            raise ValueError(
                f"The contexts have {self.one.tokens.shape} and {self.other.tokens.shape} tokens; "
                "compare texts of equally many tokens, or look at each by itself."
            )
        first, second = self.one.fetch(pattern), self.other.fetch(pattern)
        differences = {name: second[name] - first[name] for name in first}
        return differences if is_pattern(pattern) else differences[pattern]

    def distance(self, pattern: str) -> dict[str, Tensor]:
        """Euclidean distance at each position, [p], of each point that the pattern selects."""
        chosen = self[pattern] if is_pattern(pattern) else {pattern: self[pattern]}
        return {name: value[0].flatten(1).norm(dim=1) for name, value in chosen.items()}


class _Path:
    """The beginning of a point's name, on the way to one."""

    def __init__(self, look: Look, prefix: str) -> None:
        self._look, self._prefix = look, prefix

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _at(self._look, f"{self._prefix}.{name}")

    def __getitem__(self, index: int) -> Any:
        n = self._look._model.catalog.n_layers
        if self._prefix == "layers":
            if not -n <= index < n:
                raise IndexError(f"There is no layer {index}: the model has layers 0 to {n - 1}.")
            index %= n
        return _at(self._look, f"{self._prefix}.{index}")

    def __dir__(self) -> list[str]:
        return _following(self._look, self._prefix + ".")

    def __repr__(self) -> str:
        return f"<{self._prefix}: {', '.join(dir(self))}>"


def _at(look: Look, name: str) -> Any:
    names = look._model.probe_points
    if name in set(names):
        return look[name]
    if any(known.startswith(name + ".") for known in names):
        return _Path(look, name)
    try:
        look._model.catalog.point(name)  # the error that names the nearest points
    except LookupError as error:
        raise AttributeError(str(error)) from None
    raise AttributeError(name)


def _following(look: Look, prefix: str) -> list[str]:
    names = (n[len(prefix) :] for n in look._model.probe_points if n.startswith(prefix))
    return sorted({rest.split(".")[0] for rest in names})
