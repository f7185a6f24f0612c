"""The page, in a browser with a microphone that plays a file. Needs playwright and Chromium."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import until

for needed in ("starlette", "uvicorn", "websockets", "python_multipart", "httpx"):
    pytest.importorskip(needed)
api = pytest.importorskip("playwright.sync_api")

from serving import SAID, SAMPLE, Server, repeated, samples, serving, wav

from cohere_lite import Transcriber

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.folder,
    pytest.mark.reference,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on the PATH"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["api.Browser"]:
    """Its microphone says the sample, then nothing for two seconds, again and again."""
    spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    sound = np.concatenate([np.zeros(8000), samples(), np.zeros(32000)])
    spoken.write_bytes(wav(np.repeat(sound, 3), 48000))
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    fake += [
        f"--use-file-for-fake-audio-capture={spoken}",
        "--no-sandbox",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=fake)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "api.Browser", server: Server) -> Iterator["api.Page"]:
    """As a telephone shows it. Fails where the page meets an error, or asks anything of another server."""
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, locale="en-GB", has_touch=True, is_mobile=True
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    def told(message: "api.ConsoleMessage") -> None:
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource: the server"):
            problems.append(message.text)

    def asked(request: "api.Request") -> None:
        if not request.url.startswith((server.url, "blob:", "data:")):
            problems.append(request.url)

    page.on("console", told)
    page.on("request", asked)
    page.goto(server.url)
    page.wait_for_selector("#language option", state="attached")
    yield page
    assert problems == []
    context.close()


def wait(page: "api.Page", condition: str) -> None:
    """Not wait_for_function: the page's policy allows no code from text."""
    until(lambda: page.evaluate(condition))


def texts(page: "api.Page") -> list[str]:
    return page.locator("#result span").all_inner_texts()


def peak(block: bytes | str) -> int:
    """Of 16-bit samples; 0 of a text message."""
    return 0 if isinstance(block, str) else int(np.abs(np.frombuffer(block, "<i2").astype(int)).max())


def download(page: "api.Page", kind: str) -> str:
    with page.expect_download() as waiting:
        page.click(f"[data-as={kind}]")
    assert waiting.value.suggested_filename.endswith(f".{kind}")
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_languages_are_named(page: "api.Page") -> None:
    assert page.locator("#language option").all_inner_texts() == ["Automatic", "German", "English", "Spanish", "French"]
    assert page.input_value("#language") == "en"


def test_the_language_is_found(page: "api.Page") -> None:
    page.select_option("#language", "auto")
    page.set_input_files("#file", {"name": "talk.wav", "mimeType": "audio/wav", "buffer": SAMPLE.read_bytes()})
    wait(page, "document.querySelectorAll('#result p').length == 1 && !document.querySelector('#choose').disabled")
    facts = page.evaluate("(text) => JSON.parse(text)", download(page, "json"))
    assert (facts["language"], facts["text"], facts["segments"][0]["language"]) == ("en", SAID, "en")


def test_a_file(page: "api.Page") -> None:
    page.set_input_files("#file", {"name": "talk.wav", "mimeType": "audio/wav", "buffer": wav(repeated(2))})
    wait(page, "document.querySelectorAll('#result p').length == 2 && !document.querySelector('#choose').disabled")
    assert texts(page) == [SAID, SAID]
    assert download(page, "txt") == f"{SAID} {SAID}\n"
    srt = download(page, "srt")
    assert re.fullmatch(
        rf"1\n00:00:00,\d+ --> 00:00:02,\d+\n{SAID}\n\n2\n00:00:03,\d+ --> 00:00:0\d,\d+\n{SAID}\n\n", srt
    )
    assert download(page, "vtt").startswith("WEBVTT\n\n00:00:00.")
    facts = page.evaluate("(text) => JSON.parse(text)", download(page, "json"))
    assert [segment["text"] for segment in facts["segments"]] == [SAID, SAID]


def test_what_is_no_sound(page: "api.Page") -> None:
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"<b>hello</b> world"})
    page.wait_for_selector("#status.wrong")
    assert "text file" in page.inner_text("#status")
    assert page.is_enabled("#choose")


def test_what_was_wrong_with_a_file(page: "api.Page") -> None:
    """It was cut short: the page says what the command says, beside the text that there is."""
    cut = SAMPLE.read_bytes()[:60000]
    (warning,) = Transcriber().transcribe(cut, language="en").warnings
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": cut})
    page.wait_for_selector("#status.wrong")
    assert page.inner_text("#status") == warning
    assert len(texts(page)) == 1


def test_an_address_that_the_service_does_not_know(browser: "api.Browser", server: Server) -> None:
    """As behind a proxy with a Host header of its own, here by another name of this machine: what to do is said."""
    context = browser.new_context()
    page = context.new_page()
    other = (
        "WebSocket = class extends WebSocket { constructor(url) { super(`${url}`.replace('127.0.0.1', 'localhost')) } }"
    )
    page.add_init_script(other)
    page.goto(server.url)
    page.wait_for_selector("#language option", state="attached")
    page.click("#speak")
    page.wait_for_selector("#status.wrong")
    assert f"--cors {server.url}" in page.inner_text("#status")
    assert "Host header" in page.inner_text("#status")
    context.close()


