"""Data sets in their published layouts -> utterances. Expected: what the tiny data sets were made of."""

import json
import os
import struct
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets_made import (
    COMMON_VOICE,
    FLEURS,
    LIBRISPEECH,
    ami,
    calls,
    common_voice_parquet,
    common_voice_tar,
    common_voice_tsv,
    earnings22,
    embedded,
    fleurs_parquet,
    fleurs_tsv,
    kaldi,
    librispeech,
    librispeech_tree,
    peoples_speech,
    tone,
    voxpopuli,
    write,
    write_parquet,
)

from cohere_lite.errors import AudioError
from cohere_lite.evaluate.layouts.layout import language_of
from cohere_lite.evaluate.layouts.places import Folder, Repository
from cohere_lite.evaluate.sound import read_sound
from cohere_lite.evaluate.utterances import Data, EvaluateError, Utterance, open_data


def content(utterance: Utterance) -> bytes:
    sound = utterance.audio()
    return sound if isinstance(sound, bytes) else sound.read_bytes()


def told(data: Data) -> list[tuple]:
    """What a reader found: id, reference, language, speaker, recording, sound."""
    return [(u.id, u.reference, u.language, u.speaker, u.recording, content(u)) for u in data.utterances]


LIBRISPEECH_ROWS = [
    (name, text, "en", name.split("-")[0], name.split("-")[1], tone(hz)) for name, hz, text in LIBRISPEECH
]
VOXPOPULI_ROWS = [
    ("2018-en_0", "mr president", "en", "96", None, tone(400)),
    ("2018-en_1", "Thank you.", "en", "96", None, tone(401)),
    ("2018-en_2", "the vote", "en", None, None, tone(402)),
]
AMI_ROWS = [("AMI_EN2002a_H00_MEE073_0000145_0000225", "HMM HMM HMM", "en", "MEE073", "EN2002a", tone(500))]
PEOPLES_ROWS = [
    (
        "07282016HFUUforum_SLASH_07-28-2016_HFUUforum_DOT_mp3_00000.flac",
        "i wanted this to share a few things",
        *("en", None, None, tone(600)),
    )
]
EARNINGS_ROWS = [
    (f"4432298-{i}", f"Good morning, and welcome, {i}.", "en", None, "4432298", tone(700 + i)) for i in range(3)
]
FLEURS_ROWS = [(name, "für die besten aussichten", "de", None, None, tone(hz)) for name, hz in FLEURS]
COMMON_VOICE_ROWS = [(path, text, "de", client, None, tone(hz)) for path, client, text, hz in COMMON_VOICE]
KALDI_ROWS = [
    ("spk1-call1-1", "GOOD MORNING", "en", "spk1", "call1", tone(300, seconds=1)),
    ("spk2-call1-2", "HELLO", "en", "spk2", "call1", tone(300, seconds=1)),
]
Maker = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("make", "part", "expected"),
    [
        (librispeech, ":clean:test", LIBRISPEECH_ROWS),
        (librispeech, ":test.clean", LIBRISPEECH_ROWS),
        (librispeech_tree, ":test-clean", LIBRISPEECH_ROWS),
        (librispeech_tree, "/LibriSpeech/test-clean", LIBRISPEECH_ROWS),
        (voxpopuli, ":en", VOXPOPULI_ROWS),
        (ami, ":ihm", AMI_ROWS),
        (peoples_speech, "", PEOPLES_ROWS),
        (peoples_speech, ":test", PEOPLES_ROWS),
        (earnings22, ":chunked", EARNINGS_ROWS),
        (fleurs_parquet, ":de_de", FLEURS_ROWS),
        (fleurs_parquet, ":de", FLEURS_ROWS),
        (fleurs_tsv, ":de_de", FLEURS_ROWS),
        (lambda folder: fleurs_tsv(folder, ".tar"), "/data/de_de", FLEURS_ROWS),
        (lambda folder: fleurs_tsv(folder, where=""), ":de_de", FLEURS_ROWS),
        (fleurs_tsv, "/data/de_de/test.tsv:language=de", FLEURS_ROWS),
        (lambda folder: fleurs_tsv(folder, ""), ":de_de:test", FLEURS_ROWS),
        (common_voice_tar, ":de", COMMON_VOICE_ROWS),
        (common_voice_parquet, ":de", COMMON_VOICE_ROWS),
        (common_voice_tsv, "", COMMON_VOICE_ROWS),
        (common_voice_tsv, "/cv-corpus-20.0-2024-12-06/de:validated", COMMON_VOICE_ROWS),
        (common_voice_parquet, ":de:dev", COMMON_VOICE_ROWS),
        (kaldi, "", KALDI_ROWS),
        (kaldi, "/test", KALDI_ROWS),
    ],
)
def test_published_layouts(make: Maker, part: str, expected: list[tuple], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert sorted(told(open_data(f"{make(tmp_path)}{part}"))) == sorted(expected)


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("openslr/librispeech_asr", librispeech, LIBRISPEECH_ROWS),
        ("facebook/voxpopuli", voxpopuli, VOXPOPULI_ROWS),
        ("edinburghcstr/ami", ami, AMI_ROWS),
        ("MLCommons/peoples_speech", peoples_speech, PEOPLES_ROWS),
        ("distil-whisper/earnings22", earnings22, EARNINGS_ROWS),
    ],
)
def test_the_card_s_five(
    name: str, make: Maker, expected: list[tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their names alone. (The hub: test_evaluate_hub.py.)"""
    pytest.importorskip("pyarrow")
    place = Folder(make(tmp_path))
    place.name = name
    monkeypatch.setattr("cohere_lite.evaluate.utterances.find_repository", {name: place}.__getitem__)
    data = open_data(name)
    assert (data.name, told(data)) == (name, expected)


def test_chinese_by_the_folder_s_name(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    data = open_data(f"{fleurs_parquet(tmp_path)}:cmn_hans_cn:train")
    assert [(u.reference, u.language) for u in data.utterances] == [("of training", "zh")]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("data/cmn_hans_cn/test.tsv", "zh"),
        ("es_419/test/0000.parquet", "es"),
        ("zh-CN/test-00000-of-00001.parquet", "zh"),
        ("fleurs_de/test-00000-of-00001.parquet", "de"),
        ("mls_fr/test.parquet", "fr"),
        ("de/clips/x.txt", "de"),
        ("clean/test/0000.parquet", None),
        ("test_de/x.txt", None),  # might be anything
        ("cv-corpus-20.0-2024-12-06/test.tsv", None),
        ("ha_ng/test/0000.parquet", None),  # Hausa, which the model does not know
        ("de.parquet", None),
    ],
)
def test_languages_of_paths(path: str, code: str | None) -> None:
    """By hand: the names of published configurations."""
    assert language_of(path) == code


def test_a_row_s_own_language_counts(tmp_path: Path) -> None:
    """Rather than the one that is asked for. VoxPopuli's are numbers, whose names the file has."""
    pytest.importorskip("pyarrow")
    data = open_data(f"{voxpopuli(tmp_path)}:de", language="fr")
    assert [u.language for u in data.utterances] == ["de"]


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        ("uk-UA", None, "uk"),
        ("Ukrainian", None, "Ukrainian"),
        ("Ukrainian", "pl", "pl"),
        ("unknown", None, "en"),
        ("3", None, "en"),
    ],
)
def test_a_language_that_the_model_lacks_is_not_english(
    said: str, asked: str | None, expected: str, tmp_path: Path
) -> None:
    """Unless the user says so."""
    write(tmp_path / "one.wav", tone(300))
    spec = write(tmp_path / "list.csv", f"audio,text,language\none.wav,a b,{said}\n")
    assert [u.language for u in open_data(str(spec), language=asked).utterances] == [expected]


