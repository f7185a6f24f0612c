"""Times of words: CTM files and TextGrids as people write them, and how far off a model's times are from them."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets_made import kaldi, write

pytest.importorskip("jiwer")
pytest.importorskip("matplotlib")
pytest.importorskip("kaldialign")
pytest.importorskip("whisper_normalizer")
pytest.importorskip("rich")

from cohere_lite.evaluate import __main__ as command
from cohere_lite.evaluate.errors import EvaluateError
from cohere_lite.evaluate.figures import WordStarts, make_figures
from cohere_lite.evaluate.layouts.layout import Utterance
from cohere_lite.evaluate.models import Model
from cohere_lite.evaluate.noise import CLEAN
from cohere_lite.evaluate.run import Plan, State
from cohere_lite.evaluate.table import markdown, notes
from cohere_lite.evaluate.tally import tally
from cohere_lite.evaluate.textgrid import Word, read_textgrid
from cohere_lite.evaluate.times import start_errors_ms
from cohere_lite.evaluate.utterances import Data, open_data
from cohere_lite.evaluate.worker import open_ours
from cohere_lite.model import DEMO_FOLDER

pytestmark = [pytest.mark.folder, pytest.mark.reference]  # what the extra `evaluate` installs is there in CI
SAMPLE, DEMO = DEMO_FOLDER / "sample.wav", str(DEMO_FOLDER)
SAMPLE_WORDS = {
    **{"Turn": 0.13, "on": 0.4, "the": 0.54, "light": 0.7},
    **{"in": 1.36, "the ": 1.48, "living": 1.58, "room": 1.86},
}


def said(folder: Path, *names: str) -> Path:
    """Recordings with a text beside each, of which nothing but the names matters."""
    for name in names:
        write(folder / f"{name}.wav", b"")
        write(folder / f"{name}.txt", "turn on the light")
    return folder


def times(spec: Path) -> dict[str, tuple | None]:
    return {utterance.id: utterance.word_times for utterance in open_data(str(spec)).utterances}


def test_one_ctm_file(tmp_path: Path) -> None:
    """By hand: a comment, an empty line, both channels in the order of their starts, with a confidence, NA, and
    without; of a, and of b by its path; of c there is none; x is not there."""
    text = """\
;; NAME CHANNEL START DURATION WORD CONFIDENCE
a 1 0.10 0.20 turn 0.9
a 1 1.00 0.50 light NA

a 2 0.40 0.2 on
sub/b B 0 1e-1 Yes!
x 1 0.5 0.1 no
"""
    write(said(tmp_path, "a", "sub/b", "c") / "any.ctm", text)
    data = open_data(str(tmp_path))
    assert {u.id: u.word_times for u in data.utterances} == {
        "a": (("turn", 0.1), ("on", 0.4), ("light", 1.0)),
        "c": None,
        "sub/b": (("Yes!", 0.0),),
    }
    assert data.left_out == {"word times of what is not there": 1}


def test_ctm_files_beside_the_recordings(tmp_path: Path) -> None:
    """Their names are those of the recordings, without folders."""
    said(tmp_path, "one/a", "two/b")
    write(tmp_path / "one" / "a.ctm", "a 1 0.1 0.2 turn\n")
    write(tmp_path / "two" / "b.ctm", "b 1 0.3 0.2 turn\n")
    assert times(tmp_path) == {"one/a": (("turn", 0.1),), "two/b": (("turn", 0.3),)}


def test_kaldi_s_segments(tmp_path: Path) -> None:
    """By hand: Kaldi's get_ctm.sh counts from the recording's beginning. The segments are 0.10 to 0.45 and 0.5 to 1.0;
    a word belongs to that which has its middle. Training data have other files."""
    folder = kaldi(tmp_path)
    write(folder / "test" / "ctm", "call1 1 0.09 0.11 GOOD\ncall1 1 0.25 0.24 MORNING\ncall1 1 0.75 0.2 HELLO\n")
    assert times(folder) == {
        "spk1-call1-1": (("GOOD", 0.0), ("MORNING", pytest.approx(0.15))),
        "spk2-call1-2": (("HELLO", pytest.approx(0.25)),),
    }
    write(folder / "test" / "ctm", "spk2-call1-2 1 0.25 0.2 HELLO\n")  # an utterance's own, from its beginning
    assert times(folder) == {"spk1-call1-1": None, "spk2-call1-2": (("HELLO", 0.25),)}


def test_parts_that_have_the_recording_s_name(tmp_path: Path) -> None:
    """Then the times are the recording's: of the second from 1.0 s to 2.0 s."""
    write(tmp_path / "a.wav", b"")
    write(tmp_path / "all.csv", "id,audio,text,start,end\na,a.wav,on,0,1\na,a.wav,light,1,2\n")
    write(tmp_path / "all.ctm", "a 1 0.3 0.1 on\na 1 1.25 0.5 light\n")
    assert times(tmp_path / "all.csv") == {"a": (("on", 0.3),), "a#2": (("light", 0.25),)}


