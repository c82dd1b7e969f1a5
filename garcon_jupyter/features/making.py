"""Features of all units, begun and gone on with where they were cut short."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from garcon_jupyter.activation_stores import ActivationStore, open_store
from garcon_jupyter.activation_stores.addresses import (
    StoreAddress,
    directory_of,
    work_directory,
)
from garcon_jupyter.atlas.files import INDEX, VOCABULARY, Atlas, open_atlas
from garcon_jupyter.errors import BadData, GarconError, Interrupted
from garcon_jupyter.exchanges import disk_room
from garcon_jupyter.exchanges.alone import LOCK, alone, clear, clear_halves
from garcon_jupyter.exchanges.announcing import DirectoryCall, announced
from garcon_jupyter.exchanges.engines import TaskEngine
from garcon_jupyter.exchanges.planning import bytes_said
from garcon_jupyter.features.asked import FeaturesAsked
from garcon_jupyter.features.passes import PLAN, FeaturePasses, Told
from garcon_jupyter.features.planning import FeaturesPlan


def features(
    store: str | Path | ActivationStore,
    out: str | Path,
    dictionary: str | Path | None = None,
    point: str | None = None,
    k: int = 20,
    sample: int = 200,
    before: int = 10,
    after: int = 5,
    without: Sequence[str | int] = (),
    memory: int | str = "2 GB",
    engine: str | TaskEngine = "local",
    workers: int | None = None,
    retries: int = 2,
    seed: int = 0,
    vocabulary: Sequence[str] = (),
    name: str = "",
    plan: FeaturesPlan | None = None,
    progress: Told | None = None,
    work: str | Path | None = None,
) -> Atlas:
    """What feature dashboards show, of all latents of a dictionary or all units of a point, from a store of activations.

    For each unit the k strongest tokens, a uniform sample of those at which it fires (is above zero), and a uniform sample in each of ten
    intervals of equal width up to its largest value, all with the tokens around them and the unit's values there; counts, moments and a
    histogram. Cut at its quantiles, the sample gives intervals of equal count. Everything is the same to the last bit for any memory,
    shards, workers and engine. Called again, it goes on where it was cut short.

    Latents are computed once, in tiles of 1,024 rows and 256 latents by their absolute numbers, and kept, where they are not 0, until the end:
    windows are looked up among them. Where the state of all units fits into the memory that is asked for, there is one pass in this process;
    else four: strongest and sampled tokens by data and feature shards, merged by units, their windows by data shards, written by units.

    Args:
        store: in the order of the data, or its directory, or an address of fsspec's: "s3://bucket/acts".
        out: a new directory; or that of a call which was cut short; or an address, which takes `work`.
        dictionary: files of a sparse autoencoder or a transcoder; None for the units of the point itself.
        point: of the store, where it has several.
        k: strongest tokens of each unit.
        sample: tokens of the uniform sample.
        before, after: tokens of a window before and after its own.
        without: tokens that are not recorded: "first" of each document, or ids. They still stand in windows.
        memory: bytes for all processes together.
        engine, workers, retries: as for :func:`garcon_jupyter.shuffle`.
        seed: of the samples.
        vocabulary: the texts of all tokens; () shows their ids.
        name: what to call the dictionary.
        plan: how to go about it, in place of what `memory` makes of it.
        progress: is told in a line what the plan is, and how far it is.
        work: a directory where they are made, where `out` is an address: the files of an atlas are mapped. They stay there, and are copied to the
            address when they are complete, the index last.

    Returns:
        The atlas; ``garcon.open_atlas(out)`` opens it again, of an address ``garcon.open_atlas(work)``.

    Raises:
        BadData: the store is shuffled, not complete or damaged; or `out` has something else: another dictionary, another k.
        BadRequest: the dictionary reads something else than the store has; another process works in `out`.
        DoesNotFit: memory or disk do not suffice, with the numbers.
    """
    source = store if isinstance(store, ActivationStore) else open_store(store)
    asked = FeaturesAsked(source, dictionary, point, k, sample, before, after, without, seed, name)
    target = directory_of(out)
    directory = work_directory(target, work, "An atlas in the making")
    shown = directory if isinstance(target, StoreAddress) else target
    if (directory / INDEX).exists():
        clear(directory)
        return _put(asked.opened(shown), target)
    _prepare(directory)
    arguments = {
        **asked.kept,
        "store": str(source.path.absolute()),
        "out": str(target if isinstance(target, StoreAddress) else directory),
        "work": None if work is None else str(directory),
        "dictionary": asked.dictionary,
        "point": point,
        "without": [*(["first"] if asked.without.first else []), *asked.without.ids],
        "memory": memory,
        "engine": engine if isinstance(engine, str) else "local",
        "workers": workers,
        "retries": retries,
        "vocabulary": list(vocabulary),
        "name": name,
    }
    call = DirectoryCall("features", f"{__name__}:features", arguments, ("*.npy",))
    with disk_room.named(directory), alone(directory, "writes features into") as between:
        asked.check(between)
        with announced(directory, call, progress) as told:
            _made(
                asked, directory, between, told, memory, engine, workers, retries, plan, vocabulary
            )
            clear_halves(directory)  # of workers that were killed
        shutil.rmtree(between)
    return _put(open_atlas(shown), target)


def _put(atlas: Atlas, target: Path | StoreAddress) -> Atlas:
    """Copy an atlas to an address, if it is wanted at one, and see that another is not there.

    Raises:
        BadData: one is.
    """
    if isinstance(target, StoreAddress):
        there = target.sizes()
        if INDEX in there:
            if (target / INDEX).read_bytes() != (atlas.path / INDEX).read_bytes():
                raise BadData(f"{target} has another atlas already.", "Give a new address.")
            return atlas
        if others := [name for name in there if name != VOCABULARY and not name.endswith(".npy")]:
            raise BadData(f"{target} holds {min(others)} already.", "Give a new address.")
        files = [p for p in atlas.path.iterdir() if p.name == VOCABULARY or p.suffix == ".npy"]
        for path in sorted(files):
            (target / path.name).put(path)
        (target / INDEX).put(atlas.path / INDEX)
    return atlas


def _prepare(directory: Path) -> None:
    """See that a directory can be written, and has nothing but what such a call left there.

    Raises:
        BadData: it holds something else, or cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        worked_in = (directory / LOCK).exists()
        for path in directory.iterdir():
            ours = worked_in and (path.suffix in (".npy", ".writing") or path.name == VOCABULARY)
            if not ours and not path.name.startswith("."):
                raise BadData(f"{directory} holds {path.name} already.", "Give a new directory.")
    except OSError as error:
        raise BadData(f"{directory} cannot be written: {error}.", "Give another.") from None


def _made(
    asked: FeaturesAsked,
    directory: Path,
    between: Path,
    told: Told,
    memory: int | str,
    engine: str | TaskEngine,
    workers: int | None,
    retries: int,
    plan: FeaturesPlan | None,
    vocabulary: Sequence[str],
) -> None:
    """Make them; what was not begun leaves nothing behind."""
    one = FeaturePasses(asked, directory, between, retries, told)
    try:
        with disk_room.named(directory, one.needed):
            one.run(bytes_said(memory), engine, workers, plan, vocabulary)
    except Interrupted:
        raise
    except GarconError:
        if not (between / PLAN).exists():
            shutil.rmtree(between)
        raise
