"""Transcripts in each format: written out by hand, checked by the formats' rules for any text, and read by others."""

import json
import re
import unicodedata
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cohere_lite.errors import OptionError
from cohere_lite.extras.formats import render, render_json
from cohere_lite.transcribe import Segment, Transcript
from cohere_lite.transcript import Word

STYLES = ("txt", "lines", "tsv", "srt", "vtt")


def spoken(start, end, text, channel=None, **fields):
    fields = {"tokens": (7, 8), "avg_logprob": -0.25, "silent": False, "truncated": False, "looped": False} | fields
    return Segment(start=start, end=end, text=text, channel=channel, **fields)


def silence(start, end, channel=None):
    return spoken(start, end, "", channel, tokens=(), avg_logprob=None, silent=True)


def rendered(style, segments, language="en"):
    return "".join(render(style, segments, language))


class Source:
    """Segments, counted as they are asked for."""

    def __init__(self, segments):
        self.segments, self.n_taken = segments, 0

    def __iter__(self):
        for segment in self.segments:
            self.n_taken += 1
            yield segment


def taken_before(style, segments):
    """Of each part of the text, how many segments were asked for before it came."""
    source = Source(segments)
    return [(part, source.n_taken) for part in render(style, source, "en")]


# Any text: what breaks formats, and what scripts there are.
NASTY = ["-->", "&", "&amp;", "<b>", "</v>", "<", "\n", "\r\n", "\n\n", "\u2028", "\x85", "\t", "\0", "\x1b", "\xa0"]
NASTY += ["NOTE", "STYLE", "WEBVTT", "1\n00:00:01,000 --> 00:00:02,000\n", "00:00:01.000 --> 00:00:02.000", "{\\an8}"]
NASTY += [
    "سلام، كيف حالك؟",
    "שלום",
    "\u202e",
    "👩‍👩‍👧",
    "e\u0301",
    "皆さん、こんにちは。",
    "「安녕」",
    "コンピューター",
    "x" * 90,
]
TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(st.one_of(st.sampled_from([*NASTY, " ", "word", "A sentence."]), st.text(max_size=5)), max_size=40).map(
        "".join
    ),
    st.lists(st.sampled_from([*NASTY, "word", "A sentence."]), max_size=60).map(" ".join),
)
DURATIONS = st.one_of(st.floats(0.0004, 0.02), st.floats(0.01, 3), st.floats(3, 35), st.just(0.01))  # seconds


@st.composite
def tracks(draw, channel, texts=TEXTS):
    """The segments of one channel, end to end, from anywhere up to hour 300."""
    start = draw(st.sampled_from([0.0, 0.5, 3599.9996, 360_000.0, 1_080_000.0]))
    stretches = draw(st.lists(st.tuples(DURATIONS, texts), min_size=1, max_size=8))
    edges = list(accumulate((duration for duration, _ in stretches), initial=start))
    return [spoken(*edge, text, channel) for edge, (_, text) in zip(pairwise(edges), stretches, strict=True)]


@st.composite
def split_recordings(draw, texts=TEXTS):
    """Segments of two or three channels, in order of start."""
    segments = [segment for channel in range(draw(st.integers(2, 3))) for segment in draw(tracks(channel, texts))]
    return sorted(segments, key=lambda segment: segment.start)


RECORDINGS = st.one_of(tracks(None), split_recordings())
PATIENT = settings(deadline=None)  # words of thousands of letters take a while


def seen(text):
    """Text without white space and control characters: what no format may lose. An arrow comes through, too."""
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) != "Cc")


# ---- txt, lines


def test_txt():
    """By hand: texts stripped, a space between, blank ones left out, a newline at the end."""
    segments = [spoken(0, 1, "One."), silence(1, 2), spoken(2, 3, " Two. "), spoken(3, 4, " ")]
    assert rendered("txt", segments) == "One. Two.\n"
    assert rendered("txt", [spoken(0, 1, "一。"), spoken(1, 2, "二。")], "zh") == "一。二。\n"
    assert rendered("txt", [silence(0, 1)]) == "\n"


@PATIENT
@given(RECORDINGS, st.sampled_from(["en", "ja"]))
def test_what_is_streamed_is_what_the_transcript_says(segments, language):
    assert rendered("txt", segments, language).removesuffix("\n") == Transcript.of(segments, language).text


