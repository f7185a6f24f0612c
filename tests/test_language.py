"""The language that is found: candidates, evidence, what waits for it, how it is told; and how well, by espeak-ng."""

import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKOUT
from scripted import END, A, B, C, write_model
from test_transcribe import SAMPLE, SAMPLE_TEXT, beep, wav

from cohere_lite import ModelError, OptionError, Pauses, Segment, Transcriber, Transcript
from cohere_lite.audio import open_array
from cohere_lite.cli.run import main
from cohere_lite.contracts.contract import Clip
from cohere_lite.decode import decode
from cohere_lite.export.__main__ import export
from cohere_lite.extras import detect
from cohere_lite.extras.languages import language_code, language_name
from cohere_lite.model import DEMO_FOLDER, load_model
from cohere_lite.recording import Recording
from tools.random_checkpoint import Shape, write_random_checkpoint

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")
SPOKEN = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * np.float32(0.1)


@pytest.fixture(scope="module")
def demo() -> Transcriber:
    return Transcriber()


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In folders "fast" and "static", float32; five languages."""
    folder = tmp_path_factory.mktemp("random")
    write_random_checkpoint(folder / "checkpoint", Shape(2, 64, 4, 128, 16, 9, 128, 2, 128, 4, 96, 48, 300))
    export(folder / "checkpoint", folder / "fast", "fp32")
    export(folder / "checkpoint", folder / "static", "fp32", contract="static")
    return folder


def first_tokens(folder: Path, batch_size: int, n_tokens: int = 16) -> list[tuple[list[int], list[float]]]:
    model = load_model(folder)
    prompts = [model.vocabulary.prompt(code) for code in model.vocabulary.languages]
    clip = model.contract.encode(SPOKEN)
    return detect.first_tokens(model.contract, clip, prompts, model.vocabulary.end_of_text, n_tokens, batch_size)


@pytest.mark.parametrize(("contract", "batch_size"), [("fast", 1), ("fast", 2), ("fast", 14), ("static", 4)])
def test_the_same_side_by_side_and_one_by_one(random_model: Path, contract: str, batch_size: int) -> None:
    """By construction: whatever the batch, and where the contract takes none."""
    expected = first_tokens(random_model / "fast", 5)
    found = first_tokens(random_model / contract, batch_size)
    assert [ids for ids, _ in found] == [ids for ids, _ in expected]
    for (_, logprobs), (_, expected_logprobs) in zip(found, expected, strict=True):
        np.testing.assert_allclose(logprobs, expected_logprobs, rtol=1e-4)


def test_what_is_compared_is_what_decode_would_write(demo: Transcriber) -> None:
    """By reference: each candidate's whole text by decode.py, from the same clip; its log-probabilities' mean."""
    model = demo._model
    clip = model.contract.encode(SPOKEN)
    prompts = [model.vocabulary.prompt(code) for code in model.vocabulary.languages]
    found = detect.first_tokens(model.contract, clip, prompts, model.vocabulary.end_of_text, 200, 3)
    for prompt, (ids, logprobs) in zip(prompts, found, strict=True):
        (expected,) = decode(model.contract, [clip], prompt, model.vocabulary.end_of_text)
        assert tuple(ids) == (*expected.tokens, model.vocabulary.end_of_text)
        assert np.mean(logprobs) == pytest.approx(expected.avg_logprob, abs=1e-4)


def test_clips_with_prompts_of_their_own(demo: Transcriber) -> None:
    """By construction: as each alone."""
    model = demo._model
    clip, end = model.contract.encode(SPOKEN), model.vocabulary.end_of_text
    prompts = [model.vocabulary.prompt(code) for code in ("fr", "en", "de")]
    together = decode(model.contract, [clip] * 3, prompts, end)
    assert [one.tokens for one in together] == [decode(model.contract, [clip], p, end)[0].tokens for p in prompts]


def test_only_the_language_differs_between_prompts(demo: Transcriber) -> None:
    """By the prompt of the reference: the fifth and the sixth token of ten."""
    german, french = (demo._model.vocabulary.prompt(code, itn=True) for code in ("de", "fr"))
    assert [i for i in range(10) if german[i] != french[i]] == [4, 5]


@pytest.mark.parametrize(("seconds", "n"), [(0.1, 2), (1, 4), (2.5, 10), (4, 16), (35, 16)])
def test_tokens_that_can_have_been_said(seconds: float, n: int) -> None:
    """By hand: 4 a second, at least 2, at most 16."""
    assert detect.n_compared(seconds) == n


def test_probabilities() -> None:
    """By hand: e^1 : e^0 : e^0; and with no other language."""
    np.testing.assert_allclose(detect.probabilities(np.array([1, 0, 0])), np.array([np.e, 1, 1]) / (np.e + 2))
    np.testing.assert_allclose(detect.probabilities(np.array([0.0, 0.0, -inf])), [0.5, 0.5, 0])


# ---- what waits: evidence by script, in the order of the pieces


SURE, UNSURE, NOTHING = np.array([0.0, 5, -5]), np.array([0.0, 0.5, -5]), np.zeros(3)
CLIP = Clip(1.0, {})


def scripted_finder(demo: Transcriber, script: Sequence[np.ndarray], per: str = "recording") -> detect._Finder:
    """Of "en" and "fr", whose evidence comes from the script."""
    found = detect.finder(demo._model, "en,fr", per, lambda code: [0, 1] if code == "en" else [0, 2], 4)()
    assert isinstance(found, detect._Finder)
    rest = iter(script)
    found._heard = lambda clip: next(rest)  # type: ignore[method-assign]
    return found


def test_pieces_wait_until_it_is_sure(demo: Transcriber) -> None:
    """By hand: 0.5 and 5 of evidence for French are 1 / (1 + e^-5.5) = 0.996; nobody is listened to after that."""
    languages = scripted_finder(demo, [UNSURE, SURE])
    assert languages([CLIP], 0) is None
    spoken = languages([CLIP, CLIP], 3)
    assert spoken is not None
    assert [(one.language, one.prompt, one.doubt) for one in spoken] == [("fr", [0, 2], "")] * 2
    assert spoken[0].probability == pytest.approx(1 / (1 + np.exp(-5.5)), abs=1e-3)
    assert languages([CLIP], 0) == spoken[:1]


@pytest.mark.parametrize(("n_clips", "waited_s"), [(1, inf), (1, 30.0), (4, 0.0)])
def test_they_wait_so_long_and_no_longer(demo: Transcriber, n_clips: int, waited_s: float) -> None:
    """By hand: to the recording's end, for 30 s, or until there are 4; what is not sure is said, once, with both."""
    languages = scripted_finder(demo, [UNSURE / 4] * 8)
    assert all(languages([CLIP] * n, 0) is None for n in range(1, n_clips))
    spoken = languages([CLIP] * n_clips, waited_s)
    assert spoken is not None
    french = 1 / (1 + np.exp(-0.125 * n_clips) + np.exp(-1.375 * n_clips))
    assert spoken[0].probability == pytest.approx(french, abs=1e-6)
    english = french * np.exp(-0.125 * n_clips)
    assert spoken[0].doubt == f"the language is not sure: French ({french:.2f}) or English ({english:.2f})"
    assert [one.doubt for one in spoken[1:]] == [""] * (n_clips - 1)
    later = languages([CLIP], inf)
    assert later is not None
    assert later[0].doubt == ""


