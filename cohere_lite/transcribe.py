"""Audio -> text: the other files of this package, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .audio import AudioFile, check_stretch, mixed, open_array, open_audio, open_blocks
from .cut import Chunks, Pauses, Phrases, join
from .decode import Decoder
from .errors import AudioError, OptionError
from .loudness import THRESHOLD_DB, Loudness, holds_speech
from .mel import HOP_LENGTH, SAMPLE_RATE, log_mel
from .model import load_model
from .resample import Resampler
from .session import ort
from .wav import Audio

# Pieces decoded side by side. More would be a little faster, but each takes 60 MB (35 s at the real size), and the
# encoder, which takes them one by one, is by then nearly all of the work.
BATCH_SIZE = 4

Blocks = Iterable[NDArray]
AudioSource = AudioFile | NDArray | Blocks | Audio


@dataclass(frozen=True)
class Segment:
    """A stretch of audio that went through the model in one piece (up to 35 s), or that was skipped as silent.

    start, end:  seconds from the beginning of the recording
    text:        what was said; "" for silence
    tokens:      ids, prompt and end-of-text left out
    avg_logprob: average natural log-probability of the tokens and of end-of-text, 0 at best; None where silent
    channel:     of a recording whose channels were split (from 0), else None
    silent:      nothing in it stood out from the noise, so the model was not asked
    truncated:   the model's limit of tokens came before the end of the text: words are missing here
    looped:      the decoder repeated itself without end and was stopped; the repetition is left out
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float | None
    channel: int | None
    silent: bool
    truncated: bool
    looped: bool


