"""Ctrl-C, by raising the signal at every kind of place."""

import builtins
import importlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cohere_lite.cli.terminal import CtrlC

terminal = importlib.import_module("cohere_lite.cli.terminal")  # also where all modules are one file

pytestmark = pytest.mark.usefixtures("sigint")


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c() -> Iterator[CtrlC]:
    with CtrlC() as ctrl_c:
        yield ctrl_c
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_raises_where_it_may(ctrl_c: CtrlC) -> None:
    assert not ctrl_c.pressed
    with pytest.raises(KeyboardInterrupt), ctrl_c.raises():
        press()
    assert ctrl_c.pressed


def test_elsewhere_it_waits(ctrl_c: CtrlC) -> None:
    with ctrl_c.raises():
        pass
    press()
    assert ctrl_c.pressed
    with pytest.raises(KeyboardInterrupt), ctrl_c.raises():
        pytest.fail("it has been pressed")


def test_a_second_one_does_not_wait(ctrl_c: CtrlC) -> None:
    press()
    with pytest.raises(KeyboardInterrupt):
        press()


def pieces(press_after: int, *, gives: int) -> Iterator[int]:
    """0, 1, 2 ...; Ctrl-C comes after so many, in here; those that it then still gives are negative."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            if number == press_after:
                press()
    except KeyboardInterrupt:
        yield from range(-gives, 0)
        raise


def test_the_generator_gives_what_it_has(ctrl_c: CtrlC) -> None:
    assert list(ctrl_c.ends(pieces(2, gives=2))) == [0, 1, -2, -1]


def test_pressed_while_a_piece_is_written(ctrl_c: CtrlC) -> None:
    """The generator is told when it is asked for the next one."""
    given = []
    for piece in ctrl_c.ends(pieces(100, gives=1)):
        given.append(piece)
        if piece == 2:
            press()
    assert given == [0, 1, 2, -1]


def test_a_second_one_while_the_generator_gives_what_it_has(ctrl_c: CtrlC) -> None:
    taken = ctrl_c.ends(pieces(1, gives=3))
    assert [next(taken), next(taken)] == [0, -3]
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_pipe_is_ended_instead(ctrl_c: CtrlC) -> None:
    """And nothing raised, by the first."""
    called: list[bool] = []
    ctrl_c.end_pipe = lambda: called.append(True)
    taken = ctrl_c.ends(pieces(2, gives=1))
    assert [next(taken) for _ in range(4)] == [0, 1, 2, 3]
    assert called == [True]
    with pytest.raises(KeyboardInterrupt):
        press()
    assert called == [True]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_come_once(ctrl_c: CtrlC, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they are sent at once; a Ctrl-C after them is a second one. The first is the one to die of, which
    test_live.py shows."""
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip("not on this system")
    for _ in range(3):
        signal.raise_signal(number)
    assert ctrl_c.pressed == number
    with pytest.raises(KeyboardInterrupt):
        press()
    assert ctrl_c.pressed == number
    monkeypatch.setattr(terminal, "_TOGETHER_S", 0)  # 2 s later
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    ctrl_c.pressed = 0  # to survive


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_handler_is_as_before(number: signal.Signals, handler: Any) -> None:
    before = signal.signal(number, handler)
    try:
        with CtrlC():
            assert (signal.getsignal(number) is handler) == (handler is signal.SIG_IGN)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_what_others_handle_is_theirs() -> None:
    """A handler of the program that calls us; and a thread, in which there are none."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with CtrlC():
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]

    def work() -> None:
        with CtrlC():
            heard.append(0)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [signal.SIGINT, 0]


@pytest.mark.parametrize(
    ("command", "imported", "arguments"),
    [
        ("export", "cut", "checkpoint out"),
        ("evaluate", "extras.prepared", "model --data data"),
        ("batch", "ray.exceptions", "a.wav --out out"),
        ("serve", "server", ""),
    ],
)
def test_modules_in_c(
    command: str,
    imported: str,
    arguments: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Modules made with pybind11 turn Ctrl-C while they are imported into an ImportError: nothing is missing."""

    def interrupted(name: str, *args: Any) -> Any:
        if name != imported:
            return imports(name, *args)
        raise ImportError("initialization failed") from KeyboardInterrupt()

    main = importlib.import_module(f"cohere_lite.{command}.__main__").main
    imports = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", interrupted)
    code = main(arguments.split())
    monkeypatch.undo()
    assert (code, "install" in capsys.readouterr().err) == (130, False)