def test_pieces_without_text_tell_nothing(demo: Transcriber) -> None:
    """By construction: not even that it is unsure; they are no pieces of the four."""
    languages = scripted_finder(demo, [NOTHING] * 5 + [SURE])
    for _ in range(5):
        spoken = languages([CLIP], inf)
        assert spoken is not None
        assert (spoken[0].language, spoken[0].probability, spoken[0].doubt) == (None, None, "")
    spoken = languages([CLIP], 0)
    assert spoken is not None
    assert spoken[0].language == "fr"


def test_they_wait_for_no_more_memory_either(demo: Transcriber) -> None:
    """By construction: four pieces that tell nothing are decoded all the same; each takes 60 MB at full size."""
    languages = scripted_finder(demo, [NOTHING] * 4)
    assert [languages([CLIP] * n, 0) is None for n in range(1, 5)] == [True, True, True, False]


def test_none_of_the_candidates(demo: Transcriber) -> None:
    languages = scripted_finder(demo, [np.array([1.0, 0, 3])])
    spoken = languages([CLIP], inf)
    assert spoken is not None
    assert spoken[0].doubt.endswith("English (0.11) or French (0.04), or none of en, fr")
    languages = scripted_finder(demo, [np.array([1.0, -3, 0.5])])  # likelier than the second
    spoken = languages([CLIP], inf)
    assert spoken is not None
    assert spoken[0].doubt.endswith("English (0.62) or French (0.01), or none of en, fr")