@dataclass(frozen=True)
class Transcript:
    """text: the segments' texts joined; of split channels, a line "[channel] text" per segment;  duration: seconds of
    audio;  truncated: some segment is;  warnings: what was wrong with the audio and did not keep it from being read."""

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
        """model: a folder with an encoder and a decoder (.onnx) and tokens.txt; or, where there is none, the
        "owner/name" of a model on the Hugging Face hub (needs huggingface_hub), which then stays in the hub's cache and
        needs no network; None for the embedded demonstration model, which knows numbers, times, dates and simple
        commands in en, de, fr and es, one sentence per recording.

        providers: "cpu", "cuda", "tensorrt", "coreml", "directml", "openvino", the preferred one first.
        threads: None for the physical cores this process may use.
        spin: False to let threads sleep rather than spin while they wait for work: slower alone, better on busy cores.
        cache: folder for prepared copies of large models, or "off"; None for what COHERE_LITE_CACHE says, or the
        system's place for caches. A model's first start writes one, later ones load it in a fraction of the time.
        batch_size: pieces of a long recording that are decoded side by side, 1 or more; each takes 60 MB at the real
        size. None: 4 where the model allows it, which are exports of cohere_lite/export in the fast layout, on the CPU.

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
        self.facts = {
            "name": "demonstration" if model is None else fspath(model),
            "layout": loaded.contract,
            "provider": providers[0],
            "onnxruntime": ort.__version__,
        }  # what a record of a transcription should say of the model
        self._lock = threading.Lock()

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that can be asked for."""
        return self._vocabulary.languages

    def transcribe(
        self, audio: AudioSource, *, rate: int | None = None, language: str = "en", **options: Any
    ) -> Transcript:
        """Recognise a whole recording. Arguments, options and errors are those of `segments`."""
        with _opened(audio, rate) as opened:
            segments = tuple(self.segments(opened, language=language, **options))
            return Transcript(
                text=_joined(segments, language),
                segments=segments,
                language=language,
                duration=max(segment.end for segment in segments) - segments[0].start,
                truncated=any(segment.truncated for segment in segments),
                warnings=tuple(opened.warnings),
            )

    def segments(
        self,
        audio: AudioSource,
        *,
        rate: int | None = None,
        language: str = "en",
        punctuation: bool = True,
        itn: bool = False,
        prompt: str = "full",
        start: float = 0.0,
        end: float | None = None,
        channel: int | str | None = None,
        pauses: Pauses | None = None,
        skip_silence: bool = True,
    ) -> Iterator[Segment]:
        """Recognise a recording of any length, or one that is still being made: segments in order of their start, laid
        end to end. A few pieces of audio are held at a time, never all of it.

        audio:        a file of sound (path, bytes or binary file, which may be a pipe); samples: float (n,) or (n,
                      channels) in -1..1, or int16; an iterable of such arrays, each recognised as soon as it comes and
                      completes a segment; or what open_audio gave
        rate:         of the samples, in Hz
        language:     the language spoken; the model does not detect it, and answers a wrong one fluently
        punctuation:  with capitals and marks
        itn:          inverse text normalisation, "20" for "twenty"
        prompt:       "full", or "short" for exports that were published with a two-token one
        start, end:   the stretch to recognise, in seconds
        channel:      None for the mean of the channels, a number (from 0) for one of them, "split" for all of them,
                      each by itself
        pauses:       cut where the speaker pauses; None to cut as the reference does, every 30 to 35 s at the quietest
                      place. Phrases are never longer than the model takes
        skip_silence: leave out what does not stand out from the noise (speech.py): models invent words there

        Raises OptionError, and while the segments are fetched AudioError, ModelError if the model fails to run, and
        OSError if a file cannot be opened.
        """
        check_stretch(start, end)
        ids = self._vocabulary.prompt(language, punctuation=punctuation, itn=itn, style=prompt)
        if pauses is not None:
            pauses = replace(pauses, max_phrase_s=min(pauses.max_phrase_s, self._max_chunk_s))

        def cutter() -> Chunks | Phrases:
            return Phrases(pauses) if pauses else Chunks(self._max_chunk_s)

        threshold_db = None if not skip_silence else pauses.threshold_db if pauses else THRESHOLD_DB

        def recognised() -> Iterator[Segment]:
            with _opened(audio, rate) as opened:
                failures: list[Exception] = []
                blocks = _before_failure(mixed(opened, channel, start, end), failures)
                channels = range(opened.channels) if channel == "split" else [None]
                tracks = [_Track(number, _resampler(opened), cutter(), threshold_db) for number in channels]
                for batch in _batches(_cut(blocks, tracks, opened.live), self._batch_size, opened.live):
                    yield from self._recognise(batch, ids, start)
                if failures:
                    raise failures.pop()  # or list and exception would keep each other, and the audio, in memory
                if tracks[0].position < HOP_LENGTH:
                    length_ms = tracks[0].position / SAMPLE_RATE * 1000
                    raise AudioError(f"{opened.name} holds {length_ms:.1f} ms of sound; 10 ms is the least")

        return recognised()

    def _recognise(self, batch: list[_Piece], prompt: Sequence[int], start_s: float) -> Iterator[Segment]:
        features = [log_mel(piece.samples) for piece in batch if piece.samples is not None]
        with self._lock:
            decoded = iter(self._decoder.decode(features, prompt) if features else [])
        for piece in batch:
            start, end = start_s + piece.start / SAMPLE_RATE, start_s + piece.end / SAMPLE_RATE
            if piece.samples is None:
                yield Segment(start, end, "", (), None, piece.channel, silent=True, truncated=False, looped=False)
            else:
                found = next(decoded)
                text = self._vocabulary.decode(found.tokens)
                logprob, truncated, looped = found.avg_logprob, found.truncated, found.looped
                yield Segment(start, end, text, found.tokens, logprob, piece.channel, False, truncated, looped)


def _joined(segments: Sequence[Segment], language: str) -> str:
    if segments[0].channel is None:
        return join([segment.text for segment in segments], language)
    return "\n".join(f"[{segment.channel}] {segment.text.strip()}" for segment in segments if segment.text.strip())


@contextmanager
def _opened(audio: AudioSource, rate: int | None) -> Iterator[Audio]:
    is_file = isinstance(audio, (str, PathLike, bytes, bytearray, memoryview)) or hasattr(audio, "read")
    if is_file or isinstance(audio, Audio):
        if rate is not None:
            raise OptionError("rate belongs to samples; a file says its own")
        with nullcontext(audio) if isinstance(audio, Audio) else open_audio(cast(AudioFile, audio)) as opened:
            yield opened
    elif isinstance(audio, Iterable):
        if rate is None:
            raise OptionError("samples need their sampling rate: transcribe(samples, rate=16000)")
        yield open_array(audio, rate) if isinstance(audio, np.ndarray) else open_blocks(cast(Blocks, audio), rate)
    else:
        raise TypeError(f"expected a path, bytes, a binary file or samples, not {type(audio).__name__}")


