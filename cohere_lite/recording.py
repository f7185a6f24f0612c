"""Samples as they come -> segments: resampled, cut, through the encoder piece by piece, decoded side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .audio import Audio, in_parts, mix, stretch, usable_frames
from .contracts.contract import Clip
from .cut import Chunks
from .decode import Decoded, decode
from .errors import AudioError, ModelError, naming
from .mel import HOP_LENGTH, SAMPLE_RATE
from .model import Model
from .resample import Resampler
from .transcript import Segment, Word, place

if TYPE_CHECKING:
    from .extras.phrases import Pauses, Phrases
    from .extras.polarity import Polarity
    from .extras.word_times import WordTimer

_PUSHED_FRAMES = 1 << 21  # worked on at once: enough for pieces to be decoded side by side


class Spoken(NamedTuple):
    """What a piece is decoded as. prompt: ids;  language: its code, None where no text tells it;  probability: None
    where it was named;  doubt: what is to be said where it was found and is not sure, else "" """

    prompt: Sequence[int]
    language: str | None
    probability: float | None = None
    doubt: str = ""


# Pieces that went through the encoder, all that wait to be decoded, and how long the first of them has waited, in
# seconds of the recording (or, where nothing comes, of the clock), infinite at its end -> what each is; None: more has
# to be heard.
Languages = Callable[[Sequence[Clip], float], Sequence[Spoken] | None]


class Recording:
    """A recording that is recognised as its samples are pushed. Transcriber.recording begins one.

        recording = transcriber.recording(rate=48000, language="de", pauses=Pauses())
        for block in blocks:
            for segment in recording.push(block): ...
        for segment in recording.finish(): ...

    Segments come in order of their start, laid end to end. For one thread at a time; different recordings of one
    Transcriber may be pushed in different threads.

    warnings: what was wrong with the samples so far and did not keep them from being used; words without times
    """

    def __init__(
        self,
        model: Model,
        batch_size: int,
        rate: int,
        languages: Languages,
        start: float,
        channel: int | str | None,
        pauses: Pauses | None,
        skip_silence: bool,
        time_words: WordTimer | None = None,
    ) -> None:
        """batch_size: pieces decoded side by side;  time_words: extras/word_times.py's;  the others: see Transcriber.
        Raises AudioError for a rate that cannot be, StateError."""
        self._model, self._batch_size, self._languages = model, batch_size, languages
        self._rate, self._start, self._channel = float(rate), start, channel
        self._time_words = time_words

        def new_track(channel: int | None) -> _Track:
            cutter = pauses.cutter(model.max_chunk_s) if pauses else Chunks(model.max_chunk_s)
            return _Track(channel, Resampler(rate), cutter, _silence_detector(skip_silence, pauses))

        model.turn.check()
        new_track(None)  # raises what is to be said of the rate and of pauses
        self._new_track = new_track
        self._tracks: list[_Track] = []  # made when the first samples tell how many channels there are
        self._n_channels = self._n_frames = 0
        self._began_s = self._came_s = monotonic()  # when the first samples came, and the last
        self._lasts_s = 0.0  # so far, of a live one, the time in which nothing came included
        self._polarity: Polarity | None = None
        self.warnings: list[str] = []
        self._pieces: list[_Piece] = []  # complete
        self._encoded: list[tuple[_Piece, Clip | None]] = []  # None: silent
        self._spoken: list[Spoken] = []  # of the first of these that are not silent, if decoding them failed
        self._segments: deque[Segment] = deque()
        self._is_first = True
        self._is_ended = False

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Recording cannot be pickled or copied: begin one in each process")

    def push(self, samples: NDArray) -> list[Segment]:
        """The next samples, as Transcriber.segments takes them -> the segments that they complete. None of them, n = 0,
        from a source that sends nothing in silence: pauses then pass by the clock. Raises OptionError for a
        channel that is not there, AudioError, ModelError; the next call gives what is left."""
        with naming("the recording"):
            for frames in in_parts([samples], _PUSHED_FRAMES, self._n_channels):
                self._cut(frames, live=True)
                with suppress(ModelError):  # raised below, once all samples are in
                    self._recognise(wait=True)
            return [*self._recognised()]

    def finish(self) -> list[Segment]:
        """The last segments. Raises AudioError for less than 10 ms, ModelError: the next call gives what is left."""
        with naming("the recording"):
            self._end()
            return [*self._recognised()]

    def read(self, audio: Audio, end: float | None) -> Iterator[Segment]:
        """All segments of a recording that is open, up to `end` (seconds). Errors, Ctrl-C: see Transcriber.segments."""
        self.warnings = audio.warnings
        try:
            for frames in stretch(audio, self._start, end):
                self._cut(frames, audio.live)
                yield from self._recognised(wait=not audio.live)
            self._end()
            yield from self._recognised()
        except (KeyboardInterrupt, ModelError):
            with suppress(ModelError):
                self._decode(is_last=True)
            yield from self._segments
            raise
        except Exception:  # of the audio: what was before it is recognised first
            with suppress(AudioError):
                self._end()
            yield from self._recognised()
            raise

    def _cut(self, frames: NDArray, live: bool) -> None:
        """live: a silence is a piece before it ends, so that a channel without speech does not hold up the others; and
        phrases end where nothing comes."""
        if self._is_ended:
            raise AudioError("is finished; begin another one")
        idle_s = 0.0
        if len(frames):
            self._push(frames)
        elif live:
            # as long as the source, if it is one in real time, has been silent: it may have been ahead of the clock
            idle_s = min(monotonic() - self._came_s, monotonic() - self._began_s - self._n_frames / self._rate)
            if cut := [piece for track in self._tracks for piece in track.pieces(track.cutter.idle(idle_s))]:
                rest = [piece for track in self._tracks for piece in track.pieces(track.cutter.idle(inf))]
                self._pieces += [*cut, *rest]
        self._lasts_s = self._n_frames / self._rate + max(0.0, idle_s) if live else 0.0
        if live and len(self._tracks) > 1 and self._pieces:
            self._pieces += [piece for track in self._tracks for piece in track.pieces(track.cutter.silence())]

    def _push(self, frames: NDArray) -> None:
        mixed = mix(frames, self._channel)
        self._came_s = monotonic()
        if not self._tracks:
            self._n_channels = frames.shape[1]
            numbers = range(self._n_channels) if self._channel == "split" else [None]
            self._tracks = [*map(self._new_track, numbers)]
            self._began_s = self._came_s
        elif frames.shape[1] != self._n_channels:
            raise AudioError(f"a block of {frames.shape[1]} channels after blocks of {self._n_channels}")
        if self._channel is None and self._n_channels > 1:
            self._replace_cancelled(frames, mixed)
        n_usable = usable_frames(mixed)
        for track, column in zip(self._tracks, mixed[:n_usable].T, strict=True):
            self._pieces += track.push(column)
        self._n_frames += n_usable
        if n_usable < len(frames):
            second = self._start + self._n_frames / self._rate
            raise AudioError(f"NaN, infinity or a number beyond 1e15 at {second:.3f} s")

    def _replace_cancelled(self, frames: NDArray, mean: NDArray[np.float32]) -> None:
        try:
            from .extras.polarity import Polarity
        except ImportError:  # in a copy without it
            return
        self._polarity = self._polarity or Polarity(self._rate)
        warning = "the channels cancel each other out: where they do, the loudest is used instead of their mean"
        if self._polarity.replace_cancelled(frames, mean) and warning not in self.warnings:
            self.warnings.append(warning)

    def _end(self) -> None:
        """The last pieces. Called again it does nothing: what could not be recognised is left."""
        if self._is_ended:
            return
        self._is_ended = True
        for track in self._tracks:
            self._pieces += track.finish()
        n_samples = self._tracks[0].position if self._tracks else 0
        if n_samples < HOP_LENGTH:
            self._pieces = []
            raise AudioError(f"holds {n_samples / SAMPLE_RATE * 1000:.1f} ms of sound; 10 ms is the least")

    def _recognise(self, wait: bool) -> None:
        """Every piece goes through the encoder as soon as it is complete. wait: pieces with sound may then wait for
        others, to be decoded side by side, but for the first; silent ones wait for those before them only."""
        self._pieces.sort(key=lambda piece: piece.start)
        # no piece that is still to come, of another channel, starts before this
        begun = inf if self._is_ended else min([track.position for track in self._tracks], default=0)
        while self._pieces and self._pieces[0].start < begun:
            piece = self._pieces[0]
            with self._model.turn.lock:
                self._model.turn.check()
                clip = None if piece.samples is None else self._model.contract.encode(piece.samples)
            self._encoded.append((piece, clip))
            self._pieces.pop(0)
            n_heard = sum(clip is not None for _, clip in self._encoded)
            if n_heard == 0 or n_heard >= (1 if self._is_first else self._batch_size):
                self._decode(is_last=False)
        if not wait:
            self._decode(self._is_ended, self._lasts_s)

    def _decode(self, is_last: bool, lasts_s: float = 0.0) -> None:
        """is_last: nothing that is still to be heard may tell of the language;  lasts_s: what was heard or waited for,
        where that is more than the pieces."""
        heard = [(piece, clip) for piece, clip in self._encoded if clip is not None]
        clips, found = [clip for _, clip in heard], list[tuple[Decoded, Spoken]]()
        if heard:
            heard_s = inf if is_last else max(self._encoded[-1][0].end / SAMPLE_RATE, lasts_s)
            waited_s = heard_s - heard[0][0].end / SAMPLE_RATE
            with self._model.turn.lock:
                self._model.turn.check()
                if rest := clips[len(self._spoken) :]:
                    if (spoken := self._languages(rest, waited_s)) is None:
                        return
                    self._spoken += spoken
                for i in range(0, len(clips), self._batch_size):  # more than a batch, if the language was not sure
                    batch, of_batch = clips[i : i + self._batch_size], self._spoken[i : i + self._batch_size]
                    how = [one.prompt for one in of_batch], self._model.vocabulary.end_of_text
                    found += zip(decode(self._model.contract, batch, *how), of_batch, strict=True)
        of_clips = iter(found)
        segments = [
            self._segment(piece, clip, *(() if clip is None else next(of_clips))) for piece, clip in self._encoded
        ]
        self._encoded, self._spoken = [], []
        self._segments += segments
        self._is_first &= not clips

    def _segment(
        self, piece: _Piece, clip: Clip | None = None, decoded: Decoded | None = None, spoken: Spoken | None = None
    ) -> Segment:
        start, end = (self._start + n_samples / SAMPLE_RATE for n_samples in (piece.start, piece.end))
        words: tuple[Word, ...] | None = () if self._time_words else None
        if clip is None or decoded is None or spoken is None:
            return Segment(start, end, "", (), None, piece.channel, True, truncated=False, looped=False, words=words)
        tokens, truncated, looped, logprob, _ = decoded
        text = " ".join(self._model.vocabulary.decode(tokens).splitlines())  # a line stays one
        if spoken.doubt:
            self.warnings.append(f"{place(piece.channel, start, end)}: {spoken.doubt}")
        if self._time_words and piece.samples is not None:
            try:
                with self._model.turn.lock:
                    self._model.turn.check()
                    words = self._time_words(clip, piece.samples, spoken.prompt, decoded, start)
            except Exception as error:  # any: the text is there, and must not be lost for want of times
                words = None
                self.warnings.append(f"{place(piece.channel, start, end)}: no word times here: {error}")
        how = piece.channel, False, truncated, looped, spoken.language, spoken.probability, words
        return Segment(start, end, text, tokens, logprob, *how)

    def _recognised(self, wait: bool = False) -> Iterator[Segment]:
        self._recognise(wait)
        while self._segments:
            yield self._segments.popleft()


def _silence_detector(skip_silence: bool, pauses: Pauses | None) -> Callable[[NDArray[np.float32]], bool]:
    """Without extras/loudness.py the model is asked about everything, as by the reference."""
    try:
        from .extras.loudness import THRESHOLD_DB, silence_detector
    except ImportError:
        skip_silence = False
    if not skip_silence:
        return lambda samples: False
    return silence_detector(pauses.threshold_db if pauses else THRESHOLD_DB)


class _Piece(NamedTuple):
    """start, end: samples at 16 kHz, counted from the stretch's start;  samples: None where silent."""

    start: int
    end: int
    channel: int | None
    samples: NDArray[np.float32] | None


