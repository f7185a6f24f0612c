"""The lines of a run -> figures, tables and the report."""

import base64
import io
import json
import re
import shutil
import subprocess
import wave
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jiwer")
pytest.importorskip("matplotlib")
pytest.importorskip("kaldialign")
pytest.importorskip("whisper_normalizer")
pytest.importorskip("rich")

from cohere_lite.evaluate import report
from cohere_lite.evaluate.anchors import anchor_of
from cohere_lite.evaluate.figures import Figures, make_figures
from cohere_lite.evaluate.intervals import Interval
from cohere_lite.evaluate.layouts.layout import Utterance
from cohere_lite.evaluate.models import Model
from cohere_lite.evaluate.noise import CLEAN, parse_conditions
from cohere_lite.evaluate.plots import plots
from cohere_lite.evaluate.report import write_report
from cohere_lite.evaluate.run import Plan, State
from cohere_lite.evaluate.table import markdown
from cohere_lite.evaluate.tally import tally
from cohere_lite.evaluate.utterances import Data
from cohere_lite.evaluate.worker import open_ours
from cohere_lite.model import DEMO_FOLDER

pytestmark = [pytest.mark.folder, pytest.mark.reference]  # what the extra `evaluate` installs is there in CI

# (reference, hypothesis of the first model, of the second)
SAID = {
    "a": ("Turn on the lights now.", "Turn on the light.", "Turn on the lights now."),
    "b": ("Stop!", "Stop.", "stop the music"),
    "c": ("Wi-Fi is off", "WiFi is off", "Wi-Fi is of"),
    "d": ("Uh, yes.", "Yes.", ""),
}


def model(name: str, facts: dict | None = None) -> Model:
    facts = {"precision": "int8"} | (facts or {})
    return Model(name, name.removeprefix("reference:"), ("en",), "", 2_000_000, facts, open_ours, {})


def line(name: str, which: str, hypothesis: str, **changes: Any) -> dict:
    return {
        **{"data": "set", "condition": "clean", "id": name, "model": which, "language": "en"},
        **{"reference": SAID[name][0] if name in SAID else "", "speaker": None, "recording": None, "seconds": 2.0},
        **{"sound_warnings": [], "hypothesis": hypothesis, "tokens": [len(hypothesis)], "avg_logprob": -0.1},
        **{"segments": 1, "silent": 0, "looped": 0, "truncated": 0, "warnings": [], "time_s": 0.5, "peak_mb": 100.0},
        **changes,
    }


def data(said: dict = SAID, spec: str = "set", language: str = "en", audio: Path | None = None) -> Data:
    utterances = [Utterance(n, t[0], language, partial(Path, audio or "none.wav")) for n, t in said.items()]
    return Data(spec, spec, utterances, 100, None)


def figures_of(plan: Plan, lines: list[dict], folder: Path) -> Figures:
    state = State(folder / "run.jsonl", loads_s={"one": [2.0, 1.5]})
    for each in lines:
        state.add(each)
    tallies, peaks_mb = tally(plan, state.path, folder / "utterances.jsonl")
    return make_figures(plan, state, tallies, peaks_mb, {"seed": 0, "samples": 4, "punctuation": True})


@pytest.fixture
def two(tmp_path: Path) -> tuple[Plan, Figures]:
    plan = Plan([data()], [CLEAN], [model("one"), model("two")])
    lines = [line(name, which, text[i]) for name, text in SAID.items() for i, which in ((1, "one"), (2, "two"))]
    return plan, figures_of(plan, lines, tmp_path)


def test_rates_by_hand(two: tuple[Plan, Figures]) -> None:
    """Card, in lower case: (one) lights/light., -now. | stop!/stop. | wi-fi/wifi | -uh, and of "yes." nothing;
    (two) stop!/stop +the +music | off/of | -uh, -yes. Leaderboard: (one) lights/light, -now; "uh" is no word, and
    "wi fi" is "wifi"; (two) +the +music | off/of | -yes."""
    rates = {(r.model, r.way): r for r in two[1].rates}
    found = {key: (r.substitutions, r.deletions, r.insertions, r.words, r.utterances) for key, r in rates.items()}
    assert found == {
        ("one", "card"): (3, 2, 0, 11, 4),
        ("two", "card"): (2, 2, 2, 11, 4),
        ("one", "leaderboard"): (1, 1, 0, 10, 4),
        ("two", "leaderboard"): (1, 1, 2, 10, 4),
    }
    assert [rate.wer for rate in rates.values()] == pytest.approx([5 / 11, 6 / 11, 0.2, 0.4])
    (difference,) = [d for d in two[1].differences if d.way == "leaderboard"]
    assert (difference.model, difference.baseline, difference.wer) == ("two", "one", pytest.approx(0.2))


