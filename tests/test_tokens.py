"""tokens.txt, the prompt, and text from ids: hand-made vocabularies, and the live SentencePiece."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohere_lite.errors import ModelError, OptionError
from cohere_lite.tokens import TRAINED_LANGUAGES, Vocabulary, read_tokens

# Ids 0 to 16 of the real vocabulary.
SPECIAL = [
    "<unk>",
    "<|nospeech|>",
    "<pad>",
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|pnc|>",
    "<|nopnc|>",
    "<|startofcontext|>",
    "<|itn|>",
    "<|noitn|>",
    "<|timestamp|>",
    "<|notimestamp|>",
    "<|diarize|>",
    "<|nodiarize|>",
    "<|spkchange|>",
    "<|audioseparator|>",
    "<|emo:undefined|>",
]
BYTES = [f"<0x{value:02X}>" for value in range(256)]


def vocabulary(*pieces):
    return Vocabulary(tuple(pieces))


def decode(*pieces):
    """The text of a sequence of pieces, each of them a vocabulary entry of its own."""
    return vocabulary(*pieces).decode(range(len(pieces)))


def written(tmp_path, content):
    path = tmp_path / "tokens.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def english_and_french():
    return vocabulary(*SPECIAL, "<|en|>", "<|fr|>", "<|sv|>", "▁", "▁the", "s")


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        ("<unk> 0\n▁the 1\n", ("<unk>", "▁the")),
        ("<unk> 0\n▁the 1", ("<unk>", "▁the")),
        ("▁the 1\n<unk> 0\n\n", ("<unk>", "▁the")),
        ("<unk> 0\r\n▁the 1\r\n", ("<unk>", "▁the")),
        ("\ufeff<unk> 0\n▁the 1\n", ("<unk>", "▁the")),
        ("a b 0\n  1\n7 2\n", ("a b", " ", "7")),
        ("\u2028 0\n\u3000 1\n\x85 2\n", ("\u2028", "\u3000", "\x85")),
    ],
    ids=["plain", "no end of line", "any order", "CRLF", "byte order mark", "spaces and digits", "odd white space"],
)
def test_read_tokens(tmp_path, content, pieces):
    """By hand: the id is what follows the last space, and only a line feed ends a line."""
    assert read_tokens(written(tmp_path, content)).pieces == pieces


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: '' is not a piece"),
        (b"<unk> 0\n\xff 1\n", "not UTF-8"),
        (b"<unk> 0\nthe\n", "line 2: 'the' is not a piece"),
        (b"<unk> 0\nthe -1\n", "line 2"),
        (b"<unk> 0\nthe 1.5\n", "line 2"),
        (b"<unk> 0\n\nthe 1\n", "line 2"),
        (b"<unk> 0\nthe " + b"1" * 5000, "line 2: 'the 1"),  # int() refuses more than 4300 digits
        (b"<unk> 0\n 1\n", "line 2"),
        (b"<unk> 0\nthe 1\na 1\n", "line 3: id 1 is there for a second time"),
        (b"<unk> 0\nthe 2\n", "2 tokens, but none for id 1"),
        (b"Entry not found", "the hub's message .* a failed download"),
        (b"<!DOCTYPE html>\n<html>\n", "an HTML page, 23 bytes: a failed download"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
            "a Git LFS pointer .* a failed download",
        ),
    ],
)
def test_read_tokens_says_what_is_wrong(tmp_path, content, message):
    with pytest.raises(ModelError, match=f"tokens.txt.*{message}"):
        read_tokens(written(tmp_path, content))


def test_vocabulary(english_and_french):
    assert len(english_and_french) == 23
    assert english_and_french.id("<|endoftext|>") == english_and_french.end_of_text == 3
    assert repr(english_and_french) == "Vocabulary()"  # without its pieces: 16,384 would fill screens
    assert english_and_french.languages == ("en", "fr")  # sv has a token but was not trained
    with pytest.raises(ModelError, match=r"no '<\|de\|>'"):
        english_and_french.id("<|de|>")
    with pytest.raises(dataclasses.FrozenInstanceError):
        english_and_french.pieces = ()


def test_ambiguous_names_are_refused():
    with pytest.raises(ModelError, match=r"'▁' more than once: \[0, 2\]"):
        vocabulary("▁", "a", "▁").id("▁")


@pytest.mark.parametrize("punctuation", [True, False])
@pytest.mark.parametrize("itn", [True, False])
def test_full_prompt(english_and_french, punctuation, itn):
    """By hand, from `get_decoder_prompt_ids`; ids 3 to 16 are those of the real vocabulary, "▁" and <|fr|> are not."""
    ids = english_and_french.prompt("fr", punctuation=punctuation, itn=itn)
    assert ids == [20, 7, 4, 16, 18, 18, 5 if punctuation else 6, 8 if itn else 9, 11, 13]


def test_short_prompt(english_and_french):
    """By hand: the model card's `[13764, LANG]`."""
    assert english_and_french.prompt("en", style="short") == [20, 17]


