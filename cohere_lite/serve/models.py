"""The only file here that reaches into Recording and the model: cutting apart from recognising, so that one thread can
recognise the pieces of many recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple, cast

from numpy.typing import NDArray

from ..contracts.contract import Clip
from ..decode import decode
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

    seconds: of audio that the model has to hear, 0 where it is silent;  start_s, end_s: in the recording
    """

    cutting: Cutting
    piece: Any
    seconds: float
    start_s: float
    end_s: float

    @property
    def place(self) -> tuple:
        """Channel and start: one of its own in the recording."""
        return self.piece.channel, self.start_s

    def silent(self) -> Heard:
        """What is heard where there is nothing to recognise."""
        return Heard(self.cutting.recording._segment(self.piece), ())


class Cutting:
    """A recording, as it comes, cut into pieces."""

    def __init__(self, transcriber: Transcriber, rate: int, options: dict[str, Any]) -> None:
        """options: of Transcriber.recording. Raises OptionError; AudioError for a rate that cannot be."""
        self.recording = transcriber.recording(rate, **options)
        self.position_s = 0.0  # of what was pushed
        self.spoken: dict[tuple, Spoken] = {}  # of pieces by channel and start: heard once, however often decoded

    def push(self, frames: NDArray, live: bool = False) -> list[Piece]:
        """Frames (n, channels) -> the pieces that they complete. Raises AudioError."""
        self.recording._cut(frames, live)
        self.position_s = self.recording._start + self.recording._n_frames / self.recording._rate
        return self._cut()

    def finish(self) -> list[Piece]:
        """The last pieces. Raises AudioError for less than 10 ms."""
        self.recording._end()
        return self._cut()

    @property
    def is_speech(self) -> bool:
        """Whether the phrase that is being cut has begun; only of recordings cut at pauses."""
        for track in self.recording._tracks:
            cutter: Any = track.cutter
            if cutter._quiet < cutter._n_frames:
                return True
        return False

    def _cut(self) -> list[Piece]:
        cut, self.recording._pieces = self.recording._pieces, []
        start_s = self.recording._start
        return [
            Piece(
                self,
                piece,
                0.0 if piece.samples is None else len(piece.samples) / SAMPLE_RATE,
                start_s + piece.start / SAMPLE_RATE,
                start_s + piece.end / SAMPLE_RATE,
            )
            for piece in cut
        ]


class Recogniser:
    """The model, for one thread."""

    def __init__(self, transcriber: Transcriber) -> None:
        self._model = transcriber._model
        self.batch_size = transcriber._batch_size

    def encode(self, piece: Piece) -> Clip | None:
        """A piece with sound through the encoder; None for a silent one. Raises ModelError, StateError."""
        if piece.piece.samples is None:
            return None
        with self._model.turn.lock:
            self._model.turn.check()
            return self._model.contract.encode(piece.piece.samples)

    def decode(self, encoded: Sequence[tuple[Piece, Clip | None]]) -> list[Heard]:
        """Pieces decoded side by side, whatever their prompts. Raises ModelError, StateError."""
        spoken = [(piece, clip) for piece, clip in encoded if clip is not None]
        if not spoken:
            return [piece.silent() for piece, _ in encoded]
        with self._model.turn.lock:
            self._model.turn.check()
            # somebody waits: where the language is to be found, a piece is decoded as the likeliest so far
            languages = [self._spoken(piece, clip) for piece, clip in spoken]
            prompts, clips = [language.prompt for language in languages], [clip for _, clip in spoken]
            found = decode(self._model.contract, clips, prompts, self._model.vocabulary.end_of_text)
        decoded = iter(zip(found, languages, strict=True))
        for piece, _ in spoken:
            del piece.cutting.spoken[piece.place]
        heard = []
        for piece, clip in encoded:
            if clip is None:
                heard.append(piece.silent())
                continue
            of_clip, language = next(decoded)
            tokens = map(self._token, of_clip.tokens, of_clip.logprobs)
            segment = piece.cutting.recording._segment(piece.piece, clip, of_clip, language)
            heard.append(Heard(segment, tuple(tokens)))
        return heard

    def _spoken(self, piece: Piece, clip: Clip) -> Spoken:
        cutting = piece.cutting
        if piece.place not in cutting.spoken:
            cutting.spoken[piece.place] = cast(Sequence, cutting.recording._languages([clip], inf))[0]
        return cutting.spoken[piece.place]

    def _token(self, token: int, logprob: float) -> Token:
        piece = self._model.vocabulary.pieces[token]
        if len(piece) == 6 and piece.startswith("<0x"):
            return Token(f"bytes:\\x{piece[3:5].lower()}", bytes([int(piece[3:5], 16)]), logprob)
        text = piece.replace("▁", " ")
        return Token(text, text.encode(), logprob)