def test_rates_as_jiwer_has_them(two: tuple[Plan, Figures]) -> None:
    """By reference: of all words at once, in lower case; and characters of the leaderboard's texts."""
    import jiwer

    for i, name in ((1, "one"), (2, "two")):
        said, heard = zip(*((text[0].lower(), text[i].lower()) for text in SAID.values()), strict=True)
        rates = {rate.way: rate for rate in two[1].rates if rate.model == name}
        assert rates["card"].wer == pytest.approx(jiwer.wer(list(said), list(heard)))
        assert rates["card"].cer == pytest.approx(jiwer.cer(list(said), list(heard)))


def test_speed_and_size(two: tuple[Plan, Figures]) -> None:
    """By hand: 4 utterances of 2 s in 0.5 s each; the model has loaded twice."""
    speed = two[1].speeds[0]
    assert (speed.utterances, speed.audio_s, speed.work_s, speed.real_time_factor) == (4, 8.0, 2.0, 0.25)
    about = two[1].models[0]
    assert [about[key] for key in ("mb_on_disk", "load_s", "peak_mb")] == [2.0, 1.5, 100.0]


def test_latency_and_segments(tmp_path: Path) -> None:
    """By formula: of 0.1, 0.2, ... 2.1 s the median is 1.1, and 95 % take no more than 2.0."""
    plan = Plan([data({str(i): ("yes",) for i in range(21)})], [CLEAN], [model("one")])
    lines = [line(str(i), "one", "yes", time_s=(i + 1) / 10, segments=2, silent=i == 3) for i in range(21)]
    speed = figures_of(plan, lines, tmp_path).speeds[0]
    assert (speed.latency_median_s, speed.latency_95_s) == pytest.approx((1.1, 2.0))
    assert (speed.segments, speed.silent, speed.looped, speed.truncated) == (42, 1, 0, 0)


def test_what_one_model_lacks_counts_for_none(tmp_path: Path) -> None:
    """And is told, with the reason; a recording that cannot be read, too."""
    plan = Plan([data()], [CLEAN], [model("one"), model("two")])
    lines = [line(name, which, text[0]) for name, text in SAID.items() for which in ("one", "two")]
    failed = [line("a", "two", ""), line("b", "one", ""), line("b", "two", "")]
    errors = ["out of memory", "not a WAV file", "not a WAV file"]
    lines = [each for each in lines if not (each["id"] == "b" or (each["id"], each["model"]) == ("a", "two"))]
    lines += [{**each, "error": error} for each, error in zip(failed, errors, strict=True)]
    figures = figures_of(plan, lines, tmp_path)
    assert {rate.utterances for rate in figures.rates} == {2}
    assert [(failure["id"], failure["error"]) for failure in figures.failures] == [
        ("a", "two: out of memory"),
        ("b", "not a WAV file"),
    ]
    assert figures.data[0]["failed"] == 2
    assert "set, clean, b: failed: not a WAV file." in markdown(figures)


def test_references_that_do_not_count(tmp_path: Path) -> None:
    """ "Uh" is a word to the card only."""
    plan = Plan([data({"x": ("Uh",), "y": ("yes",)})], [CLEAN], [model("one")])
    figures = figures_of(plan, [line("x", "one", "uh"), line("y", "one", "yes")], tmp_path)
    assert {rate.way: rate.utterances for rate in figures.rates} == {"card": 2, "leaderboard": 1}
    assert figures.data[0]["not_counted"] == {"card": 0, "leaderboard": 1}


def test_agreement_with_the_reference(tmp_path: Path) -> None:
    """Tokens, not texts."""
    plan = Plan([data()], [CLEAN], [model("one"), model("reference:x")])
    lines = [line(name, which, "yes", tokens=[1, 2]) for name in SAID for which in ("one", "reference:x")]
    lines[0]["tokens"] = [1, 2, 3]
    (agreement,) = figures_of(plan, lines, tmp_path).agreements
    assert (agreement.model, agreement.equal, agreement.utterances) == ("one", 3, 4)
    assert "| 3 of 4 |" in markdown(figures_of(plan, [], tmp_path))