def test_the_ctm_file_of_a_list(tmp_path: Path) -> None:
    """It has the list's name; without that, all that are there."""
    write(tmp_path / "clips" / "a.wav", b"")
    write(tmp_path / "test.csv", "audio,text\nclips/a.wav,turn on\n")
    write(tmp_path / "other.ctm", "a 1 0.2 0.1 turn\n")
    assert [*times(tmp_path / "test.csv").values()] == [(("turn", 0.2),)]
    write(tmp_path / "test.ctm", "a 1 0.3 0.1 turn\n")
    assert [*times(tmp_path / "test.csv").values()] == [(("turn", 0.3),)]


@pytest.mark.parametrize(
    "line",
    ["a 1 0.1 turn", "a 1 0.1 0.2 New York", "a 1 -0.1 0.2 turn", "a 1 nan 0.2 turn", "a 1 0,1 0.2 turn 0.5 lex"],
)
def test_lines_that_are_none(line: str, tmp_path: Path) -> None:
    write(said(tmp_path, "a") / "a.ctm", f";; a comment\n{line}\n")
    with pytest.raises(EvaluateError) as raised:
        open_data(str(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path}: a.ctm, line 2: {line!r}; a line of a CTM file is: NAME CHANNEL START DURATION WORD [CONFIDENCE]"
    )


def test_two_files_for_one(tmp_path: Path) -> None:
    """Nobody can say which is right."""
    write(said(tmp_path, "a") / "a.ctm", "a 1 0.1 0.2 turn\n")
    write(tmp_path / "b.ctm", "a 1 0.3 0.2 turn\n")
    with pytest.raises(EvaluateError, match=r"a\.ctm and b\.ctm both have word times of a: leave one"):
        open_data(str(tmp_path))


def test_two_recordings_for_one(tmp_path: Path) -> None:
    """Unless it is the id of one."""
    write(said(tmp_path, "one/a", "two/a") / "all.ctm", "a 1 0.1 0.2 turn\n")
    with pytest.raises(EvaluateError, match=r"word times of a may be of .*one.a\.wav or of .*two.a\.wav"):
        open_data(str(tmp_path))
    assert times(said(tmp_path, "a")) == {"a": (("turn", 0.1),), "one/a": None, "two/a": None}


LONG = """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "t"
    item [2]:
        class = "IntervalTier"
        name = "Words"
        xmin = 0
        xmax = 2.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "d""accord"
        intervals [3]:
            xmin = 0.5
            xmax = 2.5
            text = "größer"
    item [3]:
        class = "TextTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1.5
            mark = "bell"
"""
SHORT = """\
File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"TextTier"
"bells"
0
2.5
1
1.5
"bell 7"
"IntervalTier"
"said by ""Ann"" "
0
2.5
3
0
0.25
" "
0.25
0.5
"d""accord" ! a comment "
0.5
2.5
"größer"
"""
GRID = [Word('d"accord', 0.25, 0.5), Word("größer", 0.5, 2.5)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize(
    "text", [LONG.replace("\n", " \n"), SHORT, SHORT.replace("\n", "\r\n")], ids=["long", "short", "crlf"]
)
def test_textgrids(text: str, encoding: str, tmp_path: Path) -> None:
    """By hand, by Praat's manual (TextGrid file formats): the tier of intervals by its name, in any capitals; the only
    one, in the short form. Praat's UTF-16 has the high byte first, behind a mark, and its long lines end in a space."""
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    write(tmp_path / "a.TextGrid", mark + text.encode(encoding))
    assert read_textgrid(tmp_path / "a.TextGrid") == GRID


def test_a_textgrid_beside_a_recording(tmp_path: Path) -> None:
    write(said(tmp_path, "a", "b") / "a.TextGrid", SHORT)
    assert times(tmp_path) == {"a": (('d"accord', 0.25), ("größer", 0.5)), "b": None}
    write(tmp_path / "any.ctm", "a 1 0.1 0.2 turn\n")
    with pytest.raises(EvaluateError, match=r"any\.ctm and .*a\.TextGrid both have word times of a: leave one"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            LONG.replace('"Words"', '"mots"'),
            "needs one tier of intervals with the name 'words'; there are: 'phones', 'm",
        ),
        (SHORT.replace("IntervalTier", "TextTier"), ", line 21: 0.25 in place of a text"),
        (SHORT[: SHORT.index('"größer"')], ", line 27: the TextGrid ends in place of a text"),
        (SHORT.replace("0.25\n0.5", "0.6\n0.5"), ", line 24: an end, 0.5 s, before its start, 0.6 s"),
        (SHORT.replace('"größer"', '"größer'), ', line 28: "größer in place of a text'),
        (SHORT.replace("<exists>\n2", "<exists>\n1e999"), ", line 7: inf in place of the number of tiers"),
        (SHORT.replace('"TextGrid"', '"Pitch"'), ", line 2: it holds 'Pitch', not 'TextGrid'"),
        ("words", ", line 1: the TextGrid ends in place of the file's type"),
        ("ooBinaryFile\x08TextGrid", " is a binary TextGrid: save it as a text file"),
    ],
)
def test_textgrids_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.TextGrid", text)
    with pytest.raises(EvaluateError) as raised:
        read_textgrid(path)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(path))


