"""The web page's modules, in node: the same numbers and texts as the package's own, whose tests say where those come
from."""

import base64
import hashlib
import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_formats
import test_mel
import test_wav
from hypothesis import given, settings
from hypothesis import strategies as st

from cohere_lite.audio import mix, open_audio
from cohere_lite.contracts.contract import Clip
from cohere_lite.cut import Chunks, quietest
from cohere_lite.decode import decode
from cohere_lite.errors import AudioError, NotWav
from cohere_lite.extras.formats import render
from cohere_lite.extras.loudness import Loudness, silence_detector
from cohere_lite.extras.phrases import Pauses
from cohere_lite.extras.polarity import Polarity
from cohere_lite.mel import _normal, log_mel
from cohere_lite.model import DEMO_FOLDER
from cohere_lite.resample import Resampler
from cohere_lite.tokens import read_tokens
from cohere_lite.transcript import join
from cohere_lite.wav import open_wav

# folder: tools/ is no part of the package as one file
pytestmark = [
    pytest.mark.slow,
    pytest.mark.folder,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs the program node"),
]

FRONT = Path(__file__).parent / "web" / "front.mjs"
PAGE = Path(__file__).parents[1] / "tools" / "web" / "page"
random = np.random.RandomState(0)


def called(*calls: Sequence[Any]) -> list[Any]:
    """What the calls of front.mjs give."""
    request = json.dumps(calls, default=_encoded, allow_nan=False)
    answer = subprocess.run(["node", str(FRONT)], input=request, capture_output=True, text=True, encoding="utf-8")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout, object_hook=_decoded)


def _encoded(array: np.ndarray) -> dict[str, str]:
    kind = {4: "f4", 8: "f8"}[array.itemsize]
    return {kind: base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}


def _decoded(found: dict[str, Any]) -> Any:
    for kind in ("f4", "f8"):
        if [*found] == [kind]:
            return np.frombuffer(base64.b64decode(found[kind]), kind)
    return found


def sample() -> np.ndarray:
    """The demonstration's, float32 (n,)."""
    with open_audio(DEMO_FOLDER / "sample.wav") as audio:
        return np.concatenate([mix(block, None)[:, 0] for block in audio.blocks])


def speech_and_pauses(noise: float = 1e-4) -> np.ndarray:
    """The sample four times in noise, with pauses of 0.3, 1 and 12 s."""
    parts = [sample()]
    for seconds in (0.3, 1, 12):
        parts += [np.zeros(round(16_000 * seconds), np.float32), sample()]
    speech = np.concatenate(parts)
    return speech + np.float32(noise) * random.standard_normal(len(speech)).astype(np.float32)