def test_the_language_that_is_asked_for_chooses(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert told(open_data(str(fleurs_parquet(tmp_path)), language="de")) == FLEURS_ROWS


def test_the_language_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    """Of rows in several; a row that does not say its own is taken for it. Where all say another one, that counts."""
    write(tmp_path / "one.wav", tone(300))
    rows = [f"one.wav,{i},{language}" for i, language in enumerate(["en", "German", "de-AT", "", "fr"])]
    path = write(tmp_path / "list.csv", "\n".join(["audio,text,locale", *rows]))
    for count, n in (None, 3), (2, 2):
        data = open_data(str(path), language="de", count=count)
        assert {*((u.reference, u.language) for u in data.utterances)} <= {("1", "de"), ("2", "de"), ("3", "de")}
        assert (len(data.utterances), data.total, data.left_out) == (n, 3, {"in another language than de": 2})
    data = open_data(str(write(path, "\n".join(["audio,text,locale", rows[0], rows[4]]))), language="de")
    assert ([u.language for u in data.utterances], data.left_out) == (["en", "fr"], {})


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    data = open_data(f"{voxpopuli(tmp_path)}:en")
    assert (data.total, data.left_out) == (3, {"an empty reference": 1})
    write_parquet(tmp_path / "ted.parquet", [{"id": "a", "audio": embedded(300, ""), "text": text} for text in TED])
    data = open_data(str(tmp_path / "ted.parquet"))
    assert (data.total, data.left_out) == (1, {"a reference that says: ignore time segment in scoring": 1})


TED = ["ignore time segment in scoring", "thank you"]


def test_times(tmp_path: Path) -> None:
    """Of Kaldi's segments; not of AMI, whose recordings are cut."""
    pytest.importorskip("pyarrow")
    cut = [(u.start_s, u.end_s) for u in open_data(str(kaldi(tmp_path / "kaldi"))).utterances]
    assert cut == [(0.1, 0.45), (0.5, 1.0)]
    assert [(u.start_s, u.end_s) for u in open_data(f"{ami(tmp_path / 'ami')}:ihm").utterances] == [(None, None)]


def test_kaldi_s_channels_and_ends(tmp_path: Path) -> None:
    """By Kaldi's extract-segments: a fifth column is the channel, from 0; an end of -1 is the recording's."""
    folder = kaldi(tmp_path) / "test"
    write(folder / "segments", "spk1-call1-1 call1 0.10 -1\nspk2-call1-2 call1 0.5 -1.0 1\n")
    first, second = open_data(str(folder)).utterances
    assert (first.start_s, first.end_s, first.channel) == (0.1, None, None)
    assert (second.start_s, second.end_s, second.channel) == (0.5, None, 1)
    assert len(read_sound(first).frames) == 0.9 * 16000
    with pytest.raises(AudioError, match="channel is 1, but the recording has only channel 0"):
        read_sound(second)
    with wave.open(str(folder / "sounds" / "call.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<2h", number, -1) for number in range(16000)))
    assert (read_sound(second).frames * 32768).tolist() == [[-1]] * 8000
    assert (read_sound(first).frames[0] * 32768).tolist() == [1600, -1]


