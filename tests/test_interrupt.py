"""Ctrl-C, by raising the signal at every kind of place."""

import signal
import threading
from collections.abc import Iterator

import pytest

from cohere_lite.cli.interrupt import CtrlC


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c() -> Iterator[CtrlC]:
    ctrl_c = CtrlC()
    with ctrl_c.handled():
        yield ctrl_c
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_raises_where_it_may(ctrl_c: CtrlC) -> None:
    with pytest.raises(KeyboardInterrupt), ctrl_c.raises():
        press()
    assert ctrl_c.pressed == 1


def test_elsewhere_it_waits(ctrl_c: CtrlC) -> None:
    with ctrl_c.raises():
        pass
    press()
    with pytest.raises(KeyboardInterrupt), ctrl_c.raises():
        pytest.fail("it has been pressed")


def test_a_second_one_does_not_wait(ctrl_c: CtrlC) -> None:
    press()
    with pytest.raises(KeyboardInterrupt):
        press()
    assert ctrl_c.pressed == 2


def test_something_else_is_called(ctrl_c: CtrlC) -> None:
    """And then nothing is raised, by the first."""
    called: list[bool] = []
    with ctrl_c.calls(lambda: called.append(True)):
        with ctrl_c.raises():
            press()
        with ctrl_c.raises():
            assert called == [True]
        with pytest.raises(KeyboardInterrupt), ctrl_c.raises():
            press()
    assert called == [True]
    with pytest.raises(KeyboardInterrupt), ctrl_c.raises():
        pytest.fail("it has been pressed")


def test_what_others_handle_is_theirs() -> None:
    """A handler of the program that calls us; and a thread, in which there are none."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with CtrlC().handled():
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]

    def work() -> None:
        with CtrlC().handled():
            heard.append(0)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [signal.SIGINT, 0]
