"""Tiny data sets, laid out as the published ones are: names of files and columns as their pages have them."""

import io
import json
import tarfile
import wave
from pathlib import Path
from typing import Any

import numpy as np


def tone(hz: int, rate: int = 16000, seconds: float = 0.05) -> bytes:
    """A WAV file of a tone, mono, 16 bits."""
    samples = np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate) * 8000
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def write_parquet(
    path: Path, rows: list[dict[str, Any]], classes: dict[str, list[str]] | None = None, group: int = 2, **options: Any
) -> Path:
    """With the description of its columns that `datasets` writes.  classes: names that a column's numbers stand for;
    group: rows in a row group;  options: pyarrow's"""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(rows)
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in table.column_names}
    features |= {"audio": {"sampling_rate": 16000, "_type": "Audio"}}
    features |= {name: {"names": names, "_type": "ClassLabel"} for name, names in (classes or {}).items()}
    info = {"info": {"features": features}}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}), path, row_group_size=group, **options
    )
    return path


def embedded(hz: int, path: str) -> dict[str, Any]:
    """A recording in a table."""
    return {"bytes": tone(hz), "path": path}


def write(path: Path, content: bytes | str) -> Path:
    """A file, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Rows of the published tables, by the part of the data set that the evaluation takes.


def librispeech(folder: Path) -> Path:
    """openslr/librispeech_asr."""
    rows = [
        {
            "file": f"/home/albert/{name}.flac",
            "audio": embedded(hz, f"{name}.flac"),
            "text": text,
            "speaker_id": int(name.split("-")[0]),
            "chapter_id": int(name.split("-")[1]),
            "id": name,
        }
        for name, hz, text in LIBRISPEECH
    ]
    other = [{**rows[0], "id": "9-9-0009", "text": "OF ANOTHER PART"}]
    write_parquet(folder / "clean" / "test" / "0000.parquet", rows)
    write_parquet(folder / "clean" / "validation" / "0000.parquet", other)
    write_parquet(folder / "other" / "test" / "0000.parquet", other)
    write_parquet(folder / "all" / "test.clean" / "0000.parquet", rows)
    return folder


LIBRISPEECH = [
    ("6930-75918-0000", 300, "CONCORD RETURNED TO ITS PLACE AMIDST THE TENTS"),
    ("6930-75918-0001", 310, "THE ENGLISH FORWARDED TO THE FRENCH BASKETS OF FLOWERS"),
    ("1089-134686-0000", 320, "HE HOPED THERE WOULD BE STEW FOR DINNER"),
]


def voxpopuli(folder: Path) -> Path:
    """facebook/voxpopuli: either text may be empty, languages are numbers, and a speaker may be "None"."""
    rows = [
        {
            "audio_id": f"2018-en_{i}",
            "language": 0,
            "audio": embedded(400 + i, f"2018-en_{i}.wav"),
            "raw_text": raw,
            "normalized_text": normalised,
            "gender": "female",
            "speaker_id": speaker,
            "is_gold_transcript": True,
            "accent": "None",
        }
        for i, (raw, normalised, speaker) in enumerate(
            [("Mr President!", "mr president", "96"), ("Thank you.", "", "96"), ("", "the vote", "None"), ("", "", "7")]
        )
    ]
    write_parquet(folder / "en" / "test-00000-of-00001.parquet", rows, {"language": ["en", "de", "fr"]})
    write_parquet(
        folder / "de" / "test-00000-of-00001.parquet", [{**rows[0], "language": 1}], {"language": ["en", "de"]}
    )
    return folder


def ami(folder: Path) -> Path:
    """edinburghcstr/ami: times in the meeting, of a recording that is cut already."""
    row = {
        "meeting_id": "EN2002a",
        "audio_id": "AMI_EN2002a_H00_MEE073_0000145_0000225",
        "text": "HMM HMM HMM",
        "audio": embedded(500, "train/en2002a/mee073_0000145_0000225.wav"),
        "begin_time": 1.4500000476837158,
        "end_time": 2.25,
        "microphone_id": "H00",
        "speaker_id": "MEE073",
    }
    for config in "ihm", "sdm":
        write_parquet(folder / config / "test-00000-of-00001.parquet", [row])
        write_parquet(folder / config / "train-00000-of-00001.parquet", [row])
    return folder


def peoples_speech(folder: Path) -> Path:
    """MLCommons/peoples_speech: its test set is a configuration of its own."""
    row = {
        "id": "07282016HFUUforum_SLASH_07-28-2016_HFUUforum_DOT_mp3_00000.flac",
        "audio": embedded(600, "07282016HFUUforum_00000.flac"),
        "duration_ms": 14920,
        "text": "i wanted this to share a few things",
    }
    write_parquet(folder / "clean" / "train-00000-of-00001.parquet", [{**row, "text": "of training"}])
    write_parquet(folder / "test" / "test-00000-of-00001.parquet", [row])
    write_parquet(folder / "validation" / "validation-00000-of-00001.parquet", [{**row, "text": "of validation"}])
    return folder


def earnings22(folder: Path) -> Path:
    """distil-whisper/earnings22: chunks of calls, in several files; and whole calls, in another configuration."""
    rows = [
        {
            "file_id": "4432298",
            "segment_id": str(i),
            "start_ts": 10.0 * i,
            "end_ts": 10.0 * i + 9,
            "audio": embedded(700 + i, None),  # type: ignore[arg-type]
            "transcription": f"Good morning, and welcome, {i}.",
        }
        for i in range(3)
    ]
    write_parquet(folder / "chunked" / "test-00000-of-00002-9ebe0b.parquet", rows[:2])
    write_parquet(folder / "chunked" / "test-00001-of-00002-1d2c3b.parquet", rows[2:])
    write_parquet(folder / "full" / "test-00000-of-00001.parquet", rows[:1])
    return folder


def fleurs_parquet(folder: Path) -> Path:
    """google/fleurs: an id is a sentence's, which two people read here; numbers stand for genders and languages."""
    for config, language in ("de_de", "German"), ("cmn_hans_cn", "Mandarin Chinese"):
        rows = [
            {
                "id": 1675,
                "num_samples": 800,
                "path": f"/home/patrick/audio/test/{name}",
                "audio": embedded(hz, f"test/{name}"),
                "transcription": "für die besten aussichten",
                "raw_transcription": "Für die besten Aussichten,",
                "gender": 1,
                "lang_id": 19,
                "language": language,
                "lang_group_id": 0,
            }
            for name, hz in FLEURS
        ]
        write_parquet(folder / config / "test" / "0000.parquet", rows, {"gender": ["male", "female", "other"]})
        write_parquet(folder / config / "partial-train" / "0000.parquet", [{**rows[0], "transcription": "of training"}])
    return folder


