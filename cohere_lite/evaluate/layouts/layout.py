"""What every layout of a data set gives: its utterances, one after the other, without their sound."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Utterance:
    """One recording, or a part of one, and what is said in it.

    id:           unique in its data set
    reference:    what is said, as the data set has it
    language:     its code, as the model knows it: "en"
    speaker:      the data set's name for who speaks; None: it does not say
    recording:    the call, meeting or chapter that this is a part of; None: it does not say
    start_s, end_s: the part of the audio, in seconds; None: from its beginning, to its end
    audio:        gives the file, or its bytes; read when it is called, and not kept
    """

    id: str
    reference: str
    language: str
    audio: Callable[[], bytes | Path]
    speaker: str | None = None
    recording: str | None = None
    start_s: float | None = None
    end_s: float | None = None
