"""Strings of tokens, joined, are the text: for every kind of tokenizer, any text and any tokens."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from garcon_backend.tokenization.token_strings import TokenStrings, special_ids
from garcon_backend.tokenization.tokenizer import Tokenizing
from garcon_jupyter.wire.tokenizer_messages import Encode, Strings

TEXTS = [
    "The cat's café — naïve 😀👩‍👧 日本語 don't stop. Hello , world !\n\n  y\tz",
    "  two spaces first",
    "the cat bathe",
    "a",
    "<eos>mid<eos> x",
    "e\u0301 x",
]
_SPECIAL = ["<unk>", "<eos>", "<pad>"]


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _trained(tokenizer, trainers.BpeTrainer, initial_alphabet=alphabet, vocab_size=330)


def _sentencepiece_with_bytes() -> Tokenizer:
    """As Llama 2's: spaces are marked, what it does not know is bytes."""
    vocab = {token: id for id, token in enumerate(_SPECIAL)}
    for token in [*(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz"]:
        vocab[token] = len(vocab)
    merges = [("▁", "c"), ("▁c", "a"), ("▁ca", "t"), ("t", "h"), ("th", "e"), ("▁", "the")]
    for pair in merges:
        vocab.setdefault("".join(pair), len(vocab))
    model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    marked = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(marked)
    steps = [
        *(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
        decoders.Strip(" ", 1, 0),
    ]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _metaspace(scheme: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return _trained(tokenizer, trainers.UnigramTrainer, unk_token="<unk>", vocab_size=100)


def _word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return _trained(tokenizer, trainers.WordPieceTrainer, vocab_size=120)


def _word_ends() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return _trained(tokenizer, trainers.BpeTrainer, end_of_word_suffix="</w>", vocab_size=120)


def _trained(tokenizer: Tokenizer, trainer: type, **options: object) -> Tokenizer:
    options = {"special_tokens": _SPECIAL, "show_progress": False, **options}
    tokenizer.train_from_iterator(TEXTS * 3, trainer(**options))
    return tokenizer


KINDS = {
    "bytes": _byte_level,
    "sentencepiece": _sentencepiece_with_bytes,
    "metaspace": lambda: _metaspace("always"),
    "metaspace, first": lambda: _metaspace("first"),
    "word pieces": _word_pieces,
    "word ends": _word_ends,
}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    made = KINDS[request.param]()
    made.add_special_tokens(_SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>")


def test_joined_they_are_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    strings = TokenStrings(tokenizer)
    randoms = random.Random(0)
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    rows += [[randoms.randrange(len(tokenizer) + 2) for _ in range(30)] for _ in range(200)]
    for row in rows:
        parts = strings.in_text(row)
        assert len(parts) == len(row)
        assert "".join(parts) == tokenizer.decode(row)


def test_a_word_and_its_continuation_differ(tokenizer: PreTrainedTokenizerFast) -> None:
    row = tokenizer("the cat bathe")["input_ids"]
    strings = TokenStrings(tokenizer)
    parts = strings.in_text(row)
    starts = [at for at in range(len(row)) if "".join(parts[at:]).lstrip().startswith("cat")]
    assert "".join(parts[: starts[0]]).rstrip() == "the"
    assert "".join(strings.alone(row[starts[0] :])).startswith(" cat")


def test_characters_are_given_to_their_first_token() -> None:
    for kind in ("bytes", "sentencepiece"):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind]())
        row = tokenizer("a✿b")["input_ids"]
        parts = [part for part in TokenStrings(tokenizer).in_text(row) if part != ""]
        assert parts[-3:] == ["a", "✿", "b"]
        assert "\ufffd" in "".join(TokenStrings(tokenizer).alone(row))


def test_padding_is_no_part_of_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    answering = Tokenizing(tokenizer)
    for left in (False, True):
        encoded = answering.answer(Encode(("the cat bathe", "cat"), left=left))
        for row, mask, parts in zip(
            encoded.ids.tolist(), encoded.mask.tolist(), encoded.strings, strict=True
        ):
            real = [id for id, kept in zip(row, mask, strict=True) if kept]
            joined = "".join(part for part, kept in zip(parts, mask, strict=True) if kept)
            assert joined == tokenizer.decode(real)
        again = answering.answer(Strings(encoded.ids.tolist(), encoded.mask.tolist()))
        assert again == encoded.strings


def test_special_tokens_are_those_of_tokenizer_and_config(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    class Config:
        bos_token_id, eos_token_id, pad_token_id = 7, [1, 9], None

    own = set(tokenizer.convert_tokens_to_ids(_SPECIAL))
    assert special_ids(tokenizer, Config()) == sorted({*own, 7, 1, 9})
    assert special_ids(None, None) == []
