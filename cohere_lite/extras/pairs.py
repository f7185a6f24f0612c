"""A recording as other libraries hand it over, in one piece with its rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import OptionError, number

_KEYS = {"array", "bytes", "path"}  # of a recording as a dict
_DECODER = "get_all_samples"  # what torchcodec's AudioDecoder is known by, without an import of torch
_WHAT_WORKS = 'pass (samples, rate), {"array": samples, "sampling_rate": rate}, {"bytes": data} or {"path": path}'


def unpack(audio: Any, rate: int | None) -> tuple[Any, int | None]:
    """(rate, samples), as scipy and gradio have it, (samples, rate), as soundfile has it, {"array", "sampling_rate"} or
    a file's {"bytes", "path"}, as datasets has them, torchcodec's AudioDecoder, as datasets 4 has them, or a row of a
    data set with one of these -> samples and their rate, or the file. Samples may be lists. Other tuples are blocks of
    samples, as they are. Raises OptionError for another `rate` than theirs, and for what is none of these."""
    if hasattr(audio, _DECODER):
        decoded = audio.get_all_samples()
        channels, rate = _with_rate(decoded.data, decoded.sample_rate, rate)
        return channels.T, rate
    if isinstance(audio, Mapping):
        return _unpack_mapping(audio, rate)
    are_samples = [*map(_are_samples, audio[:3])]
    if all(are_samples) or (isinstance(audio, list) and len(audio) != 2):
        return audio, rate
    if len(audio) == 2 and any(are_samples):
        samples, own = audio if are_samples[0] else audio[::-1]
        return _with_rate(samples, own, rate)
    kinds = ", ".join(type(part).__name__ for part in audio[:3]) + ", ..." * (len(audio) > 3)
    raise OptionError(f"a {type(audio).__name__} of ({kinds}) is no recording: {_WHAT_WORKS}")


def _unpack_mapping(audio: Mapping, rate: int | None) -> tuple[Any, int | None]:
    if "array" in audio:
        if "sampling_rate" not in audio and rate is None:
            raise OptionError(f"a recording without 'sampling_rate'; it has {_names(audio)}: {_WHAT_WORKS}")
        return _with_rate(audio["array"], audio.get("sampling_rate", rate), rate)
    if (file := next((audio[key] for key in ("bytes", "path") if audio.get(key) is not None), None)) is not None:
        return file, rate
    rows = [key for key, value in audio.items() if _is_recording(value)]
    if "audio" in rows or len(rows) == 1:
        return unpack(audio["audio" if "audio" in rows else rows[0]], rate)
    raise OptionError(f"a dict with {_names(audio)} is no recording: {_WHAT_WORKS}")


def _is_recording(value: Any) -> bool:
    return hasattr(value, _DECODER) or (isinstance(value, Mapping) and bool(value.keys() & _KEYS))


def _names(audio: Mapping) -> str:
    return ", ".join(f"{key!r}" + " (None)" * (value is None) for key, value in audio.items()) or "nothing in it"


def _are_samples(part: Any) -> bool:
    return isinstance(part, list) or getattr(part, "ndim", 0) > 0


def _with_rate(samples: Any, own: Any, rate: int | None) -> tuple[Any, int | None]:
    own = number("rate", own, "a number of Hz")
    if rate not in (None, own):
        raise OptionError(f"rate is {rate}, but the samples come with {own}: leave it out")
    if not isinstance(samples, np.ndarray):  # a list of numbers, another library's tensor
        try:
            samples = np.asarray(samples)
        except Exception as error:  # ValueError for rows of several lengths; what a tensor on a GPU raises
            raise OptionError(f"samples as a {type(samples).__name__} that is no NumPy array: {error}") from error
    return samples, own