FLEURS = [("10004088536354799741.wav", 800), ("9914512311134552216.wav", 810)]


def fleurs_tsv(folder: Path, packed: str = ".tar.gz", where: str = "audio") -> Path:
    """google/fleurs as Google packs it: no names of columns; recordings in archives (packed), or unpacked ("")."""
    for config in "de_de", "fr_fr":
        lines = [
            f'1675\t{name}\t"Für die besten Aussichten",\tfür die besten aussichten\tf ü r |\t800\tFEMALE\n'
            for name, _ in FLEURS
        ]
        place = folder / "data" / config
        write(place / "test.tsv", "".join(lines))
        write(place / "dev.tsv", lines[0].replace("besten", "ersten"))
        for name, hz in FLEURS:
            write(place / "audio" / "test" / name, tone(hz))
        if packed:
            with tarfile.open(place / where / f"test{packed}", f"w:{packed[5:]}") as archive:
                archive.add(place / "audio" / "test", "test")
            for name, _ in FLEURS:
                (place / "audio" / "test" / name).unlink()
    return folder


COMMON_VOICE = [
    ("common_voice_de_17922420.mp3", "a1", "Zieht euch bitte draußen die Schuhe aus.", 900),
    ("common_voice_de_17922421.mp3", "b2", '"Es kommt nicht auf mich an", sagte sie.', 910),
]


def common_voice_parquet(folder: Path) -> Path:
    """The hub's copies (fixie-ai/common_voice_17_0)."""
    rows = [
        {
            "client_id": client,
            "path": f"de_test_0/{path}",
            "audio": embedded(hz, path),
            "sentence": sentence,
            "up_votes": 2,
            "down_votes": 0,
            "age": "",
            "gender": "",
            "accent": "",
            "locale": "de",
            "segment": "",
            "variant": "",
        }
        for path, client, sentence, hz in COMMON_VOICE
    ]
    write_parquet(folder / "de" / "test-00000-of-00001.parquet", rows)
    write_parquet(folder / "de" / "validation-00000-of-00001.parquet", rows)
    return folder


