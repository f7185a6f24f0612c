"""Mixed requests through one process for hours: its memory, descriptors, threads and temporary files must stay flat.

    python -m tools.soak HOURS [--seed N]

Three threads ask one Transcriber for recordings of many kinds, among them damaged ones, and leave some of them half
read. Between them the main thread opens and closes other Transcribers, forks children that make their own, spawns
programs and ends them by signals, and calls the command in this process. Every answer is compared with the known one.
Prints a row a minute. Exit code 1 if an answer was wrong, or if something grew between the first quarter and the last.
Needs ffmpeg, and Linux for the figures. With the demonstration model, so that it finds what leaks, not what is large.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cohere_lite import AudioError, CohereLiteError, OptionError, Pauses, Transcriber, open_audio
from cohere_lite.cli.run import main as command
from cohere_lite.model import DEMO_FOLDER

SAMPLE = DEMO_FOLDER / "sample.wav"
TEXT = "Turn on the light in the living room."
RATE = 16000
SPEECH = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")
N_THREADS = 3
CHILD_S = 120.0  # a child that takes longer hangs
# What the medians of two quarters may differ by without a leak: arenas grow to their largest use.
TOLERANCES = {"memory, MB": 15.0, "descriptors": 2.0, "threads": 2.0, "temporary files": 1.0, "children": 1.0}

Request = Callable[[], object]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("hours", type=float)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        with tempfile.TemporaryDirectory(dir=Path(folder).parent) as media:
            return soak(args.hours * 3600, args.seed, Path(media), Path(folder))


def soak(seconds: float, seed: int, media: Path, temporary: Path) -> int:
    """Ask for that long; the exit code."""
    transcriber = Transcriber(threads=1)
    make_media(media)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    ended, is_due = threading.Event(), threading.Event()
    rest = threading.Barrier(N_THREADS + 1)  # to measure while nothing is going on

    def work(requests: dict[str, Request], number: int) -> Iterator[None]:
        choose = random.Random(seed + number)
        while not ended.is_set():
            name = choose.choice([*requests])
            try:
                requests[name]()
                counts[name] += 1
            except BaseException:
                failures.append(f"{name}: {traceback.format_exc()}")
                print(failures[-1], file=sys.stderr, flush=True)
            yield

    def worker(number: int) -> None:
        for _ in work(in_threads(transcriber, media, random.Random(seed - number)), number):
            if is_due.is_set():
                rest.wait()
                rest.wait()

    threads = [threading.Thread(target=worker, args=(number + 1,)) for number in range(N_THREADS)]
    for thread in threads:
        thread.start()
    rows: list[dict[str, float]] = []
    began = time.monotonic()
    interval_s = min(60.0, seconds / 20)
    print(" | ".join(["minute", *TOLERANCES, "requests"]), flush=True)
    for _ in work(in_main(media), 0):
        now = time.monotonic() - began
        if now >= interval_s * (len(rows) + 1):
            is_due.set()
            rest.wait()
            rows.append(measured(temporary))
            is_due.clear()
            rest.wait()
            figures = [f"{value:.0f}" for value in rows[-1].values()]
            print(" | ".join([f"{now / 60:.1f}", *figures, str(counts.total())]), flush=True)
        if now > seconds:
            ended.set()
    for thread in threads:
        thread.join()
    print("\n".join(f"{count:8} {name}" for name, count in sorted(counts.items())))
    grown = growth(rows)
    for name, by in grown.items():
        print(f"{name}: {by:+.1f} from the first quarter to the last, {TOLERANCES[name]:.0f} allowed")
    print(f"{counts.total()} requests, {len(failures)} failures")
    return int(bool(failures) or any(by > TOLERANCES[name] for name, by in grown.items()))


def measured(temporary: Path) -> dict[str, float]:
    """What must not grow, now."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found = [
        resident_pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        sum(len(files) for _, _, files in os.walk(temporary)),
        len(children),
    ]
    return dict(zip(TOLERANCES, map(float, found), strict=True))