def test_txt_comes_with_the_segments():
    segments = [spoken(0, 1, "One."), silence(1, 2), spoken(2, 3, "Two.")]
    assert taken_before("txt", segments) == [("One.", 1), (" Two.", 3), ("\n", 3)]


def test_lines():
    """By hand: a line for each segment with text, as soon as it is there."""
    segments = [spoken(0, 1, "One. "), silence(1, 2), spoken(2, 3, "Two.")]
    assert taken_before("lines", segments) == [("One.\n", 1), ("Two.\n", 3)]


@pytest.mark.parametrize("style", ["txt", "lines"])
def test_channels_have_lines_of_their_own(style):
    segments = [silence(0, 1, 0), spoken(0, 2, "Hello?", 1), spoken(1, 3, "Hi.", 0)]
    assert taken_before(style, segments) == [("[1] Hello?\n", 2), ("[0] Hi.\n", 3)]
    assert rendered(style, [silence(0, 1, 0)]) == ""


# ---- tsv


def test_tsv():
    """By hand: milliseconds, rounded; tabs, newlines and control characters as spaces; nothing for silence."""
    segments = [spoken(0, 1.2344, "One\ttwo\r\nthree\0."), silence(1.2344, 2), spoken(2, 360_000.0006, "Four.")]
    assert rendered("tsv", segments) == "start\tend\ttext\n0\t1234\tOne two three .\n2000\t360000001\tFour.\n"
    segments = [silence(0, 1, 0), spoken(0, 2, "Hello?", 1)]
    assert rendered("tsv", segments) == "start\tend\tchannel\ttext\n0\t2000\t1\tHello?\n"


@PATIENT
@given(RECORDINGS)
def test_tsv_has_a_row_for_each_text(segments):
    rows = [line.split("\t") for line in rendered("tsv", segments).splitlines()]
    with_text = [segment for segment in segments if seen(segment.text)]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [seen(row[-1]) for row in rows[1:]] == [seen(segment.text) for segment in with_text]


# ---- json


def as_json(segments, seconds=0.8, **of):
    return render_json(Transcript.of(segments, "de", **of), file="a.wav", model={"name": "m"}, seconds=seconds)


def test_json():
    """By hand, every character: 2 s of audio in 0.8 s of work."""
    segments = [spoken(0.0, 1.23456, "Grüße ", avg_logprob=-0.123456, language="de"), silence(1.23456, 2.0)]
    assert as_json(segments, warnings=["short"], complete=False) == (
        '{"version": 1, "text": "Grüße", "language": "de", "language_probability": null, "truncated": false, '
        '"file": "a.wav", "duration": 2.0, '
        '"complete": false, "warnings": ["short"], "model": {"name": "m"}, "timing": {"seconds": 0.8, "speed": 2.5}, '
        '"segments": [{"start": 0.0, "end": 1.235, "text": "Grüße ", "tokens": [7, 8], "avg_logprob": -0.1235, '
        '"channel": null, "silent": false, "truncated": false, "looped": false, "language": "de", '
        '"language_probability": null}, '
        '{"start": 1.235, "end": 2.0, "text": "", "tokens": [], "avg_logprob": null, '
        '"channel": null, "silent": true, "truncated": false, "looped": false, "language": null, '
        '"language_probability": null}]}\n'
    )


def test_json_says_what_is_wrong_with_a_segment():
    """By hand."""
    told = json.loads(as_json([spoken(3, 4, "One"), spoken(4, 65, "two", truncated=True)], warnings=["short"]))
    warning = "0:04 to 1:05: the model reached its limit of tokens; words are missing"
    assert (told["truncated"], told["warnings"], told["duration"]) == (True, ["short", warning], 62)


@PATIENT
@given(RECORDINGS)
def test_json_is_one_line_and_keeps_the_text(segments):
    text = as_json(segments)
    assert text.index("\n") == len(text) - 1
    assert [segment["text"] for segment in json.loads(text)["segments"]] == [segment.text for segment in segments]


def test_json_has_no_word_for_nan():
    with pytest.raises(ValueError, match="JSON compliant"):
        as_json([spoken(0, 1, "")], seconds=float("nan"))