@pytest.mark.parametrize(
    ("language", "options", "message"),
    [
        ("de", {}, "language 'de' is not among this model's: en, fr$"),
        ("sv", {}, "'sv' is not among this model's: en, fr$"),
        ("", {}, "'' is not"),
        (None, {}, "None is not"),
        ("EN", {}, "did you mean 'en'"),
        ("en-US", {}, "did you mean 'en'"),
        ("fr_CA", {}, "did you mean 'fr'"),
        *(("en", {"style": style}, "known: .*full.*short") for style in ("brief", "long", "terse")),
        ("en", {"style": "short", "punctuation": False}, "short"),
        ("en", {"style": "short", "itn": True}, "short"),
    ],
)
def test_prompt_options(english_and_french, language, options, message):
    with pytest.raises(OptionError, match=message):
        english_and_french.prompt(language, **options)


def test_prompt_needs_its_tokens():
    with pytest.raises(ModelError, match="startofcontext"):
        vocabulary("▁", "<|en|>").prompt("en")


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([], ""),
        (["▁the", "▁cat", "s"], "the cats"),
        (["s", "▁the"], "s the"),
        (["▁", "▁the"], "the"),
        (["▁▁the"], " the"),
        (["▁the", "▁"], "the "),
        (["<|nodiarize|>", "▁the", "<pad>", "<unk>", "s", "<|endoftext|>"], "thes"),
        (["<0xC3>", "<0xA9>", "t", "<0xC3>", "<0xA9>"], "été"),
        (["▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"], "😀"),
        (["<0x20>", "▁a"], "  a"),
        (["<0xE2>", "<0x96>", "<0x81>"], "▁"),
        (["<0xE4>", "<0xBD>", "a"], "\ufffd\ufffda"),
        (["<0xC3>", "<0xC3>", "<0xA9>"], "\ufffdé"),
        (["<0xC3>", "<|en|>", "<0xA9>"], "\ufffd\ufffd"),
        (["<0xED>", "<0xA0>", "<0x80>"], "\ufffd\ufffd\ufffd"),
    ],
)
def test_decode(pieces, text):
    """By record: what SentencePiece 0.2.3 decodes with a model that has these pieces; by rule for <unk>, left out."""
    assert decode(*pieces) == text


@pytest.mark.parametrize("token", [-1, 2])
def test_decode_refuses_unknown_ids(token):
    with pytest.raises(ModelError, match=f"token {token}, but tokens.txt ends at 1"):
        vocabulary("a", "b").decode([0, token])


def test_decode_takes_numpy_ids():
    assert vocabulary("▁a", "▁b").decode(np.array([0, 1], np.int64)) == "a b"


TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "l'été déjà vu, naïve façade; größere Straße über Füße",
    "mañana  será otro día",
    "你好世界 今天天气很好",
    "emoji 😀 and 🎉, tabs\tand 1,234.50 numbers",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A SentencePiece model with byte fallback, and the vocabulary read from a tokens.txt written from it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 10),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        character_coverage=0.98,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        pad_id=2,
        eos_id=3,
        unk_piece="<unk>",
        bos_piece="<|nospeech|>",
        pad_piece="<pad>",
        eos_piece="<|endoftext|>",
        control_symbols=SPECIAL[4:] + [f"<|{code}|>" for code in TRAINED_LANGUAGES],
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    lines = [f"{processor.id_to_piece(i)} {i}\n" for i in range(len(processor))]
    return processor, read_tokens(written(folder, "".join(lines)))


@pytest.mark.reference
def test_pieces_are_those_of_sentencepiece(trained):
    processor, ours = trained
    assert ours.pieces == tuple(processor.id_to_piece(i) for i in range(len(processor)))
    assert set(BYTES) <= set(ours.pieces)


@pytest.mark.reference
@pytest.mark.parametrize("text", TEXTS)
def test_decode_encoded_text(trained, text):
    processor, ours = trained
    ids = processor.encode(text)
    assert ours.decode(ids) == processor.decode(ids)


@pytest.mark.reference
@given(data=st.data())
def test_decode_is_that_of_sentencepiece(trained, data):
    """Any ids but that of <unk>, with many bytes: of whole characters, and single ones."""
    processor, ours = trained
    any_id = st.integers(1, len(ours) - 1).map(lambda i: [i])
    space = st.just([ours.id("▁")])
    any_byte = st.integers(0, 255).map(lambda value: [ours.id(BYTES[value])])
    character = st.characters(codec="utf-8").map(lambda c: [ours.id(BYTES[value]) for value in c.encode()])
    groups = data.draw(st.lists(st.one_of(any_id, space, any_byte, character), max_size=20))
    ids = [i for group in groups for i in group]
    assert ours.decode(ids) == processor.decode(ids)