def test_calls_are_joined(tmp_path: Path) -> None:
    """A call's chunks in their order, in float32, with the one reference; a call with a chunk missing is left out."""
    data = open_data(str(calls(tmp_path)))
    [call] = data.utterances
    assert (call.id, call.reference, call.recording) == ("4483046", "Now it's on times.", "4483046")
    assert data.left_out == {"a call of which chunks are missing": 1}
    sound = content(call)
    samples = struct.unpack("<1600f", sound[44:])
    expected = struct.unpack("<1600h", tone(1001)[44:] + tone(1000)[44:])  # the list has the second chunk first
    assert [sample * 32768 for sample in samples] == [*expected]
    assert struct.unpack("<I", sound[4:8]) == (len(sound) - 8,)
    assert struct.unpack("<HHIIHH", sound[20:36]) == (3, 1, 16000, 64000, 4, 32)


def test_a_call_whose_chunks_differ(tmp_path: Path) -> None:
    """It is a recording that cannot be used, and does not end the evaluation."""
    chunks = calls(tmp_path)
    (chunks / "audio" / "4483046_0.wav").write_bytes(tone(1001, rate=8000))
    [call] = open_data(str(chunks)).utterances
    with pytest.raises(AudioError, match=r"differ in rate and channels: \[\(8000, 1\), \(16000, 1\)\]"):
        call.audio()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"file_name": "4483046_0.wav", "parent_id": "4483046", "chunk_index": "first"}',
            "test.jsonl cannot be read: ValueError: invalid literal for int() with base 10: 'first'",
        ),
        (b'{"file_name": "\xff"}', "test.jsonl cannot be read: UnicodeDecodeError: "),
    ],
)
def test_lists_of_chunks_that_are_damaged(content: str | bytes, message: str, tmp_path: Path) -> None:
    chunks = calls(tmp_path)
    write(chunks / "test.jsonl", content)
    with pytest.raises(EvaluateError) as raised:
        open_data(str(chunks))
    assert str(raised.value).startswith(f"{chunks}: {message}")


def test_calls_without_their_texts(tmp_path: Path) -> None:
    chunks = calls(tmp_path)
    (tmp_path / "Earnings22-Cleaned-AA").rename(tmp_path / "elsewhere")
    with pytest.raises(EvaluateError, match="texts are in Earnings22-Cleaned-AA: put it beside"):
        open_data(str(chunks))


# Lists of one's own.

ROWS = [("one.wav", "good morning", "anna"), ("two.wav", "hello, you", "ben")]
LISTED = [("one.wav", "good morning", tone(300)), ("two.wav", "hello, you", tone(310))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", 'audio,text,speaker\none.wav,good morning,anna\ntwo.wav,"hello, you",ben\n'),
        ("list.csv", "\ufeffsentence;wav;speaker;note\ngood morning;one.wav;anna;a b\nhello, you;two.wav;ben;a b\n"),
        ("list.tsv", "said by\tsound\twhat\nanna\tone.wav\tgood morning\nben\ttwo.wav\thello, you\n"),
        ("list.csv", "path|transcript\none.wav|good morning\ntwo.wav|hello, you\n"),
        ("list.csv", 'utterance,label\none.wav,good morning\ntwo.wav,"hello, you"\n'),
        ("list.jsonl", '{"audio_filepath": "one.wav", "text": "good morning", "duration": 0.05}\n\n'
                       '{"audio_filepath": "two.wav", "text": "hello, you", "duration": 0.05}'),
        ("list.json", '[{"file": "one.wav", "transcription": "good morning"},\n'
                      ' {"file": "two.wav", "transcription": "hello, you"}]'),
    ],
)  # fmt: skip
def test_lists(name: str, text: str, tmp_path: Path) -> None:
    for (sound, *_), (*_, samples) in zip(ROWS, LISTED, strict=True):
        write(tmp_path / sound, samples)
    path = write(tmp_path / name, text)
    if not name.endswith(".json"):
        write(tmp_path / "config.json", "{}")
    for spec in str(path), str(tmp_path):
        data = open_data(spec)
        assert [(u.id, u.reference, content(u)) for u in data.utterances] == LISTED
        assert {u.start_s for u in data.utterances} == {None}
        assert data.speakers == (2 if "speaker" in text else None)