def test_a_style_that_is_none():
    with pytest.raises(OptionError, match="style 'docx' is not known; known: txt, lines, tsv, srt, vtt"):
        render("docx", [], "en")


# ---- srt, vtt: by hand


def test_srt():
    """By hand. An arrow would be taken for times; SRT has no way to write "<" otherwise."""
    segments = [spoken(0, 1.5, "Tea & <b>cake</b> --> here."), silence(1.5, 2), spoken(2, 363_725.25, " Thanks. ")]
    assert rendered("srt", segments) == (
        "1\n00:00:00,000 --> 00:00:01,500\nTea & <b>cake</b> - -> here.\n\n"
        "2\n00:00:02,000 --> 101:02:05,250\nThanks.\n\n"
    )


def test_vtt():
    """By hand."""
    segments = [spoken(0, 1.5, "Tea & <b>cake</b>."), silence(1.5, 2), spoken(2, 363_725.25, " Thanks. ")]
    assert rendered("vtt", segments) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.500\nTea &amp; &lt;b&gt;cake&lt;/b&gt;.\n\n"
        "00:00:02.000 --> 101:02:05.250\nThanks.\n\n"
    )


def test_no_speech_at_all():
    assert rendered("srt", [silence(0, 60)]) == ""
    assert rendered("vtt", [silence(0, 60)]) == "WEBVTT\n\n"


def payloads(text, end=60.0):
    """The texts of a segment's cues."""
    return [block.split("\n", 2)[2] for block in rendered("srt", [spoken(0, end, text)]).split("\n\n")[:-1]]


def test_long_text_becomes_cues_of_similar_length_and_time():
    """By hand: 20 words of 5 letters are 119 columns, more than 84; half of them are 59, lines of 29. Both cues have 59
    characters, so half of the time each."""
    line = "abcde abcde abcde abcde abcde"
    assert rendered("srt", [spoken(10, 20, " ".join([line] * 4))]) == (
        f"1\n00:00:10,000 --> 00:00:15,000\n{line}\n{line}\n\n2\n00:00:15,000 --> 00:00:20,000\n{line}\n{line}\n\n"
    )


@pytest.mark.parametrize("mark", [".", ".”", "?", ","])
def test_cues_end_where_sentences_do(mark):
    """By hand: 12 and 8 words of 4 letters are 59 and 39 columns, without the mark. Broken at the mark, 24 and 45 of 84
    columns stay empty: 24² + 45² = 2601, after a comma 42²/2 more: 3483. In the middle, after the tenth word, 35 and 34
    stay empty, and a broken sentence costs 42²: 4145."""
    first, second = " ".join(["aaaa"] * 12) + mark, " ".join(["bbbb"] * 8)
    assert payloads(f"{first} {second}") == [f"{first[:29]}\n{first[30:]}", second]


def test_very_unequal_sentences_are_broken():
    """By hand: of 20 words, the break after the tenth costs 35² + 34² + 42² = 4145; a full stop after the 15th, where
    75 and 24 columns are full, 9² + 60² = 3681; one after the 16th, 80 and 19 columns, 4² + 65² = 4241."""
    words = ["aaaa"] * 20
    assert [payload.count("a") for payload in payloads(" ".join(words))] == [40, 40]
    words[14] += "."
    assert [payload.count("a") for payload in payloads(" ".join(words))] == [60, 20]
    words[14:16] = ["aaaa", "aaaa."]
    assert [payload.count("a") for payload in payloads(" ".join(words))] == [40, 40]


