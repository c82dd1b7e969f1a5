"""Documents from everywhere, and the rows that they become."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from garcon_backend.runs.batches import Batches, Piece, Position
from garcon_backend.runs.sources import DocumentSource, open_source
from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.wire.requests import Batch
from garcon_jupyter.wire.runs import Data, Plan

TEXTS = ["one", "two words", "three more words", "four"]
SIZES = {"V": 300, "P": 64}


class Letters:
    """A tokenizer whose tokens are the bytes of a text."""

    eos_token_id = 1

    def __call__(self, texts: list[str], **options: Any) -> dict[str, Any]:
        return {"input_ids": [list(text.encode()) for text in texts]}


def batches(data: Data, position: Position = Position(), **plan: Any) -> Batches:
    return Batches(open_source(data), Plan(**plan), Letters(), SIZES, position)


def all_of(found: Batches) -> Iterator[Batch]:
    while (batch := found.next()) is not None:
        assert batch[1] == (batch[0].documents >= 0).sum()
        yield batch[0]


def rows(found: list[Batch]) -> list[list[tuple[int, int, int]]]:
    """(token, document, offset) of each real token, by row."""
    listed = []
    for batch in found:
        mask = torch.ones_like(batch.ids, dtype=torch.bool) if batch.mask is None else batch.mask
        for number, real in enumerate(mask):
            columns = (batch.ids, batch.documents, batch.offsets)
            listed.append(list(zip(*(c[number][real].tolist() for c in columns), strict=True)))
    return listed


# -- where documents come from ---------------------------------------------------------------------


def written(tmp_path: Path, kind: str) -> Data:
    """The texts, or their tokens, in a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    path = tmp_path / f"data.{kind}"
    table = pa.table({"id": list(range(4)), "text": TEXTS})
    if kind == "txt":
        path.write_text("\n".join(TEXTS) + "\n\n")
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"id": 1, "text": text}) for text in TEXTS))
    elif kind == "parquet":
        pq.write_table(table, path, row_group_size=3)
    elif kind == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    elif kind == "hf":
        import datasets

        datasets.Dataset(table).save_to_disk(path)
    elif kind == "npy":
        np.save(path, np.frombuffer("".join(TEXTS).encode(), dtype=np.uint8).astype(np.uint16))
    elif kind == "safetensors":
        save_file({"tokens": np.arange(12, dtype=np.int32).reshape(3, 4)}, path)
    return Data(path=str(path))


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet", "arrow", "hf"])
def test_texts_are_read_from_files(kind: str, tmp_path: Path) -> None:
    source = open_source(written(tmp_path, kind))
    assert [document for document, _ in source.read(0)] == TEXTS
    for first in range(5):
        assert [document for document, _ in source.read(first)] == TEXTS[first:]
    fractions = [fraction for _, fraction in source.read(0)]
    assert fractions == sorted(fractions) and fractions[0] > 0 and fractions[-1] <= 1


def test_tokens_are_read_from_files(tmp_path: Path) -> None:
    stream = open_source(written(tmp_path, "npy"))
    ((ids, _),) = stream.read(0)
    assert stream.stream and bytes(ids.tolist()).decode() == "".join(TEXTS)  # type: ignore[union-attr]
    source = open_source(written(tmp_path, "safetensors"))
    found = [document.tolist() for document, _ in source.read(1)]  # type: ignore[union-attr]
    assert found == [[4, 5, 6, 7], [8, 9, 10, 11]] and not source.stream


def test_paragraphs_and_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("one\ntwo\n\n\nthree\n")
    for documents, expected in (
        ("line", ["one", "two", "three"]),
        ("paragraph", ["one\ntwo", "three"]),
        ("file", ["one\ntwo\n\n\nthree\n"]),
    ):
        source = open_source(Data(path=str(path), documents=documents))
        assert [document for document, _ in source.read(0)] == expected