def test_each_phrase_by_itself(demo: Transcriber) -> None:
    languages = scripted_finder(demo, [SURE, SURE[[1, 0, 2]], UNSURE], "phrase")
    spoken = languages([CLIP] * 3, 0)
    assert spoken is not None
    assert [one.language for one in spoken] == ["fr", "en", "fr"]
    assert [bool(one.doubt) for one in spoken] == [False, False, True]


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(("sure_at", "first_out"), [(0, 1), (1, 2), (2, 3), (9, 4)])
def test_nothing_is_lost(sure_at: int, first_out: int, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: seven phrases; those before it is sure come together, at the latest with the fourth."""
    transcriber = Transcriber(batch_size=batch_size)
    script = iter([SURE if i == sure_at else UNSURE / 9 for i in range(9)])
    monkeypatch.setattr(detect._Finder, "_heard", lambda self, clip: next(script))
    recording = transcriber.recording(16000, language="en,fr", pauses=Pauses(), skip_silence=False)
    phrase = np.concatenate([SPOKEN[:16000], np.zeros(11200, np.float32)])
    counts, segments = [], list[Segment]()
    for _ in range(7):
        segments += recording.push(phrase)
        counts.append(len(segments))
    segments += recording.finish()
    assert next(count for count in counts if count) == first_out
    assert [segment.end for segment in segments[:-1]] == [segment.start for segment in segments[1:]]
    assert segments[-1].end == pytest.approx(7 * len(phrase) / 16000)
    assert {segment.language for segment in segments if not segment.silent} == {"fr"}
    assert len(recording.warnings) == (sure_at > 3)


def test_it_is_decided_at_the_end(demo: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording that ends before it is sure: its pieces are there, and the warning names the first."""
    monkeypatch.setattr(detect._Finder, "_heard", lambda self, clip: UNSURE / 9)
    phrase = np.concatenate([SPOKEN[:16000], np.zeros(11200, np.float32)])
    found = demo.transcribe(np.tile(phrase, 2), rate=16000, language="en,fr", pauses=Pauses(), skip_silence=False)
    assert found.segments[-1].end == pytest.approx(3.4)
    assert {segment.language for segment in found.segments} == {"fr"}
    assert re.fullmatch(
        r"0:00 to 0:0\d: the language is not sure: French \(0.5\d\) or English \(0.4\d\)", *found.warnings
    )


def test_what_waits_passes_by_the_clock(demo: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 1 s of sound, sent in no time, waits for 30 s of nothing from its end on. Where the silence is sent, the
    phrase has half a pause of it, and a silence is no piece before it ends: it waits for 30 s from 1.3 s on."""
    monkeypatch.setattr(detect._Finder, "_heard", lambda self, clip: UNSURE / 9)
    now = 100.0
    monkeypatch.setitem(Recording._cut.__globals__, "monotonic", lambda: now)
    sound, silence = SPOKEN[:16000], np.zeros(1600, np.float32)
    waits = demo.recording(16000, language="en,fr", pauses=Pauses())
    assert waits.push(sound) == []
    for passed_s, n_segments in (2.0, 0), (30.9, 0), (31.1, 1):
        now = 100 + passed_s
        assert len(waits.push(silence[:0])) == n_segments
    sent = demo.recording(16000, language="en,fr", pauses=Pauses())
    assert sent.push(sound) == []
    n_pushed = next(n for n in range(1, 400) if sent.push(silence))
    assert n_pushed == pytest.approx(303, abs=1)
    assert len(sent.warnings) == 1


def test_ctrl_c_loses_none_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: the third piece is being encoded, and the two before it wait."""
    transcriber = Transcriber()
    monkeypatch.setattr(detect._Finder, "_heard", lambda self, clip: UNSURE / 9)
    encode, clips = transcriber._model.contract.encode, list[int]()

    def interrupted(samples: np.ndarray) -> Clip:
        clips.append(len(samples))
        if len(clips) == 3:
            raise KeyboardInterrupt
        return encode(samples)

    transcriber._model.contract.encode = interrupted  # type: ignore[method-assign]
    phrase = np.concatenate([SPOKEN[:16000], np.zeros(11200, np.float32)])
    options = {"rate": 16000, "language": "en,fr", "pauses": Pauses(), "skip_silence": False}
    found: list[Segment] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(transcriber.segments(np.tile(phrase, 4), **options))  # type: ignore[arg-type]
    assert len(found) == 2


def test_ctrl_c_makes_nothing_surer(demo: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while it is decoded as what was found, a piece is decoded as that, not heard for a second time."""
    monkeypatch.setattr(detect._Finder, "_heard", lambda self, clip: UNSURE)
    phrase = SPOKEN[:16000]
    expected = demo.transcribe(phrase, rate=16000, language="en,fr")
    names, calls = Recording._decode.__globals__, list[int]()

    def interrupted(*args: object, decode=names["decode"]) -> object:
        calls.append(0)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return decode(*args)

    monkeypatch.setitem(names, "decode", interrupted)
    audio, found = open_array(phrase, 16000), list[Segment]()
    with pytest.raises(KeyboardInterrupt):
        found.extend(demo.segments(audio, language="en,fr"))
    assert tuple(found) == expected.segments
    assert tuple(audio.warnings) == expected.warnings != ()


# ---- who are the candidates


def test_one_candidate_is_used(demo: Transcriber) -> None:
    expected = demo.transcribe(SAMPLE)
    for language in ["en"], ("en", "en"), "en,en":
        assert demo.transcribe(SAMPLE, language=language) == expected


@pytest.mark.parametrize(
    ("language", "per", "said"),
    [
        ("en,it", "recording", "language 'it' is not among this model's: de, en, es, fr"),
        (["en", "German"], "recording", "language 'German' is not among .*; did you mean 'de'?"),
        ("auto,en", "recording", "language is 'auto,en'; it must be a code, \"auto\" alone, "),
        ("en,", "recording", "language is 'en,'; it must be a code, "),
        ((), "recording", r'language is \(\); it must be a code, "auto" alone, "en,de" or a list of codes'),
        ("en", "phrase", 'language_per is "phrase", but en is the only candidate: name several, or "auto"'),
        ("auto", "word", 'language_per is \'word\'; it must be "recording" or "phrase"'),
    ],
)
def test_wrong_use(demo: Transcriber, language: object, per: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        demo.recording(16000, language=language, language_per=per)  # type: ignore[arg-type]


def test_auto_is_what_the_model_was_trained_on(tmp_path: Path) -> None:
    """By config.json, as of a checkpoint that was trained further; by the vocabulary where nothing tells, or where what
    is told is not in it."""
    folder = write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16)
    model = load_model(folder)
    assert detect.candidates(model, "auto") == ["en", "fr"]
    for supported, expected in (["fr"], ["fr"]), (["fr", "it"], ["fr"]), (["it"], ["en", "fr"]), ("fr", ["en", "fr"]):
        (folder / "config.json").write_text(json.dumps({"supported_languages": supported}))
        assert detect.candidates(model, "auto") == expected
    (folder / "config.json").write_text(json.dumps({"supported_languages": ["fr"]}))
    for per in "recording", "phrase":
        found = Transcriber(folder).transcribe(wav(32767 * beep()), language="auto", language_per=per)
        assert found.language == "fr"


def test_the_exporter_keeps_what_the_checkpoint_says(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "checkpoint", Shape(1, 64, 4, 128, 16, 9, 128, 1, 128, 4, 96, 48, 300))
    config = json.loads((tmp_path / "checkpoint/config.json").read_text())
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(config | {"supported_languages": ["zh", "en"]}))
    export(tmp_path / "checkpoint", tmp_path / "model")
    assert detect.candidates(load_model(tmp_path / "model"), "auto") == ["en", "zh"]  # in the runtime's order


def test_what_people_call_languages() -> None:
    """By hand."""
    assert language_code("English,de-AT, Français") == "en,de,fr"
    assert language_code("AUTO") == "auto"
    names = {
        "ar": "Arabic",
        "de": "German",
        "el": "Greek",
        "nl": "Dutch",
        "vi": "Vietnamese",
        "zh": "Chinese",
        "xx": "xx",
    }
    assert {code: language_name(code) for code in names} == names


# ---- constants


def test_constants_of_the_embedded_model(demo: Transcriber) -> None:
    found = detect.calibration(demo._model)
    assert found is not None
    assert found._asdict() == json.loads((DEMO_FOLDER / detect.CALIBRATION).read_text())


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", '{"temperature": 0, "other": -1}', '{"temperature": 1, "other": 0.5}'),
        '{"temperature": 1, "other": NaN}',
    ],
)
def test_damaged_constants(tmp_path: Path, text: str) -> None:
    folder = write_model(tmp_path, [C] * 9 + [A, B, END], max_positions=16)
    (folder / "language.json").write_text(text)
    with pytest.raises(ModelError, match=r"language\.json: "):
        Transcriber(folder).recording(16000, language="auto")


# ---- how it is told


def test_silence_has_no_language(demo: Transcriber, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(np.zeros(32000)))
    found = demo.transcribe(tmp_path / "a.wav", language="auto")
    assert (found.language, found.language_probability, found.text) == (None, None, "")
    assert found.segments[0].language is None
    assert main(["-l", "auto", str(tmp_path / "a.wav")]) == 0
    assert f"{tmp_path / 'a.wav'}: language: unknown, nothing was heard\n" in capsys.readouterr().err


def test_noise_has_no_language(demo: Transcriber) -> None:
    """The embedded model has learnt to write nothing for it, in any language."""
    found = demo.transcribe(SPOKEN, rate=16000, language="auto", skip_silence=False)
    assert (found.text, found.language, found.segments[0].silent) == ("", None, False)


def test_the_command_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-l", "German, auto", str(SAMPLE)]) == 2
    assert "language is 'de,auto'; it must be a code, \"auto\" alone, " in capsys.readouterr().err
    assert main(["-l", "auto", "-f", "json", str(SAMPLE)]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert (record["text"], record["language"]) == (SAMPLE_TEXT, "en")
    assert record["language_probability"] == record["segments"][0]["language_probability"] > 0.9
    assert record["segments"][0]["language"] == "en"
    assert f"{SAMPLE}: language: English ({record['language_probability']:.2f})\n" in err
    assert main(["-l", "de,fr", "-f", "srt", "--language-per", "phrase", str(SAMPLE)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1\n00:00:00,")
    assert "the language is not sure: " in err


def test_a_model_without_constants_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script says "a b" in each language alike: both have a half."""
    folder = write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16)
    (tmp_path / "a.wav").write_bytes(wav(32767 * beep()))
    assert main(["-m", str(folder), "-l", "auto", str(tmp_path / "a.wav")]) == 0
    err = capsys.readouterr().err
    assert "language: English (0.50, not calibrated for this model)\n" in err
    assert "0:00 to 0:00: the language is not sure: English (0.50) or French (0.50)" in err


def test_a_transcript_of_several_languages() -> None:
    """By hand: 3 s of Japanese, 1 s at 0.9 and 2 s at 0.6; 2 s of English; text is joined as each is written."""

    def segment(start: float, end: float, text: str, language: str | None, probability: float | None) -> Segment:
        return Segment(start, end, text, (), -0.1, None, False, False, False, language, probability)

    spoken = [segment(0, 1, "か", "ja", 0.9), segment(1, 3, "tea please", "en", 1.0), segment(3, 5, "が", "ja", 0.6)]
    found = Transcript.of([*spoken, segment(5, 60, "", None, None)], None)
    assert (found.text, found.language) == ("か tea pleaseが", "ja")
    assert found.language_probability == pytest.approx((0.9 + 2 * 0.6) / 3)


@pytest.mark.folder
def test_nothing_of_it_is_loaded_unless_asked_for() -> None:
    code = f"import sys, cohere_lite; cohere_lite.Transcriber().transcribe({str(SAMPLE)!r}); "
    code += "print([name for name in sys.modules if name.endswith(('extras.detect', 'extras.languages'))])"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- how well


@needs_espeak
def test_held_out_sentences(demo: Transcriber) -> None:
    """By record (tools/language, 600 sentences): 99 % are right, and all of those with a probability of 0.9."""
    from tools.demo.heldout import heldout

    right, sure = [], []
    for code in demo.languages:
        for samples, _, _ in heldout(code, 8):
            found = demo.transcribe(samples, rate=16000, language="auto")
            right.append(found.language == code)
            if (found.language_probability or 0) >= detect.SURE:
                sure.append(found.language == code)
                assert found.warnings == ()
    assert sum(right) >= len(right) - 1
    assert all(sure)
    assert len(sure) > len(right) / 2


@needs_espeak
def test_phrases_of_two_languages(demo: Transcriber) -> None:
    """By construction: an English and a German sentence with a second between them."""
    from tools.demo.heldout import heldout

    (english, said, _), (german, gesagt, _) = (next(heldout(code, 1)) for code in ("en", "de"))
    both = np.concatenate([english, np.zeros(16000, np.float32), german])
    found = demo.transcribe(both, rate=16000, language="auto", language_per="phrase", pauses=Pauses())
    spoken = [(segment.language, segment.text) for segment in found.segments if segment.text]
    assert [code for code, _ in spoken] == ["en", "de"]
    assert spoken == [("en", said), ("de", gesagt)]


@needs_espeak
def test_another_language_is_not_sure(demo: Transcriber) -> None:
    """By record: of other languages at most one in thirty has a probability of 0.9."""
    from tools.language import negatives

    others = [samples for _, condition, _, _, samples in negatives(["en"]) if condition == "other language"][::8]
    found = [demo.transcribe(samples, rate=16000, language="auto") for samples in others]
    assert sum((one.language_probability or 0) >= detect.SURE for one in found) <= len(found) / 10


def test_recordings_that_cannot_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By hand: of six, one is no sound, one longer than the model takes, one not a number, one without a text; the
    two others are the two halves, in two conditions and four lengths."""
    from tools.language import from_data, open_all

    floats = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 64036, b"WAVEfmt ", 16, 3, 1, 16000, 64000, 4, 32, b"data", 64000)
    not_numbers = floats + np.full(16000, np.nan, "<f4").tobytes()
    sounds = {"b": b"RIFF", "c": wav(np.full(16000 * 35, 100)), "d": not_numbers}
    for name in "abcdef":
        (tmp_path / f"{name}.wav").write_bytes(sounds.get(name, SAMPLE.read_bytes()))
        (tmp_path / f"{name}.txt").write_text("" if name == "e" else SAMPLE_TEXT)
    clips = [*from_data(open_all({"en": str(tmp_path)}, 10), 35.0)]
    assert [(language, half) for language, _, _, half, _ in clips] == [("en", 0)] * 8 + [("en", 1)] * 8
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "en: 1 left out: an empty reference"
    assert said[1:] == [
        f"en: 1 left out: {tmp_path / 'b.wav'}: a WAV file that ends after 4 bytes",
        "en: 1 left out: longer than the 35 s that the model takes at once",
        "en: 1 left out: holds what is no number",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "en:X"], "--data 'en:X': name the language first, as de=SPEC"),
        (["--data", "en:X:text=said"], "--data 'en:X:text=said': name the language first, as de=SPEC"),
        (["--data", "en=nowhere"], "nowhere is neither a file nor a folder here, nor a name on the hub"),
        (["--data", "it={said}"], "the model knows de, en, es, fr; not it"),
        (["--write", "nowhere"], "--write nowhere is no folder: name the model's"),
        (["--model", "nowhere"], "nowhere does not exist"),
    ],
)
def test_options_are_wrong_before_anything_is_measured(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools import language

    monkeypatch.setattr(language, "hear", None)
    (tmp_path / "a.wav").write_bytes(SAMPLE.read_bytes())
    (tmp_path / "a.txt").write_text(SAMPLE_TEXT)
    with pytest.raises(SystemExit) as raised:
        language.main([argument.format(said=tmp_path) for argument in arguments])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_constants_are_fitted() -> None:
    """By construction: a score that is 0.1 ln 3 above the other is of the language spoken three times in four, so that
    a temperature of 0.1 is the likeliest, or the next of the grid, 10 % away; negatives score lower."""
    from tools.language import Heard, fit

    def heard(language: str, *scores: float) -> Heard:
        return Heard(language, "clean", "whole", 0, 4.0, [1, 1], [[score] for score in scores], np.zeros(2))

    high, low = -0.1, -0.1 - 0.1 * np.log(3)
    clips = [heard("en", high, low)] * 3 + [heard("de", high, low)] + [heard("de", low, high)] * 3
    clips += [heard("en", low, high)] + [heard("it", -1.2, -1.2)] * 8
    found = fit(clips, ["en", "de"])
    assert found.temperature == pytest.approx(0.1, rel=0.12)
    assert -1.2 < found.other < low
