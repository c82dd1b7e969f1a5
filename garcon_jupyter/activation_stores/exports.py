"""What SAELens and Hugging Face's ``datasets`` read, written from a store.

Neither has bfloat16, so such rows are written as float32, which holds them exactly; 8-bit rows too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.batches import as_numpy, needed
from garcon_jupyter.activation_stores.point_rows import PointRows
from garcon_jupyter.errors import BadData, BadRequest

_ROWS = 4096
"""Rows read at a time."""

_SHARD = 500 << 20
"""Bytes of an Arrow file."""


def to_datasets(rows: PointRows, path: str | Path) -> Path:
    """Write the rows as a data set: columns ``activations`` [units], ``document``, ``offset`` and ``token``.

    ``datasets.load_from_disk(path)`` reads it.

    Args:
        rows: of a point.
        path: a new directory.

    Raises:
        BadData: the directory holds something.
        MissingModule: ``datasets`` is not installed.
    """
    datasets = needed("datasets")
    kind = _kind(rows.stored)
    features = datasets.Features(
        {
            "activations": datasets.Sequence(datasets.Value(kind), length=rows.units),
            **{name: datasets.Value("int64") for name in ("document", "offset")},
            "token": datasets.Value("int32"),
        }
    )

    def tables() -> Iterator[Any]:
        pa = needed("pyarrow")
        for first in range(0, rows.rows, _ROWS):
            values, place, token = _read(rows, first, min(_ROWS, rows.rows - first))
            flat = pa.array(values.reshape(-1))
            yield pa.table(
                {
                    "activations": pa.FixedSizeListArray.from_arrays(flat, rows.units),
                    "document": pa.array(place >> 32),
                    "offset": pa.array(place & 0xFFFFFFFF),
                    "token": pa.array(token),
                }
            )

    return _written(Path(path).expanduser(), features, tables(), rows)


def to_saelens(rows: PointRows, path: str | Path, context: int) -> Path:
    """Write the rows as SAELens 6 caches them: a column of the point's name, [context, units], and ``token_ids`` [context].

    ``LanguageModelSAERunnerConfig(use_cached_activations=True, cached_activations_path=path, context_size=context)`` trains
    from it. Rows that fill no whole context are left out. SAELens shuffles contexts as wholes; of a shuffled store each context is a
    uniform draw of tokens already.

    Args:
        rows: of a point.
        path: a new directory.
        context: rows of a context.

    Raises:
        BadData: the directory holds something.
        BadRequest: there are fewer rows than a context has.
        MissingModule: ``datasets`` is not installed.
    """
    datasets = needed("datasets")
    contexts = rows.rows // context if context > 0 else 0
    if not contexts:
        raise BadRequest(
            f"The store's {rows.rows:,} rows fill no context of {context}.",
            f"Give context={rows.rows} or less.",
        )
    features = datasets.Features(
        {
            rows.point: datasets.Array2D((context, rows.units), _kind(rows.stored)),
            "token_ids": datasets.Sequence(datasets.Value("int32"), length=context),
        }
    )

    def tables() -> Iterator[Any]:
        pa = needed("pyarrow")
        arrow = features.arrow_schema
        each = max(1, _ROWS // context)
        for first in range(0, contexts, each):
            count = min(each, contexts - first)
            values, _, token = _read(rows, first * context, count * context)
            inner = pa.ListArray.from_arrays(
                pa.array(np.arange(count * context + 1, dtype=np.int32) * rows.units),
                pa.array(values.reshape(-1)),
            )
            outer = pa.ListArray.from_arrays(
                pa.array(np.arange(count + 1, dtype=np.int32) * context), inner
            )
            shaped = pa.ExtensionArray.from_storage(arrow.field(rows.point).type, outer)
            ids = pa.FixedSizeListArray.from_arrays(pa.array(token), context)
            yield pa.table({rows.point: shaped, "token_ids": ids})

    return _written(Path(path).expanduser(), features, tables(), rows)


def _kind(stored: str) -> str:
    return "float16" if stored == "float16" else "float32"


def _fingerprint(rows: PointRows, features: Any) -> str:
    """By which ``datasets`` knows in its cache what was made of these rows."""
    sums = [sorted(part.sums.items()) for group in rows.groups for part in group.parts]
    return hashlib.sha256(repr((sums, features)).encode()).hexdigest()[:16]


def _read(rows: PointRows, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    read = rows.read(first, count)
    values = as_numpy(read["activations"], rows.stored, read.get("scale"))
    return values, read["place"], read["token"]


def _written(path: Path, features: Any, tables: Iterator[Any], rows: PointRows) -> Path:
    """Arrow files of a data set, with the two files that ``datasets`` looks for beside them."""
    from datasets.arrow_writer import ArrowWriter

    if path.exists() and any(path.iterdir()):
        raise BadData(f"{path} holds something already.", "Give a new directory.")
    path.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    written, writer = 0, None
    for table in tables:
        if writer is None:
            names.append(f"data-{len(names):05d}.arrow")
            writer = ArrowWriter(path=str(path / names[-1]), features=features)
        writer.write_table(table)
        written += table.nbytes
        if written >= _SHARD:
            writer.finalize()
            written, writer = 0, None
    if writer is not None:
        writer.finalize()
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": _fingerprint(rows, features),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    info = {
        "citation": "",
        "description": "",
        "features": features.to_dict(),
        "homepage": "",
        "license": "",
    }
    (path / "state.json").write_text(json.dumps(state, indent=1))
    (path / "dataset_info.json").write_text(json.dumps(info, indent=1))
    return path