def test_characters_of_japanese(tmp_path: Path) -> None:
    """By hand: one of seven characters is another; spaces and width do not count."""
    said = {"x": ("今日 はガス です",)}
    plan = Plan([data(said, language="ja")], [CLEAN], [model("one")])
    figures = figures_of(plan, [line("x", "one", "今日はｶﾞスでつ", language="ja")], tmp_path)
    assert [(rate.wer, rate.cer, rate.words) for rate in figures.rates] == [(pytest.approx(1 / 7),) * 2 + (7,)] * 2


def test_several_data_sets(tmp_path: Path) -> None:
    """The mean of their rates: (0 + 1) / 2, though one has nine times as many words."""
    sets = [data({"x": ("a b c d e f g h i",), "y": ("no",)}, "small"), data({"x": ("yes",), "y": ("yes",)}, "set")]
    plan = Plan(sets, [CLEAN], [model("one")])
    texts = {"small": {"x": "a b c d e f g h i", "y": "no"}, "set": {"x": "no", "y": "no"}}
    lines = [line(n, "one", text, data=spec) for spec, of in texts.items() for n, text in of.items()]
    figures = figures_of(plan, lines, tmp_path)
    assert [(r.data, r.wer) for r in figures.rates if r.way == "card"] == [
        ("small", 0),
        ("set", 1),
        ("all data sets", 0.5),
    ]
    assert '- "all data sets": the mean of the rates of the data sets.\n' in markdown(figures)


def test_data_sets_without_a_rate(tmp_path: Path) -> None:
    """The mean is of the others, which is said. Where one alone has a rate, there is neither a mean nor a plot of it:
    what is left are bars, by each rule, and lengths."""
    sets = [data({"x": ("yes",)}, spec) for spec in ("one set", "another", "a bad one")]
    lines = [line("x", "one", "no", data="one set"), line("x", "one", "yes", data="another")]
    figures = figures_of(Plan(sets, [CLEAN], [model("one")]), lines, tmp_path)
    assert {rate.wer for rate in figures.rates if rate.data == "all data sets"} == {0.5}
    said = '- "all data sets": the mean of the rates of the data sets; where they have none, without a bad one.\n'
    assert said in markdown(figures)
    assert len(dict(plots(figures))) == 4
    figures = figures_of(Plan(sets[::2], parse_conditions("white:9"), [model("one")]), lines[:1], tmp_path)
    assert {rate.data for rate in figures.rates} == {"one set"}
    assert [title.partition(",")[0] for title, _ in plots(figures)] == ["Words wrong"] * 2 + ["Words wrong by length"]


def test_by_length(tmp_path: Path) -> None:
    """By hand."""
    plan = Plan([data({"x": ("one two",), "y": ("yes",), "z": ("no",)})], [CLEAN], [model("one")])
    lengths = {"x": 1.99, "y": 2.0, "z": 36.0}
    figures = figures_of(plan, [line(n, "one", "one", seconds=s) for n, s in lengths.items()], tmp_path)
    found = [(le.from_s, le.to_s, le.wer, le.utterances) for le in figures.lengths if le.way == "card"]
    assert found == [(0, 2, 0.5, 1), (2, 5, 1.0, 1), (35, None, 1.0, 1)]


def test_lengths_without_words(tmp_path: Path) -> None:
    """A German reference of punctuation alone counts, and has no words."""
    plan = Plan([data({"x": ("...",)}, language="de")], [CLEAN], [model("one")])
    figures = figures_of(plan, [line("x", "one", "", language="de")], tmp_path)
    assert [length.wer for length in figures.lengths if length.way == "leaderboard"] == [0]
    assert json.loads(figures.as_json())


def test_lines_of_other_plans_do_not_count(tmp_path: Path) -> None:
    plan = Plan([data({"a": SAID["a"]})], [CLEAN], [model("one")])
    other = [{"data": "other"}, {"condition": "white:5"}, {"id": "z"}, {"model": "two"}]
    lines = [line("a", "one", "Turn on the lights now.")] + [{**line("a", "one", "wrong"), **each} for each in other]
    assert {(rate.utterances, rate.wer) for rate in figures_of(plan, lines, tmp_path).rates} == {(1, 0)}


def test_corrected_references_count(tmp_path: Path) -> None:
    """Those that the data set has now."""
    plan = Plan([data({"a": ("yes",)})], [CLEAN], [model("one")])
    assert {rate.wer for rate in figures_of(plan, [line("a", "one", "yes", reference="no")], tmp_path).rates} == {0}