def bad(tmp_path: Path, name: str, content: bytes = b"", **options: Any) -> DocumentSource:
    (tmp_path / name).write_bytes(content)
    return open_source(Data(path=str(tmp_path / name), **options))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: open_source(Data(path=str(p / "none.txt"))), "There is no .*none.txt"),
        (lambda p: bad(p, "empty.txt"), "empty.txt is empty"),
        (lambda p: bad(p, "a.txt", b"x", documents="word"), "no documents by 'word'"),
        (lambda p: bad(p, "a.parquet", b"PAR1"), "a.parquet cannot be read"),
        (lambda p: bad(p, "a.arrow", b"no"), "a.arrow is no Arrow file"),
        (lambda p: bad(p, "a.npy", b"no"), "a.npy is no array"),
        (lambda p: bad(p, "a.safetensors", b"no"), "a.safetensors cannot be read"),
        (lambda p: open_source(Data(path=str(p))), "no data set on disk"),
        (lambda p: open_source(Data(texts=())), "nothing in the texts"),
    ],
)
def test_what_cannot_be_read_at_all(make: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=said):
        make(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"fine\n\xff\xfe\n", "Line 2 of a.txt is no UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', "Line 2 of a.jsonl is no JSON"),
        (
            "a.jsonl",
            b'{"text": "fine"}\n{"txt": "x"}\n',
            "Line 2 of a.jsonl has no 'text'; it has txt",
        ),
        ("a.jsonl", b'{"text": "fine"}\n{"text": null}\n', "Line 2 of a.jsonl is a NoneType"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    data = Data(path=str(tmp_path / name))
    found = batches(data)
    first = found.next()
    assert first is not None and bytes(first[0].ids[0].tolist()) == b"fine\x01"
    with pytest.raises(BadData, match=said):
        found.next()
    assert len(rows(list(all_of(batches(data, skip=True))))) == 1


# -- rows ------------------------------------------------------------------------------------------


def test_packed_rows_follow_one_another() -> None:
    listed = rows(list(all_of(batches(Data(texts=tuple(TEXTS)), length=8, batch_tokens=16))))
    assert [len(row) for row in listed[:-1]] == [8] * (len(listed) - 1)
    flat = [item for row in listed for item in row]
    for number, text in enumerate(TEXTS):
        mine = [(token, offset) for token, document, offset in flat if document == number]
        assert bytes(token for token, _ in mine) == text.encode() + b"\x01"
        assert [offset for _, offset in mine] == list(range(len(mine)))


def test_single_rows_are_padded() -> None:
    found = list(all_of(batches(Data(texts=tuple(TEXTS)), packed=False, batch_tokens=32)))
    assert [bytes(t for t, _, _ in row).decode() for row in rows(found)] == TEXTS
    assert all(batch.ids.numel() <= 32 for batch in found) and len(found) == 2
    assert found[0].mask is not None


documents = st.lists(st.text("abc", max_size=12), min_size=1, max_size=8).map(tuple)


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 9), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_rows_do_not_depend_on_the_size_of_batches(
    texts: tuple[str, ...], length: int, one: int, other: int, packed: bool
) -> None:
    options = {"length": length, "packed": packed, "long": "split"}
    data = Data(texts=texts)
    expected = rows(list(all_of(batches(data, batch_tokens=one, **options))))
    assert rows(list(all_of(batches(data, batch_tokens=other, **options)))) == expected
    assert sum(map(len, expected)) == sum(len(text) + (packed and bool(text)) for text in texts)


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 9), st.booleans(), st.integers(0, 5))
def test_a_run_goes_on_from_any_position(
    texts: tuple[str, ...], length: int, packed: bool, stop: int
) -> None:
    options: dict[str, Any] = {
        "length": length,
        "packed": packed,
        "long": "split",
        "batch_tokens": 12,
    }
    data = Data(texts=texts)
    whole = list(all_of(batches(data, **options)))
    first = batches(data, **options)
    begun = [batch for _ in range(stop) if (batch := first.next())]
    rest = list(all_of(batches(data, first.position, **options)))
    again = [batch for batch, _ in begun] + rest
    assert [batch.step for batch in again] == list(range(len(whole)))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(again, whole, strict=True))
    assert rows(again) == rows(whole)


def test_documents_that_are_too_long() -> None:
    data = Data(texts=("abc", "abcdefgh"))
    found = batches(data, packed=False, length=4)
    assert len([found.next()]) == 1
    with pytest.raises(BadData, match="Document 1 of the texts has 8 tokens, more than 4"):
        found.next()
    for long, lengths in (("cut", [3, 4]), ("split", [3, 4, 4])):
        listed = rows(list(all_of(batches(data, packed=False, length=4, long=long))))
        assert [len(row) for row in listed] == lengths
    assert listed[2][0] == (ord("e"), 1, 4)


def test_tokens_out_of_range_are_named() -> None:
    with pytest.raises(BadData, match="Document 1 of the tokens has tokens from 2 to 300"):
        list(all_of(batches(Data(rows=([1, 2], [2, 300])))))


def test_so_many_tokens_and_no_more() -> None:
    data = Data(rows=(np.arange(100),))
    found = list(all_of(batches(data, length=8, batch_tokens=16, most_tokens=37)))
    assert [item[2] for row in rows(found) for item in row] == list(range(37))


@pytest.mark.parametrize(
    "plan", [{"batch_tokens": 0}, {"length": 65}, {"long": "drop"}, {"length": -1}]
)
def test_plans_that_make_no_sense(plan: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        batches(Data(texts=("a",)), **plan)


def test_texts_need_a_tokenizer() -> None:
    found = Batches(open_source(Data(texts=("a",))), Plan(), None, SIZES)
    with pytest.raises(BadRequest, match="no tokenizer"):
        found.next()
    no_end = SimpleNamespace(eos_token_id=None)
    assert Batches(open_source(Data(texts=("a",))), Plan(), no_end, SIZES)._between is None


# -- how far they are ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 9), st.integers(1, 30), st.booleans())
def test_the_fraction_is_that_of_what_is_in_batches(
    texts: tuple[str, ...], length: int, batch_tokens: int, packed: bool
) -> None:
    """Against a count by hand; the wrong answer is that of what was read ahead, 1 from the first batch on."""
    options: dict[str, Any] = {"length": length, "packed": packed, "long": "split"}
    found = batches(Data(texts=texts), batch_tokens=batch_tokens, **options)
    lengths = [len(text) + (packed and bool(text)) for text in texts]
    while batch := found.next():
        last = int(batch[0].documents.max())
        read = found.position.tokens - sum(lengths[:last])
        expected = (last + read / lengths[last]) / len(texts)
        assert found.position.fraction == pytest.approx(expected)
        begun = {p.document for p in found.position.waiting if isinstance(p, Piece)}
        done = found.position.document - len(begun)
        assert done >= sum(np.cumsum(lengths) <= found.position.tokens)


def test_the_fraction_within_one_long_document() -> None:
    found = batches(Data(rows=(np.arange(3, 103),)), length=10, batch_tokens=20)
    fractions = []
    while found.next():
        fractions.append(found.position.fraction)
    assert fractions == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
