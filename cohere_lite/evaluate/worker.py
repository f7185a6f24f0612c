"""A model in a process of its own, which is fed one recording after the other.

So its memory is its own, peak included; a crash, or a system that runs out of memory, ends one recording rather than
the evaluation; and PyTorch, which the reference needs, is loaded where the reference runs and nowhere else.
"""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import CohereLiteError, OptionError
from .layouts.places import one_line


class Recognise(Protocol):
    """A model, open."""

    def __call__(
        self, frames: NDArray[np.float32], rate: int, language: str, word_times: bool = False
    ) -> dict[str, Any]:
        """The result for frames (n, channels).  rate: Hz;  word_times: "words" in its place, [word, start in seconds]
        each, or None of a model that does not tell them"""


_FIRST_S = 30  # of the first recording, which is recognised twice
_QUIET_S = 0.002  # threads that burn less than a tenth of such a time sleep
_SPIN_S = 0.2  # onnxruntime's wait for work in a busy loop for some 20 ms; other machines may take longer


def serve(connection: Connection, opener: Callable[..., Recognise], options: dict[str, Any], settles: bool) -> None:
    """The process's work: `opener(**options)` opens the model; then recordings come, and results go back.

    settles: before it asks for another recording, it waits until its threads sleep: those of a model whose turn is over
    would take the next one's cores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the harness's to obey
    try:
        began = time.perf_counter()
        recognise = opener(**options)
        connection.send({"load_s": time.perf_counter() - began})
    except (CohereLiteError, OSError, ValueError, ImportError) as error:
        connection.send({"error": f"{error}"})
        return
    is_first = True
    with suppress(EOFError, ConnectionError):  # the harness is gone
        while request := connection.recv():
            rate, shape, language, word_times = request
            frames = np.empty(shape, np.float32)
            connection.recv_bytes_into(frames.data.cast("B"))
            try:
                if is_first:  # what is done once, such as reading weights that are mapped, is in no figure but memory
                    recognise(frames[: _FIRST_S * rate], rate, language)
                    is_first = False
                began = time.perf_counter()
                result = recognise(frames, rate, language)
                result["time_s"] = time.perf_counter() - began
                if word_times:  # by themselves: speeds must not depend on what is noted beside the recordings
                    result |= recognise(frames, rate, language, word_times=True)
            except (CohereLiteError, OSError, MemoryError) as error:
                result = {"error": str(error) or type(error).__name__}
            except Exception as error:  # of torch and transformers, which meet what nobody thought of
                result = {"error": one_line(error)}
            connection.send(result | {"peak_mb": peak_mb()})
            if settles:
                _settle()
                connection.send("settled")


def _settle() -> None:
    end = time.perf_counter() + _SPIN_S
    while time.perf_counter() < end:
        burnt = time.process_time()
        time.sleep(_QUIET_S)
        if time.process_time() - burnt < _QUIET_S / 10:
            return


def open_ours(model: str, precision: str | None, provider: str, threads: int | None, punctuation: bool) -> Recognise:
    """Opens a model as the command does. Arguments and errors: see Transcriber."""
    from ..transcribe import Transcriber

    transcriber = Transcriber(model, precision=precision, providers=[provider], threads=threads)

    def recognise(frames: NDArray[np.float32], rate: int, language: str, word_times: bool = False) -> dict[str, Any]:
        asked: dict[str, Any] = {"rate": rate, "language": language, "punctuation": punctuation}
        if word_times:
            try:
                heard = transcriber.transcribe(frames, **asked, word_times=True)
            except OptionError:  # the other options were right before: it has no graph for them
                return {"words": None}
            return {"words": [[word.text, round(word.start, 3)] for s in heard.segments for word in s.words or ()]}
        heard = transcriber.transcribe(frames, **asked)
        spoken = [segment for segment in heard.segments if segment.avg_logprob is not None]
        n_chosen = [len(segment.tokens) + 1 for segment in spoken]  # end-of-text is chosen, too
        logprob = sum(s.avg_logprob * n for s, n in zip(spoken, n_chosen, strict=True) if s.avg_logprob is not None)
        return {
            "hypothesis": heard.text,
            "tokens": [token for segment in heard.segments for token in segment.tokens],
            "avg_logprob": round(logprob / sum(n_chosen), 4) if spoken else None,
            "segments": len(heard.segments),
            **{what: sum(getattr(s, what) for s in heard.segments) for what in ("silent", "looped", "truncated")},
            "warnings": [*heard.warnings],
        }

    return recognise


def open_reference(folder: str, threads: int | None, punctuation: bool) -> Recognise:
    """Opens a checkpoint in the official format with transformers, in float32. It has its own features and cuts."""
    import torch
    from transformers import CohereAsrFeatureExtractor, CohereAsrForConditionalGeneration

    from ..export.vocabulary import read_pieces
    from ..extras.cores import available_cores
    from ..tokens import Vocabulary
    from ..transcript import join
    from .sound import Sound, mono

    torch.set_num_threads(threads or available_cores())
    model = CohereAsrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    has_extractor = (Path(folder) / "preprocessor_config.json").exists()
    extractor = CohereAsrFeatureExtractor.from_pretrained(folder) if has_extractor else CohereAsrFeatureExtractor()
    vocabulary = Vocabulary(tuple(read_pieces(Path(folder))))
    max_positions = model.config.max_position_embeddings

    @torch.inference_mode()
    def recognise(frames: NDArray[np.float32], rate: int, language: str, word_times: bool = False) -> dict[str, Any]:
        if word_times:
            return {"words": None}
        prompt = vocabulary.prompt(language, punctuation=punctuation)
        features = extractor(mono(Sound(frames, rate, [])), sampling_rate=16000, return_tensors="pt")
        chunks: list[list[int]] = []
        for mel, mask in zip(features["input_features"], features["attention_mask"], strict=True):
            ids = model.generate(
                mel[mask][None],
                decoder_input_ids=torch.tensor([prompt]),
                decoder_start_token_id=prompt[0],  # or generate puts its own start token before the prompt
                max_length=max_positions,
                do_sample=False,
                num_beams=1,
            )
            chunks.append(ids[0, len(prompt) :].tolist())
        tokens = [[token for token in chunk if token != vocabulary.end_of_text] for chunk in chunks]
        return {
            "hypothesis": join([vocabulary.decode(chunk) for chunk in tokens], language),
            "tokens": [token for chunk in tokens for token in chunk],
            "avg_logprob": None,
            "segments": len(chunks),
            "silent": 0,
            "looped": 0,
            "truncated": sum(vocabulary.end_of_text not in chunk for chunk in chunks),
            "warnings": [],
        }

    return recognise


def peak_mb() -> float | None:
    """The largest resident memory that this process has had, in MB; None where the system does not tell."""
    if sys.platform == "linux":
        # not ru_maxrss, which begins with the memory of the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
