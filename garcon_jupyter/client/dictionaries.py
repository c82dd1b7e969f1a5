"""Dictionaries on the server of a model: loaded by name, their latents points like any other.

sae = rmodel.dictionaries.load("path/to/sae")
sae.latents                        # <probe point layers.10.resid_post.sae.sae.latents [b, p, 16384]: …>
rmodel.dictionaries                # those that are loaded, by name
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from garcon_jupyter.amounts import sized
from garcon_jupyter.client.dictionary_fit import Fits, fit_at, places_like
from garcon_jupyter.client.passes import PassClient
from garcon_jupyter.client.probes import ProbePoint
from garcon_jupyter.connection import prints
from garcon_jupyter.dictionaries import Description
from garcon_jupyter.dictionaries.description import positions_said
from garcon_jupyter.dictionaries.fetching import locate
from garcon_jupyter.dictionaries.places import point_of
from garcon_jupyter.errors import BadRequest, UnclearPoint, UnknownName, UnknownPoint
from garcon_jupyter.points import DictionaryPoints, KnownDictionaries, is_pattern
from garcon_jupyter.points.dictionary_points import CROSS_LAYER
from garcon_jupyter.wire import requests as wire


class ServedDictionary:
    """A dictionary on the server.

    Attributes:
        name: by which its points are called.
        points: what the model has by it.
    """

    def __init__(self, rmodel: Any, points: DictionaryPoints) -> None:
        self._rmodel = rmodel
        self.name, self.points = points.name, points

    @property
    def formula(self) -> str:
        """What it computes, in one line."""
        return self.points.formula

    @property
    def latents(self) -> ProbePoint:
        """The point of its latents, [b, p, F]; of one that reads several points, all of them, as a pattern has them."""
        return self.point("latents")

    @property
    def pre_activation(self) -> ProbePoint:
        """The point of what decides which latents are on, [b, p, F]."""
        return self.point("pre_activation")

    @property
    def reconstruction(self) -> ProbePoint:
        """The point of what its latents say is there, of the shape of the point that it writes."""
        return self.point("reconstruction")

    @property
    def error(self) -> ProbePoint:
        """The point of what its reconstruction lacks, of that shape too."""
        return self.point("error")

    def point(self, word: str, layer: int | None = None) -> ProbePoint:
        """One of its points, by its last word.

        Args:
            word: such as "latents".
            layer: of one that reads several points, which: that of this layer; by default all, of which ``probes(fn)`` makes a probe each.

        Raises:
            UnknownPoint: it has none of that name, or none in that layer.
        """
        name, catalog = self.points.pattern(word), self._rmodel.catalog
        if layer is not None:
            hosts = [host for host in self.points.hosts if catalog.point(host).layer == layer]
            if not hosts:
                raise UnknownPoint(
                    f"The dictionary {self.name!r} reads {self.points.where.partition(' → ')[0]}, nothing of layer {layer}.",
                    "Give a layer of these.",
                )
            name = self.points.point(word, hosts[0])
        found: ProbePoint = self._rmodel.probe_points[name]
        return found

    @property
    def description(self) -> Description:
        """What its files say of it."""
        found: Description = self._rmodel._run(wire.ReadDictionary(name=self.name))[0]
        return found

    def weight(self, name: str, first: int = 0, stop: int | None = None) -> Any:
        """One of its weights, as its files have it, in the order of axes of the form; each rank may hold a part of it.

        Args:
            name: ``decoder`` [F, O], ``encoder`` [F, D], ``encoder_bias`` [F], ``output_bias`` [O], ``threshold`` [F], ``skip`` [O, D],
                …; of a tied one the decoder is the encoder.
            first: latent of the first row.
            stop: latent before which the rows end; None for all.

        Returns:
            A tensor.

        Raises:
            UnknownName: it has none of that name.
        """
        return self._rmodel._run(
            wire.ReadDictionary(name=self.name, weight=name, first=first, stop=stop)
        )[1]

    def fit(self, texts: Any, points: Sequence[str] = ()) -> Fits:
        """How well it fits where it was put, and at the points that it might belong to instead.

        Args:
            texts: a list of texts, or tokens: a thousand tokens say enough.
            points: that it might read; by default those of the same layer with as many units. Of a dictionary of several points a pattern
                that names as many, such as "layers.*.resid_mid"; by default those of the same layers.

        Returns:
            For each point the share of the variance that the reconstruction leaves unexplained, with and without the first token of
            each text, the best first. Where another point than its own is clearly better, its files name the wrong one. Of several points
            the share is of all together, and ``each`` has that of each.

        Raises:
            BadRequest: a pattern names another number of points than it reads.
        """
        own = self.points
        places = [_ends(self._rmodel, own, point) for point in points]
        return fit_at(self._rmodel, own.path, texts, places or places_like(self._rmodel, own.ends))

    def unload(self) -> None:
        """Let go of it on the server."""
        ServedDictionaries(self._rmodel).unload(self.name)

    def __repr__(self) -> str:
        points = self.points
        size = f", {sized(points.nbytes)}" if points.nbytes else ""
        each = " of each layer" if points.kind == CROSS_LAYER else ""
        by = f"; splices let {positions_said(points.untrained)} by" if points.untrained else ""
        return f"<dictionary {self.name}: {points.latents:,} latents{each} at {points.where}{size}; {points.formula}{by}>"


class ServedDictionaries(Mapping[str, ServedDictionary]):
    """The dictionaries of a server, by name: all its sessions have the same."""

    def __init__(self, rmodel: Any) -> None:
        self._rmodel = rmodel

    @property
    def _there(self) -> KnownDictionaries:
        there: KnownDictionaries = self._rmodel.catalog.dictionaries
        return there

    @property
    def _now(self) -> KnownDictionaries:
        """Those that there are now, whoever loaded them."""
        there = self._there
        there.renew()
        return there

    def load(
        self,
        path: str | os.PathLike[str],
        name: str = "",
        at: str | Sequence[str] = (),
        *,
        show: bool = True,
    ) -> ServedDictionary:
        """Load a dictionary on the server: a sparse autoencoder or a transcoder, of any format that is known.

        Args:
            path: the directory or file, on the server's hosts; or a hub id, ``org/name`` or ``org/name/folder``.
            name: by which its points are called; by default the last part of the path.
            at: the point that it reads, or that and the one that it writes, where its files do not say so or say it by a name that
                may mean several. Points of the table or names of other libraries (``blocks.3.hook_resid_post``). Of a crosscoder or a
                cross-layer transcoder all of them, in order; ``["layers.*.mlp.in", "layers.*.mlp.out"]`` are those of all layers.
            show: whether what was read is printed, as one formula.

        Returns:
            The dictionary. Where it is loaded already, it is not loaded again.

        Raises:
            NotADictionary: there is nothing of a known format, or something of it is missing or contradicts itself.
            UnclearPoint: where it belongs is not said, or may be several points, which are named: see :meth:`fit`.
            WrongDictionary: the model lacks its point, or has it with another number of units.
            BadRequest: another dictionary has that name; it reads another number of points than `at` names; or it chooses among the
                latents of all layers together, which no layer knows when its turn comes.
            DoesNotFit: it has no room, with both numbers.
        """
        asked = wire.LoadDictionary(
            path=os.fspath(locate(path, prints.notice)), name=name, at=_points(at)
        )
        before = set(self._there)
        points, description = self._rmodel._run(asked)
        fresh = points.name not in before
        self._there[points.name] = points
        if fresh and show:
            prints.plain(0, "stdout", f"{_said(points, description)}\n")
        return ServedDictionary(self._rmodel, points)

    def fit(self, path: str | os.PathLike[str], texts: Any, points: Sequence[str] = ()) -> Fits:
        """How well a dictionary fits at each point that it may belong to, where its files do not say which.

        Args:
            path: as for :meth:`load`.
            texts, points: as for :meth:`ServedDictionary.fit`; by default the points that its files may mean.

        Raises:
            UnclearPoint: its files name none, and none is given.
        """
        where = os.fspath(locate(path, prints.notice))
        candidates = tuple(points)
        if not candidates:
            try:
                sae = self.load(where, "fit", show=False)
            except UnclearPoint as error:
                if not error.nearest:
                    raise
                candidates = tuple(error.nearest)
            else:
                own = sae.points.ends
                sae.unload()
                return fit_at(self._rmodel, where, texts, [own])
        catalog = self._rmodel.catalog
        places = [tuple((one, one) for one in _selected(catalog, point)) for point in candidates]
        return fit_at(self._rmodel, where, texts, places)

    def unload(self, name: str) -> None:
        """Let go of a dictionary on the server, for all its sessions.

        Raises:
            UnknownName: none of that name is loaded.
        """
        self._rmodel._run(wire.UnloadDictionary(name=name))
        self._there.pop(name, None)

    def __getitem__(self, name: str) -> ServedDictionary:
        if name not in self._there:
            raise UnknownName.among(
                "dictionary", name, self._there, "rmodel.dictionaries.load(PATH) loads one."
            )
        return ServedDictionary(self._rmodel, self._there[name])

    def __contains__(self, name: object) -> bool:
        return name in self._there

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._now))

    def __len__(self) -> int:
        return len(self._now)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        names = list(self)
        if not names:
            return "<no dictionary is loaded; rmodel.dictionaries.load(PATH) loads one>"
        return "\n".join(repr(self[name]) for name in names)


class DictionaryClient(PassClient):
    """What a connection does with dictionaries."""

    @property
    def dictionaries(self) -> ServedDictionaries:
        """The dictionaries on the server, by name."""
        return ServedDictionaries(self)

    @contextmanager
    def spliced(
        self, *names: str, error: str = "live", bypass: Sequence[int] | None = None
    ) -> Iterator[None]:
        """While this is entered, passes go on through dictionaries: what their latents become is what the model reads.

        Where no probe changes a latent, an error that is kept makes it the model's own numbers, to the last bit. What the error is
        matters for gradients (Marks et al. 2024): "live", it is computed of the value, and gradients below the dictionary are the
        model's own; "frozen", it is a constant, and they go through the latents alone. "none" leaves it out: the model goes on with
        the reconstruction.

        Args:
            names: of dictionaries, in any number.
            error: "live", "frozen" or "none".
            bypass: positions whose values go past the dictionaries, counted from 0 in each text; [] for none. By default those that
                a dictionary was not trained on, as its files say or its library has it, which ``print(sae)`` tells: the first token, whose
                values are a hundred times those of others, of Gemma Scope's, Llama Scope's and circuit-tracer's dictionaries, and of
                those trained here or by SAELens without it.

        Raises:
            UnknownName: no dictionary of that name is loaded.
            BadRequest: there is no such error.

        Examples:
            >>> with rmodel.spliced("NAME", error="none", bypass=[0]):
            ...     logits = rmodel.forward(tokens)
        """
        if error not in wire.SPLICE_ERRORS:
            raise BadRequest(
                f"There is no error={error!r} of a splice.",
                f"There are {', '.join(wire.SPLICE_ERRORS)}.",
            )
        chosen = [self.dictionaries[name] for name in names]
        added = [
            wire.Splice(
                each.name, error, each.points.untrained if bypass is None else _positions(bypass)
            )
            for each in chosen
        ]
        former = self.splices
        replaced = {splice.dictionary for splice in added}
        self.splices = (*(s for s in former if s.dictionary not in replaced), *added)
        try:
            yield
        finally:
            self.splices = former


def _positions(bypass: Sequence[int]) -> tuple[int, ...]:
    try:
        found = tuple(operator.index(position) for position in bypass)
    except TypeError:
        found = (-1,)
    if any(position < 0 for position in found):
        raise BadRequest(
            f"bypass={bypass!r} are no positions.",
            "Give numbers counted from 0, such as bypass=[0].",
        )
    return found


def _ends(rmodel: Any, own: DictionaryPoints, point: str) -> tuple[tuple[str, str], ...]:
    """A place of a dictionary that is loaded: a point, or a pattern of as many as it reads, instead of those that it reads."""
    reads = _selected(rmodel.catalog, point)
    if len(reads) != len(own.ends):
        raise BadRequest(
            f"{point} names {len(reads)} point{'s' if len(reads) != 1 else ''}, of a dictionary that reads {len(own.ends)}.",
            "Give a pattern that names as many, such as layers.*.mlp.in.",
        )
    return tuple(
        (new, new if former == writes else writes)
        for new, (former, writes) in zip(reads, own.ends, strict=True)
    )


def _selected(catalog: Any, point: str) -> list[str]:
    """The points that a name or a pattern selects."""
    return [one.name for one in catalog.select(point)] if is_pattern(point) else [point]


def _points(at: str | Sequence[str]) -> tuple[str, ...]:
    """Points that were said, by the table's names; patterns stay as they are."""
    said = (at,) if isinstance(at, str) else tuple(at)
    return tuple(point if is_pattern(point) else point_of(point) for point in said)


def _said(points: DictionaryPoints, description: Description) -> str:
    first, _, rest = str(description).partition("\n")
    return f"{points.name}: {first}; {sized(points.nbytes)}\n{rest}"