@pytest.mark.reference
@pytest.mark.parametrize("punctuation", [True, False])
@pytest.mark.parametrize("language", ["en", "zh", "el"])
def test_prompt_is_that_of_the_processor(trained, language, punctuation):
    """The reference's own function, called with a stand-in for its tokenizer that looks ids up in SentencePiece."""
    pytest.importorskip("torch")
    processing = pytest.importorskip("transformers.models.cohere_asr.processing_cohere_asr")
    processor, ours = trained

    class Stub:
        class tokenizer:
            convert_tokens_to_ids = staticmethod(processor.piece_to_id)

    expected = processing.CohereAsrProcessor.get_decoder_prompt_ids(Stub, language, punctuation)
    assert ours.prompt(language, punctuation=punctuation) == expected


@pytest.mark.reference
def test_trained_languages_are_the_reference_s_and_the_card_s():
    pytest.importorskip("torch")
    processing = pytest.importorskip("transformers.models.cohere_asr.processing_cohere_asr")
    assert set(TRAINED_LANGUAGES) == processing.LANGUAGES | {"ru", "tr"}


ADDED = [{"id": 0, "content": "<unk>", "special": True}, {"id": 3, "content": "<|en|>"}]


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"the": 2, "<unk>": 0, "▁": 1}}, "added_tokens": ADDED}),
        ("tokenizer.json", {"model": {"vocab": [["<unk>", 0.0], ["▁", -1.5], ["the", -2]]}, "added_tokens": ADDED}),
        ("tokenizer.json", {"model": {"vocab": {"the": 2, "<unk>": 0, "▁": 1, "<|en|>": 3}}, "added_tokens": None}),
        ("tokenizer.json", {"model": {"vocab": {"the": 2, "<unk>": 0, "▁": 1, "<|en|>": 3}}}),
        ("vocab.json", {"<|en|>": 3, "the": 2, "<unk>": 0, "▁": 1}),
        ("vocab.json", ["<unk>", "▁", "the", "<|en|>"]),
        ("vocabulary.txt", "<unk> 0\n▁ 1\nthe 2\n<|en|> 3\n"),
    ],
)
def test_the_other_lists_of_tokens(tmp_path: Path, name: str, listed: object) -> None:
    """By hand. Hugging Face's tokenizers write the first two (BPE and Unigram), vernacula's exporter the last list."""
    path = tmp_path / name
    path.write_text(listed if isinstance(listed, str) else json.dumps(listed), encoding="utf-8")
    vocabulary = read_tokens(path)
    assert vocabulary.pieces == ("<unk>", "▁", "the", "<|en|>")
    with pytest.raises(ModelError, match=rf"{name} has no '<\|endoftext\|>'"):
        _ = vocabulary.end_of_text


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("vocab.json", ["a", "<0x41>", "a"]),
        ("tokenizer.json", {"model": {"vocab": [["a", 0.0], ["<0x41>", -1], ["a", -2]]}}),
        ("tokens.txt", "a 0\n<0x41> 1\na 2\n"),
    ],
)
def test_a_piece_with_two_ids(tmp_path: Path, name: str, listed: object) -> None:
    """By hand: both stand for its text; only a piece of the prompt must have one id."""
    path = tmp_path / name
    path.write_text(listed if isinstance(listed, str) else json.dumps(listed), encoding="utf-8")
    vocabulary = read_tokens(path)
    assert vocabulary.decode([0, 1, 2]) == "aAa"
    with pytest.raises(ModelError, match=re.escape(f"{name} has 'a' more than once: [0, 2]")):
        vocabulary.id("a")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("{", "not a list of tokens"),
        ("7", "not a list of tokens"),
        ("[1, 2]", "not a list of tokens"),
        ('{"a": 0, "b": 0}', "id 0 is there for a second time"),
        ('{"a": 0, "b": "x"}', "not a list of tokens"),
        ('{"a": 1}', "1 tokens, but none for id 0"),
        ('{"added_tokens": []}', "not a list of tokens"),
        ('{"a": -1, "b": 1e400}', "not a list of tokens"),
        ('{"a": 0, "b": 1.5}', "not a list of tokens"),
        ("[" * 100_000, "not a list of tokens"),
        ('{"added_tokens": [{"id": 0, "content": "b"}], "model": {"vocab": {"a": 0}}}', "id 0 is there for a second"),
    ],
)
def test_json_that_is_none(tmp_path: Path, listed: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(listed)
    with pytest.raises(ModelError, match=rf"tokenizer\.json.*({message})"):
        read_tokens(tmp_path / "tokenizer.json")