def test_time_is_shared_by_characters():
    """By hand: 60 and 40 characters are 6 and 4 of 10 seconds."""
    first, second = "aaaa " * 11 + "aaaa.", "bbbb " * 7 + "bbbb."
    text = rendered("srt", [spoken(0, 10, f"{first} {second}")])
    assert [(start, end) for start, end, _ in read_cues("srt", text)] == [(0, 6000), (6000, 10000)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("a" * 42, ["a" * 42], id="as much as a line holds"),
        pytest.param(f"{'a' * 40} bb", ["a" * 40, "bb"], id="one column too many"),
        pytest.param("あ" * 21, ["あ" * 21], id="wide characters take two columns"),
        pytest.param("あ" * 22, ["あ" * 11, "あ" * 11], id="between any two of them"),
        pytest.param("あ" * 16 + "。" + "い" * 16, ["あ" * 16 + "。", "い" * 16], id="not before a full stop"),
        pytest.param(
            "あ" * 15 + "「" + "い" * 15 + "」", ["あ" * 15, "「" + "い" * 15 + "」"], id="not after a bracket"
        ),
        pytest.param(
            "あ" * 14 + "コンピューター" + "い" * 14, ["あ" * 14, "コンピューター" + "い" * 14], id="Katakana"
        ),
        pytest.param(
            "안녕하세요 " * 4 + "여러분", ["안녕하세요 안녕하세요", "안녕하세요 안녕하세요 여러분"], id="Korean"
        ),
        pytest.param("x" * 50, ["x" * 25, "x" * 25], id="a word too long"),
        pytest.param(f"{'a' * 25} ! {'b' * 22}", ["a" * 25 + " !", "b" * 22], id="French: not before a mark"),
        pytest.param(f"{'a' * 21} « {'b' * 20} »", ["a" * 21, f"« {'b' * 20} »"], id="French: not after a guillemet"),
        pytest.param(f"« {'a' * 20} », {'b' * 20}", [f"« {'a' * 20} »,", "b" * 20], id="French: nor before one"),
    ],
)
def test_where_lines_end(text, lines):
    """By hand: at most 42 columns, broken as near to the middle as may be, the earlier of two that are as near."""
    assert payloads(text) == ["\n".join(lines)]


def test_less_time_than_cues():
    """By hand: 3 ms for 5 cues of 84 letters: so cues begin after 0, 0.6, 1.2, 1.8 and 2.4 ms, which is at
    0, 0, 1, 1 and 2 ms. Those that begin together are one."""
    line = "a" * 42
    assert rendered("vtt", [spoken(0, 0.003, " ".join([line] * 10)), spoken(0.003, 1, "b")]) == (
        f"WEBVTT\n\n00:00:00.000 --> 00:00:00.001\n{line}\n{line}\n{line}\n{line}\n\n"
        f"00:00:00.001 --> 00:00:00.002\n{line}\n{line}\n{line}\n{line}\n\n"
        f"00:00:00.002 --> 00:00:00.003\n{line}\n{line}\n\n"
        "00:00:00.003 --> 00:00:01.000\nb\n\n"
    )


def test_channels_in_turn():
    """By hand: nothing overlaps, nothing changes."""
    segments = [spoken(0, 2, "Hello?", 0), spoken(2, 3, "Hi & bye.", 1), spoken(3, 4, "What?", 0)]
    assert rendered("srt", segments) == (
        "1\n00:00:00,000 --> 00:00:02,000\n[0] Hello?\n\n"
        "2\n00:00:02,000 --> 00:00:03,000\n[1] Hi & bye.\n\n"
        "3\n00:00:03,000 --> 00:00:04,000\n[0] What?\n\n"
    )
    assert rendered("vtt", segments) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.000\n<v Channel 0>Hello?</v>\n\n"
        "00:00:02.000 --> 00:00:03.000\n<v Channel 1>Hi &amp; bye.</v>\n\n"
        "00:00:03.000 --> 00:00:04.000\n<v Channel 0>What?</v>\n\n"
    )


def test_channels_at_once():
    """By hand: 833 ms are enough to read the first, 832 are not."""
    assert rendered("srt", [spoken(0, 4, "Hello?", 0), spoken(0.833, 2, "Hi.", 1)]) == (
        "1\n00:00:00,000 --> 00:00:00,833\n[0] Hello?\n\n2\n00:00:00,833 --> 00:00:02,000\n[1] Hi.\n\n"
    )
    assert rendered("srt", [spoken(0, 4, "Hello?", 0), spoken(0.832, 2, "Hi.", 1)]) == (
        "1\n00:00:00,000 --> 00:00:04,000\n[0] Hello?\n[1] Hi.\n\n"
    )
    assert rendered("vtt", [spoken(0, 1, "Hello?", 0), spoken(0, 2, "Hi.", 1)]) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n<v Channel 0>Hello?</v>\n<v Channel 1>Hi.</v>\n\n"
    )