def test_a_textgrid_of_no_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.TextGrid", SHORT.encode("latin-1"))
    with pytest.raises(EvaluateError, match=r"is neither UTF-8 nor UTF-16: .* at byte "):
        read_textgrid(path)


def test_errors_by_hand() -> None:
    """Of words that are alike but for capitals and marks: "the" came 20 ms early, "light" 30 ms late. What was not
    recognised, or not said, and Kaldi's silence, which is not the word "eps", count for nothing."""
    known = [("turn", 0.1), ("<eps>", 0.3), ("on", 0.4), ("the", 0.5), ("light", 0.7)]
    heard = [("Torn", 0.1), ("eps", 0.2), ("the", 0.48), ("-", 0.5), ("big", 0.6), ("light.", 0.73)]
    assert start_errors_ms(known, heard) == pytest.approx([-20, 30])
    assert start_errors_ms(known, []) == []


def model(name: str) -> Model:
    return Model(name, name, ("en",), "", 2_000_000, {"precision": "int8"}, open_ours, {})


def line(name: str, which: str, words: list | None, **changes: Any) -> dict:
    return {
        **{"data": "set", "condition": "clean", "id": name, "model": which, "language": "en", "timed": True},
        **{"reference": "", "speaker": None, "recording": None, "seconds": 2.0, "sound_warnings": []},
        **{"hypothesis": "yes", "tokens": [1], "avg_logprob": -0.1, "segments": 1, "silent": 0, "looped": 0},
        **{"truncated": 0, "warnings": [], "time_s": 0.5, "peak_mb": 100.0, "words": words, **changes},
    }


def test_figures_by_hand(tmp_path: Path) -> None:
    """Errors of -40, 30, 20 ms: half are within 30, and 95 % within 30 + 0.9 * 10. The fourth word was not recognised.
    Of c the second model has no result, of d the sound is too short, of e nobody has noted any times; the second
    model tells none."""
    known = {"a": (("one", 0.1), ("two", 0.5), ("six", 0.6)), "b": (("three", 1.0),), "c": (("four", 1.0),)}
    known["d"] = (("five", 2.0),)
    utterances = [Utterance(n, "yes", "en", partial(Path, "none"), word_times=known.get(n)) for n in "abcde"]
    plan = Plan([Data("set", "set", utterances, 5, None)], [CLEAN], [model("one"), model("two")])
    found = {"a": [["One,", 0.06], ["two", 0.53]], "b": [["three", 1.02]], "c": [["four", 1.9]], "d": [["five", 1.0]]}
    lines = [line(name, "one", words) for name, words in found.items()]
    lines += [line(name, "two", None, **({"error": "died"} if name == "c" else {})) for name in found]
    lines += [line("e", which, None, timed=False) for which in ("one", "two")]
    lines += [line("a", "one", None, timed=False)]  # from before the times were noted
    state = State(tmp_path / "run.jsonl")
    for each in lines:
        state.add(each)
    counted, peaks_mb = tally(plan, state.path, tmp_path / "utterances.jsonl")
    figures = make_figures(plan, state, counted, peaks_mb, {"seed": 0, "samples": 4, "punctuation": True})
    (starts,) = figures.word_starts
    assert starts == WordStarts("set", "clean", "one", 3, 4, pytest.approx(30), pytest.approx(39))
    assert "| set | clean | one | 3 of 4 | 30 | 39 |" in markdown(figures)
    assert json.loads(figures.as_json())["word_starts"][0]["words"] == 3
    said = [note for note in notes(figures) if "ord times" in note]
    assert said == [
        "Without word times: two; conversion adds them (python -m cohere_lite.export).",
        "set: word times of 1 utterances left out: their sound ends before their words.",
    ]


def test_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By hand: times of the sample's eight words, read off its loudness, to about 0.1 s; the embedded model, and
    a copy without the graph that tells them. A run without times goes on with them."""
    bare = Path(shutil.copytree(DEMO_FOLDER, tmp_path / "bare"))
    (bare / "align.int8.onnx").unlink()
    folder, out = tmp_path / "said", tmp_path / "out"
    folder.mkdir()
    shutil.copy(SAMPLE, folder / "a.wav")
    write(folder / "a.txt", "Turn on the light in the living room.")
    arguments = [DEMO, str(bare), "--data", str(folder), "--out", str(out)]
    assert command.main(arguments) == 0
    assert "Starts of words" not in capsys.readouterr().out
    write(folder / "a.ctm", "".join(f"a 1 {start} 0.1 {word}\n" for word, start in SAMPLE_WORDS.items()))
    assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "- Without word times: bare; conversion adds them" in shown
    (starts,) = json.loads((out / "figures.json").read_text(encoding="utf-8"))["word_starts"]
    assert (starts["model"], starts["words"], starts["of_words"]) == ("demo", 8, 8)
    assert starts["median_ms"] < 150
    assert f"| said | clean | demo | 8 of 8 | {starts['median_ms']:.0f} |" in shown
    assert "Starts of words" in (out / "report.html").read_text(encoding="utf-8")