def common_voice_tsv(folder: Path) -> Path:
    """Mozilla's archive, unpacked. A sentence with quotation marks may stand in some, and has its own doubled."""
    names = "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale"
    place = folder / "cv-corpus-20.0-2024-12-06" / "de"
    lines = ["\t".join([*names.split(), "segment"])]
    for path, client, sentence, hz in COMMON_VOICE:
        quoted = '"' + sentence.replace('"', '""') + '"' if '"' in sentence else sentence
        lines.append("\t".join([client, path, "0f", quoted, "", "2", "0", "", "", "", "", "de", ""]))
        write(place / "clips" / path, tone(hz))
    write(place / "test.tsv", "\n".join(lines) + "\n")
    write(place / "validated.tsv", "\n".join(lines) + "\n")
    write(place / "clip_durations.tsv", "clip\tduration[ms]\n")
    return folder


def common_voice_tar(folder: Path) -> Path:
    """The hub's older copies (fsicoli/common_voice_19_0): transcript/de/test.tsv, audio/de/test/de_test_0.tar, ..."""
    mozilla = common_voice_tsv(folder / "mozilla") / "cv-corpus-20.0-2024-12-06" / "de"
    copy = folder / "copy"
    write(copy / "transcript" / "de" / "test.tsv", (mozilla / "test.tsv").read_bytes())
    write(copy / "transcript" / "fr" / "test.tsv", (mozilla / "test.tsv").read_bytes())
    for i, (path, *_) in enumerate(COMMON_VOICE):
        archive = write(copy / "audio" / "de" / "test" / f"de_test_{i}.tar", b"")
        with tarfile.open(archive, "w:") as packed:
            packed.add(mozilla / "clips" / path, f"de_test_{i}/{path}")
    return copy


def librispeech_tree(folder: Path) -> Path:
    """OpenSLR's archive, unpacked."""
    for subset in "test-clean", "dev-other":
        for name, hz, text in LIBRISPEECH:
            speaker, chapter, _ = name.split("-")
            place = folder / "LibriSpeech" / subset / speaker / chapter
            write(place / f"{name}.flac", tone(hz))
            with (place / f"{speaker}-{chapter}.trans.txt").open("a") as file:
                file.write(f"{name} {text}\n")
    return folder


def kaldi(folder: Path) -> Path:
    """Kaldi's data folders, with segments."""
    write(folder / "test" / "sounds" / "call.wav", tone(300, seconds=1))
    write(folder / "test" / "wav.scp", "call1 sounds/call.wav\n")
    write(folder / "test" / "segments", "spk1-call1-1 call1 0.10 0.45\nspk2-call1-2 call1 0.5 1.0\n")
    write(folder / "test" / "text", "spk1-call1-1 GOOD MORNING\nspk2-call1-2 HELLO\n")
    write(folder / "test" / "utt2spk", "spk1-call1-1 spk1\nspk2-call1-2 spk2\n")
    write(folder / "train" / "wav.scp", "call1 sounds/call.wav\n")
    write(folder / "train" / "text", "call1 OF TRAINING\n")
    return folder


def calls(folder: Path) -> Path:
    """ArtificialAnalysis/Earnings22-Cleaned-AA-chunked, beside the data set with the texts. -> the chunks' folder"""
    chunks = folder / "Earnings22-Cleaned-AA-chunked"
    rows = [{"file_name": f"4483046_{i}.wav", "parent_id": "4483046", "chunk_index": i} for i in (1, 0)]
    rows.append({"file_name": "4474955_1.wav", "parent_id": "4474955", "chunk_index": 1})  # the first is missing
    write(chunks / "test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for i, row in enumerate(rows):
        write(chunks / "audio" / row["file_name"], tone(1000 + i))
    parents = [
        {"id": "4483046", "duration": 0.1, "transcript": "Now it's on times.", "language": "en", "file_name": "e1.mp3"},
        {"id": "4474955", "duration": 0.1, "transcript": "Hello.", "language": "en", "file_name": "c6.mp3"},
    ]
    write(folder / "Earnings22-Cleaned-AA" / "test.jsonl", "".join(json.dumps(row) + "\n" for row in parents))
    return chunks