def test_a_short_answer_between_the_cues_of_a_long_segment():
    """By hand: the second cue of channel 0 would begin at 5 s, which is after channel 1's."""
    line = "abcde abcde abcde abcde abcde"
    segments = [spoken(0, 10, " ".join([line] * 4), 0), spoken(3, 4, "Yes.", 1)]
    assert rendered("srt", segments) == (
        f"1\n00:00:00,000 --> 00:00:03,000\n[0] {line}\n{line}\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\n[1] Yes.\n\n"
        f"3\n00:00:05,000 --> 00:00:10,000\n[0] {line}\n{line}\n\n"
    )


def test_there_is_room_for_the_channel():
    """By hand: "[0] " and 38 letters are 42 columns; the 39th goes to another line, in VTT as well."""
    assert rendered("srt", [spoken(0, 1, "a" * 38, 0)]).split("\n")[2:-2] == ["[0] " + "a" * 38]
    assert rendered("srt", [spoken(0, 1, f"{'a' * 37} b", 0)]).split("\n")[2:-2] == [f"[0] {'a' * 37}", "b"]


# ---- srt, vtt: as they come


def test_cues_come_with_their_segment():
    segments = [spoken(0, 2, "One."), spoken(2, 4, "Two."), silence(4, 5)]
    assert [n_taken for _, n_taken in taken_before("srt", segments)] == [1, 2]


def test_cues_of_channels_wait_until_nothing_can_overlap():
    """By hand: the cue ends at 2 s; the first segment that starts as late is the fourth, though it is silent."""
    segments = [spoken(0, 2, "One.", 0), silence(0, 3, 1), silence(1, 2, 2), silence(2, 3, 0), silence(3, 9, 1)]
    assert [n_taken for _, n_taken in taken_before("srt", segments)] == [4]


@pytest.mark.parametrize("style", ["srt", "vtt", "tsv", "lines"])
def test_a_few_segments_are_held(style):
    """By formula: of 1000 segments of two channels, the n-th text is there when segment n + 4 is."""
    segments = [spoken(2 * i + channel, 2 * i + channel + 2, f"{i}", channel) for i in range(500) for channel in (0, 1)]
    parts = [n_taken for part, n_taken in taken_before(style, segments) if re.search(r"\d", part)]
    assert len(parts) == 1000
    assert all(n_taken <= n + 4 for n, n_taken in enumerate(parts))


# ---- srt, vtt: by the formats' rules

TIME = {"srt": r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3})", "vtt": r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"}


def read_cues(style, text):
    """[(start ms, end ms, lines)], of a file that keeps every rule: else AssertionError."""
    *blocks, end = text.split("\n\n")
    assert end == ""
    if style == "vtt":
        assert blocks.pop(0) == "WEBVTT"
    cues = []
    for number, block in enumerate(blocks, 1):
        lines = block.split("\n")
        if style == "srt":
            assert lines.pop(0) == str(number)
        times = re.fullmatch(f"{TIME[style]} --> {TIME[style]}", lines.pop(0), re.ASCII)
        assert times
        fields = [int(field) for field in times.groups()]
        start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (fields[:4], fields[4:]))
        assert start < end
        assert not cues or cues[-1][1] <= start
        assert lines
        for line in lines:
            assert line.strip() == line != ""
            assert "-->" not in line
            assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in line)
        cues.append((start, end, lines))
    return cues


def unescaped(payload):
    """[(channel, text)] of a VTT cue: a text, or voice spans, whose text has no markup and only known entities."""
    spans = re.findall(r"<v Channel (\d+)>([^<>]*)</v>(?:\n|$)", payload) or [(None, payload)]
    for _, text in spans:
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)
    assert spans[0][0] is None or payload == "\n".join(f"<v Channel {channel}>{text}</v>" for channel, text in spans)
    entities = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}
    return [
        (channel and int(channel), re.sub("&[^;]+;", lambda match: entities[match[0]], text)) for channel, text in spans
    ]


def labelled(payload):
    """[(channel, text)] of an SRT cue with channels; a line without one belongs to the line before."""
    return [
        (int(channel), text) for channel, text in re.findall(r"^\[(\d+)\] (.*(?:\n(?!\[\d+\] ).*)*)", payload, re.M)
    ]


def by_channel(pairs):
    texts = {}
    for channel, text in pairs:
        texts[channel] = texts.get(channel, "") + seen(text)
    return {channel: text for channel, text in texts.items() if text}


