"""Where the documents of a run come from: memory, or a file that the server reads.

A source yields its documents in their order, each a text or an array of token ids; one that cannot be read is
yielded as the error that says so, with its row, so that a run may stop there or go on without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadData, MissingModule
from garcon_jupyter.wire.runs import Data

Document = str | np.ndarray | BadData

TEXT_FIELDS = ("text", "content", "document", "tokens", "input_ids")
"""Columns looked for where none is named."""


@dataclass
class DocumentSource:
    """Documents in their order.

    Attributes:
        name: what to call it in errors.
        read: yields the documents from the n-th on, each with the fraction of the data that is then read.
        texts: whether they are texts (or may be).
        stream: whether it is one long array of tokens.
    """

    name: str
    read: Callable[[int], Iterator[tuple[Document, float]]]
    texts: bool = True
    stream: bool = False


def open_source(data: Data) -> DocumentSource:
    """The documents of a run.

    Raises:
        BadData: there is no such file, it is of no kind that is known, or it is empty.
        MissingModule: reading it needs a package that the server lacks.
    """
    if data.texts is not None:
        return _listed("the texts", data.texts, _text)
    if data.rows is not None:
        return _listed("the tokens", data.rows, _ids)
    path = Path(str(data.path)).expanduser()
    if not path.exists():
        raise BadData(
            f"There is no file {str(path)!r} on the server's host.",
            "Paths are those of the machine it runs on; texts are given as a list of them.",
        )
    if path.is_dir():
        return _datasets(path, data.field)
    if not path.stat().st_size:
        raise BadData(f"{path.name} is empty.", "Give a file with at least one document.")
    kinds = {
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".parquet": _parquet,
        ".arrow": _arrow,
        ".feather": _arrow,
        ".npy": _npy,
        ".safetensors": _safetensors,
    }
    if make := kinds.get(path.suffix.lower()):
        return make(path, data.field)
    return _text_file(path, data.documents)


# -- in memory ------------------------------------------------------------------------------------


def _listed(name: str, items: Any, kind: Callable[[Any, str], Document]) -> DocumentSource:
    total = len(items)

    def read(first: int) -> Iterator[tuple[Document, float]]:
        for number in range(first, total):
            yield kind(items[number], f"Row {number} of {name}"), (number + 1) / total

    if not total:
        raise BadData(f"There is nothing in {name}.", "Give at least one document.")
    return DocumentSource(name, read, kind is not _ids, kind is _ids and total == 1)


def _text(value: Any, where: str) -> Document:
    if isinstance(value, str):
        return value
    return BadData(f"{where} is a {type(value).__name__}, not a text.", "Correct it, or skip=True.")


def _ids(value: Any, where: str) -> Document:
    try:
        ids = np.asarray(value)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(f"{ids.dtype} {list(ids.shape)}")
    except (TypeError, ValueError) as error:
        return BadData(f"{where} is no row of token ids: {error}.", "Correct it, or skip=True.")
    return ids.astype(np.int64)


def _either(value: Any, where: str) -> Document:
    return _text(value, where) if isinstance(value, str) or value is None else _ids(value, where)


# -- text files -----------------------------------------------------------------------------------


def _text_file(path: Path, documents: str) -> DocumentSource:
    pieces = {"line": _lines, "paragraph": _paragraphs, "file": _whole}
    if documents not in pieces:
        raise BadData(f"There are no documents by {documents!r}.", f"Use {', '.join(pieces)}.")
    size = path.stat().st_size

    def read(first: int) -> Iterator[tuple[Document, float]]:
        number = 0
        for raw, line, end in pieces[documents](path):
            if not raw.strip():
                continue
            if number >= first:
                yield _decoded(raw, f"Line {line} of {path.name}"), end / size
            number += 1

    return DocumentSource(path.name, read)


def _lines(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """(bytes, number of the first line, where it ends in the file)."""
    end = 0
    with path.open("rb") as stream:
        for line, raw in enumerate(stream, 1):
            end += len(raw)
            yield raw.rstrip(b"\r\n"), line, end


def _paragraphs(path: Path) -> Iterator[tuple[bytes, int, int]]:
    held: list[bytes] = []
    first = end = 0
    for raw, line, after in _lines(path):
        if raw.strip():
            first = first if held else line
            held.append(raw)
        elif held:
            yield b"\n".join(held), first, after
            held = []
        end = after
    if held:
        yield b"\n".join(held), first, end


def _whole(path: Path) -> Iterator[tuple[bytes, int, int]]:
    raw = path.read_bytes()
    yield raw, 1, len(raw)


def _decoded(raw: bytes, where: str) -> Document:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        return BadData(f"{where} is no UTF-8: {error.reason}.", "Convert the file, or skip=True.")


def _json_lines(path: Path, field: str) -> DocumentSource:
    size = path.stat().st_size

    def read(first: int) -> Iterator[tuple[Document, float]]:
        number = 0
        for raw, line, end in _lines(path):
            if not raw.strip():
                continue
            if number >= first:
                yield _json_row(raw, field, f"Line {line} of {path.name}"), end / size
            number += 1

    return DocumentSource(path.name, read)


def _json_row(raw: bytes, field: str, where: str) -> Document:
    try:
        row = json.loads(raw)
    except ValueError as error:
        return BadData(f"{where} is no JSON: {error}.", "Correct it, or skip=True.")
    if not isinstance(row, dict):
        return _either(row, where)
    name = field or next((name for name in TEXT_FIELDS if name in row), "")
    if name not in row:
        return BadData(
            f"{where} has no {field or 'text'!r}; it has {', '.join(row) or 'nothing'}.",
            "field= names the key that holds the text.",
        )
    return _either(row[name], where)


# -- tables ---------------------------------------------------------------------------------------


def _needs(module: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingModule(
            f"{what} is read with {module.partition('.')[0]!r}, which the server lacks.",
            f"Install {module.partition('.')[0]} where the server runs.",
        ) from None


def _column(names: list[str], field: str, where: str) -> str:
    name = field or next((name for name in TEXT_FIELDS if name in names), "")
    if name not in names:
        raise BadData(
            f"{where} has no column {field or 'text'!r}; it has {', '.join(names)}.",
            "field= names the column that holds the text.",
        )
    return name


def _parquet(path: Path, field: str) -> DocumentSource:
    parquet = _needs("pyarrow.parquet", path.name)
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own are of these kinds
        raise BadData(f"{path.name} cannot be read: {error}.", "Is it a Parquet file?") from None
    column = _column(file.schema_arrow.names, field, path.name)
    chunks = lambda: (batch.column(0) for batch in file.iter_batches(columns=[column]))  # noqa: E731
    return _columns(path.name, file.metadata.num_rows, chunks)


def _arrow(path: Path, field: str) -> DocumentSource:
    pyarrow = _needs("pyarrow", path.name)
    mapped = pyarrow.memory_map(str(path))
    table = None
    for opened in (pyarrow.ipc.open_file, pyarrow.ipc.open_stream):
        try:
            mapped.seek(0)
            table = opened(mapped).read_all()
            break
        except pyarrow.ArrowInvalid:
            continue
    if table is None:
        raise BadData(f"{path.name} is no Arrow file.", "Write it as an Arrow file or stream.")
    column = table.column(_column(table.column_names, field, path.name))
    return _columns(path.name, len(column), lambda: iter(column.chunks))


def _columns(name: str, total: int, chunks: Callable[[], Iterator[Any]]) -> DocumentSource:
    if not total:
        raise BadData(f"{name} has no rows.", "Give at least one document.")

    def read(first: int) -> Iterator[tuple[Document, float]]:
        number = 0
        for chunk in chunks():
            start = max(0, first - number)
            for within in range(start, len(chunk)):
                where = f"Row {number + within} of {name}"
                yield _either(chunk[within].as_py(), where), (number + within + 1) / total
            number += len(chunk)

    return DocumentSource(name, read)


def _datasets(path: Path, field: str) -> DocumentSource:
    datasets = _needs("datasets", f"The directory {path.name}")
    try:
        table = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise BadData(
            f"{path.name} is no data set on disk: {error}.",
            "dataset.save_to_disk(path) writes one.",
        ) from None
    if hasattr(table, "keys"):
        raise BadData(
            f"{path.name} holds several splits: {', '.join(table.keys())}.",
            f"Give one of them: {path.name}/{next(iter(table.keys()))}.",
        )
    column = _column(table.column_names, field, path.name)
    total = len(table)
    if not total:
        raise BadData(f"{path.name} has no rows.", "Give at least one document.")

    def read(first: int) -> Iterator[tuple[Document, float]]:
        for number in range(first, total):
            value = table[number][column]
            yield _either(value, f"Row {number} of {path.name}"), (number + 1) / total

    return DocumentSource(path.name, read)


# -- arrays of tokens -----------------------------------------------------------------------------


def _npy(path: Path, field: str) -> DocumentSource:
    try:
        return _array(path.name, np.load(path, mmap_mode="r"))
    except (ValueError, OSError) as error:
        raise BadData(
            f"{path.name} is no array of tokens: {error}.", "np.save writes one."
        ) from None


def _safetensors(path: Path, field: str) -> DocumentSource:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "np") as file:
            names = list(file.keys())
            if not field and len(names) > 1:
                field = next((n for n in TEXT_FIELDS if n in names), "")
            name = field or names[0]
            if name not in names:
                raise BadData(
                    f"{path.name} has no {name!r}: {', '.join(names)}.", "field= names it."
                )
            return _array(path.name, file.get_tensor(name))
    except SafetensorError as error:
        raise BadData(f"{path.name} cannot be read: {error}.", "Is it safetensors?") from None


def _array(name: str, array: np.ndarray) -> DocumentSource:
    if array.ndim not in (1, 2) or array.dtype.kind not in "iu":
        raise BadData(
            f"{name} is {array.dtype} {list(array.shape)}, no tokens.",
            "Give integers, [tokens] or [rows, tokens].",
        )
    source = _listed(name, array if array.ndim == 2 else array[None], _ids)
    source.stream = array.ndim == 1
    return source
