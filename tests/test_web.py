"""The web page, in real browsers: texts equal to the package's to the letter, in WebAssembly and on WebGPU in software;
and a sentence for whatever goes wrong.

Needs the programs chromium, node and npm; COHERE_LITE_WEB_MODULES is the folder into which npm put puppeteer-core and
axe-core. Firefox, where it is installed, runs the page, too.
"""

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import test_wav
from published import needs_espeak

from cohere_lite import Transcriber
from cohere_lite.export.__main__ import export
from cohere_lite.extras.formats import render
from cohere_lite.model import DEMO_FOLDER
from tools.web.__main__ import main
from tools.web.serve import Handler, make_server

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
DRIVER = Path(__file__).parent / "web" / "browser.mjs"
MODULES = os.environ.get("COHERE_LITE_WEB_MODULES", "")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox") or ""
SCREENSHOTS = os.environ.get("COHERE_LITE_WEB_SCREENSHOTS")  # a folder for them, to be looked at
SWIFTSHADER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-unsafe-swiftshader"]
SAMPLE = DEMO_FOLDER / "sample.wav"
TEXT = "Turn on the light in the living room."
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"

# folder: tools/ is no part of the package as one file
pytestmark = [
    pytest.mark.web,
    pytest.mark.folder,
    pytest.mark.skipif(not MODULES, reason="needs puppeteer-core and axe-core: COHERE_LITE_WEB_MODULES"),
]
needs_firefox = pytest.mark.skipif(not FIREFOX, reason="needs the program firefox-esr")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As tools.web writes it, without a model of the user's."""
    out = tmp_path_factory.mktemp("page")
    assert main([str(out)]) == 0
    return out


@pytest.fixture
def copied(page: Path, tmp_path: Path) -> Path:
    """A page that may be spoilt."""
    return Path(shutil.copytree(page, tmp_path / "page"))


class Plain(SimpleHTTPRequestHandler):
    """A server that sets no headers, and knows no ranges."""

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def servers() -> Iterator[list[ThreadingHTTPServer]]:
    running: list[ThreadingHTTPServer] = []
    yield running
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served(servers: list[ThreadingHTTPServer]) -> Callable[..., str]:
    """Serves a folder -> its address. handler: for one that is not tools.web's own."""

    def start(folder: Path, handler: type | None = None, host: str = "127.0.0.1") -> str:
        if handler is None:
            server = make_server(folder, host, 0)
        else:
            server = ThreadingHTTPServer((host, 0), partial(handler, directory=str(folder)))
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"http://localhost:{server.server_port}/"

    return start