def test_columns_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "one.wav", tone(300))
    spec = write(tmp_path / "list.csv", "a,b,c,d\none.wav,good morning,in french bon jour,anna\n")
    with pytest.raises(EvaluateError, match=r"known to hold texts \(it has a, b, c, d\): name it, as .*:text=COLUMN"):
        open_data(str(spec))
    data = open_data(f"{spec}:text=c:speaker=d:language=fr")
    assert told(data) == [("one.wav", "in french bon jour", "fr", "anna", None, tone(300))]
    with pytest.raises(EvaluateError, match="has no column 'e'; it has a, b, c, d"):
        open_data(f"{spec}:text=e")
    with pytest.raises(EvaluateError, match="txt= is not known; known are text, audio, speaker"):
        open_data(f"{spec}:txt=c")


def test_of_two_recordings_the_one_that_is_named(tmp_path: Path) -> None:
    """With its whole path, of which the id has the file's name."""
    write(tmp_path / "clean.wav", tone(300))
    write(tmp_path / "noisy.wav", tone(310))
    spec = write(tmp_path / "list.csv", f"audio,path,text\n{tmp_path}/clean.wav,{tmp_path}/noisy.wav,a b\n")
    for column, hz in ("audio", 300), ("path", 310):
        [found] = told(open_data(f"{spec}:audio={column}"))
        assert found == ("noisy.wav", "a b", "en", None, None, tone(hz))


def test_long_texts(tmp_path: Path) -> None:
    """Longer than a file's name can be, of which the system says so, where others are only not there."""
    write(tmp_path / "one.wav", tone(300))
    spec = write(tmp_path / "list.csv", f"what,which\n{'long ' * 1000},one.wav\n")
    [found] = open_data(str(spec)).utterances
    assert found.reference == ("long " * 1000).strip()


def test_texts_that_are_none(tmp_path: Path) -> None:
    """NaN, as pandas writes it, is empty rather than a word; a list is refused."""
    write(tmp_path / "one.wav", tone(300))
    rows = ['{"audio": "one.wav", "text": NaN}', '{"audio": "one.wav", "text": 7}']
    data = open_data(str(write(tmp_path / "list.jsonl", "\n".join(rows))))
    assert ([u.reference for u in data.utterances], data.left_out) == (["7"], {"an empty reference": 1})
    spec = write(tmp_path / "words.jsonl", '{"audio": "one.wav", "words": ["a", "b"]}')
    with pytest.raises(EvaluateError, match="its column words holds a list, which is no text"):
        open_data(str(spec))


@pytest.mark.parametrize(
    ("rows", "spec", "reference"),
    [
        (["audio,label,script", "one.wav,0,hello there"], "", "hello there"),
        (["audio,label,words", "one.wav,,hello"], "", "hello"),
        (["audio,words,script", "one.wav,2,hello there"], ":text=words", "2"),
        (["audio,label,note", "one.wav,7,hello"], "", "7"),  # a digit that is spoken
        (["audio,text,note", "one.wav,7,spoken slowly"], "", "7"),
    ],
)
def test_columns_of_numbers(rows: list[str], spec: str, reference: str, tmp_path: Path) -> None:
    """Classes and counts are no references where something else can be."""
    write(tmp_path / "one.wav", tone(300))
    path = write(tmp_path / "list.csv", "\n".join(rows))
    assert [u.reference for u in open_data(f"{path}{spec}").utterances] == [reference]


def test_columns_of_numbers_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write_parquet(tmp_path / "data.parquet", [{"audio": embedded(300, ""), "label": 0, "words": "hello"}])
    assert [u.reference for u in open_data(str(path)).utterances] == ["hello"]


def test_commas_without_quotation_marks(tmp_path: Path) -> None:
    """What follows them would be lost. An empty field more is what some programs write at the end of each line."""
    write(tmp_path / "one.wav", tone(300))
    spec = write(tmp_path / "list.csv", "audio,text\none.wav,good morning,\none.wav,hello, you\n")
    with pytest.raises(EvaluateError, match=r"row 3 has 3 fields, and there are 2 columns: a text with ','"):
        open_data(str(spec))


def test_a_list_without_names_of_columns(tmp_path: Path) -> None:
    """Its first recording would be lost."""
    for name in "one.wav", "two.wav":
        write(tmp_path / name, tone(300))
    spec = write(tmp_path / "list.csv", "one.wav,good morning\ntwo.wav,hello you\n")
    with pytest.raises(EvaluateError, match=r"begins with 'one\.wav': its first line must name the columns"):
        open_data(str(spec))


