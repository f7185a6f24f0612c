"""Audio -> text: the other files of this package, in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from .audio import Audio, AudioFile, check_stretch, open_array, open_audio, open_blocks
from .errors import OptionError, check_kind, naming, number
from .model import load_model
from .recording import Languages, Recording, Spoken
from .session import ort
from .transcript import Segment, Transcript

if TYPE_CHECKING:
    from .extras.phrases import Pauses
    from .extras.word_times import WordTimer

# Pieces decoded side by side. More would be a little faster, but each takes 60 MB (35 s at the real size), and the
# encoder, which takes them one by one, is by then nearly all of the work.
BATCH_SIZE = 4

_FLAG = (bool, np.bool_)
Blocks = Iterable[NDArray]
AudioSource = AudioFile | NDArray | Blocks | Audio | tuple | Mapping


class Transcriber:
    """A loaded model, ready for any number of recordings.

        print(Transcriber("path/to/model").transcribe("speech.wav", language="fr").text)

    May be shared between threads: pieces of different recordings then take turns, since there is one set of decoder
    caches. For recordings in parallel, make a Transcriber each; also in each forked process, as onnxruntime's threads
    stay in the parent (StateError; threads=1 has none). `with Transcriber(...) as transcriber` closes it at the end.
    The options of its methods:

    language:     the language spoken, of `languages`: the model answers a wrong one fluently. Or "en,de,fr", or a
                  sequence of codes: the likeliest of these; "auto": of all that it was trained on (extras/detect.py)
    language_per: "recording", for which the language is found once, from the first pieces with speech, which wait until
                  it is sure (at most 4, or 30 s); or "phrase", for each piece by itself
    punctuation:  with capitals and marks
    itn:          inverse text normalisation, "20" for "twenty", where the model has learnt it
    prompt:       "full", or "short" for exports that were published with a two-token one
    start, end:   the stretch to recognise, in seconds
    channel:      None for the mean of the channels, a number (from 0) for one, "split" for all, each by itself
    pauses:       cut where the speaker pauses; None to cut as the reference does, at the quietest place in 30 to 35 s
    skip_silence: leave out what does not stand out from the noise (extras/loudness.py): models invent words there
    word_times:   when each word was said, in Segment.words: experimental, measured with the demonstration model alone.
                  One more pass over the tokens, for exports that have its graph (OptionError: those of this package)
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
        precision: str | None = None,
        self_check: bool = False,
    ) -> None:
        """model: a folder with an encoder and a decoder (.onnx) and tokens.txt; or, where there is none, the
        "owner/name" of a model on the Hugging Face hub (needs huggingface_hub); None for the embedded demonstration
        model, which knows numbers, times, dates, prices, greetings and simple commands in en, de, fr and es.

        providers: "cpu", "cuda", "tensorrt", "directml", "coreml", "openvino", "webgpu", or NAME of an installed plugin
        onnxruntime_ep_NAME, the preferred one first; the CPU takes what they leave. "cuda:1" is the second device,
        "cuda:1,arena_extend_strategy=kSameAsRequested" has the provider's own options.
        threads: None for the physical cores this process may use.
        spin: False to let threads sleep rather than spin while they wait for work: slower alone, better on busy cores.
        cache: folder for prepared copies of large models, or "off"; None for what COHERE_LITE_CACHE says, or the
        system's place for caches. A model's first start writes one, later ones load it in a fraction of the time.
        batch_size: pieces of a long recording that are decoded side by side, 1 or more; each takes 60 MB at the real
        size. None: 4 where the model allows it, which are exports of the "fast" contract.
        precision: which of several models in a folder or on the hub: "int8", "q4", "q4f16", "fp16", "fp32", ...; None
        for the best one for the provider (on a CPU int8, then q4).
        self_check: test caches and kernels at load on the CPU, too, as on every other provider (devices/selfcheck.py).

        Raises ModelError, ModelFileNotFound, OptionError, ProviderError.
        """
        if batch_size is not None:
            batch_size = number("batch_size", batch_size, "1 or more", least=1, whole=True)
        for name, flag in (("spin", spin), ("self_check", self_check)):
            check_kind(name, flag, _FLAG, "True or False")
        self._model = load_model(model, providers, threads, spin, cache, precision, bool(self_check))
        takes_batches = self._model.contract.takes_batches
        if (batch_size or 1) > 1 and not takes_batches:
            raise OptionError(f'batch_size is {batch_size}, but only exports of the "fast" contract take more than 1')
        self._batch_size = batch_size or (BATCH_SIZE if takes_batches else 1)
        self.facts: dict[str, Any] = {
            "name": "demonstration" if model is None else fspath(model),
            "contract": self._model.contract.name,
            "precision": self._model.precision,
            "provider": providers[0],
            "onnxruntime": ort.__version__,
        }  # what a record of a transcription should say of the model
        try:
            from .devices.split import tell_split
        except ImportError:
            return  # a copy without it knows no provider but the CPU
        self.facts |= tell_split(self._model.contract, providers[0], self._model.precision)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that can be asked for."""
        return self._model.vocabulary.languages

    def transcribe(
        self,
        audio: AudioSource,
        *,
        rate: int | None = None,
        language: str | Sequence[str] = "en",
        language_per: str = "recording",
        punctuation: bool = True,
        itn: bool = False,
        prompt: str = "full",
        start: float = 0.0,
        end: float | None = None,
        channel: int | str | None = None,
        pauses: Pauses | None = None,
        skip_silence: bool = True,
        word_times: bool = False,
    ) -> Transcript:
        """Recognise a whole recording. Arguments and errors are those of `segments`."""
        begin = self._beginner(
            language, language_per, punctuation, itn, prompt, start, end, channel, pauses, skip_silence, word_times
        )
        with _opened(audio, rate) as opened:
            segments = [*begin(opened.rate).read(opened, end)]
            warnings = [*opened.missing, *opened.warnings]
            named = language if isinstance(language, str) and language in self.languages else None
            return Transcript.of(segments, named, warnings=warnings, complete=not opened.missing)

    def segments(
        self,
        audio: AudioSource,
        *,
        rate: int | None = None,
        language: str | Sequence[str] = "en",
        language_per: str = "recording",
        punctuation: bool = True,
        itn: bool = False,
        prompt: str = "full",
        start: float = 0.0,
        end: float | None = None,
        channel: int | str | None = None,
        pauses: Pauses | None = None,
        skip_silence: bool = True,
        word_times: bool = False,
    ) -> Generator[Segment, None, None]:
        """Recognise a recording of any length, or one that is still being made: segments in order of their start, laid
        end to end. A few pieces of audio are held at a time, never all of it.

        audio: a file of sound (path, bytes or binary file, which may be a pipe); samples: float (n,) or (n, channels)
               in -1..1, or int16, int32 or uint8 as in WAV files; an iterable of such arrays, each recognised as soon
               as it comes and completes a segment; what open_audio gave; or what other libraries give: (rate, samples),
               {"array", "sampling_rate"}, {"bytes", "path"}
        rate:  of the samples, in Hz

        The first segment comes as soon as it is complete. Those of a file then come a few at a time, decoded side by
        side; those of a live recording at once. Raises OptionError, and while they are fetched AudioError, OSError if a
        file cannot be opened, ModelError if the model fails to run. What was read before the audio failed is given
        first. So is what is through the encoder when Ctrl-C interrupts the work on a piece; a second Ctrl-C breaks off.
        """
        begin = self._beginner(
            language, language_per, punctuation, itn, prompt, start, end, channel, pauses, skip_silence, word_times
        )

        def recognised() -> Generator[Segment, None, None]:
            with _opened(audio, rate) as opened:
                yield from begin(opened.rate).read(opened, end)

        return recognised()

    def recording(
        self,
        rate: int,
        *,
        language: str | Sequence[str] = "en",
        language_per: str = "recording",
        punctuation: bool = True,
        itn: bool = False,
        prompt: str = "full",
        start: float = 0.0,
        channel: int | str | None = None,
        pauses: Pauses | None = None,
        skip_silence: bool = True,
        word_times: bool = False,
    ) -> Recording:
        """Begin a recording whose samples will be pushed. rate: of the samples, in Hz;  start: the time of the first
        one, in seconds. Raises OptionError; AudioError for a rate that cannot be."""
        begin = self._beginner(
            language, language_per, punctuation, itn, prompt, start, None, channel, pauses, skip_silence, word_times
        )
        with naming("the recording"):
            return begin(number("rate", rate, "a number of Hz"))

    def _beginner(
        self,
        language: str | Sequence[str],
        language_per: str,
        punctuation: bool,
        itn: bool,
        prompt: str,
        start: float,
        end: float | None,
        channel: int | str | None,
        pauses: Pauses | None,
        skip_silence: bool,
        word_times: bool,
    ) -> Callable[[int], Recording]:
        """rate -> Recording. Raises OptionError; StateError."""
        self._model.turn.check()
        start, _ = check_stretch(start, end)
        flags = {"punctuation": punctuation, "itn": itn, "skip_silence": skip_silence, "word_times": word_times}
        for name, flag in flags.items():
            check_kind(name, flag, _FLAG, "True or False")
        if channel is not None and not (isinstance(channel, str) and channel == "split"):
            channel = number("channel", channel, 'a number from 0, "split" or None', whole=True)
        if pauses is not None and (isinstance(pauses, type) or not hasattr(pauses, "cutter")):
            raise OptionError(f"pauses is {pauses!r}; it must be Pauses(), such as Pauses(min_pause_s=0.5), or None")
        make_prompt = partial(self._model.vocabulary.prompt, punctuation=punctuation, itn=itn, style=prompt)
        if isinstance(language, str) and language != "auto" and "," not in language and language_per == "recording":
            spoken = Spoken(make_prompt(language), language)

            def new_languages() -> Languages:
                return lambda clips, waited_s: [spoken] * len(clips)

        else:
            try:
                from .extras.detect import finder
            except ImportError:
                needed = "cohere_lite/extras/detect.py, which is not in this copy"
                raise OptionError(f"language is {language!r}; to find which is spoken needs {needed}") from None
            new_languages = finder(self._model, language, language_per, make_prompt, self._batch_size)
        how = start, channel, pauses, skip_silence, self._word_timer() if word_times else None
        return lambda rate: Recording(self._model, self._batch_size, rate, new_languages(), *how)

    def _word_timer(self) -> WordTimer:
        """Opened when it is first asked for: it has a graph of its own. Raises OptionError, ModelError."""
        turn = self._model.turn
        with turn.lock:
            if turn.word_timer is None:
                try:
                    from .extras.word_times import WordTimer
                except ImportError:
                    needed = "cohere_lite/extras/word_times.py, which is not in this copy"
                    raise OptionError(f"word_times needs {needed}") from None
                turn.word_timer = WordTimer(self._model)
            return turn.word_timer

    def close(self) -> None:
        """Free the model's memory, once the piece that is being recognised is done. After that, this and recordings
        that still go on raise StateError. What a forked process inherited is kept: to free it would take for ever."""
        turn = self._model.turn
        with turn.lock:
            if not turn.over:
                turn.over = "is closed"
                for holder in filter(None, (turn.word_timer, self._model.contract)):
                    vars(holder).clear()  # the sessions, and what is bound to them
                turn.word_timer = None

    def __enter__(self) -> Transcriber:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Transcriber cannot be pickled or copied: make one in each process")


@contextmanager
def _opened(audio: AudioSource, rate: int | None) -> Iterator[Audio]:
    rate = None if rate is None else number("rate", rate, "a number of Hz")
    is_pair = isinstance(audio, (tuple, Mapping)) or (isinstance(audio, list) and rate is None)
    if is_pair or hasattr(audio, "get_all_samples"):  # torchcodec's decoder
        try:
            from .extras.pairs import unpack
        except ImportError:
            needed = "cohere_lite/extras/pairs.py, which is not in this copy"
            raise OptionError(f"audio as a {type(audio).__name__} needs {needed}") from None
        audio, rate = unpack(audio, rate)
    is_file = isinstance(audio, (str, PathLike, bytes, bytearray, memoryview)) or hasattr(audio, "read")
    if is_file or isinstance(audio, Audio):
        if rate is not None:
            raise OptionError("rate belongs to samples; a file says its own")
        source = nullcontext(audio) if isinstance(audio, Audio) else open_audio(cast(AudioFile, audio))
    elif isinstance(audio, Iterable):
        if rate is None:
            raise OptionError("samples need their sampling rate: transcribe(samples, rate=16000)")
        samples = open_array(audio, rate) if isinstance(audio, np.ndarray) else open_blocks(cast(Blocks, audio), rate)
        source = nullcontext(samples)
    else:
        raise TypeError(f"expected a path, bytes, a binary file or samples, not {type(audio).__name__}")
    with source as opened, naming(opened.name):
        yield opened