def columns(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@PATIENT
@given(RECORDINGS)
@example([spoken(0, 0.01, "-->" * 100), spoken(0.01, 0.0101, "b"), spoken(0.0101, 0.0102, "c")])
@example([spoken(0, 5, "a" * 43 + " ?", 0), spoken(0, 0.0004, "b", 1), spoken(0.0004, 0.0005, "c", 1)])
def test_vtt_keeps_the_rules_and_the_text(segments):
    cues = read_cues("vtt", rendered("vtt", segments))
    spans = [span for _, _, lines in cues for span in unescaped("\n".join(lines))]
    assert by_channel(spans) == by_channel((segment.channel, segment.text) for segment in segments)
    assert all(columns(line) <= 42 for _, text in spans for line in text.split("\n"))


@PATIENT
@given(tracks(None))
def test_srt_keeps_the_rules_and_the_text(segments):
    cues = read_cues("srt", rendered("srt", segments))
    text = "".join(line for _, _, lines in cues for line in lines)
    assert seen(text) == "".join(seen(segment.text) for segment in segments)
    assert all(columns(line) <= 42 for _, _, lines in cues for line in lines)


@PATIENT
@given(split_recordings(TEXTS.map(lambda text: text.replace("[", "("))))
def test_srt_keeps_the_rules_and_the_text_of_channels(segments):
    cues = read_cues("srt", rendered("srt", segments))
    spans = [span for _, _, lines in cues for span in labelled("\n".join(lines))]
    assert by_channel(spans) == by_channel((segment.channel, segment.text) for segment in segments)
    assert all(columns(line) <= 42 for _, _, lines in cues for line in lines)


@PATIENT
@given(TEXTS, st.floats(0, 400_000))
def test_cues_stay_in_their_segment(text, start):
    """Of a segment with time enough, each cue has one or two lines."""
    cues = read_cues("srt", rendered("srt", [spoken(start, start + 60, text)]))
    assert all(len(lines) <= 2 for _, _, lines in cues)
    if cues:
        assert cues[0][0] == round(start * 1000)
        assert cues[-1][1] == round((start + 60) * 1000)
        assert all(cue[1] == following[0] for cue, following in pairwise(cues))


@example(["a", "b" * 42, "c" * 42, "d"])
@given(st.lists(st.text("abcABC.,?", min_size=1, max_size=42), min_size=1, max_size=80))
def test_words_stay_whole(words):
    """By formula: lines end at spaces, so with spaces for line ends it is the text again."""
    assert " ".join(payloads(" ".join(words))).replace("\n", " ") == " ".join(words)


@PATIENT
@given(RECORDINGS, st.sampled_from(STYLES))
def test_any_text_can_be_written(segments, style):
    assert rendered(style, segments).encode().decode() == rendered(style, segments)


# ---- srt, vtt: by parsers that others wrote


@pytest.mark.reference
@PATIENT
@given(RECORDINGS)
def test_srt_of_another_parser(segments):
    srt = pytest.importorskip("srt")
    text = rendered("srt", segments)
    found = [
        (cue.index, round(cue.start.total_seconds() * 1000), round(cue.end.total_seconds() * 1000), cue.content)
        for cue in srt.parse(text)  # which raises for what it cannot place
    ]
    ours = enumerate(read_cues("srt", text), 1)
    assert found == [(number, start, end, "\n".join(lines)) for number, (start, end, lines) in ours]


@pytest.mark.reference
@PATIENT
@given(RECORDINGS)
def test_vtt_of_another_parser(segments):
    webvtt = pytest.importorskip("webvtt")
    text = rendered("vtt", segments)
    found = webvtt.from_string(text, strict=True)
    ours = read_cues("vtt", text)
    times = [(cue.start_time.in_milliseconds(), cue.end_time.in_milliseconds(), cue.raw_text) for cue in found]
    assert times == [(start, end, "\n".join(lines)) for start, end, lines in ours]
    for cue, (_, _, lines) in zip(found, ours, strict=True):
        channel = unescaped("\n".join(lines))[0][0]
        assert cue.voice == (None if channel is None else f"Channel {channel}")


# Word times


def timed(text, *words, start=0.0, end=10.0, channel=None):
    """words: (text, start, end)."""
    return spoken(start, end, text, channel, words=tuple(Word(*word, 0.5) for word in words))


HELLO = timed("Hello, you & me.", ("Hello,", 1.0, 1.5), ("you &", 1.5, 2.0), ("me.", 4.0, 4.25))


def test_cues_are_cut_at_words():
    """By hand: from the first word to the last; as long as it takes to read (833 ms), if the segment has the time."""
    assert rendered("srt", [HELLO]) == "1\n00:00:01,000 --> 00:00:04,250\nHello, you & me.\n\n"
    short = timed("No.", ("No.", 9.0, 9.2), end=9.5)
    assert rendered("vtt", [short]) == "WEBVTT\n\n00:00:09.000 --> 00:00:09.500\nNo.\n\n"
    long = " ".join(f"word{i:02}" for i in range(20))
    words = [(word, 2.0 * i, 2.0 * i + 1) for i, word in enumerate(long.split())]
    found = rendered("vtt", [timed(long, *words, end=40.0)])
    # 84 columns hold 12 words of 6 letters; two cues of ten are more alike
    assert re.findall(r"(\S+) --> (\S+)", found) == [("00:00:00.000", "00:00:19.000"), ("00:00:20.000", "00:00:39.000")]


def test_karaoke():
    """By hand: a time before each word but the first, which begins with its cue; without times none."""
    said = "Hello, <00:00:01.500>you &amp; <00:00:04.000>me."
    assert rendered("karaoke", [HELLO]) == f"WEBVTT\n\n00:00:01.000 --> 00:00:04.250\n{said}\n\n"
    assert rendered("karaoke", [spoken(0, 1, "a b")]) == rendered("vtt", [spoken(0, 1, "a b")])
    two = [
        timed("a b", ("a", 0.0, 1.0), ("b", 1.0, 2.0), end=2.0, channel=0),
        timed("c d", ("c", 0.5, 0.6), ("d", 0.6, 2.0), end=2.0, channel=1),
    ]
    # one cue of two speakers, since the first would be too short: its times rise
    assert "<v Channel 0>a <00:00:01.000>b</v>\n<v Channel 1>c d</v>" in rendered("karaoke", two)


def test_a_word_that_no_line_holds():
    """By hand: 84 columns of 100 letters, then 16, both parts at the word's own time."""
    found = rendered("vtt", [timed("x" * 100, ("x" * 100, 1.0, 3.0))])
    assert found.replace("\n", "").count("x") == 100
    assert re.findall(r"(\S+) --> (\S+)", found)[0][0] == "00:00:01.000"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=12), min_size=1))