def test_recordings_beside_the_list_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, hz in ("here", 300), ("there", 310):
        write(tmp_path / folder / "one.wav", tone(hz))
    write(tmp_path / "here" / "two.wav", tone(320))
    spec = write(tmp_path / "there" / "list.csv", "audio,text\none.wav,good morning\ntwo.wav,hello you\n")
    monkeypatch.chdir(tmp_path / "here")
    assert [*map(content, open_data(str(spec)).utterances)] == [tone(310), tone(320)]


def test_quotation_marks_in_tsv_files(tmp_path: Path) -> None:
    write(tmp_path / "one.wav", tone(300))
    lines = ["path\tsentence", 'one.wav\t"good', 'one.wav\t"good" morning "you"', 'one.wav\t"say ""no"""', 'one.wav\t"']
    data = open_data(str(write(tmp_path / "list.tsv", "\n".join(lines))))
    assert [u.reference for u in data.utterances] == ['"good', '"good" morning "you"', 'say "no"', '"']


def test_parts_of_files(tmp_path: Path) -> None:
    """NeMo's lists have offset and duration; two parts of a file have different ids."""
    write(tmp_path / "one.wav", tone(300))
    rows = [{"audio_filepath": "one.wav", "text": "a", "offset": start, "duration": 0.5} for start in (0, 0.25)]
    write(tmp_path / "list.jsonl", "\n".join(map(json.dumps, rows)))
    data = open_data(str(tmp_path))
    assert [(u.id, u.start_s, u.end_s) for u in data.utterances] == [
        ("one.wav-0.0", 0, 0.5),
        ("one.wav-0.25", 0.25, 0.75),
    ]


def test_a_folder_with_texts(tmp_path: Path) -> None:
    write(tmp_path / "b" / "two.FLAC", tone(310))
    write(tmp_path / "b" / "two.txt", "\ufeffhello\n")
    write(tmp_path / "one.wav", tone(300))
    write(tmp_path / "one.txt", " good\n morning")
    write(tmp_path / "lonely.mp3", b"")
    write(tmp_path / "README.txt", "no recording")
    for name in "one", "two":
        write(tmp_path / f"{name}.json", "{}")  # notes of other programs
    write(tmp_path / ".git" / "one.wav", b"")
    write(tmp_path / ".git" / "list.csv", "no list of recordings")
    data = open_data(str(tmp_path), language="de")
    assert told(data) == [
        ("one", "good\n morning", "de", None, None, tone(300)),
        ("b/two", "hello", "de", None, None, tone(310)),
    ]
    assert data.left_out == {"a recording without a text": 1, "a text without a recording": 1}
    assert data.speakers is None


def test_parts_of_a_folder(tmp_path: Path) -> None:
    """By the names of its folders, its own, and their languages, as of the other layouts; all of it where none is
    named: its folders may be speakers."""
    for name in "de/test/ann/a", "de/train/b", "fr/test/c":
        write(tmp_path / "said" / f"{name}.wav", tone(300))
        write(tmp_path / "said" / f"{name}.txt", "hello")
    found = {
        part: [(u.id, u.language) for u in open_data(f"{tmp_path / 'said'}{part}").utterances]
        for part in ("", ":test", ":de:test", ":said:fr")
    }
    a, b, c = ("de/test/ann/a", "de"), ("de/train/b", "de"), ("fr/test/c", "fr")
    assert found == {"": [a, b, c], ":test": [a, c], ":de:test": [a], ":said:fr": [c]}
    with pytest.raises(EvaluateError, match="no folders of 'dev' there; there are ann, de, fr, test, train"):
        open_data(f"{tmp_path / 'said'}:dev")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda folder: write(folder / "a.txt", "hello").parent, r"a folder of recordings with a \.txt beside each"),
        (librispeech_tree, "LibriSpeech's tree"),
        (kaldi, "a Kaldi folder"),
    ],
)
def test_columns_of_what_is_no_table(make: Maker, what: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluateError, match=f"text=said names a column of a table; this is {what}$"):
        open_data(f"{make(tmp_path)}:text=said")


def test_folders_that_are_links(tmp_path: Path) -> None:
    """They are followed, each folder once: one of these is a loop."""
    write(tmp_path / "said" / "a.wav", tone(300))
    write(tmp_path / "said" / "a.txt", "hello")
    write(tmp_path / "far" / "b.wav", tone(310))
    write(tmp_path / "far" / "b.txt", "yes")
    for name, target in ("far", tmp_path / "far"), ("loop", tmp_path / "said"), ("twice", tmp_path / "far"):
        (tmp_path / "said" / name).symlink_to(target, target_is_directory=True)
    assert [u.id for u in open_data(str(tmp_path / "said")).utterances] == ["a", "far/b"]
    write(tmp_path / "far" / "list.csv", "audio,text\nb.wav,yes\n")
    assert Folder(tmp_path / "said").files == ["far/list.csv"]


