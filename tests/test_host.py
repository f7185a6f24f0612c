"""Inside of other people's programs: processes that fork and end, threads, pickles, `with`, copies and packed ones."""

import copy
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
import zipapp
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKOUT, until
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite import Pauses, StateError, Transcriber, model
from cohere_lite.errors import ModelFileNotFound
from cohere_lite.turns import Turn

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
IN_CHILD = "was made before this process was forked"

# The process's own fault would be to hang for ever, so that a child is given time: 60 s, of some 2 that it takes.
START = f"""
import os, signal, sys, threading, time
import cohere_lite
SAMPLE = {str(SAMPLE)!r}

def forked(work, leave=sys.exit):
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        try:
            print(work(), flush=True)
        except cohere_lite.StateError as error:
            print("StateError", error, flush=True)
        leave(0)
    return os.waitpid(pid, 0)[1]

"""


def run(code: str, *args: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", START + textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def said(code: str, *args: object) -> list[str]:
    """What a program prints that ends well."""
    result = run(code, *args)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@fork
@pytest.mark.parametrize("leave", ["sys.exit", "os._exit"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_with_a_transcriber_of_its_own(threads: int, leave: str) -> None:
    """In place of the parent's, which is destroyed by that; also where the child ends as programs do."""
    code = f"""
    t = cohere_lite.Transcriber(threads={threads})
    t.transcribe(SAMPLE)

    def work():
        global t
        t = cohere_lite.Transcriber(threads=2)
        return t.transcribe(SAMPLE).text

    print(forked(work, {leave}), t.transcribe(SAMPLE).text)
    """
    assert said(code) == [SAMPLE_TEXT, f"0 {SAMPLE_TEXT}"]


@fork
@pytest.mark.parametrize("used", ["pass", "t.transcribe(SAMPLE)", "next(t.segments(SAMPLE))"])
@pytest.mark.parametrize(("threads", "expected"), [(1, SAMPLE_TEXT), (2, f"StateError this Transcriber {IN_CHILD}")])
def test_the_parents_transcriber_in_a_child(threads: int, expected: str, used: str) -> None:
    """And in the child's child; one without threads can be closed there, too."""
    code = f"""
    t = cohere_lite.Transcriber(threads={threads})
    {used}

    def work():
        print(forked(lambda: t.transcribe(SAMPLE).text), flush=True)
        text = t.transcribe(SAMPLE).text
        t.close()
        return text

    print(forked(work), t.transcribe(SAMPLE).text)
    """
    grandchild, its_status, child, parents = said(code)
    assert (grandchild.startswith(expected), child.startswith(expected)) == (True, True)
    assert (its_status, parents) == ("0", f"0 {SAMPLE_TEXT}")


@fork
def test_a_child_leaves_the_graph_for_word_times_alone() -> None:
    """It has threads of its own, which are not there to be ended: with four the child crashes, or hangs."""
    code = """
    t = cohere_lite.Transcriber(threads=4)
    t.transcribe(SAMPLE, word_times=True)

    def work():
        global t
        del t
        return "left alone"

    print(forked(work))
    """
    assert said(code) == ["left alone", "0"]


@pytest.mark.slow
@fork
@pytest.mark.parametrize("work", ["t.transcribe(SAMPLE)", "cohere_lite.Transcriber(threads=1)"])
def test_a_fork_while_another_thread_is_at_work(work: str) -> None:
    """Which is not there in the child, and will never give back what it has taken."""
    code = f"""
    t = cohere_lite.Transcriber(threads=1)

    def go_on():
        while True: {work}

    threading.Thread(target=go_on, daemon=True).start()
    time.sleep(0.2)
    print([forked(lambda: t.transcribe(SAMPLE).text) for _ in range(10)])
    """
    *children, statuses = said(code)
    assert statuses == str([0] * 10)
    assert all(text == SAMPLE_TEXT or IN_CHILD in text for text in children)


@fork
def test_a_fork_while_other_threads_multiply() -> None:
    """A fork ends OpenBLAS's threads, in the parent, too: what another thread has given them is never done, so nothing
    may be given to them. All three threads go on afterwards."""
    code = """
    import numpy as np
    from cohere_lite.audio import mix
    from cohere_lite.extras.polarity import Polarity
    from cohere_lite.mel import log_mel
    from cohere_lite.resample import Resampler

    signal.alarm(60)
    noise = np.random.default_rng(0).standard_normal((44100, 2)).astype(np.float32)
    is_over = False

    def work():
        while not is_over:
            mean = mix(noise, None)
            Polarity(44100).replace_cancelled(noise, mean)
            log_mel(Resampler(44100).push(mean[:, 0]))

    threads = [threading.Thread(target=work) for _ in range(3)]
    [thread.start() for thread in threads]
    print([forked(lambda: 0, os._exit) for _ in range(100)])
    is_over = True
    [thread.join() for thread in threads]
    """
    assert said(code)[-1] == str([0] * 100)


@fork
def test_a_busy_transcriber_in_a_child() -> None:
    """By construction: another thread has taken it when the process is forked."""
    code = """
    t = cohere_lite.Transcriber(threads=1)
    taken, done = threading.Event(), threading.Event()

    def hold():
        with t._model.turn.lock:
            taken.set()
            done.wait()

    threading.Thread(target=hold).start()
    taken.wait()
    status = forked(lambda: t.transcribe(SAMPLE).text)
    done.set()
    print(status, t.transcribe(SAMPLE).text)
    """
    child, parent = said(code)
    assert IN_CHILD in child
    assert parent == f"0 {SAMPLE_TEXT}"


@fork
@pytest.mark.parametrize("make", ["Pool(2, initializer=init)", "ProcessPoolExecutor(2, fork, init)"])
def test_pools(make: str) -> None:
    """The parent has one with threads; each worker makes its own."""
    code = f"""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor as Executor
    fork = multiprocessing.get_context("fork")
    Pool = fork.Pool
    ProcessPoolExecutor = lambda n, context, init: Executor(n, context, init)
    t = cohere_lite.Transcriber()
    t.transcribe(SAMPLE)

    def init():
        global t
        signal.alarm(60)
        t = cohere_lite.Transcriber(threads=1)

    def work(path):
        return t.transcribe(path).text

    with {make} as pool:
        print(*pool.map(work, [SAMPLE] * 3), sep=chr(10))
    """
    assert said(code) == [SAMPLE_TEXT] * 3


ENDS = {"at the end": "", "exit": "sys.exit()", "error": "1 / 0"}
if os.name == "posix":
    ENDS["Ctrl-C"] = "signal.raise_signal(signal.SIGINT)"


@pytest.mark.slow
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("work", ["t.transcribe(SAMPLE)", "cohere_lite.Transcriber()"])
def test_the_end_while_a_daemon_thread_is_at_work(work: str, ends: str) -> None:
    """Without the wait, half of the runs abort."""
    code = f"""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    t = cohere_lite.Transcriber()

    def go_on():
        while True: {work}

    threading.Thread(target=go_on, daemon=True).start()
    time.sleep(float(sys.argv[1]))
    {ENDS[ends]}
    """
    expected = {"error": 1, "Ctrl-C": -signal.SIGINT}.get(ends, 0)
    results = [run(code, delay) for delay in (0.1, 0.13, 0.17, 0.2)]
    assert [result.returncode for result in results] == [expected] * 4
    assert {"Thread" in result.stderr for result in results} == {False}


@pytest.mark.folder  # one file is whole as soon as it is imported: nothing comes before it
def test_what_is_registered_before_us_waits_for_its_thread() -> None:
    """It is called after our wait: the thread then ends, rather than wait for ever."""
    code = """
    import atexit
    atexit.register(lambda: (thread.join(), print("joined")))
    t = cohere_lite.Transcriber()

    def go_on():
        try:
            while True: t.transcribe(SAMPLE)
        finally: print("ended")

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    time.sleep(0.1)
    """
    assert said(code) == ["ended", "joined"]


def test_what_is_registered_after_us_may_still_transcribe() -> None:
    code = """
    import atexit
    atexit.register(lambda: print(t.transcribe(SAMPLE).text))
    t = cohere_lite.Transcriber()
    atexit.register(lambda: print(t.transcribe(SAMPLE).text))
    """
    assert said(code) == [SAMPLE_TEXT] * 2


@pytest.fixture
def transcriber() -> Iterator[Transcriber]:
    with Transcriber(threads=1) as transcriber:
        yield transcriber


def test_no_pickles_and_copies(transcriber: Transcriber) -> None:
    for thing, name in (transcriber, "Transcriber"), (transcriber.recording(16000), "Recording"):
        for duplicate in pickle.dumps, copy.copy, copy.deepcopy:
            with pytest.raises(TypeError, match=f"a {name} cannot be pickled or copied"):
                duplicate(thing)


def test_with_frees_the_sessions() -> None:
    """By record: the objects of onnxruntime are gone, though our own are not."""
    with Transcriber() as transcriber:
        assert transcriber.transcribe(SAMPLE).text == SAMPLE_TEXT
        contract = transcriber._model.contract
        sessions = contract.encoder._session, contract.decoder._session
        alive = [*map(weakref.ref, sessions)]
        del contract, sessions
        assert [reference() is None for reference in alive] == [False, False]
    assert [reference() is None for reference in alive] == [True, True]
    transcriber.close()  # once more: nothing happens
    for use in (
        lambda: transcriber.transcribe(SAMPLE),
        lambda: transcriber.segments(SAMPLE),
        lambda: transcriber.recording(16000),
    ):
        with pytest.raises(StateError, match="this Transcriber is closed"):
            use()
    assert "en" in transcriber.languages


def test_a_recording_that_goes_on_when_its_transcriber_is_closed(transcriber: Transcriber) -> None:
    """What it has given stays; it gives no more."""
    recording = transcriber.recording(16000, pauses=Pauses())
    segments = transcriber.segments(iter([np.zeros(16000), np.zeros(16000)]), rate=16000, pauses=Pauses())
    recording.push(np.zeros(1600))
    transcriber.close()
    with pytest.raises(StateError, match="is closed"):
        recording.finish()
    with pytest.raises(StateError, match="is closed"):
        next(segments)


def test_close_waits_for_the_piece_that_is_being_recognised(transcriber: Transcriber) -> None:
    turn, closing = transcriber._model.turn, threading.Event()

    def close() -> None:
        closing.set()
        transcriber.close()

    with turn.lock:
        thread = threading.Thread(target=close)
        thread.start()
        closing.wait()
        thread.join(0.1)
        turn.check()  # not closed yet
    thread.join()
    with pytest.raises(StateError):
        turn.check()


def test_models_on_webgpu_share_their_turns() -> None:
    """Two threads crash onnxruntime-ep-webgpu 0.4.0, also with a session each."""
    lock = Turn(True, ["webgpu:0", "cpu"]).lock
    assert Turn(True, ["WebGpuExecutionProvider"]).lock is lock
    assert Turn(True, ["cuda:1"]).lock is not Turn(True, ["cuda:1"]).lock


@fork
def test_a_forked_child_has_a_lock_of_its_own_for_webgpu() -> None:
    """Whoever held the parent's."""
    lock = Turn(True, ["webgpu"]).lock
    pid = os.fork()
    if pid == 0:
        os._exit(int(Turn(True, ["webgpu"]).lock is lock))
    assert os.waitpid(pid, 0)[1] == 0


def test_a_turn_is_forgotten_with_its_model() -> None:
    turn = weakref.ref(Turn(False))
    until(lambda: turn() is None)


def command_of_a_copy(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    """Without the checkout on the path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.folder
@pytest.mark.parametrize("source", ["app", "app/cohere_lite"])
def test_a_zip_with_the_package(tmp_path: Path, source: str) -> None:
    """In the way of zipapp: called by another program's __main__.py; or by its own."""
    package = CHECKOUT / "cohere_lite"
    shutil.copytree(package, tmp_path / "app" / "cohere_lite", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "app" / "__main__.py").write_text("from cohere_lite.__main__ import run\nrun()\n")
    zipapp.create_archive(tmp_path / source, tmp_path / "app.pyz")
    result = command_of_a_copy("app.pyz", "--quiet", "--model", package / "demo", SAMPLE, cwd=tmp_path)
    assert (result.stdout, result.stderr) == (f"{SAMPLE_TEXT}\n", "")
    result = command_of_a_copy("app.pyz", "--quiet", SAMPLE, cwd=tmp_path)
    told = "is in a zip file, and models are loaded from folders"
    expected = f"error: this copy of the package {told}: name a model folder\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


@pytest.mark.folder
@pytest.mark.parametrize("command", ["my speech-1.0", "my speech-1.0/__main__.py"])
def test_a_folder_of_any_name_as_a_program(tmp_path: Path, command: str) -> None:
    """Its files do not hide others' modules, here the standard library's json. Without the command it says so."""
    folder = tmp_path / "my speech-1.0"
    shutil.copytree(CHECKOUT / "cohere_lite", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "json.py").write_text("raise SystemExit('hidden')")
    result = command_of_a_copy(command, "--quiet", SAMPLE, cwd=tmp_path)
    assert (result.stdout, result.stderr) == (f"{SAMPLE_TEXT}\n", "")
    shutil.rmtree(folder / "cli")
    result = command_of_a_copy(command, SAMPLE, cwd=tmp_path)
    assert result.stderr == "error: this copy lacks what the command needs: No module named 'cohere_lite.cli'\n"


@pytest.mark.folder
def test_the_command_for_other_programs() -> None:
    """Without numpy and onnxruntime, which --help does not need."""
    code = "from cohere_lite.__main__ import run; print(run.__module__, {'numpy', 'onnxruntime'} & {*sys.modules})"
    assert said(code) == ["cohere_lite.cli.run set()"]


def test_a_packed_program_without_the_demonstration_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyInstaller sets sys.frozen; the hint by record: with it, a program that PyInstaller 6 packed transcribes."""
    monkeypatch.setattr(model, "DEMO_FOLDER", tmp_path / "demo")
    with pytest.raises(ModelFileNotFound, match="comes without the demonstration model: name"):
        Transcriber()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ModelFileNotFound, match=r"\(PyInstaller adds it with --collect-data cohere_lite\): name"):
        Transcriber()