def in_blocks(samples: np.ndarray, *sizes: int) -> list[np.ndarray]:
    """Of these sizes, over and over."""
    edges = np.cumsum([0, *(sizes * (len(samples) // sum(sizes) + 1))])
    return [block for block in np.split(samples, edges[1:]) if len(block)]


@pytest.mark.parametrize("case", ["speech", "music", "noise", "short", "faint", "silence"])
def test_golden_features(case: str) -> None:
    """The reference's own numbers, within the tolerance that Python's have."""
    samples = test_mel.golden_samples(case)
    (features,) = called(["logMel", samples])
    test_mel.check(features.reshape(128, -1), test_mel.GOLDEN[f"{case}.features"], samples)


def test_golden_features_of_thirty_seconds() -> None:
    samples = test_mel.golden_samples("speech", 480_000)
    (features,) = called(["logMel", samples])
    expected = test_mel.GOLDEN["thirty_seconds.features"]
    test_mel.check(features.reshape(128, -1), expected, samples, frames=slice(None, None, 37))
    assert np.abs(features.reshape(128, -1) - log_mel(samples)).max() < 2e-4  # 2.2e-5 by measurement


@pytest.mark.parametrize("n", [160, 161, 319, 320])
def test_features_of_one_and_two_frames(n: int) -> None:
    samples = np.linspace(-0.5, 0.5, n, dtype=np.float32) ** 3
    (features,) = called(["logMel", samples])
    np.testing.assert_allclose(features.reshape(128, -1), log_mel(samples), atol=2e-3)


@pytest.mark.parametrize("n", [16, 160, 161, 175, 176_015])
def test_dither(n: int) -> None:
    (values,) = called(["normal", n])
    np.testing.assert_allclose(values, _normal(n), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [1000, 8000, 11_025, 15_999, 16_000, 22_050, 44_100, 48_000, 96_000, 999_983])
def test_resampler(rate: int) -> None:
    """2e-6: what the package's own results differ by when blocks are cut elsewhere."""
    noise = random.uniform(-0.5, 0.5, max(3000, rate // 20)).astype(np.float32)
    resampler = Resampler(rate)
    expected = np.concatenate([resampler.push(noise), resampler.finish()])
    (found,) = called(["resample", rate, *in_blocks(noise, 700, 1, 4099)])
    assert len(np.concatenate(found)) == len(expected)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-6)


def test_quietest_windows() -> None:
    """To the last bit: of nearly equal windows the sums decide, and of equal ones the first is meant."""
    noise = random.uniform(-1e-3, 1e-3, 80_000).astype(np.float32)
    tone = (0.1 * np.sin(0.3 * np.arange(80_000))).astype(np.float32)
    cases = [noise, tone, np.zeros(80_000, np.float32), np.round(noise * 32768) / np.float32(32768)]
    cases += [tone * np.float32(1 + 1e-7 * n) for n in range(40)]
    found = called(*(["quietest", case] for case in cases))
    assert found == [quietest(case) for case in cases]


def test_sums_are_numpys() -> None:
    """To the last bit, which decides between windows that are nearly equal."""
    rows = random.uniform(0, 1e-3, (60, 1600)).astype(np.float32)
    assert called(*(["pairwiseSum", row, 0, 1600] for row in rows)) == rows.sum(axis=1).tolist()
    rows = rows[:, :77]
    assert called(*(["pairwiseSum", row, 0, 77] for row in rows)) == rows.sum(axis=1).tolist()


def test_chunks_of_long_audio() -> None:
    long = np.tile(speech_and_pauses(), 6)
    chunks = Chunks(35.0)
    expected = [len(piece) for piece in [*chunks.push(long), *chunks.finish()]]
    (found,) = called(["chunks", 35, *in_blocks(long, 100_000, 7)])
    assert found == expected
    assert len(expected) > 3


def test_phrases() -> None:
    speech = speech_and_pauses()
    cutter = Pauses().cutter(35.0)
    expected = [len(piece) for piece in [*cutter.push(speech), *cutter.finish()]]
    (found,) = called(["phrases", *in_blocks(speech, 4096)])
    assert found == expected
    assert len(expected) > 4


def test_a_phrase_without_a_pause() -> None:
    """70 s of a voice that never stops is cut twice."""
    speech = np.tile(sample()[4000:36_000], 35)
    cutter = Pauses().cutter(35.0)
    expected = [len(piece) for piece in [*cutter.push(speech), *cutter.finish()]]
    assert called(["phrases", *in_blocks(speech, 4096)]) == [expected]
    assert len(expected) == 3


def test_loudness() -> None:
    speech = speech_and_pauses()
    (found,) = called(["levels", *in_blocks(speech, 4096, 11)])
    np.testing.assert_allclose(found.reshape(-1, 2), Loudness().push(speech), atol=1e-6)


@pytest.mark.parametrize("noise", [1e-4, 0.02])
def test_silence_is_told_from_speech(noise: float) -> None:
    pieces = in_blocks(speech_and_pauses(noise), 16_000)
    is_silent = silence_detector()
    (found,) = called(["holdSpeech", *pieces])
    assert found == [not is_silent(piece) for piece in pieces]
    assert {*found} == {True, False}


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_channels_are_averaged(n_channels: int) -> None:
    frames = random.uniform(-1, 1, (30_000, n_channels))
    blocks = [[*block.T] for block in np.split(frames, [9_000, 9_001])]
    (found,) = called(["mix", 48_000, *blocks])
    np.testing.assert_array_equal(np.concatenate(found["mixed"]), mix(frames, None)[:, 0])
    assert found["warnings"] == []


def test_channels_that_cancel_out() -> None:
    voice = np.repeat(sample(), 3)
    noise = random.standard_normal((len(voice), 2)) * 1e-3
    frames = np.stack([-0.9 * voice, voice], axis=1) + noise  # the first that is about as loud is taken
    frames[: len(frames) // 3, 1] *= -1  # only later do they
    expected, polarity = [], Polarity(48_000.0)
    for block in np.split(frames, [5_000, 60_001]):
        expected.append(mix(block, None))
        polarity.replace_cancelled(block, expected[-1])
    (found,) = called(["mix", 48_000, *([*block.T] for block in np.split(frames, [5_000, 60_001]))])
    np.testing.assert_array_equal(np.concatenate(found["mixed"]), np.concatenate(expected)[:, 0])
    assert len(found["warnings"]) == 1


BETWEEN = {
    "ID3v1": b"TAG" + b"x" * 125,
    "ID3v2": b"ID3\4\0\0\0\0\1\2" + b"x" * 130,  # 7 bits to a byte: 128 + 2
    "XML": b"<x:xmpmeta/> " * 9,
    "padding": b"\1" * 16,
    "junk": b"\1" * 17,
    "zeros": bytes(70_000),
    "a chunk": test_wav.chunk(b"abcd", b"x" * 40),
    "a chunk that was cut short": test_wav.chunk(b"abcd", b"x" * 40, size=1000),
}
CUT = test_wav.wav(b"ab" * 99, size=4010)
BURST = struct.pack("<4H", 0xF872, 0x4E1F, 1, 100)  # IEC 61937
SAMPLES_24_BIT = np.arange(-300, 300, dtype="<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
FILES = {
    **{f"{tag} {bits}": test_wav.wav(bytes(range(240)), tag=tag, bits=bits) for tag, bits in [(1, 8), (1, 16), (6, 8)]},
    **{f"{tag} {bits}": test_wav.wav(bytes(range(240)), tag=tag, bits=bits) for tag, bits in [(7, 8), (1, 17), (1, 9)]},
    "24": test_wav.wav(SAMPLES_24_BIT, bits=24, channels=2),
    "24 in 32": test_wav.wav(bytes(range(240)), bits=24, block_align=4),
    "32": test_wav.wav(bytes(range(240)), bits=32, channels=3),
    "float": test_wav.wav(np.linspace(-2, 2, 99, dtype="<f4").tobytes(), tag=3, bits=32),
    "double": test_wav.wav(np.linspace(-2, 2, 99, dtype="<f8").tobytes(), tag=3, bits=64),
    "RIFX": test_wav.rifx(bytes(range(240)), channels=2),
    "RIFX 24": test_wav.rifx(bytes(range(240)), bits=24),
    "RF64": test_wav.rf64(bytes(range(240))),
    "BW64": test_wav.rf64(bytes(range(240)), magic=b"BW64"),
    "Wave64": test_wav.w64(bytes(range(240))),
    "extensible": test_wav.wav(bytes(range(240)), tag=0xFFFE, extra=b"\x16\0\x10\0\4\0\0\0\1\0" + test_wav.GUID_TAIL),
    "IMA": test_wav.wav(test_wav.IMA_BLOCK * 9, tag=0x11, bits=4, block_align=8),
    "IMA stereo": test_wav.wav(bytes(range(160)), tag=0x11, bits=4, channels=2, block_align=16),
    "Microsoft": test_wav.wav(test_wav.MS_BLOCK * 9, tag=2, bits=4, block_align=9),
    "Microsoft stereo": test_wav.wav(bytes(range(180)), tag=2, bits=4, channels=2, block_align=18),
    "Microsoft, cut": test_wav.wav(test_wav.MS_BLOCK * 9, tag=2, bits=4, block_align=9)[:-1],
    "chunks": test_wav.riff(
        test_wav.chunk(b"JUNK", b"x" * 29),
        test_wav.fmt(),
        test_wav.chunk(b"data", b"ab"),
        test_wav.chunk(b"LIST", b"a"),
    ),
    "zeros between chunks": test_wav.riff(test_wav.fmt(), bytes(50), test_wav.chunk(b"data", b"ab")),
    "no pad byte": test_wav.riff(test_wav.fmt(), test_wav.chunk(b"LIST", b"abc")[:-1], test_wav.chunk(b"data", b"ab")),
    "streamed": test_wav.wav(bytes(range(240)), size=0xFFFFFFFF),
    "never completed": test_wav.wav(bytes(range(240)), size=0),
    "empty": test_wav.riff(test_wav.fmt(), test_wav.chunk(b"data", b""), test_wav.chunk(b"LIST", b"abcd")),
    "cut short": test_wav.wav(bytes(range(240)), size=4010),
    "cut in a frame": test_wav.wav(bytes(range(239)), size=240, channels=2),
    "an incomplete frame": test_wav.wav(bytes(range(239)), channels=2),
    "two data chunks": test_wav.riff(
        *(test_wav.fmt(bits=8), test_wav.chunk(b"data", b"\xc0" * 3), test_wav.chunk(b"LIST", b"abc")),
        test_wav.chunk(b"data", b"\x40"),
    ),
    "end to end": b"".join(build(b"\xc0" * 3, bits=8) for build in test_wav.BUILDERS),
    "another that does not fit": test_wav.wav(b"ab") + test_wav.wav(b"abcd", channels=2),
    "another that is damaged": test_wav.wav(b"ab") + test_wav.riff(test_wav.chunk(b"data", b"ab")),
    "another kind of file": test_wav.wav(b"ab") + b"RIFF\0\0\0\0AVI " + bytes(40),
    "tags": test_wav.wav(b"ab") + test_wav.chunk(b"id3 ", b"RIFF" * 9),
    "junk": test_wav.wav(b"ab") + b"\1\2\3",
    "much junk": test_wav.wav(b"ab") + b"\1\0" * 17,
    "an odd chunk filled with a space": test_wav.riff(
        test_wav.fmt(), test_wav.chunk(b"LIST", b"INFOabc")[:-1] + b" ", test_wav.chunk(b"data", b"ab")
    ),
    "odd samples filled with a space": test_wav.wav(b"abc", bits=8)[:-1] + b" " + test_wav.chunk(b"LIST", b"abcd"),
    "Wave64 to a pipe": test_wav.w64(bytes(range(240)), size=2**63 - 1),
    "RF64 of unknown size": test_wav.rf64(bytes(range(240)), size=2**63 - 1),
    "FLAC behind it": test_wav.wav(b"ab") + b"fLaC" + bytes(40),
    **{f"{name}, then another": test_wav.wav(b"ab") + rest + test_wav.wav(b"cd") for name, rest in BETWEEN.items()},
    **{f"cut short by another, {build.__name__}": CUT + build(b"cd" * 99) for build in (test_wav.wav, test_wav.w64)},
    "cut in a frame by another": CUT[:-1] + test_wav.wav(b"cd" * 99),
    "of unknown size, then another": test_wav.wav(b"ab" * 99, size=0xFFFFFFFF) + test_wav.wav(b"cd" * 99),
    # a block is 1 MiB: the second header lies across its end
    "cut short where a block ends": test_wav.wav(bytes(2**20 - 9), size=2**21) + test_wav.wav(b"cd" * 99),
    "steps like those of compressed sound": test_wav.wav(np.repeat([32766, -32767] * 99, 500).astype("<i2").tobytes()),
    "one burst": test_wav.wav(bytes(400) + BURST + bytes(50_000)),
    "bursts at all distances": test_wav.wav(b"".join(BURST + bytes(4 * n) for n in range(300, 340))),
    "samples like FLAC": test_wav.wav(b"fLaC" + bytes(5000)),
}


@pytest.mark.parametrize("name", FILES)
def test_wav_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(FILES[name])
    with open_audio(path) as audio:
        expected = np.concatenate([np.zeros((0, 1)), *audio.blocks] if name == "empty" else [*audio.blocks])
        warnings = [*audio.missing, *audio.warnings]
    (found,) = called(["wav", str(path)])
    assert found["rate"] == audio.rate
    frames = np.stack(
        [np.concatenate(channel) for channel in zip(*found["blocks"], strict=True)] or [np.zeros(0)], axis=1
    )
    np.testing.assert_array_equal(frames, expected)
    assert found["warnings"] == warnings


def test_a_wav_file_of_several_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    values = random.randint(-32768, 32768, (700_000, 2)).astype("<i2")
    path.write_bytes(test_wav.wav(values.tobytes(), channels=2, rate=44_100))
    (found,) = called(["wav", str(path)])
    assert len(found["blocks"]) > 1
    left, right = (np.concatenate(channel) for channel in zip(*found["blocks"], strict=True))
    np.testing.assert_array_equal(np.stack([left, right], axis=1), values / 32768)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF\0\0",
        test_wav.riff(test_wav.fmt()),
        test_wav.riff(test_wav.chunk(b"data", b"ab")),
        test_wav.riff(test_wav.chunk(b"fmt ", b"short"), test_wav.chunk(b"data", b"ab")),
        test_wav.wav(b"ab", channels=0),
        test_wav.wav(b"ab", tag=0x31),
        b"ID3\3 and so on, which is no WAV file but may be known to the browser",
    ],
)
def test_files_that_are_refused(data: bytes, tmp_path: Path) -> None:
    """In the package's words, up to where it names its own limits; NotWav goes to the browser's decoder."""
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError) as refused, open(path, "rb") as file:
        open_wav(file)
    (found,) = called(["wav", str(path)])
    assert found["kind"] == ("NotWav" if isinstance(refused.value, NotWav) else "AudioError")
    assert found["error"].split(" (")[0] in str(refused.value)


DTS = b"".join(bytes.fromhex("FE7F018000FC") + random.bytes(4090) for _ in range(9))
DTS_14_BITS = b"".join(bytes.fromhex("FF1F00E8F107") + random.bytes(4090) for _ in range(9))
PAYLOADS = {
    "WavPack": b"wvpk" + bytes(5) + b"\4" + bytes(99),
    "FLAC": b"fLaC\x80\0\0\x22" + bytes(99),
    "Ogg": b"OggS\0\2\0\0" + bytes(99),
    "ID3": b"ID3\4\0\0\0\0\0\0" + bytes(99),
    # by ISO/IEC 11172-3: 144 * 128 kbit/s / 44.1 kHz are frames of 417 bytes; 72 * 64 / 22.05 of 208, and one of fill
    "MP3": (b"\xff\xfb\x90\0" + bytes(413)) * 5,
    "MP3 at 22.05 kHz": (b"\xff\xf3\x82\0" + bytes(205)) * 5,
    "AC-3": bytes(4000) + (BURST + bytes(6136)) * 9,
    "AC-3, big-endian": bytes(4000) + (struct.pack(">4H", 0xF872, 0x4E1F, 1, 100) + bytes(6136)) * 9,
    "DTS": DTS,
    "DTS, 14 bits to a word": bytes(4) + DTS_14_BITS,
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_compressed_sound_in_place_of_samples(name: str, tmp_path: Path) -> None:
    """Given to the browser from where the package gives it to converters, to the end of the data chunk."""
    path = tmp_path / "a.wav"
    path.write_bytes(test_wav.wav(PAYLOADS[name], channels=2) + test_wav.chunk(b"LIST", b"abcd"))
    with pytest.raises(NotWav) as refused, open(path, "rb") as file:
        open_wav(file)
    (found,) = called(["wav", str(path)])
    assert (found["kind"], found["error"]) == ("NotWav", str(refused.value))
    assert bytes(found["sound"]) == path.read_bytes()[refused.value.position : 44 + len(PAYLOADS[name])]


def test_compressed_sound_behind_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(test_wav.wav(b"ab") + test_wav.wav(PAYLOADS["MP3"]))
    (found,) = called(["wav", str(path)])
    assert [len(left) for (left,) in found["blocks"]] == [1]
    told = "another recording follows, which is left out: a WAV file with MP3 in place of its samples"
    assert found["warnings"] == [told]


def test_tokens() -> None:
    """Bytes that make characters and others; special tokens; spaces at the start."""
    path = DEMO_FOLDER / "tokens.txt"
    vocabulary = read_tokens(path)
    ids = random.randint(0, len(vocabulary), (300, 12)).tolist()
    for lead in (0xC3, 0xE2, 0xF0, 0xF5):  # with too few bytes after it, and with enough
        ids += [[vocabulary.id(f"<0x{byte:02X}>") for byte in (lead, 0x82, 0xAC, 0x41, 0x9F, lead, 0x9F, 0x98, 0x80)]]
    pieces = [f"<0x{byte:02X}>" for byte in "é€😀".encode()] + ["<0xED>", "<0xA0>", "<0x80>", "<0xC0>", "<0x80>"]
    ids += [[vocabulary.id(piece) for piece in pieces], [vocabulary.id("<0xE2>")], []]
    (found,) = called(["vocabulary", path.read_text(encoding="utf-8"), ids, "fr"])
    texts, prompt, languages = found
    assert texts == [vocabulary.decode(one) for one in ids]
    assert prompt == vocabulary.prompt("fr")
    assert languages == [*vocabulary.languages]


@pytest.mark.parametrize(
    ("script", "seconds", "max_positions"),
    [
        ([5, 6, 2], 1.0, 10),
        ([5, 6, 7, 8, 9, 5, 6, 7, 8], 1.0, 8),  # the limit comes first
        ([5] * 60, 1.0, 100),  # a loop
        ([5] * 30 + [2], 60.0, 100),  # said slowly it is none
        ([4, *[5, 6, 7] * 20], 2.0, 100),
        ([*range(5, 35), 2], 1.0, 100),
    ],
)
def test_decoding(script: list[int], seconds: float, max_positions: int) -> None:
    class Scripted:
        def __init__(self) -> None:
            self.max_positions, self.steps = max_positions, iter(script)

        def start(self, clips: object) -> None: ...
        def release(self) -> None: ...
        def keep(self, rows: list[int]) -> list[int]:
            return rows

        def choose(self, tokens: object) -> tuple[np.ndarray, np.ndarray]:
            return np.array([next(self.steps)]), np.array([-1.0])

    (expected,) = decode(Scripted(), [Clip(seconds, {})], [7, 7], 2)  # type: ignore[arg-type]
    (found,) = called(["decode", script, seconds, max_positions])
    assert (tuple(found["tokens"]), found["truncated"], found["looped"]) == expected[:3]
    assert found["logprob"] == expected.avg_logprob


LINES = st.lists(st.text(st.sampled_from("aé 日\t\n\r\x0b\x1c\x1f\x85\xa0\u2028\u3000\ufeff."), max_size=9), max_size=5)


@settings(max_examples=8)
@given(st.lists(LINES, min_size=30, max_size=30))
def test_texts_are_joined(cases: list[list[str]]) -> None:
    calls = [["join", texts, language] for texts in cases for language in ("en", "ja")]
    assert called(*calls) == [join(texts, language) for _, texts, language in calls]
    lines = [text for texts in cases for text in texts]
    assert called(*(["inOneLine", text] for text in lines)) == [" ".join(text.splitlines()) for text in lines]


@pytest.fixture(scope="module")
def subtitles_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """subtitles.js with what tools/web writes for it."""
    from tools.web.build import wide_module

    folder = tmp_path_factory.mktemp("page")
    for name in ("subtitles.js", "transcript.js"):
        shutil.copy(PAGE / name, folder)
    (folder / "wide.js").write_text(wide_module(), encoding="utf-8")
    return folder


WORDS = [
    *("the", "Wörter,", "«", "oui", "!", "»", "日本語ハンバーガー。「はい」", "한국어", "입니다.", "&", "<b>", "-->"),
    *("(one)", "“two”…", "end.", "9:30;", "?", "Donaudampfschifffahrtsgesellschaftskapitänsmützenfabrik", "\t", "\0"),
]
SPOKEN = st.lists(st.sampled_from(WORDS), max_size=60)


def test_subtitles_of_which_several_are_as_good(subtitles_folder: Path) -> None:
    """Words of any length: in 1 text of 12 two ways to lay it out cost the same."""
    texts = [" ".join("a" * n for n in random.randint(1, 14, 30)) for _ in range(100)]
    given = [[{"start": 0, "end": 30, "text": text}] for text in texts]
    expected = ["".join(render("srt", [test_formats.spoken(0, 30, text)], "en")) for text in texts]
    assert called(*(["subtitles", str(subtitles_folder), one, "srt"] for one in given)) == expected


@settings(max_examples=8)
@given(st.lists(st.lists(st.tuples(st.floats(0, 40), SPOKEN), max_size=4), min_size=10, max_size=10))
def test_subtitles(subtitles_folder: Path, cases: list[list[tuple[float, list[str]]]]) -> None:
    calls, expected = [], []
    for case in cases:
        ends = np.cumsum([seconds for seconds, _ in case]).tolist()
        parts = zip([0.0, *ends[:-1]], ends, case, strict=True) if case else []
        segments = [test_formats.spoken(start, end, " ".join(words)) for start, end, (_, words) in parts]
        given = [{"start": s.start, "end": s.end, "text": s.text} for s in segments]
        for style in ("srt", "vtt"):
            calls.append(["subtitles", str(subtitles_folder), given, style])
            expected.append("".join(render(style, segments, "en")))
    assert called(*calls) == expected


def evaluated(code: str, *options: str) -> Any:
    """What a module prints, as JSON. PAGE in it: the address of the page's folder."""
    command = ["node", *options, "--input-type=module", "--eval", code.replace("PAGE", PAGE.as_uri())]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def test_the_browsers_samples_are_let_go() -> None:
    """By construction: 100 MB that the page has decoded, for a recording that has come to its end."""
    code = """
        let answer;
        const next = () => new Promise((resolve) => (answer = resolve));
        globalThis.self = {postMessage: (message) => answer(message)};
        await import('PAGE/worker.js');
        const undecoded = next();
        self.onmessage({data: {type: 'file', id: 1, file: new Blob(['no WAV file']), language: 'en'}});
        const {type, message} = await undecoded;
        const failed = next();
        let samples = new Float32Array(25e6);
        const reference = new WeakRef(samples);
        self.onmessage({data: {type: 'decoded', rate: 16000, channels: [samples], duration: 1, warnings: []}});
        samples = null;
        const {message: end} = await failed;
        await new Promise((resolve) => setTimeout(resolve, 50));
        gc();
        console.log(JSON.stringify([type, message, end, reference.deref() === undefined]));
    """
    expected = ["undecoded", "not a WAV file", "No model is loaded.", True]
    assert evaluated(code, "--expose-gc") == expected


DOWNLOAD = """
    globalThis.navigator ??= {}; // without a file system: files stay in memory
    globalThis.setTimeout = (wake) => queueMicrotask(wake);
    const {ModelFiles} = await import('PAGE/files.js');
    const answers = ANSWERS;
    let asked = 0;
    globalThis.fetch = async () => new Response('a model', {status: answers[asked++] ?? 200});
    const sha256 = 'SHA256';
    const model = {folder: 'm', id: 'm-0', files: {weights: {bytes: 7, sha256}}};
    const files = await new ModelFiles('http://host/', model, ['weights'], () => {}, () => {}).open();
    const read = files.read('weights').then((bytes) => new TextDecoder().decode(bytes), (error) => error.message);
    console.log(JSON.stringify([await read, asked]));
""".replace("SHA256", hashlib.sha256(b"a model").hexdigest())


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(status: int) -> None:
    assert evaluated(DOWNLOAD.replace("ANSWERS", f"[{status}, {status}]")) == ["a model", 3]


def test_a_server_that_stays_busy() -> None:
    said, asked = evaluated(DOWNLOAD.replace("ANSWERS", "Array(9).fill(503)"))
    assert said == "The download of weights came to a stop after 0.0 MB (the server answered 503)."
    assert asked == 5


def test_a_file_that_is_not_there_is_asked_for_once() -> None:
    said, asked = evaluated(DOWNLOAD.replace("ANSWERS", "[404]"))
    assert said.startswith("weights is not there (the server answered 404)")
    assert asked == 1


@pytest.mark.parametrize("n_quanta", [0, 31, 32, 33])
def test_microphone_hands_over_all_it_hears_and_nothing_empty(n_quanta: int) -> None:
    """By construction: blocks of 4096 samples, of which browsers bring 128 at a time, then the rest, then null. An
    empty block has no loudness, and the page would show none."""
    code = f"""
        let Tap, sent = [];
        globalThis.AudioWorkletProcessor = class {{ port = {{postMessage: (data) => sent.push(data && [...data])}}; }};
        globalThis.registerProcessor = (name, processor) => (Tap = processor);
        await import('PAGE/microphone-worklet.js');
        const tap = new Tap();
        for (let i = 0; i < {n_quanta}; i++) tap.process([[new Float32Array(128).fill(i + 1)]]);
        tap.port.onmessage();
        console.log(JSON.stringify(sent));
    """
    *blocks, last = evaluated(code)
    assert last is None
    assert [len(block) for block in blocks] == {0: [], 31: [3968], 32: [4096], 33: [4096, 128]}[n_quanta]
    assert [sample for block in blocks for sample in block] == np.repeat(np.arange(1, n_quanta + 1), 128).tolist()