def test_what_macos_leaves_beside_files(tmp_path: Path) -> None:
    """Their icons and the like, under names that begin with "._"."""
    write(tmp_path / "a.wav", tone(300))
    for name in "._a.wav", "._a.txt", "._b.wav", "._list.csv":
        write(tmp_path / name, b"\0\5\x16\7\xff")
    write(tmp_path / "a.txt", "hello")
    data = open_data(str(tmp_path))
    assert ([u.id for u in data.utterances], data.left_out) == (["a"], {})
    write(tmp_path / "list.csv", "audio,text\na.wav,yes\n")
    assert [u.reference for u in open_data(str(tmp_path)).utterances] == ["yes"]


# The draw.


def numbered(folder: Path, count: int, backwards: bool = False) -> Path:
    rows = [
        {"id": f"u{i}", "speaker_id": i // 10, "audio": embedded(300, ""), "text": f"word {i}"} for i in range(count)
    ]
    return write_parquet(folder / "data.parquet", rows[::-1] if backwards else rows, group=7)


def test_the_draw(tmp_path: Path) -> None:
    """A larger one has what the smaller one has; another seed draws others; another order of the rows the same ones."""
    pytest.importorskip("pyarrow")
    path = numbered(tmp_path / "a", 100)
    draws = {(n, seed): open_data(str(path), count=n, seed=seed) for n in (10, 30, 500) for seed in (0, 1)}
    ids = {key: [u.id for u in data.utterances] for key, data in draws.items()}
    assert len(ids[10, 0]) == 10
    assert {*ids[10, 0]} < {*ids[30, 0]} < {*ids[500, 0]}
    assert ids[500, 0] == [f"u{i}" for i in range(100)]
    assert ids[10, 0] == sorted(ids[10, 0], key=lambda name: int(name[1:]))  # in the order of the rows
    assert {*ids[10, 0]} != {*ids[10, 1]}
    backwards = open_data(str(numbered(tmp_path / "b", 100, backwards=True)), count=10)
    assert [u.id for u in backwards.utterances] == ids[10, 0][::-1]
    assert {data.total for data in draws.values()} == {100}
    assert draws[10, 0].speakers == len({int(name[1:]) // 10 for name in ids[10, 0]})
    assert draws[10, 0].speakers > 3  # the first rows would be one


def test_ids_that_are_not_unique(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [{"id": "a", "audio": embedded(hz, ""), "text": f"{hz}"} for hz in (300, 310, 320)]
    data = open_data(str(write_parquet(tmp_path / "data.parquet", rows)))
    assert [(u.id, u.reference) for u in data.utterances] == [("a", "300"), ("a#2", "310"), ("a#3", "320")]
    rows[2]["id"] = "a#2"  # which is somebody's already
    data = open_data(str(write_parquet(tmp_path / "data.parquet", rows)))
    assert [(u.id, u.reference) for u in data.utterances] == [("a", "300"), ("a#3", "310"), ("a#2", "320")]


def test_recordings_in_any_order(tmp_path: Path) -> None:
    """Also again, and across row groups and what is read at once."""
    pytest.importorskip("pyarrow")
    rows = [{"id": f"{i}", "audio": embedded(300 + i, ""), "text": "a"} for i in range(60)]
    utterances = open_data(str(write_parquet(tmp_path / "data.parquet", rows, group=40))).utterances
    for i in [0, 1, 1, 39, 40, 59, 3, 41, 2, *range(60)]:
        assert content(utterances[i]) == tone(300 + i)


MEMORY = """
import sys
import pyarrow as pa
from cohere_lite.evaluate.utterances import open_data
data = open_data(sys.argv[1], count=3)
rows = pa.default_memory_pool().max_memory()
sizes = [len(utterance.audio()) for utterance in data.utterances]
print(rows, sizes, pa.default_memory_pool().max_memory())
"""


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    """40 MB of recordings: the rows are found without them, and one is read with its row group of 4 MB alone."""
    pytest.importorskip("pyarrow")
    rows = [{"id": f"{i}", "audio": {"bytes": os.urandom(200_000), "path": ""}, "text": "a"} for i in range(200)]
    path = write_parquet(tmp_path / "data.parquet", rows, group=20)
    command = [sys.executable, "-c", MEMORY, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    at_first, *sizes, at_last = said.replace("[", "").replace("]", "").replace(",", "").split()
    assert sizes == ["200000"] * 3
    assert int(at_first) < 1_000_000
    assert int(at_last) < 20_000_000


WITHOUT_TORCH = """
import sys
from cohere_lite.evaluate.utterances import open_data
from cohere_lite.evaluate.texts import scored
for spec in sys.argv[1:]:
    for utterance in open_data(spec, count=2).utterances:
        utterance.audio()
        for way in "card", "leaderboard":
            assert scored(utterance.reference, utterance.reference, utterance.language, way).words
print(*sorted({"torch", "torchaudio", "torchcodec", "datasets", "pandas", "transformers", "librosa"} & {*sys.modules}))
"""


@pytest.mark.parametrize(
    ("make", "part", "files"),
    [
        (kaldi, "/test", "test/sounds/call.wav"),
        (calls, "", "Earnings22-Cleaned-AA-chunked/audio/4483046_1.wav"),
        (voxpopuli, ":en", "en/test-00000-of-00001.parquet"),
        (fleurs_tsv, ":de_de", "data/de_de/audio/test.tar.gz"),
        (fleurs_tsv, "/data/de_de/test.tsv:language=de", "data/de_de/audio/test.tar.gz"),
        (librispeech_tree, "/LibriSpeech/test-clean", "LibriSpeech/test-clean/*/*/*.flac"),
    ],
)
def test_sounds_are_told_from_one_another(make: Maker, part: str, files: str, tmp_path: Path) -> None:
    """Not by where they are called from; but where a file is written anew, or lies in another folder."""
    pytest.importorskip("pyarrow")

    def sounds(folder: Path) -> set[str]:
        return {utterance.sound for utterance in open_data(f"{folder}{part}").utterances}

    folder = make(tmp_path / "data")
    before = sounds(folder)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    if make is not calls:  # whose name tells what they are
        assert sounds(tmp_path / "link") == before
    for path in (tmp_path / "data").glob(files):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    written = sounds(folder)
    assert not written & before
    (tmp_path / "data").rename(tmp_path / "moved")
    assert not sounds(tmp_path / "moved" / folder.relative_to(tmp_path / "data")) & (before | written)


def test_sounds_of_the_hub_change_with_the_commit() -> None:
    utterance = Utterance("a", "yes", "en", bytes)
    first, same, other = (utterance.state(Repository("owner/name", commit, [])) for commit in ("1", "1", "2"))
    assert first == same != other


def test_torch_is_not_imported(tmp_path: Path) -> None:
    for package in "pyarrow", "kaldialign", "whisper_normalizer", "num2words":
        pytest.importorskip(package)
    makers: list[tuple[Maker, str]] = [(librispeech, ":clean"), (fleurs_tsv, ":de_de"), (common_voice_tsv, "")]
    specs = [f"{make(tmp_path / make.__name__)}{part}" for make, part in makers]
    command = [sys.executable, "-c", WITHOUT_TORCH, *specs]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("\n", "")


# Wrong input: one sentence each.


@pytest.mark.parametrize(
    ("make", "part", "message"),
    [
        (librispeech, "", "has several parts: clean, other; name one, as "),
        (librispeech, ":dirty", "no parquet files of 'dirty' there; there are all, clean, other, test, test.clean"),
        (librispeech_tree, ":test-other", "no subsets of 'test-other' there; there are dev-other, test-clean"),
        (ami, "", "has several parts: ihm, sdm; name one, as "),
        (fleurs_tsv, "", "has several parts: de_de, fr_fr; name one"),
    ],
)
def test_which_part(make: Maker, part: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(EvaluateError) as raised:
        open_data(f"{make(tmp_path)}{part}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"audio": embedded(300, ""), "duration": 1.0},
            "no column that is known to hold texts (it has audio, duration)",
        ),
        ({"sound": 3, "text": "a"}, "its column sound holds int64, which is no recording"),
        (
            {"audio": {"array": [0.0], "sampling_rate": 16000}, "text": "a"},
            "audio has array, sampling_rate, and no bytes",
        ),
        ({"audio": embedded(300, ""), "text": ""}, "holds no recordings with texts (an empty reference: 1)"),
        ({"audio": embedded(300, ""), "text": "", "label": "happy"}, "with texts (an empty reference: 1)"),
        ({"audio": "gone.wav", "text": "a"}, "holds no recordings with texts (a recording that is not there: 1)"),
    ],
)
def test_tables_that_lack_something(row: dict, message: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(EvaluateError) as raised:
        open_data(str(write_parquet(tmp_path / "data.parquet", [row])))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "", "list.csv is empty"),
        ("list.csv", "audio,text\n", "list.csv is empty"),
        ("list.csv", "audio,text\ngone.wav,a b\n", "the recordings of list.csv are not there, 'gone.wav' for one"),
        ("list.csv", b"audio,text\na.wav,\xff\n", "list.csv cannot be read: UnicodeDecodeError"),
        ("list.jsonl", '{"audio": "a.wav"}\n{"audio"', "list.jsonl cannot be read: ValueError: line 2: Expecting"),
        ("list.jsonl", "3\n", "line 1 is not an object"),
        ("wav.scp", "a touch x |\n", "wav.scp has a command, which is not run: touch x |"),
        ("wav.scp", "a flac -c 'x |\n", "wav.scp has a command, which is not run: flac -c 'x |"),
        ("wav.scp", "a data.ark:17\n", "wav.scp has an archive, which is not read: data.ark:17"),
        ("data.parquet", "no", "data.parquet cannot be read: ArrowInvalid: Parquet file size is 2 bytes"),
        ("test-00000-of-00003.parquet", "no", "is not complete: 1 of its 3 parquet files are there"),
        ("a.txt", b"\xff", "a.txt is not UTF-8: invalid start byte at byte 0"),
        ("a.jpg", "", "holds no recordings with texts"),
    ],
)
def test_damaged(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write(tmp_path / "text", "a some words\n")
    write(tmp_path / "a.wav", tone(300))
    write(tmp_path / name, text)
    with pytest.raises(EvaluateError) as raised:
        open_data(str(tmp_path))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("part", ["", "call1", "call1 a b", "call1 0.1", "call1 0.1 0.2 left", "call1 0.1 0.2 0 0"])
def test_segments_that_are_none(part: str, tmp_path: Path) -> None:
    folder = kaldi(tmp_path) / "test"
    write(folder / "segments", f"spk1-call1-1 {part}\n")
    with pytest.raises(EvaluateError) as raised:
        open_data(str(folder))
    message = f"{folder}: segments has 'spk1-call1-1 {part}'; a line of it is: UTTERANCE RECORDING START END [CHANNEL]"
    assert str(raised.value) == f"{message}, in seconds"


def test_flac_s_own_command_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a.flac", tone(300))
    write(tmp_path / "text", "u1 hello\nu2 gone\n")
    write(tmp_path / "wav.scp", f"u1 flac -c -d -s {tmp_path}/a.flac |\nu2 flac -cds {tmp_path}/gone.flac |\n")
    data = open_data(str(tmp_path))
    assert [(u.id, u.reference, content(u)) for u in data.utterances] == [("u1", "hello", tone(300))]
    assert data.left_out == {"a recording that is not there": 1}


def test_a_recording_that_the_table_lacks(tmp_path: Path) -> None:
    """It is an error of that recording, when it is read; a file beside the table is taken."""
    pytest.importorskip("pyarrow")
    write(tmp_path / "beside.wav", tone(310))
    sounds = [{"bytes": None, "path": "gone.wav"}, {"bytes": None, "path": "beside.wav"}, embedded(300, "")]
    rows = [{"id": f"{i}", "audio": sound, "text": "a"} for i, sound in enumerate(sounds)]
    gone, beside, inside = open_data(str(write_parquet(tmp_path / "data.parquet", rows))).utterances
    with pytest.raises(EvaluateError, match=r"row 0: the table holds no recording, nor is gone\.wav beside it"):
        gone.audio()
    assert (content(beside), content(inside)) == (tone(310), tone(300))


def test_a_table_that_is_damaged_where_the_recordings_are(tmp_path: Path) -> None:
    """The rows are found without them: what is wrong with a recording is said when it is read."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = numbered(tmp_path, 3)
    group = parquet.ParquetFile(path).metadata.row_group(0)
    names = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    column = names["audio.bytes"]
    damaged = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    damaged[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(damaged)
    data = open_data(str(path))
    assert data.total == 3
    with pytest.raises(EvaluateError, match=r"data\.parquet, row 0: OSError"):
        data.utterances[0].audio()


def test_a_recording_that_cannot_be_read_for_a_while(tmp_path: Path) -> None:
    """The next call begins anew, also after a failure in the middle of a row group."""
    pytest.importorskip("pyarrow")
    rows = [{"id": f"{i}", "audio": {"bytes": os.urandom(300_000), "path": ""}, "text": "a"} for i in range(60)]
    path = write_parquet(tmp_path / "data.parquet", rows, group=60, write_batch_size=1, use_dictionary=False)
    whole = path.read_bytes()
    utterances = open_data(str(path)).utterances
    path.write_bytes(whole[:6_000_000] + b"\xff" * 9_000_000 + whole[15_000_000:])
    assert utterances[0].audio() == rows[0]["audio"]["bytes"]
    for _ in range(2):
        with pytest.raises(EvaluateError, match="row 40: OSError"):
            utterances[40].audio()
    path.write_bytes(whole)
    assert utterances[40].audio() == rows[40]["audio"]["bytes"]


def test_archives_that_lack_a_recording(tmp_path: Path) -> None:
    """Or that are damaged: it is an error of that recording, when it is read."""
    folder = common_voice_tar(tmp_path)
    first, second = sorted((folder / "audio" / "de" / "test").iterdir())
    second.unlink()
    found, gone = open_data(f"{folder}:de").utterances
    assert content(found) == tone(COMMON_VOICE[0][-1])
    with pytest.raises(EvaluateError, match=r"no common_voice_de_17922421\.mp3 in audio/de/test/de_test_0\.tar"):
        gone.audio()
    first.write_bytes(b"no archive")
    with pytest.raises(EvaluateError, match=r"audio/de/test/de_test_0\.tar cannot be read: ReadError"):
        open_data(f"{folder}:de").utterances[0].audio()


def test_names_that_are_nothing(tmp_path: Path) -> None:
    write(tmp_path / "cv.tar.gz", b"")
    with pytest.raises(EvaluateError, match="is packed: unpack it, and name the folder"):
        open_data(str(tmp_path / "cv.tar.gz"))
    with pytest.raises(EvaluateError, match="neither a file nor a folder here, nor a name on the hub"):
        open_data(str(tmp_path / "nothing"))