def test_the_table_in_full(tmp_path: Path) -> None:
    """By hand; for one utterance there is no interval. Columns without anything are left out."""
    plan = Plan([data({"a": SAID["a"]}, "my/LibriSpeech/test-clean")], [CLEAN], [model("one")])
    lines = [line("a", "one", SAID["a"][1], data="my/LibriSpeech/test-clean")]
    found = markdown(figures_of(plan, lines, tmp_path)).split("\n\n")
    assert found[1].partition("\n**")[0] == (
        "| data | noise | model | WER, card's rule | published, card | WER, leaderboard's rule | published, "
        "leaderboard | CER | words | wrong / missing / added |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| my/LibriSpeech/test-clean | clean | one | 40.00 | 0.99 | 40.00 | 1.25 | 22.73 | 5 | 1 / 1 / 0 |"
    )


def test_ids_that_markdown_would_obey(tmp_path: Path) -> None:
    """By hand, by CommonMark: a backslash before punctuation makes it plain."""
    ids = {"<b>|": r"\<b>\|", "[x](y)": r"[x\](y)", r"\<i>": r"\\\<i>", "two\n# lines\x1b[2J": "two # lines [2J"}
    plan = Plan([data(dict.fromkeys(ids, ("yes",)))], [CLEAN], [model("one")])
    text = markdown(figures_of(plan, [line(name, "one", "", error="a < 3") for name in ids], tmp_path))
    found = [row.removeprefix("- set, clean, ") for row in text.splitlines() if "failed:" in row]
    assert found == [f"{name}: failed: a < 3." for name in ids.values()]


def test_columns_without_anything_are_left_out(two: tuple[Plan, Figures]) -> None:
    """Nobody has published anything of these data, which do not say who speaks."""
    assert not any(word in markdown(two[1]) for word in ("ublished", "speakers", "reference's"))


@pytest.mark.parametrize(
    ("name", "card", "leaderboard"),
    [
        ("openslr/librispeech_asr", 0.99, 1.25),
        ("openslr/librispeech_asr:clean", 0.99, 1.25),
        ("openslr/librispeech_asr:other:test", None, 2.37),
        ("openslr/librispeech_asr:clean:validation", None, None),
        ("hf-audio/open-asr-leaderboard:librispeech:test.clean", 0.99, 1.25),
        ("hf-audio/open-asr-leaderboard:ami:test", 16.24, 8.13),
        ("LibriSpeech", None, None),  # clean or other: whichever is there
        ("LibriSpeech/test-other", None, 2.37),
        ("test-clean", 0.99, 1.25),
        ("dev-clean", None, None),
        ("edinburghcstr/ami", 16.24, 8.13),
        ("edinburghcstr/ami:ihm:test", 16.24, 8.13),
        ("edinburghcstr/ami:ihm:dev", None, None),
        ("edinburghcstr/ami:sdm", None, None),
        ("ami_ihm", 16.24, 8.13),
        ("ami/calls", None, None),
        ("Earnings22-Cleaned-AA-chunked", None, None),
        ("family/tatami", None, None),
        ("facebook/voxpopuli", 12.16, 5.87),
        ("MLCommons/peoples_speech", 21.97, None),
        ("distil-whisper/earnings22", 26.38, 10.86),
        ("family/recordings", None, None),
    ],
)
def test_published_figures(name: str, card: float | None, leaderboard: float | None) -> None:
    """By record: the card's and the leaderboard's tables, which are about test sets."""
    about = {"name": name, "languages": ["en"]}
    assert anchor_of(about) == (card, leaderboard)
    assert anchor_of({**about, "languages": ["de"]}) == (None, None)


def test_json(two: tuple[Plan, Figures], tmp_path: Path) -> None:
    read = json.loads(two[1].as_json())
    assert read["rates"][0]["wer"] == pytest.approx(5 / 11)
    assert Interval(*read["rates"][0]["wer_interval"]) == two[1].rates[0].wer_interval
    scored = [json.loads(text) for text in (tmp_path / "utterances.jsonl").read_text(encoding="utf-8").splitlines()]
    assert scored[0]["card"]["pairs"][3:] == [["lights", "light."], ["now.", ""]]
    assert scored[0]["hypothesis"] == "Turn on the light."


class Page(HTMLParser):
    """What a page loads, and how many elements of each kind it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[0] != "#"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Of two models, in noise, too, with text that HTML would obey."""
    said = SAID | {"e": ("<b>5 & 6</b>", "<i>", "<i>")}
    conditions = parse_conditions("white:10")
    plan = Plan([data(said, audio=DEMO_FOLDER / "sample.wav")], conditions, [model("one"), model("two")])
    lines = [
        line(name, which, text[i], condition=condition.name, time_s=0.2 * i)
        for name, text in said.items()
        for i, which in ((1, "one"), (2, "two"))
        for condition in conditions
    ]
    figures = figures_of(plan, lines, tmp_path)
    write_report(tmp_path / "report.html", plan, figures, tmp_path / "utterances.jsonl")
    return tmp_path / "report.html"


