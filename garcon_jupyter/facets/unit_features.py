"""Features of dictionaries and points from stores of activations, begun from the notebook."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.activation_stores import ActivationStore, open_store
from garcon_jupyter.activation_stores.addresses import directory_of, work_directory
from garcon_jupyter.activation_stores.writing import MANIFEST
from garcon_jupyter.client.dictionaries import ServedDictionary
from garcon_jupyter.client.probes import ProbePoint
from garcon_jupyter.connection import prints
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.facets.data_runs import DataRuns

if TYPE_CHECKING:
    from garcon_jupyter.atlas import Atlas
    from garcon_jupyter.exchanges.engines import TaskEngine

BESIDE = ".acts"
"""What is added to the name of an atlas for the store that it is made of, where data were given; gone when it is made."""


class UnitFeatures(DataRuns):
    """What a :class:`~garcon_jupyter.RemoteModel` does about features."""

    def features(
        self,
        what: str | Path | ServedDictionary | ProbePoint,
        data: Any,
        out: str | Path,
        k: int = 20,
        sample: int = 200,
        before: int = 10,
        after: int = 5,
        without: Sequence[str | int] = (),
        memory: int | str = "2 GB",
        engine: str | TaskEngine = "local",
        workers: int | None = None,
        show: bool = True,
        work: str | Path | None = None,
        **options: Any,
    ) -> Atlas:
        """What feature dashboards show, of all latents of a dictionary or all units of a point, however many.

        For each the k strongest tokens, a uniform sample of those at which it is above zero, and samples of ten intervals of equal width, with
        the text around them; counts, moments, histogram. In one pass where the state fits into the memory, else in four over shards of
        the data and of the units, whose plan is printed first: :func:`garcon_jupyter.features.features`. The model runs only where `data` is no
        store.

        Args:
            what: a dictionary: loaded, or its name, or the path of its files; or a point.
            data: a store of activations in the order of the data (:meth:`store`), or its directory; or data as for :meth:`run`, which are stored
                beside `out` until it is made.
            out: a new directory; given again, the call goes on where it was cut short.
            k: strongest tokens of each.
            sample: tokens of the uniform sample.
            before, after: tokens of a window before and after its own.
            without: "first" of each document, or ids: tokens that are not recorded.
            memory: bytes for all processes together.
            engine, workers: as for :func:`garcon_jupyter.shuffle`.
            show: whether to print the plan, and how far it is.
            work: a directory in which the atlas is made, where `out` is an address of fsspec's.
            options: as for :meth:`store`, where data are given.

        Returns:
            The atlas; ``garcon.open_atlas(out)`` opens it again.

        Raises:
            BadRequest: the server, whose files these are, is on another host; or the dictionary reads another number of units.
            BadData: the store is shuffled or damaged, or `out` has something else.
            DoesNotFit: memory or disk do not suffice, with the numbers.

        Examples:
            >>> import tempfile
            >>> where = tempfile.mkdtemp()
            >>> texts = ["Paris is the capital of France.", "Rome is in Italy."]
            >>> store = rmodel.store("layers.4.mlp.post_activation", texts, where + "/acts", show=False)
            >>> atlas = rmodel.features("layers.4.mlp.post_activation", store, where + "/atlas", k=2, sample=4, show=False)
            >>> atlas["layers.4.mlp.post_activation", 7].array("top_values").shape
            (2,)
        """
        from garcon_jupyter.atlas.making import vocabulary
        from garcon_jupyter.features import features

        if not self._channel.same_host:
            raise BadRequest(
                "Features are made of files, and the server's are on another host.",
                "Call garcon_jupyter.features.features there.",
            )
        dictionary, point, name = self._meant(what)
        if dictionary is not None and point is None and not _is_store(data):
            point, name = self._place_of(dictionary)
        made_in = work_directory(directory_of(out), work, "An atlas in the making")
        beside = Path(f"{made_in}{BESIDE}")
        store = _store_of(data)
        if store is None:
            assert point is not None
            store = self.store(point, data, beside, show=show, **options)
        elif options:
            raise BadRequest(
                f"{', '.join(options)} are options of data, and a store was given.",
                "Leave them out.",
            )
        made = features(
            store if store is not None else beside,
            out,
            dictionary,
            point if store is not None and len(store.points) > 1 else None,
            k,
            sample,
            before,
            after,
            without,
            memory,
            engine,
            workers,
            vocabulary=vocabulary(self),
            name=name,
            progress=told() if show else None,
            work=work,
        )
        shutil.rmtree(beside, ignore_errors=True)
        return made

    def _place_of(self, files: str) -> tuple[str, str]:
        """The point that a dictionary reads, and its name. It is loaded for that, and gone again if it was not there."""
        there = set(self.dictionaries)
        loaded = self.dictionaries.load(files, show=False)
        if loaded.name not in there:
            self.dictionaries.unload(loaded.name)
        return loaded.points.reads, loaded.name

    def _meant(self, what: Any) -> tuple[str | None, str | None, str]:
        """(files of the dictionary, the point, the dictionary's name): None where there is none, or it is not known."""
        if isinstance(what, ProbePoint):
            return None, what.name, ""
        if isinstance(what, str) and what in self.dictionaries:
            what = self.dictionaries[what]
        if isinstance(what, ServedDictionary):
            return what.points.path, what.points.reads, what.name
        if Path(what).expanduser().exists():
            from garcon_jupyter.points.dictionary_points import name_of

            return str(what), None, name_of(str(what))
        return None, self.catalog.point(str(what)).name, ""


def _is_store(data: Any) -> bool:
    return isinstance(data, ActivationStore) or (
        isinstance(data, (str, Path)) and (directory_of(data) / MANIFEST).exists()
    )


def _store_of(data: Any) -> ActivationStore | None:
    if isinstance(data, ActivationStore):
        return data
    return open_store(data) if _is_store(data) else None


def told() -> Callable[[str], None]:
    """Prints a plan, and how far it is."""
    return lambda line: prints.plain(0, "stdout", f"{line}\n")