def visit(
    scenario: str, url: str, allowed: str | None = None, at_pause: Callable[[], None] | None = None, **given: Any
) -> dict[str, Any]:
    """What a scenario of browser.mjs finds. allowed: a part of what the console may say; nothing else is;
    at_pause: what to do when the scenario waits for it."""
    firefox = given.get("browser") == "firefox"
    request = {"url": url, "executable": FIREFOX if firefox else CHROMIUM, **given}
    if SCREENSHOTS:
        name = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
        request["screenshot"] = str(Path(SCREENSHOTS, f"{name}{'' if scenario == 'accessibility' else '.png'}"))
    command = ["node", str(DRIVER), scenario, json.dumps(request, default=str)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        line = process.stdout.readline()
        if at_pause:
            assert line == "waiting\n", line
            at_pause()
            process.stdin.write("go on\n")
            process.stdin.flush()
            line = process.stdout.readline()
    found = json.loads(line)
    assert "error" not in found, found
    assert [problem for problem in found["problems"] if not (allowed and allowed in problem)] == []
    return found


def texts(found: dict[str, Any]) -> list[str]:
    assert [recording["state"] for recording in found["found"]] == ["done"] * len(found["found"])
    return [recording["text"] for recording in found["found"]]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    """The sample, and two sentences that the model has never heard in each of its languages, twice in a row."""
    from tools.demo.heldout import heldout

    folder = tmp_path_factory.mktemp("sentences")
    files = [(SAMPLE, "en")]
    for language in ("en", "de", "fr", "es"):
        for samples, _, name in heldout(language, 2):
            path = folder / f"{name}.wav"
            path.write_bytes(test_wav.wav(np.rint(samples * 32767).astype("<i2").tobytes()))
            files.append((path, language))
    return [*files, *files]


@needs_espeak
def test_texts_in_webassembly(page: Path, served: Callable[..., str], sentences: list[tuple[Path, str]]) -> None:
    found = visit("texts", served(page), files=sentences)
    transcriber = Transcriber()
    assert texts(found) == [transcriber.transcribe(path, language=language).text for path, language in sentences]
    assert found["ready"] == f"Ready: demonstration, int8, in WebAssembly, {min(os.cpu_count() or 1, 8)} threads."
    assert [recording["lang"] for recording in found["found"]] == [language for _, language in sentences]
    assert all(recording["isDrawn"] for recording in found["found"])
    assert found["advice"] == "There is no WebGPU here: WebAssembly does the work."


@needs_espeak
def test_texts_on_webgpu(
    page: Path, served: Callable[..., str], sentences: list[tuple[Path, str]], tmp_path: Path
) -> None:
    """On Vulkan in software, which has no float16: fp32, against the same export on the CPU."""
    files = sentences[: len(sentences) // 2]
    files.append(files[0])  # twice: caches are not cleared in between
    found = visit("texts", served(page), files=files, device="webgpu", flags=SWIFTSHADER)
    export(CHECKPOINT, tmp_path, "fp32")
    transcriber = Transcriber(tmp_path)
    assert texts(found) == [transcriber.transcribe(path, language=language).text for path, language in files]
    assert found["ready"] == "Ready: demonstration, fp32, on WebGPU (google swiftshader)."


@needs_firefox
def test_firefox(page: Path, served: Callable[..., str]) -> None:
    found = visit("texts", served(page, Plain), browser="firefox", timeout=240_000, files=[(SAMPLE, "en")] * 2)
    assert texts(found) == [TEXT] * 2
    assert found["isolated"]


def test_a_model_of_ones_own(served: Callable[..., str], tmp_path: Path) -> None:
    """Exported for the web: weights in several files, and caches that grow with the text: here from 11 positions on, of
    which the prompt takes 10."""
    model, out = tmp_path / "demonstration-own", tmp_path / "out"
    export(CHECKPOINT, model, target="web", shard_mb=1)
    assert main([str(out), str(model)]) == 0
    text = (out / "model.js").read_text()
    assert "FIRST_POSITIONS = 32" in text
    (out / "model.js").write_text(text.replace("FIRST_POSITIONS = 32", "FIRST_POSITIONS = 11"))
    found = visit("texts", served(out), files=[(SAMPLE, "en")] * 2)
    assert texts(found) == [TEXT] * 2
    assert found["ready"].startswith("Ready: demonstration-own, int8, in WebAssembly")
    found = visit("two", served(out), model="demonstration")  # which deletes its earlier versions, and those alone
    assert found["ready"].startswith("Ready: demonstration, int8")
    assert found["focused"] == "load"
    assert "decoder.int8.onnx.00.data" in found["kept"]
    assert "decoder.int8.onnx.data" in found["kept"]


def test_a_model_for_webgpu_alone(served: Callable[..., str], tmp_path: Path) -> None:
    """Exported for the web; and where there is no WebGPU, it is not loaded, and the page says why."""
    model, out = tmp_path / "for-webgpu", tmp_path / "out"
    export(CHECKPOINT, model, "fp32", target="web", shard_mb=1)
    assert main([str(out), str(model)]) == 0
    found = visit("texts", served(out), files=[(SAMPLE, "en")] * 2, device="webgpu", flags=SWIFTSHADER)
    assert texts(found) == [TEXT] * 2
    assert found["ready"] == "Ready: for-webgpu, fp32, on WebGPU (google swiftshader)."
    found = visit("choice", served(out))
    assert found["ready"] == "Choose a model, and load it."
    assert found["said"]["for-webgpu"].startswith("for-webgpu runs on WebGPU alone")


def test_a_server_without_headers(page: Path, served: Callable[..., str]) -> None:
    """As of static hosts, in a folder of theirs: threads all the same."""
    found = visit("texts", f"{served(page.parent, Plain)}{page.name}/", files=[(SAMPLE, "en")])
    assert texts(found) == [TEXT]
    assert found["isolated"]
    assert found["notices"] == []


class Closing(Handler):
    """Keeps no connection, which would outlive its server."""

    protocol_version = "HTTP/1.0"


@pytest.mark.parametrize("handler", [Plain, Closing])
def test_offline_after_the_first_visit(
    page: Path, served: Callable[..., str], servers: list[ThreadingHTTPServer], handler: type, tmp_path: Path
) -> None:
    """The server has gone. (It has the page in a folder called as that of its models is.) Where it sets the headers of
    threads by itself, the first visit loads the page once, and may be over before the service worker takes part in it:
    here that takes 3 s."""
    script = Path(shutil.copytree(page, tmp_path / "models" / "page"), "service-worker.js")
    late = script.read_text().replace(
        "await self.clients", "await new Promise((go) => setTimeout(go, 3000));\nawait self.clients"
    )
    script.write_text(late)

    def go() -> None:
        server = servers.pop()
        server.shutdown()
        server.server_close()

    url = f"{served(tmp_path, handler)}models/page/"
    found = visit("offline", url, files=[SAMPLE], at_pause=go, allowed="ERR_CONNECTION_REFUSED")
    assert texts(found) == [TEXT]
    assert found["isolated"]


def test_a_new_version(copied: Path, served: Callable[..., str]) -> None:
    """It takes over when the page is opened the next time: the modules of two versions are never mixed."""

    def update() -> None:
        for name in ("page.js", "worker.js"):
            (copied / name).write_text((copied / name).read_text() + "//v2")
        script = copied / "service-worker.js"
        script.write_text(script.read_text().replace("const VERSION = '", "const VERSION = 'second"))

    found = visit("update", served(copied), at_pause=update)
    assert "//v2" not in found["during"]
    assert found["after"] == ["//v2", "//v2"]


@pytest.mark.parametrize(("rate", "channel"), [(44_100, 0), (48_000, 1)])
def test_microphone(page: Path, served: Callable[..., str], rate: int, channel: int, tmp_path: Path) -> None:
    """The sample at the device's rate, on one of its two channels, with a pause after it, at which the phrase appears;
    then silence."""
    from cohere_lite.audio import mix, open_audio

    with open_audio(SAMPLE) as audio:
        samples = np.concatenate([mix(block, None)[:, 0] for block in audio.blocks])
    times = np.arange(len(samples) * rate // 16_000) * 16_000 / rate
    spoken = np.interp(times, np.arange(len(samples)), samples)
    whole = np.zeros((7 * rate + len(spoken), 2))
    whole[3 * rate : -4 * rate, channel] = spoken
    path = tmp_path / "spoken.wav"
    path.write_bytes(test_wav.wav(np.rint(whole * 32767).astype("<i2").tobytes(), rate=rate, channels=2))
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    device_rate = f"""
        const Native = AudioContext;
        window.AudioContext = class extends Native {{ constructor() {{ super({{sampleRate: {rate}}}); }} }};
    """
    flags = [*fake, f"--use-file-for-fake-audio-capture={path}%noloop"]
    found = visit("microphone", served(page), flags=flags, before=device_rate)
    assert [recording["text"] for recording in found["whileListening"]] == [TEXT]
    assert found["whileListening"][0]["state"] == "working"
    assert texts(found) == [TEXT]
    assert found["level"] > -40
    assert found["named"] == [
        {"role": "button", "name": "Stop", "focused": True},
        {"role": "meter", "name": "Level of the microphone"},
    ]


def test_other_files_by_the_browsers_decoder(page: Path, served: Callable[..., str], tmp_path: Path) -> None:
    files = []
    for kind in ("flac", "mp3", "ogg"):
        files.append(tmp_path / f"sample.{kind}")
        subprocess.run(["ffmpeg", "-v", "error", "-i", str(SAMPLE), str(files[-1])], check=True)
    files.append(tmp_path / "stereo.flac")
    convert = ["ffmpeg", "-v", "error", "-i", str(SAMPLE), "-ar", "48000", "-ac", "2", str(files[-1])]
    subprocess.run(convert, check=True)
    files.append(tmp_path / "mp3.wav")  # a WAV file by its container
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(SAMPLE), "-c:a", "libmp3lame", str(files[-1])], check=True)
    files.append(tmp_path / "payload.wav")  # by its header PCM
    files[-1].write_bytes(test_wav.wav((tmp_path / "sample.mp3").read_bytes()))
    done_before = """
        const decode = OfflineAudioContext.prototype.decodeAudioData;
        window.seen = [];
        OfflineAudioContext.prototype.decodeAudioData = function (bytes) {
          window.seen.push(document.querySelectorAll('[data-state=done]').length);
          return decode.call(this, bytes);
        };
    """
    found = visit("together", served(page), files=files, before=done_before)
    assert texts(found) == [TEXT] * 6
    assert [recording["name"] for recording in found["found"]] == [path.name for path in files]
    assert found["seen"] == [0, 1, 2, 3, 4, 5]  # one after the other: each is in memory as a whole


@pytest.mark.parametrize(("flags", "minutes"), [([], 60), ([f"--user-agent={IPHONE}"], 15)])
def test_a_file_that_is_too_long_for_the_browsers_decoder(
    page: Path, served: Callable[..., str], flags: list[str], minutes: int, tmp_path: Path
) -> None:
    path = tmp_path / "silence.mp3"
    silence = ["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", str(60 * minutes + 90), "-b:a", "8k"]
    subprocess.run(["ffmpeg", "-v", "error", *silence, str(path)], check=True)
    (recording,) = visit("together", served(page), files=[path], flags=flags)["found"]
    assert recording["state"] == "failed"
    assert f"cut it into parts of {minutes} minutes" in recording["remarks"][0]


def test_a_file_that_was_cut_short(page: Path, served: Callable[..., str], tmp_path: Path) -> None:
    """It is 9.92 s, four times the sample, of which half are there."""
    path = tmp_path / "sample.flac"
    subprocess.run(["ffmpeg", "-v", "error", "-stream_loop", "3", "-i", str(SAMPLE), str(path)], check=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (recording,) = visit("together", served(page), files=[path])["found"]
    assert recording["state"] == "done"
    assert re.search("it lasts 0:10, and the browser's decoder found 0:0[45]: it may have", recording["remarks"][-1])


def test_a_video_whose_sound_begins_late(page: Path, served: Callable[..., str], tmp_path: Path) -> None:
    """After 4 of 8 s; browsers do not say where. Nothing is missing."""
    path = tmp_path / "late.webm"
    picture = ["-f", "lavfi", "-i", "color=s=64x64:r=5:d=8", "-itsoffset", "4", "-i", str(SAMPLE)]
    subprocess.run(["ffmpeg", "-v", "error", *picture, "-c:v", "libvpx", "-c:a", "libopus", str(path)], check=True)
    (recording,) = visit("together", served(page), files=[path])["found"]
    assert recording["text"] == TEXT
    (remark,) = recording["remarks"]
    assert re.search("the video lasts 0:08, and its sound 0:0[23]: .* subtitles are too early by as much", remark)


@needs_espeak
def test_long_audio_is_cut_as_in_python(served: Callable[..., str], tmp_path: Path) -> None:
    """Sentences in noise, at 44.1 kHz, for a model that takes 10 s at once: the same words, and the same subtitles are
    saved."""
    from tools.demo.heldout import heldout

    model, out = tmp_path / "10 s, 100 % #1", tmp_path / "out"
    export(CHECKPOINT, model, max_audio_s=10)
    assert main([str(out), str(model)]) == 0
    whole = np.concatenate([np.pad(samples, (0, 126_400 - len(samples))) for samples, _, _ in heldout("en", 8)])
    times = np.arange(len(whole) * 441 // 160) * 160 / 441
    noise = 1e-3 * np.random.RandomState(0).standard_normal(len(times))
    heard = np.interp(times, np.arange(len(whole)), whole) + noise
    path = tmp_path / "long.wav"
    path.write_bytes(test_wav.wav(np.rint(heard * 32767).astype("<i2").tobytes(), rate=44_100))
    transcript = Transcriber(model).transcribe(path)
    assert len([segment for segment in transcript.segments if segment.text]) > 3
    url = served(out)
    assert texts(visit("texts", url, files=[(path, "en")])) == [transcript.text]
    visit("downloads", url, files=[path], folder=tmp_path)
    for style in ("txt", "srt", "vtt"):
        expected = "".join(render(style, transcript.segments, "en"))
        assert (tmp_path / f"long.{style}").read_text(encoding="utf-8") == expected


def test_what_is_kept_and_deleted(page: Path, served: Callable[..., str]) -> None:
    asked: list[str] = []

    class Listing(Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    found = visit("keeping", served(page, Listing))
    names = {Path(name).name for name in asked if "/models/" in name}
    assert {*found["after"]} == names | {f"{name}.checked" for name in names}
    assert len([name for name in asked if "/models/" in name]) == len(names)  # the second visit fetches none
    assert found["ready"].startswith("Ready")
    assert found["deleted"].startswith("Kept models were deleted: 7")
    assert found["left"] == []


def test_a_kept_file_that_is_gone(page: Path, served: Callable[..., str]) -> None:
    assert visit("keeping", served(page), evicted="encoder.int8.onnx.data")["ready"].startswith("Ready")


def test_nothing_leaves_the_machine(page: Path, served: Callable[..., str]) -> None:
    """The browser sees to it: to another host the page could send nothing."""
    asked: list[str] = []

    class Listing(Plain):
        def do_GET(self) -> None:
            asked.append(self.path)

    elsewhere = served(page, Listing)
    found = visit("elsewhere", served(page), elsewhere=elsewhere, allowed="Content Security Policy")
    assert "Failed to fetch" in found["answer"]
    assert asked == []


def test_a_download_that_was_cut_short_goes_on(page: Path, served: Callable[..., str]) -> None:
    """The connection ends in the middle of the weights, once; and once the server is another, which knows no ranges."""
    ranges: list[str | None] = []

    class Failing(Handler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            if not self.path.endswith("encoder.int8.onnx.data"):
                return super().copyfile(source, outputfile)
            ranges.append(self.headers.get("Range"))
            if len(ranges) == 1:
                outputfile.write(source.read(2_000_000))
                self.close_connection = True
            elif len(ranges) == 2:
                outputfile.write(source.read(1_000_000))
                self.close_connection = True
            else:
                super().copyfile(source, outputfile)

    found = visit("texts", served(page, Failing), files=[(SAMPLE, "en")], allowed="ERR_CONTENT_LENGTH_MISMATCH")
    assert texts(found) == [TEXT]
    assert ranges[0] is None
    first, second = (int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in ranges[1:] if wanted)
    assert 0 < first <= 2_000_000  # what the browser had handed over
    assert first < second <= first + 1_000_000


def test_a_server_that_knows_no_ranges(page: Path, served: Callable[..., str]) -> None:
    tries: list[str | None] = []

    class Failing(Plain):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            if self.path.endswith("encoder.int8.onnx.data"):
                tries.append(self.headers.get("Range"))
                if len(tries) == 1:
                    return outputfile.write(source.read(2_000_000))
            super().copyfile(source, outputfile)

    found = visit("texts", served(page, Failing), files=[(SAMPLE, "en")], allowed="ERR_CONTENT_LENGTH_MISMATCH")
    assert texts(found) == [TEXT]
    assert tries[0] is None
    assert [wanted[:6] for wanted in tries[1:] if wanted] == ["bytes="]
    assert len(tries) == 2  # what came the second time, from the start, has the right checksum


# What goes wrong


def told(page: Path, served: Callable[..., str], **given: Any) -> str:
    """The status of a page whose model cannot be loaded."""
    return str(visit("texts", served(page), allowed="Failed to load resource", **given)["ready"])


def test_an_incomplete_model(copied: Path, served: Callable[..., str]) -> None:
    (copied / "models/demonstration/decoder.int8.onnx.data").unlink()
    said = told(copied, served)
    assert said.startswith("demonstration could not be loaded. decoder.int8.onnx.data is not there")
    assert "404" in said
    assert "incomplete" in said


def test_a_model_that_was_changed(copied: Path, served: Callable[..., str]) -> None:
    path = copied / "models/demonstration/decoder.int8.onnx.data"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert "decoder.int8.onnx.data is not the file that models.json describes" in told(copied, served)
    path.write_bytes(data + b"more")
    assert "decoder.int8.onnx.data is not the file that models.json describes" in told(copied, served)


def test_no_list_of_models(copied: Path, served: Callable[..., str]) -> None:
    (copied / "models.json").write_text("[")
    found = visit("texts", served(copied), allowed="Failed to load resource")
    assert found["ready"].startswith("The list of models cannot be read")


def test_a_page_that_is_incomplete(copied: Path, served: Callable[..., str]) -> None:
    """Its service worker, which keeps all files, has failed; the page goes on without it."""
    (copied / "icon.svg").unlink()
    found = visit("texts", served(copied), files=[(SAMPLE, "en")], allowed="Failed to load resource")
    assert texts(found) == [TEXT]
    assert "works only as long as its server is there" in found["notices"][0]
    assert "a file of it is missing" in found["notices"][0]


def test_a_model_too_large_for_the_memory(copied: Path, served: Callable[..., str]) -> None:
    """Nothing is kept at an address of http, so the file would be held in memory: 10 TB."""
    listed = json.loads((copied / "models.json").read_text())
    listed[0]["files"]["encoder.int8.onnx.data"]["bytes"] = 10**13
    (copied / "models.json").write_text(json.dumps(listed))
    url = served(copied, host="0.0.0.0").replace("localhost", own_address())
    assert "There is not enough memory for this model" in visit("texts", url, allowed=UNTRUSTED)["ready"]


UNTRUSTED = "The Cross-Origin-Opener-Policy header has been ignored"  # what Chromium says of an address of http


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def test_an_address_of_http(page: Path, served: Callable[..., str]) -> None:
    """As of a telephone: no service worker, no SharedArrayBuffer, no storage, no microphone. It works, and says so."""
    url = served(page, host="0.0.0.0").replace("localhost", own_address())
    found = visit("texts", url, files=[(SAMPLE, "en")], allowed=UNTRUSTED)
    assert texts(found) == [TEXT]
    assert "Copy" not in found["found"][0]["buttons"]  # browsers give no clipboard, either
    assert found["ready"].endswith("in WebAssembly, 1 thread.")
    assert not found["isolated"]
    assert len([notice for notice in found["notices"] if "http://" in notice]) == 3


def test_threads_that_fail(copied: Path, served: Callable[..., str]) -> None:
    """As on some telephones, which have no 4 GB of addresses to share: one thread does the work, in 1 GB."""
    script = copied / "worker.js"
    refused = """
        const Native = WebAssembly.Memory;
        WebAssembly.Memory = function (size) {
          if (size.maximum > 20000) throw new RangeError('Out of memory');
          return new Native(size);
        };
    """
    script.write_text(refused + script.read_text())
    found = visit("texts", served(copied), files=[(SAMPLE, "en")])
    assert texts(found) == [TEXT]
    assert found["ready"].endswith("1 thread.")
    assert found["notices"] == ["Several threads failed here: one does the work."]


def test_a_large_model_on_a_telephone(copied: Path, served: Callable[..., str]) -> None:
    """It says so before the download, and loads the small one; also where a page has ended while it loaded another."""
    listed = json.loads((copied / "models.json").read_text())
    large = json.loads(json.dumps(listed[0])) | {"folder": "large", "id": "large-1"}
    large["pairs"][0]["bytes"] = large["pairs"][1]["bytes"] = 2_000_000_000
    (copied / "models.json").write_text(json.dumps([large, *listed]))
    found = visit("choice", served(copied), flags=[f"--user-agent={IPHONE}"])
    assert found["ready"].startswith("Ready: demonstration")
    assert "about 1.5 GB, and ends without a word" in found["said"]["large"]
    assert "demonstration is the one for it" in found["said"]["large"]
    found = visit("choice", served(copied))
    assert found["ready"] == "Choose a model, and load it."
    assert found["said"]["large"].startswith("2000 MB are downloaded once, and kept")
    broken_off = "if (!localStorage.length) localStorage.setItem('loading', 'large')"
    found = visit("choice", served(copied), before=broken_off)
    assert found["ready"].startswith("Ready: demonstration")
    assert "The page ended while it loaded large" in found["notices"][0]


def test_a_file_while_the_microphone_listens(page: Path, served: Callable[..., str]) -> None:
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    found = visit("both", served(page), files=[SAMPLE], flags=fake)
    file, microphone = found["states"]
    assert (file["state"], file["text"]) == ("done", TEXT)
    assert microphone["state"] == "working"
    assert found["after"][1]["state"] in ("done", "failed")  # loading a model ends it, and says so


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("block: ({id, samples}) => ", "block: ({id, samples}) => nothing.there() ?? ", "The recogniser ended"),
        ("for (const samples of pieces) {", "for (const samples of pieces) { nothing.there();", "This browser cannot"),
        # where the last phrase takes long, the recording's own button still says Stop
        ("stop: ({id}) => ", "stop: () => {}, unused: ({id}) => ", ""),
    ],
    ids=["the recogniser ends", "recognising fails", "stopped twice"],
)
def test_a_microphone_that_ends(
    copied: Path, served: Callable[..., str], before: str, after: str, message: str
) -> None:
    """It is off then, and says so."""
    changed = 0
    for name in ("worker.js", "recording.js"):
        text = (copied / name).read_text()
        changed += before in text
        (copied / name).write_text(text.replace(before, after))
    assert changed == 1
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    remembering = """
        const devices = navigator.mediaDevices;
        const open = devices.getUserMedia.bind(devices);
        devices.getUserMedia = async (wanted) => {
          const stream = await open(wanted);
          Object.defineProperty(window, 'seen', {get: () => stream.getAudioTracks()[0].readyState});
          return stream;
        };
    """
    given = {"flags": fake, "before": remembering, "allowed": "nothing is not defined", "stops": not message}
    found = visit("ends", served(copied), **given)
    assert found["seen"] == "ended"
    (recording,) = found["found"]
    assert recording["state"] == ("failed" if message else "done")
    assert message in " ".join(recording["remarks"])
    assert found["isDisabled"] == (message == "The recogniser ended")


def test_a_folder_that_is_dropped(page: Path, served: Callable[..., str], tmp_path: Path) -> None:
    (recording,) = visit("moved", served(page), folder=tmp_path)["found"]
    assert "It cannot be read: it is a folder, or has been moved" in recording["remarks"][0]


def test_a_recogniser_that_ends(copied: Path, served: Callable[..., str]) -> None:
    """As where memory ends while it works: what waits for it is told so."""
    script = copied / "worker.js"
    text = script.read_text()
    broken = text.replace("inTurn(request, () => recogniseFile(request))", "nothing.there()")
    assert broken != text
    script.write_text(broken)
    (recording,) = visit("together", served(copied), files=[SAMPLE], allowed="nothing is not defined")["found"]
    assert recording["state"] == "failed"
    assert "sample.wav: The recogniser ended" in recording["remarks"][0]


def test_a_disk_without_room(page: Path, served: Callable[..., str]) -> None:
    found = visit("quota", served(page), files=[SAMPLE], quota=20_000_000, allowed="Failed to load resource")  # an icon
    assert texts(found) == [TEXT]
    (notice,) = found["notices"]
    assert re.search(r"the browser gives this page \d+ MB, of which \d+ MB are used", notice)
    assert "held in memory" in notice


@needs_firefox
def test_a_private_window(page: Path, served: Callable[..., str]) -> None:
    preferences = {"browser.privatebrowsing.autostart": True}
    given = {"browser": "firefox", "timeout": 240_000, "preferences": preferences}
    found = visit("texts", served(page), files=[(SAMPLE, "en")], **given)
    assert texts(found) == [TEXT]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("text.txt", b"no sound at all, but words", "not a WAV file; no sound that this browser can decode"),
        ("empty.wav", b"", "The file is empty."),
        ("gsm.wav", test_wav.wav(bytes(65), tag=0x31), "tag 0x0031, 16 bits per sample, 1 channels; no sound"),
        ("other.wav", test_wav.wav(bytes(65), tag=0x31), "WAV of 16 bits works in all of them"),
        ("zero.wav", test_wav.wav(b""), "holds 0.0 ms of sound; 10 ms is the least"),
        ("nan.wav", test_wav.wav(np.full(9, np.nan, "<f4").tobytes(), tag=3, bits=32), "NaN, infinity or a number"),
        ("rate.wav", test_wav.wav(bytes(99), rate=5), "sampling rate 5 Hz; supported"),
    ],
    ids=["no sound", "no bytes", "GSM", "another coding", "no samples", "no numbers", "no rate"],
)
def test_a_file_that_cannot_be_recognised(
    page: Path, served: Callable[..., str], name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    (recording,) = visit("together", served(page), files=[path])["found"]
    assert recording["state"] == "failed"
    assert recording["text"] == ""
    assert message in recording["remarks"][0]
    assert name in recording["remarks"][0]


def test_the_picture_of_live_speech(page: Path, served: Callable[..., str]) -> None:
    """By hand: 10 columns a second, and the last of 60 s; 15 s of the first 30 are left, then there is silence."""
    assert visit("picture", served(page))["drawn"] == [True] * 150 + [False] * 300 + [True] * 150


def test_accessibility(page: Path, served: Callable[..., str]) -> None:
    said = """
        window.seen = [];
        addEventListener('DOMContentLoaded', () => {
          const status = document.getElementById('status');
          new MutationObserver(() => window.seen.push(status.textContent)).observe(status, {childList: true});
        });
    """
    found = visit("accessibility", served(page), files=[SAMPLE], before=said)
    assert [message[:8] for message in found["seen"]] == ["Loading ", "Ready: d"]  # all that is read out
    assert found["violations"] == []
    assert found["duration"] == "0s"  # reduced motion
    wanted = {"model", "device", "load", "forget", "language", "record", "files", "text", "copy quiet"}
    assert wanted <= {*found["reached"]}


# The tool


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("mine")
    assert main([str(tmp_path)]) == 1
    assert "neither an empty folder" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_page_stays_until_the_new_one_is_complete(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Built again with a model of its own folder; without npm, and with it."""
    model = copied / "models" / "mine"
    (copied / "models" / "demonstration").rename(model)
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        assert main([str(copied), str(model)]) == 1
    assert "could not be installed with npm" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in copied.parent.rglob("*") if path.is_file()} == before
    assert main([str(copied), str(model)]) == 0
    assert (model / "tokens.txt").read_bytes() == before[model / "tokens.txt"]
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_a_model_called_as_the_small_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shutil.copytree(DEMO_FOLDER, tmp_path / "demonstration")
    assert main([str(tmp_path / "out"), str(model)]) == 1
    assert "give the folder another name" in capsys.readouterr().err


def test_a_port_that_cannot_be_had(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--serve", str(page), "--port", str(port)]) == 1
    assert main(["--serve", str(page), "--port", "65536"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: port {port}: {os.strerror(errno.EADDRINUSE)}; --port names another"
    assert lines[1].startswith("error: port 65536: ")


def test_serving_with_tls(page: Path) -> None:
    import ssl
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tools.web", "--serve", str(page), "--tls", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stderr
            lines = [process.stdout.readline(), process.stdout.readline()]
            assert f"https://{own_address()}:{port}/" in lines[1]
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            request = urllib.request.Request(f"https://localhost:{port}/index.html", headers={"Range": "bytes=10-"})
            with pytest.raises(urllib.error.URLError, match=r"self.signed certificate"):  # as of a browser at first
                urllib.request.urlopen(request.full_url)
            # a client that says nothing does not hold up others
            silent = socket.create_connection(("127.0.0.1", port))
            with silent, urllib.request.urlopen(request, context=context) as answer:
                assert answer.status == 206
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert answer.read() == (page / "index.html").read_bytes()[10:]
        finally:
            process.terminate()
        assert process.stderr.read() == ""