def test_the_report_needs_nothing_else(page: Path) -> None:
    """By construction: nothing but sound in the page itself is loaded; there are five plots, and five utterances with
    errors; the sound is the sample's."""
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert (found.counts["svg"], found.counts["audio"], found.counts["article"]) == (5, 5, 5)
    assert len(found.loads) == 5
    assert "@import" not in text
    assert "url(http" not in text
    (data_url,) = {*found.loads}
    assert data_url.startswith("data:audio/wav;base64,")
    with (
        wave.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))) as sound,
        wave.open(str(DEMO_FOLDER / "sample.wav")) as sample,
    ):
        assert sound.getparams() == sample.getparams()
    assert "<span class=wrong><del>lights</del> <ins>light</ins></span> <del>now</del>" in text
    assert "stop <ins>the</ins> <ins>music</ins>" in text
    assert "<b>" not in text
    assert "&lt;b&gt;5 &amp; 6&lt;/b&gt;" in text


def test_words_that_html_would_obey() -> None:
    assert report._pair("<b>", "<i>") == "<span class=wrong><del>&lt;b&gt;</del> <ins>&lt;i&gt;</ins></span>"
    assert (report._pair("", "&"), report._pair("<", "<")) == ("<ins>&amp;</ins>", "&lt;")


def test_plots_take_the_colour_of_the_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert all("currentColor" in plot for plot in plots)
    assert not any(colour in plot for plot in plots for colour in ("#000000", "#ffffff", "#010203"))


def test_long_names_leave_room_for_plots(tmp_path: Path) -> None:
    """Matplotlib's warning that a plot has no room is an error here."""
    name = "a/long/path/to/a/data/set/or/to/a/model/that/nobody/could/read/in/a/plot"
    plan = Plan([data(spec=name)], [CLEAN], [model(name)])
    figures = figures_of(plan, [line(n, name, "yes", data=name) for n in SAID], tmp_path)
    assert all("…dy/could/read/in/a/plot" in svg for _, svg in plots(figures))


def test_dollar_signs_are_no_formula(tmp_path: Path) -> None:
    name = r"a$\foo$b"
    plan = Plan([data(spec=name)], [CLEAN], [model(name)])
    figures = figures_of(plan, [line(n, name, "yes", data=name) for n in SAID], tmp_path)
    assert all(name in svg for _, svg in plots(figures))


def test_names_that_matplotlib_would_not_write(tmp_path: Path) -> None:
    """It leaves labels that begin with "_" out of legends, and raises TypeError for text that is not UTF-8."""
    plan = Plan([data(spec="sp\udce4t")], [CLEAN], [model("_mine")])
    figures = figures_of(plan, [line(n, "_mine", "yes", data="sp\udce4t") for n in SAID], tmp_path)
    drawn = dict(plots(figures))
    assert all(">\u200b_mine</text>" in svg for svg in drawn.values())
    assert r">sp\udce4t</text>" in drawn["Words wrong, card's rule"]


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What the browser made of the page, into its title.
PROBE = """<script>
const sound = document.querySelector("audio")
sound.preload = "auto"
sound.oncanplaythrough = () => {
  const of = (element, property) => getComputedStyle(element)[property]
  document.title = "probe " + JSON.stringify({
    scroll: document.documentElement.scrollWidth, width: innerWidth, duration: sound.duration,
    page: of(document.body, "backgroundColor"), text: of(document.body, "color"),
    plot: of(document.querySelector("svg text"), "fill"),
    plots: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width),
  })
}
sound.load()
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (500, True)])
def test_in_a_browser(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    """The page does not scroll sideways, its plots fit, text has the contrast of the scheme, and the sound plays."""
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8") + PROBE, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    dom = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(re.findall(r"<title>probe (.*?)</title>", dom)[0].replace("&amp;", "&"))
    assert found["scroll"] <= found["width"]
    assert all(200 < plot < found["width"] for plot in found["plots"])
    assert found["duration"] == pytest.approx(2.48, abs=0.01)
    brightness = {key: sum(map(int, re.findall(r"\d+", found[key])[:3])) / 3 for key in ("page", "text", "plot")}
    assert brightness["plot"] == brightness["text"]
    assert brightness["text"] - brightness["page"] > 150 if dark else brightness["page"] - brightness["text"] > 150
