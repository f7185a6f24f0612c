"""The only file here that reaches into Recording and the model: cutting apart from recognising, so that one thread can
recognise the pieces of many recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..contracts.contract import Clip
from ..decode import Decoded, decode
from ..mel import SAMPLE_RATE
from ..recording import Spoken
from ..transcribe import Transcriber
from ..transcript import Segment


class Token(NamedTuple):
    """text: of the token alone, which for a byte of a character is not text yet;  logprob: natural."""

    text: str
    utf8: bytes
    logprob: float


@dataclass(frozen=True)
class Heard:
    """A segment and its tokens."""

    segment: Segment
    tokens: tuple[Token, ...]


class Piece(NamedTuple):
    """A piece of a recording, cut and ready.

    seconds: of audio that the model has to hear, 0 where it is silent;  start_s, end_s: in the recording;  is_last:
    nothing comes after it; not known of pieces that somebody waits for
    """

    cutting: Cutting
    piece: Any
    seconds: float
    start_s: float
    end_s: float
    is_last: bool


class Encoded(NamedTuple):
    """A piece that is ready to be decoded. clip, spoken: None where it is silent"""

    piece: Piece
    clip: Clip | None
    spoken: Spoken | None


class Cutting:
    """A recording, as it comes, cut into pieces."""

    def __init__(self, transcriber: Transcriber, rate: int, options: dict[str, Any], is_watched: bool) -> None:
        """options: of Transcriber.recording;  is_watched: somebody sees the text come: where the language is to be
        found, a piece is then decoded as the likeliest so far, and does not wait until it is sure. Raises OptionError;
        AudioError for a rate that cannot be."""
        self.recording = transcriber.recording(rate, **options)
        self.position_s = 0.0  # of what was pushed
        self._is_watched = is_watched
        self._encoded: list[tuple[Piece, Clip | None]] = []  # what waits for the language, and silence behind it

    def push(self, frames: NDArray, live: bool = False) -> list[Piece]:
        """Frames (n, channels) -> the pieces that they complete; unless somebody waits for it, the newest is kept until
        it is known whether it is the last. Raises AudioError."""
        self.recording._cut(frames, live)
        self.position_s = self.recording._start + self.recording._n_frames / self.recording._rate
        return self._cut(is_end=False)

    def finish(self) -> list[Piece]:
        """The last pieces. Raises AudioError for less than 10 ms."""
        self.recording._end()
        return self._cut(is_end=True)

    @property
    def is_speech(self) -> bool:
        """Whether the phrase that is being cut has begun; only of recordings cut at pauses."""
        for track in self.recording._tracks:
            cutter: Any = track.cutter
            if cutter._quiet < cutter._n_frames:
                return True
        return False

    def _cut(self, is_end: bool) -> list[Piece]:
        pieces, start_s = self.recording._pieces, self.recording._start
        n = len(pieces) - (not is_end and not self._is_watched and len(pieces) > 0)
        cut, self.recording._pieces = pieces[:n], pieces[n:]
        return [
            Piece(
                self,
                piece,
                0.0 if piece.samples is None else len(piece.samples) / SAMPLE_RATE,
                start_s + piece.start / SAMPLE_RATE,
                start_s + piece.end / SAMPLE_RATE,
                is_end and piece is cut[-1],
            )
            for piece in cut
        ]

    def encoded(self, piece: Piece, clip: Clip | None) -> list[Encoded]:
        """What can be decoded now that a piece has come, by the rules of Recording._decode: nothing while its language
        is not sure, and more is to come; then also what waited for that. Raises ModelError; what waited is lost."""
        waiting, self._encoded = [*self._encoded, (piece, clip)], []
        heard = [(piece, clip) for piece, clip in waiting if clip is not None]
        spoken: Sequence[Spoken] | None = ()
        if heard:
            waited_s = inf if self._is_watched or piece.is_last else piece.end_s - heard[0][0].end_s
            spoken = self.recording._languages([clip for _, clip in heard], waited_s)
        if spoken is None:
            self._encoded = waiting
            return []
        of_heard = iter(spoken)
        return [Encoded(piece, clip, None if clip is None else next(of_heard)) for piece, clip in waiting]


class Recogniser:
    """The model, for one thread."""

    def __init__(self, transcriber: Transcriber) -> None:
        self._model = transcriber._model
        self.batch_size = transcriber._batch_size

    def encode(self, piece: Piece) -> list[Encoded]:
        """A piece through the encoder -> what of its recording can be decoded now. Raises ModelError, StateError."""
        samples = piece.piece.samples
        with self._model.turn.lock:
            self._model.turn.check()
            return piece.cutting.encoded(piece, None if samples is None else self._model.contract.encode(samples))

    def decode(self, encoded: Sequence[Encoded]) -> list[Heard]:
        """Pieces decoded side by side, whatever their prompts. Raises ModelError, StateError."""
        heard = [(one.clip, one.spoken.prompt) for one in encoded if one.clip is not None and one.spoken is not None]
        found: list[Decoded] = []
        for i in range(0, len(heard), self.batch_size):  # more than a batch, where pieces have waited
            clips, prompts = zip(*heard[i : i + self.batch_size], strict=True)
            with self._model.turn.lock:
                self._model.turn.check()
                found += decode(self._model.contract, clips, prompts, self._model.vocabulary.end_of_text)
        of_heard = iter(found)
        return [self._heard(one, None if one.clip is None else next(of_heard)) for one in encoded]

    def _heard(self, one: Encoded, decoded: Decoded | None) -> Heard:
        segment = one.piece.cutting.recording._segment(one.piece.piece, one.clip, decoded, one.spoken)
        tokens = map(self._token, decoded.tokens, decoded.logprobs) if decoded else ()
        return Heard(segment, tuple(tokens))

    def _token(self, token: int, logprob: float) -> Token:
        piece = self._model.vocabulary.pieces[token]
        if len(piece) == 6 and piece.startswith("<0x"):
            return Token(f"bytes:\\x{piece[3:5].lower()}", bytes([int(piece[3:5], 16)]), logprob)
        text = piece.replace("▁", " ")
        return Token(text, text.encode(), logprob)