class _Track:
    """One channel on its way to the model: resampled, cut into pieces, the silent ones told apart."""

    def __init__(
        self, channel: int | None, resampler: Resampler, cutter: Chunks | Phrases, is_silent: Callable[[NDArray], bool]
    ) -> None:
        self.cutter, self._channel, self._resampler, self._is_silent = cutter, channel, resampler, is_silent
        self.position = 0  # samples at 16 kHz in the pieces so far: where the next one starts

    def push(self, samples: NDArray[np.float32]) -> list[_Piece]:
        """The next samples, float32 (n,), at the recording's rate -> the pieces that they complete."""
        return self.pieces(self.cutter.push(self._resampler.push(samples)))

    def finish(self) -> list[_Piece]:
        """The last pieces."""
        return self.pieces([*self.cutter.push(self._resampler.finish()), *self.cutter.finish()])

    def pieces(self, cut: list[NDArray[np.float32]]) -> list[_Piece]:
        """The pieces that were cut, with their places."""
        pieces = []
        for samples in cut:
            start, self.position = self.position, self.position + len(samples)
            silent = self._is_silent(samples) or len(samples) < HOP_LENGTH  # not one frame
            if len(samples):
                pieces.append(_Piece(start, self.position, self._channel, None if silent else samples))
        return pieces
