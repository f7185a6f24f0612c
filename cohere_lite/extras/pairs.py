"""A recording as other libraries hand it over, in one piece with its rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import OptionError, number


def unpack(audio: tuple | Mapping, rate: int | None) -> tuple[Any, int | None]:
    """(rate, samples), as scipy and gradio have it, (samples, rate), as soundfile has it, {"array", "sampling_rate"} or
    a file's {"bytes", "path"}, as datasets has them -> samples and their rate, or the file. Other tuples are blocks of
    samples, as they are. Raises OptionError for another `rate` than theirs, and for other keys."""
    if isinstance(audio, Mapping):
        if "array" not in audio:
            file = next((audio[key] for key in ("bytes", "path") if audio.get(key) is not None), None)
            if file is None:
                keys = "'array' and 'sampling_rate', or 'bytes' or 'path'"
                raise OptionError(f"a recording as a dict has {keys}; this one has {', '.join(map(repr, audio))}")
            return file, rate
        samples, own = audio["array"], audio.get("sampling_rate", rate)
    else:
        are_samples = [isinstance(part, np.ndarray) and part.ndim > 0 for part in audio]
        if sorted(are_samples) != [False, True]:
            return audio, rate
        samples, own = audio if are_samples[0] else audio[::-1]
    own = number("rate", own, "a number of Hz")
    if rate not in (None, own):
        raise OptionError(f"rate is {rate}, but the samples come with {own}: leave it out")
    return samples, own
