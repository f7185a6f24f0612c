"""The package's errors, each also the built-in error that a caller would expect; and its log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from numbers import Real
from typing import Any

logger = logging.getLogger("cohere_lite")


class CohereLiteError(Exception):
    """Base of everything this package raises on purpose."""


class AudioError(CohereLiteError, ValueError):
    """The audio cannot be read or used: damaged, unsupported, empty, not finite."""

    name: str | None = None  # of the recording; str() puts it before the message

    def __str__(self) -> str:
        return f"{self.name}: {super().__str__()}" if self.name else super().__str__()


class NotWav(AudioError):
    """A file that is not WAV (start: its first 64 bytes), or WAV with a coding that we do not read (format_tag), or one
    with another file in place of its samples (position: where in the file that begins; start: its first bytes)."""

    def __init__(
        self, message: str, start: bytes = b"", format_tag: int | None = None, position: int | None = None
    ) -> None:
        super().__init__(message)
        self.start, self.format_tag, self.position = start, format_tag, position


class ModelError(CohereLiteError, ValueError):
    """A model folder is not one this package can run."""


class ModelFileNotFound(ModelError, FileNotFoundError):
    """A model file, or the external data that it names, is missing."""


class OptionError(CohereLiteError, ValueError):
    """An argument has a value that the model or the package does not know."""


class StateError(CohereLiteError, RuntimeError):
    """A Transcriber that is closed, or that a forked process inherited, is used."""


class ProviderError(CohereLiteError, RuntimeError):
    """An execution provider that was asked for is not the one that would run."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Names the recording in an AudioError that is raised within, unless it has a name already."""
    try:
        yield
    except AudioError as error:
        error.name = error.name or name
        raise


def number(name: str, value: Any, expected: str, least: float = -inf, most: float = inf, whole: bool = False) -> Any:
    """An argument as Python's int or float: one already, NumPy's, or an array of one. Raises OptionError for what is
    no number (text, True, NaN) or out of range.  expected: what would work, for the message"""
    with suppress(OverflowError, ValueError):
        found = value.item() if hasattr(value, "item") else value
        is_number = isinstance(found, Real) and not isinstance(found, bool)
        if is_number and least <= float(found) <= most and not (whole and found % 1):
            return found if isinstance(found, int) else int(found) if whole else float(found)
    raise OptionError(f"{name} is {value!r}; it must be {expected}")


def check_kind(name: str, value: object, kinds: tuple[type, ...], expected: str) -> None:
    """Raises OptionError for an argument of another kind."""
    if not isinstance(value, kinds):
        raise OptionError(f"{name} is {value!r}; it must be {expected}")