def test_silence(page: "api.Page") -> None:
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": wav(np.zeros(16000))})
    wait(page, "document.querySelector('#status').textContent.startsWith('Nothing')")
    assert page.is_hidden("#take")


def test_speech(page: "api.Page") -> None:
    """Phrases come while one speaks; the last one, in the middle of which one stops, comes too."""
    is_loud: list[bool] = []  # of each block of 0.1 s that was sent
    page.on("websocket", lambda socket: socket.on("framesent", lambda block: is_loud.append(peak(block) > 1000)))
    page.click("#speak")
    wait(page, "document.querySelectorAll('#result p').length == 2")
    assert page.inner_text("#speak") == "Stop"
    assert page.inner_text("#status") == ""  # it is read out: no clock in it
    assert re.fullmatch(r"0:\d\d", page.inner_text("#spent"))
    # into the middle of the third sentence, by what was sent: a loaded machine's microphone falls behind the clock
    already = sum(is_loud)
    until(lambda: page.evaluate("stopSpeaking !== null") and sum(is_loud) >= already + 10)
    page.click("#speak")
    wait(page, "document.querySelector('#speak').innerText == 'Speak' && !document.querySelector('#speak').disabled")
    found = texts(page)
    # the first may be cut: the microphone was on before
    assert SAID in found
    assert len(found) >= 3
    assert download(page, "txt").split() == " ".join(found).split()


def test_the_last_of_speech_is_sent(page: "api.Page") -> None:
    """By formula: blocks have 0.1 s but for the last, which has what came since; then the end is told."""
    sent: list[str | bytes] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda block: sent.append(block)))
    page.click("#speak")
    until(lambda: page.evaluate("stopSpeaking !== null") and len(sent) >= 5)
    page.click("#speak")
    until(lambda: page.evaluate("true") and sent[-1] == "end")
    sizes = [len(block) for block in sent[:-1]]
    assert len({*sizes[:-1]}) == 1
    assert 0 <= sizes[-1] < sizes[0]


def test_several_files_are_refused(page: "api.Page") -> None:
    page.evaluate(
        """() => {
            const dataTransfer = new DataTransfer();
            for (const name of ["a.wav", "b.wav"]) dataTransfer.items.add(new File(["RIFF"], name));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        }"""
    )
    assert page.inner_text("#status") == "One file at a time, please."


def test_it_fits_a_telephone(page: "api.Page") -> None:
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": SAMPLE.read_bytes()})
    wait(page, "document.querySelectorAll('#result p').length == 1")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # as large as a finger: WCAG 2.2 asks for 44 px
    heights = page.evaluate(
        "[...document.querySelectorAll('button, select')].filter(e => e.offsetParent).map(e => e.offsetHeight)"
    )
    assert len(heights) == 8
    assert min(heights) >= 44


def test_no_microphone_without_https(browser: "api.Browser", server: Server) -> None:
    """At an address that is not this machine's, over http, browsers have none; the page says so, and takes files."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.goto(server.url)
    wait(page, "document.querySelector('#note').textContent.includes('https')")
    assert page.is_disabled("#speak")
    assert page.is_enabled("#choose")
    context.close()


@pytest.mark.parametrize("key", ["sesame", "o/pen+(1) 100%41=="])
def test_a_key_is_asked_for(browser: "api.Browser", key: str) -> None:
    """Once: then it goes with files, with speech and with downloads."""
    with serving("--api-key", key) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": SAMPLE.read_bytes()})
        page.fill("#key input", "wrong")
        page.click("#key button")
        wait(page, "document.querySelector('#status').textContent.includes('not the service')")
        page.fill("#key input", key)
        page.click("#key button")
        page.wait_for_selector("#result p")
        assert texts(page) == [SAID]
        assert SAID in download(page, "srt")
        page.click("#speak")
        wait(page, "document.querySelector('#speak').innerText == 'Stop'")
        page.reload()
        until(lambda: len([line for line in server.lines if line.get("route") == "/live"]) == 1)
        page.evaluate("sessionStorage.clear()")
        page.reload()
        page.click("#speak")
        page.wait_for_selector("#key:not([hidden])")
        context.close()


def test_what_a_media_recorder_makes(page: "api.Page") -> None:
    """As chat programs send it: webm with Opus, without a length, an index or a file name that helps."""
    found = page.evaluate(
        """async () => {
            const stream = await navigator.mediaDevices.getUserMedia({ audio: { noiseSuppression: false } });
            const recorder = new MediaRecorder(stream, { mimeType: "audio/webm;codecs=opus" }), parts = [];
            recorder.ondataavailable = (event) => parts.push(event.data);
            recorder.start(500);
            await new Promise((done) => setTimeout(done, 9000));
            await new Promise((done) => { recorder.onstop = done; recorder.stop(); });
            const form = new FormData();
            form.append("file", new File(parts, "blob", { type: "audio/webm;codecs=opus" }));
            form.append("response_format", "verbose_json");
            return (await fetch("/v1/audio/transcriptions", { method: "POST", body: form })).json();
        }"""
    )
    assert SAID in [segment["text"] for segment in found["segments"]]
    assert 8 < found["duration"] < 10