def test_cues_of_words_lose_nothing(texts):
    """Whatever the words: the cues' texts are the segment's, in order, and in time."""
    text = " ".join(texts)
    words = [(word, i / 2, i / 2 + 0.25) for i, word in enumerate(texts)]
    found = rendered("srt", [timed(text, *words, end=len(texts) / 2)])
    lines = [line for cue in found.split("\n\n")[:-1] for line in cue.split("\n")[2:]]
    assert "".join(lines).replace(" ", "") == text.replace("-->", "- ->").replace(" ", "")
    times = [time for pair in re.findall(r"^(\S+) --> (\S+)$", found, re.MULTILINE) for time in pair]
    assert times == sorted(times)


@pytest.mark.parametrize("style", ["srt", "vtt", "karaoke"])
def test_a_word_of_which_nothing_can_be_shown(style):
    """A byte that is a control character, of a model with pieces for bytes."""
    segment = Segment(0, 1, "\x07", (1,), -0.1, None, False, False, False, words=(Word("\x07", 0.2, 0.4, 0.9),))
    assert "".join(render(style, [segment], "en")) == ("" if style == "srt" else "WEBVTT\n\n")


def test_json_has_words_where_they_were_asked_for():
    facts = {"file": "a.wav", "model": {}, "seconds": 1.0}
    found = json.loads(render_json(Transcript.of([HELLO], "en"), **facts))["segments"][0]["words"]
    assert found[1] == {"text": "you &", "start": 1.5, "end": 2.0, "confidence": 0.5}
    assert "words" not in json.loads(render_json(Transcript.of([spoken(0, 1, "a")], "en"), **facts))["segments"][0]
