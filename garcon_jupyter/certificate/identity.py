"""What an identity is, and rows of the table of identities that several parts of a model have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from garcon_jupyter.certificate.formulas import (
    Formula,
    denominator,
    gained,
    multiple,
    normalized,
    normed,
    rescaled,
)

LAYER = "layers.{i}."


@dataclass(frozen=True)
class Identity:
    """What one point's value is made of.

    Attributes:
        of: template of the point.
        says: what holds, in words.
        reads: templates of the points that it is made of, of those that a model has.
        by: templates of the parameters.
        forms: formulas by name, of which one must hold; where there is one, its name is "".
        rounding: what error is allowed: see :func:`garcon_jupyter.certificate.closeness.tolerance`.
        beside: of what it reads, what comes to be together with the point: an edit there does not reach it.
    """

    of: str
    says: str
    reads: tuple[str, ...]
    forms: Mapping[str, Formula]
    by: tuple[str, ...] = ()
    rounding: str = "product"
    beside: tuple[str, ...] = ()

    @property
    def strict_first(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Its forms: those that have no numbers to be fitted but one, and those that are tried where none of these holds."""
        loose = tuple(form for form in self.forms if form.endswith(FITTED))
        return tuple(form for form in self.forms if form not in loose), loose

    def rounding_of(self, form: str) -> str:
        """The rounding of one of its forms."""
        return "product" if form.startswith(BEGINS) else self.rounding


FITTED = (
    *(
        "soft-capped",
        "a smooth function",
        "beside a sink",
        "cut off",
        "by distance",
        "itself",
        "some length",
    ),
    *("clipped", "with a bias", "groups", "a number each", "one after the other"),
)
"""How forms end that fit more to the values than one number."""

BEGINS = "a norm of the embedding"
"""The form in which a stream begins that is no sum of others."""


def in_layer(
    of: str,
    says: str,
    reads: str,
    forms: Mapping[str, Formula] | Formula,
    by: str = "",
    rounding: str = "product",
    beside: str = "",
) -> Identity:
    """An identity inside a layer; points and parameters are named without their beginning, with spaces between."""

    def full(names: str) -> tuple[str, ...]:
        return tuple(LAYER + name for name in names.split())

    given = forms if isinstance(forms, Mapping) else {"": forms}
    return Identity(LAYER + of, says, full(reads), given, full(by), rounding, full(beside))


def with_bias(*names: str) -> str:
    """Names of parameters, each with that of its bias."""
    return " ".join(f"{name} {name}.bias" for name in names)


_BOTH = {"RMS": False, "centred": True}
"""Whether a norm takes the mean away first."""


def norm_rows(
    prefix: str, norm: str, *sources: str, instead: Mapping[str, str] | None = None
) -> tuple[Identity, ...]:
    """The three points of a norm; the first of `sources` that a model has is what it reads.

    Args:
        instead: in words, and as a source, what it reads in some models that have these as well.
    """
    every = [part for source in (*sources, *(instead or {}).values()) for part in source.split("+")]
    read = tuple(
        dict.fromkeys((prefix or LAYER) + source.removeprefix("last:") for source in every)
    )
    ways = {word: (sources, on) for word, on in _BOTH.items()}
    for words, source in (instead or {}).items():
        ways |= {f"{word}, {words}": ((source,), on) for word, on in _BOTH.items()}
    name = prefix + norm
    by = (f"{name}.weight", f"{name}.bias")
    return (
        Identity(
            f"{name}.scale",
            "√(mean square + ε) of what the norm reads",
            read,
            {way: denominator(norm, *which, centre=on) for way, (which, on) in ways.items()},
        ),
        Identity(
            f"{name}.normalized",
            "what the norm reads / scale",
            (*read, f"{name}.scale"),
            {way: normalized(norm, *which, centre=on) for way, (which, on) in ways.items()},
        ),
        Identity(
            f"{name}.out",
            "normalized × gain + bias",
            (f"{name}.normalized",),
            {"": gained(norm)},
            by,
        ),
    )


def normed_row(letter: str) -> Identity:
    """Queries or keys after a norm of their own."""
    of, by = f"attn.{letter}_normed", f"attn.{letter}_norm"
    forms = {
        f"{word}, {which}{after}": normed(of, source, by, centre, together)
        for after, source in (("", f"attn.{letter}"), (", after rotary", f"attn.{letter}_rot"))
        for which, together in (("each head", False), ("all heads", True))
        for word, centre in _BOTH.items()
    }
    says = f"norm of attn.{letter} × gain"
    return in_layer(of, says, f"attn.{letter} attn.{letter}_rot", forms, f"{by}.weight {by}.bias")


def post_norm_row(half: str, unless: Callable[[Formula], Formula] | None = None) -> Identity:
    """The denominator of the norm after a half; `unless` as for :func:`contribution_row`."""
    out, by = f"{half}.out", f"{half}.post_norm"
    forms = {word: denominator(by, out, centre=on) for word, on in _BOTH.items()}
    if unless is not None:
        forms = {name: unless(form) for name, form in forms.items()}
    return in_layer(f"{by}.scale", f"√(mean square + ε) of {out}", out, forms)


def contribution_row(half: str, unless: Callable[[Formula], Formula] | None = None) -> Identity:
    """What is added to the stream: the output itself, times a number, or after a norm.

    Args:
        unless: by what a form is held back where something else is added as well.
    """
    of, out, by = f"{half}.contribution", f"{half}.out", f"{half}.post_norm"
    forms = {
        **{f"norm, {word}": rescaled(of, out, by, centre) for word, centre in _BOTH.items()},
        "times one number": multiple(of, out),
    }
    if unless is not None:
        forms = {name: unless(form) for name, form in forms.items()}
    says = f"{out}, or its norm, or a multiple"
    return in_layer(of, says, f"{out} {by}.scale", forms, f"{by}.weight {by}.bias")