def growth(rows: list[dict[str, float]]) -> dict[str, float]:
    """From the second eighth's median to the last quarter's: the first eighth warms up."""
    n = len(rows)
    before, after = rows[n // 8 : n // 4 + 1], rows[-(n // 4) :]
    return {
        name: statistics.median(row[name] for row in after) - statistics.median(row[name] for row in before)
        for name in TOLERANCES
    }


def make_media(folder: Path) -> None:
    """The sample as files of many kinds, and damaged ones."""
    for name, options in {
        "a.flac": [], "a.mp3": [], "a.ogg": ["-c:a", "libvorbis"], "a.opus": ["-c:a", "libopus"], "a.m4a": [],
        "a.aiff": [], "a.au": [], "a.caf": [], "ima.wav": ["-c:a", "adpcm_ima_wav"], "mulaw.wav": ["-c:a", "pcm_mulaw"],
        "a.mkv": ["-f", "lavfi", "-i", "color=black:s=64x64:d=2", "-shortest", "-c:v", "mpeg4"],
        "48k.wav": ["-ar", "48000", "-ac", "2"],
    }.items():  # fmt: skip
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(SAMPLE), *options, str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    data = SAMPLE.read_bytes()
    (folder / "cut.wav").write_bytes(data[: len(data) - 3001])
    (folder / "two.wav").write_bytes(data + data)
    for name in "flac", "mp3", "m4a":
        whole = (folder / f"a.{name}").read_bytes()
        (folder / f"half.{name}").write_bytes(whole[: len(whole) // 2])
    (folder / "text.wav").write_text("no sound")
    (folder / "empty.wav").touch()


def expect(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def expect_error(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


class _Broken(io.RawIOBase):
    """A source that fails after the first half."""

    def __init__(self) -> None:
        self._file = io.BytesIO(SAMPLE.read_bytes()[:40000])

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(into)
        if not count:
            raise OSError("the network is gone")
        return count


def in_threads(transcriber: Transcriber, media: Path, choose: random.Random) -> dict[str, Request]:
    """What several threads ask one Transcriber for, at the same time."""
    long = np.tile(np.concatenate([SPEECH, np.zeros(RATE, "<i2")]), 4)

    def heard(audio: object, **options: object) -> str:
        return transcriber.transcribe(audio, **options).text  # type: ignore[arg-type]

    def file() -> None:
        name = choose.choice([path.name for path in media.glob("*") if path.stem in ("a", "48k", "mulaw")])
        text = heard(str(media / name)) if choose.random() < 0.5 else heard((media / name).read_bytes())
        expect(text, TEXT)

    def lossy() -> None:
        transcriber.transcribe(str(media / choose.choice(["ima.wav", "cut.wav", "two.wav", "half.flac", "half.mp3"])))

    def samples() -> None:
        expect(heard(SPEECH, rate=RATE), TEXT)
        expect(heard((SPEECH / 2**15).astype("f4"), rate=RATE), TEXT)
        expect(heard(iter(np.array_split(SPEECH, 9)), rate=RATE), TEXT)

    def pushed() -> None:
        recording = transcriber.recording(rate=RATE, pauses=Pauses())
        found = [s.text for block in np.array_split(long, 50) for s in recording.push(block)]
        found += [segment.text for segment in recording.finish()]
        expect([text for text in found if text], [TEXT] * 4)

    def split() -> None:
        stereo = np.stack([long, np.roll(long, RATE)], 1)
        found = heard(stereo, rate=RATE, channel="split", pauses=Pauses()).splitlines()
        expect(sorted(found), sorted([f"[0] {TEXT}"] * 4 + [f"[1] {TEXT}"] * 4))

    def given_up() -> None:
        segments = transcriber.segments(long, rate=RATE, pauses=Pauses())
        next(segments)
        segments.close()
        transcriber.recording(rate=8000).push(SPEECH)
        with open_audio(media / choose.choice(["a.mp3", "a.flac", "a.mkv"])) as audio:
            next(audio.blocks)
        next(transcriber.segments(media / "a.opus"))

    def faulty() -> None:
        for name in "text.wav", "empty.wav", "half.m4a":
            expect_error(AudioError, lambda name=name: heard(media / name))  # type: ignore[misc]
        expect_error(FileNotFoundError, lambda: heard(media / "missing.wav"))
        expect_error(OptionError, lambda: heard(SAMPLE, language="xx"))
        expect_error(OptionError, lambda: heard(SAMPLE, channel=3))
        expect_error(AudioError, lambda: heard(np.full(9000, np.nan), rate=RATE))
        expect_error(OSError, lambda: heard(io.BufferedReader(_Broken())))
        expect_error(CohereLiteError, lambda: heard(b"RIFF" + choose.randbytes(choose.randrange(300))))

    return {f"in threads: {call.__name__}": call for call in (file, lossy, samples, pushed, split, given_up, faulty)}


def in_main(media: Path) -> dict[str, Request]:
    """What is asked for one after the other, beside the threads."""

    def other_transcribers() -> None:
        with Transcriber(threads=2) as other:
            expect(other.transcribe(SAMPLE).text, TEXT)
        Transcriber(threads=1)
        expect_error(CohereLiteError, lambda: Transcriber("nowhere"))

    def forked() -> None:
        child = os.fork()
        if not child:
            code = 1
            try:
                code = int(Transcriber(threads=1).transcribe(SAMPLE).text != TEXT)
            finally:
                os._exit(code)
        deadline = time.monotonic() + CHILD_S
        while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        expect(os.waitstatus_to_exitcode(found[1]), 0)

    def pools() -> None:
        for method in "fork", "spawn":
            with multiprocessing.get_context(method).Pool(1, initializer=_begin) as pool:
                expect(pool.map_async(_heard, [str(SAMPLE)]).get(CHILD_S), [TEXT])
                pool.close()
                pool.join()

    def programs() -> None:
        live = [sys.executable, "-m", "cohere_lite", "-q", "--raw", "16000:s16le:1", "-"]
        with subprocess.Popen(live, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(SPEECH.tobytes() + bytes(64000))
            process.stdin.flush()
            expect(process.stdout.readline(), f"{TEXT}\n".encode())
            process.send_signal(random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
            process.stdin.close()

    def the_command() -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            expect(command(["-q", str(SAMPLE), str(media / "a.flac"), str(media / "text.wav")]), 1)
        expect(said.getvalue(), f"{TEXT}\n" * 2)

    calls = (other_transcribers, forked, pools, programs, the_command)
    return {f"in main: {call.__name__}": call for call in calls}


_own: list[Transcriber] = []  # of a process in a pool


def _begin() -> None:
    _own.append(Transcriber(threads=1))


def _heard(path: str) -> str:
    return _own[0].transcribe(path).text


if __name__ == "__main__":
    sys.exit(main())