def _resampler(audio: Audio) -> Resampler:
    try:
        return Resampler(audio.rate)
    except AudioError as error:
        raise AudioError(f"{audio.name}: {error}") from error


class _Piece(NamedTuple):
    """start, end: samples at 16 kHz, counted from the stretch's start;  samples: None where silent."""

    start: int
    end: int
    channel: int | None
    samples: NDArray[np.float32] | None


class _Track:
    """One channel on its way to the model: resampled, cut into pieces, the silent ones told apart."""

    def __init__(
        self, channel: int | None, resampler: Resampler, cutter: Chunks | Phrases, threshold_db: float | None
    ) -> None:
        self._channel, self._resampler, self._cutter = channel, resampler, cutter
        self._threshold_db = threshold_db  # None: nothing is silent
        self._loudness = Loudness()
        self.position = 0  # samples at 16 kHz in the pieces so far: where the next one starts

    def push(self, samples: NDArray[np.float32]) -> list[_Piece]:
        """The next samples, float32 (n,), at the recording's rate -> the pieces that they complete."""
        return self._pieces(self._cutter.push(self._resampler.push(samples)))

    def silence(self) -> list[_Piece]:
        """The silence so far, if that is what is heard and the pieces are phrases."""
        return self._pieces(self._cutter.silence()) if isinstance(self._cutter, Phrases) else []

    def finish(self) -> list[_Piece]:
        """The last pieces."""
        return self._pieces([*self._cutter.push(self._resampler.finish()), *self._cutter.finish()])

    def _pieces(self, cut: list[NDArray[np.float32]]) -> list[_Piece]:
        pieces = []
        for samples in cut:
            start, self.position = self.position, self.position + len(samples)
            heard = len(samples) >= HOP_LENGTH  # else not one frame
            if self._threshold_db is not None:
                heard &= holds_speech(self._loudness.push(samples), self._threshold_db)
            if len(samples):
                pieces.append(_Piece(start, self.position, self._channel, samples if heard else None))
        return pieces


def _before_failure(blocks: Iterable[NDArray[np.float32]], failures: list[Exception]) -> Iterator[NDArray[np.float32]]:
    """The blocks up to a failure, which is noted: it must not keep those before it from being recognised."""
    try:
        yield from blocks
    except Exception as failure:
        failures.append(failure)


def _cut(blocks: Iterable[NDArray[np.float32]], tracks: list[_Track], live: bool) -> Iterator[list[_Piece]]:
    """After each block (n, tracks), the pieces that are complete, in order of their start; of less than 10 ms, none."""
    waiting: list[_Piece] = []
    for block in blocks:
        for track, samples in zip(tracks, block.T, strict=True):
            waiting += track.push(samples)
        if live and len(tracks) > 1 and waiting:  # for channels on which nothing is said
            waiting += [piece for track in tracks for piece in track.silence()]
        waiting.sort(key=lambda piece: piece.start)
        begun = min(track.position for track in tracks)  # no piece that is still to come starts before it
        n_ready = sum(piece.start < begun for piece in waiting)
        yield waiting[:n_ready]
        del waiting[:n_ready]
    for track in tracks:
        waiting += track.finish()
    if tracks[0].position >= HOP_LENGTH:
        yield sorted(waiting, key=lambda piece: piece.start)


def _batches(pieces: Iterable[list[_Piece]], size: int, live: bool) -> Iterator[list[_Piece]]:
    """Pieces to be decoded side by side: `size` with sound, and the silent ones between them. What is live does not
    wait for others."""
    batch: list[_Piece] = []
    n_heard = 0
    for complete in pieces:
        for piece in complete:
            batch.append(piece)
            n_heard += piece.samples is not None
            if n_heard in (0, size):
                yield batch
                batch, n_heard = [], 0
        if live and batch:
            yield batch
            batch, n_heard = [], 0
    if batch:
        yield batch
