"""Audio -> text: the other files of this package, in order."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .chunk import join, split
from .decode import Decoder
from .errors import AudioError, OptionError
from .mel import HOP_LENGTH, SAMPLE_RATE, log_mel
from .model import load_model
from .resample import resample
from .wav import read_wav

# Pieces decoded side by side. More would be a little faster, but each takes 60 MB (35 s at the real size), and the
# encoder, which takes them one by one, is by then nearly all of the work.
BATCH_SIZE = 4

AudioSource = str | PathLike[str] | bytes | BinaryIO | NDArray


@dataclass(frozen=True)
class Segment:
    """A stretch of audio that went through the model in one piece (up to 35 s).

    start, end: seconds;  tokens: ids, prompt and end-of-text left out;  truncated: the model's limit of tokens came
    before the end of the text, so words are missing here.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class Transcript:
    """text: the segments' texts joined;  duration: seconds of audio;  truncated: some segment is;  warnings: what was
    wrong with the audio file and did not keep it from being read."""

    text: str
    segments: tuple[Segment, ...]
    language: str
    duration: float
    truncated: bool
    warnings: tuple[str, ...]


class Transcriber:
    """A loaded model, ready for any number of recordings.

        transcriber = Transcriber("path/to/model")
        print(transcriber.transcribe("speech.wav", language="fr").text)

    May be shared between threads: segments of different recordings then take turns, since there is one set of decoder
    caches. For recordings in parallel, make a Transcriber each.
    """

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        *,
        providers: Sequence[str] = ("cpu",),
        threads: int | None = None,
        spin: bool = True,
        cache: str | PathLike[str] | None = None,
        batch_size: int | None = None,
    ) -> None:
        """model: a folder with an encoder and a decoder (.onnx) and tokens.txt; None for the embedded demonstration
        model, which knows numbers, times, dates and simple commands in en, de, fr and es, one sentence per recording.

        providers: "cpu", "cuda", "tensorrt", "coreml", "directml", "openvino", the preferred one first.
        threads: None for the physical cores this process may use.
        spin: False to let threads sleep rather than spin while they wait for work: slower alone, better on busy cores.
        cache: folder for prepared copies of large models, or "off"; None for what COHERE_LITE_CACHE says, or the
        system's place for caches. A model's first start writes one, later ones load it in a fraction of the time.
        batch_size: pieces of a long recording that are decoded side by side, 1 or more; each takes 60 MB at the real
        size. None: 4 where the model allows it, which are exports of tools/export in the fast layout, on the CPU.

        Raises ModelError, ModelFileNotFound, OptionError, ProviderError.
        """
        if batch_size is not None and batch_size < 1:
            raise OptionError(f"batch_size is {batch_size}; it must be 1 or more")
        loaded = load_model(model, providers, threads, spin, cache)
        self._vocabulary = loaded.vocabulary
        self._max_chunk_s = loaded.max_chunk_s
        self._decoder = Decoder(loaded)
        self._batch_size = batch_size or (BATCH_SIZE if self._decoder.takes_batches else 1)
        if self._batch_size > 1 and not self._decoder.takes_batches:
            raise OptionError(
                f"batch_size is {batch_size}, but only exports in the fast layout take more than 1, on the CPU"
            )
        self._lock = threading.Lock()

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that can be asked for."""
        return self._vocabulary.languages

    def transcribe(
        self,
        audio: AudioSource,
        *,
        rate: int | None = None,
        language: str = "en",
        punctuation: bool = True,
        itn: bool = False,
        prompt: str = "full",
        on_segment: Callable[[Segment, float], None] | None = None,
    ) -> Transcript:
        """Recognise a recording.

        audio: a WAV file (path, bytes or binary file object), or samples: float (n,) in -1..1 or int16 (n,), with
        their `rate` in Hz. language: the language spoken; the model does not detect it, and answers a wrong one
        fluently. punctuation: with capitals and marks. itn: inverse text normalisation, "20" for "twenty". prompt:
        "full", or "short" for exports that were published with a two-token one. on_segment: called as segments come,
        with the segment and the duration of the whole in seconds.

        Raises AudioError, OptionError, ModelError if the model fails to run, OSError if a file cannot be opened.
        """
        ids = self._vocabulary.prompt(language, punctuation=punctuation, itn=itn, style=prompt)
        samples, warnings = _load_16k_mono(audio, rate)
        duration = len(samples) / SAMPLE_RATE
        segments = []
        for segment in self._segments(samples, ids):
            segments.append(segment)
            if on_segment is not None:
                on_segment(segment, duration)
        return Transcript(
            text=join([segment.text for segment in segments], language),
            segments=tuple(segments),
            language=language,
            duration=duration,
            truncated=any(segment.truncated for segment in segments),
            warnings=warnings,
        )

    def _segments(self, samples: NDArray[np.float32], prompt: Sequence[int]) -> Iterator[Segment]:
        pieces = split(samples, self._max_chunk_s)
        for first in range(0, len(pieces), self._batch_size):
            batch = pieces[first : first + self._batch_size]  # as they come: all but the last have 30 to 35 s
            features = [log_mel(samples[start:end]) for start, end in batch]
            with self._lock:
                decoded = self._decoder.decode(features, prompt)
            for (start, end), found in zip(batch, decoded, strict=True):
                text = self._vocabulary.decode(found.tokens)
                yield Segment(start / SAMPLE_RATE, end / SAMPLE_RATE, text, found.tokens, found.truncated)


def _load_16k_mono(audio: AudioSource, rate: int | None) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Samples float32 (n,) at 16 kHz, n at least one frame; and warnings."""
    warnings: tuple[str, ...] = ()
    if isinstance(audio, np.ndarray):
        samples, source = _checked_array(audio), "the array"
        if rate is None:
            raise OptionError("an array needs its sampling rate: transcribe(samples, rate=16000)")
        if rate != int(rate):
            raise OptionError(f"rate is {rate}; it must be a whole number of Hz")
    else:
        if rate is not None:
            raise OptionError("rate belongs to arrays of samples; a WAV file says its own")
        wav = read_wav(audio)
        samples, rate, warnings = wav.samples, wav.rate, wav.warnings
        source = os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else "the audio"
    try:
        samples = resample(samples, int(rate), SAMPLE_RATE)
    except AudioError as error:
        raise AudioError(f"{source}: {error}") from error
    if len(samples) < HOP_LENGTH:
        raise AudioError(f"{source} holds {len(samples) / SAMPLE_RATE * 1000:.1f} ms of sound; 10 ms is the least")
    return samples, warnings


def _checked_array(audio: NDArray) -> NDArray[np.float32]:
    if audio.ndim != 1:
        raise AudioError(
            f"samples of shape {audio.shape}; expected one channel, (n,): for (n, channels), .mean(axis=1)"
        )
    if audio.dtype == np.int16:
        return audio.astype(np.float32) / np.float32(2**15)
    if audio.dtype.kind != "f":
        raise AudioError(f"samples of type {audio.dtype}; expected float in -1..1, or int16")
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused below
        samples = audio.astype(np.float32, copy=False)
    finite = np.isfinite(samples)
    if not finite.all():
        raise AudioError(f"sample {int(np.argmin(finite))} is NaN or infinite")
    return samples
