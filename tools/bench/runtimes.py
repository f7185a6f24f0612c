"""One interface over each runtime, to time its parts. A runtime that is not installed, or has no files to load, says so
in `Skip`.

A clip goes through features -> encode -> step (the prompt) -> step ...; what the tokens say does not matter, as the
weights are random. Runtimes that only take a whole clip have `clip` and `parts` instead.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cohere_lite.tokens import read_tokens

from .models import Models

THREADS = 2
RATE = 16000
END_OF_TEXT = "<|endoftext|>"


class Skip(Exception):
    """Why a runtime cannot be measured here."""


class Lite:
    """cohere_lite; `cache`: keep prepared copies;  `long`: also to be measured on ten minutes of audio."""

    def __init__(self, models: Models, folder: str, cache: bool = True, long: bool = False) -> None:
        from cohere_lite.model import load_model

        model = load_model(models.folder(folder), threads=THREADS, cache=models.cache if cache else "off")
        self.long = long
        self.contract = model.contract
        self.prompt = model.vocabulary.prompt("en")
        self.features = self.contract.features

    def encode(self, *clips: dict[str, np.ndarray]) -> None:
        self.clips = len(clips)
        self.contract.release()  # what the last clips left may be as large as what is to come
        self.contract.start([self.contract.encode_features(features, seconds=0) for features in clips])

    def step(self, tokens: list[int]) -> np.ndarray:
        """The logits, (clips, vocabulary)."""
        return self.contract.step([tokens] * self.clips)


class Card:
    """The published script: the reference's feature extractor, onnxruntime with default options, caches as arrays that
    are passed in and come back at every step."""

    def __init__(self, models: Models) -> None:
        import onnxruntime as ort

        folder = models.folder("card")
        self.extractor = reference_extractor()
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.encoder, self.decoder = (
            ort.InferenceSession(str(folder / f"cohere-{part}.int8.onnx"), options) for part in ("encoder", "decoder")
        )
        self.prompt = read_tokens(folder / "tokens.txt").prompt("en")
        self.cache_shape = next(i.shape for i in self.decoder.get_inputs() if "self_k" in i.name)
        self.cache_shape[1] = 1

    def features(self, samples: np.ndarray) -> np.ndarray:
        features = self.extractor(samples, sampling_rate=RATE, return_tensors="np")["input_features"]
        return np.ascontiguousarray(features.transpose(0, 2, 1)[:, :, : len(samples) // 160])

    def encode(self, mel: np.ndarray) -> None:
        self.cross = dict(
            zip(("n_layer_cross_k", "n_layer_cross_v"), self.encoder.run(None, {"mel": mel}), strict=True)
        )
        self.past = [np.zeros(self.cache_shape, np.float32) for _ in "kv"]
        self.offset = 0

    def step(self, tokens: list[int]) -> None:
        past = {f"in_n_layer_self_{part}_cache": value for part, value in zip("kv", self.past, strict=True)}
        feed = {"tokens": np.array([tokens]), "offset": np.array(self.offset)} | past | self.cross
        logits, *self.past = self.decoder.run(None, feed)
        logits[0, -1].argmax()
        self.offset += len(tokens)


class Transformers:
    """The reference implementation, `dtype` "float32" or "bfloat16"."""

    def __init__(self, models: Models, dtype: str) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise Skip(str(error)) from error
        torch.set_num_threads(THREADS)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.extractor = reference_extractor()
        self.model = transformers.CohereAsrForConditionalGeneration.from_pretrained(
            models.checkpoint, dtype=getattr(torch, dtype)
        ).eval()
        self.prompt = read_tokens(models.checkpoint / "tokens.txt").prompt("en")

    def features(self, samples: np.ndarray) -> Any:
        found = self.extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"]
        return found[:, : len(samples) // 160].to(self.model.dtype)

    def encode(self, mel: Any) -> None:
        self.encoded = self.model.get_encoder()(mel)
        self.past = None

    def step(self, tokens: list[int]) -> None:
        ids = self.torch.tensor([tokens])
        output = self.model(
            decoder_input_ids=ids, encoder_outputs=self.encoded, past_key_values=self.past, use_cache=True
        )
        self.past = output.past_key_values
        output.logits[0, -1].argmax().item()


class Sherpa:
    """sherpa-onnx. It decodes up to 6 tokens a second of audio, and random weights never end before. To time what comes
    before the tokens, it is given a token list in which the first token it says is the end of the text."""

    def __init__(self, models: Models, folder: str) -> None:
        try:
            import sherpa_onnx  # noqa: F401
        except ImportError as error:
            raise Skip(str(error)) from error
        self.folder = models.folder(folder)
        self.open(self.folder / "tokens.txt")

    def open(self, tokens: Path) -> None:
        import sherpa_onnx

        self.recognizer: Any = None  # two at once would need too much memory
        encoder, decoder = (next(self.folder.glob(f"*{part}*.onnx")) for part in ("encoder", "decoder"))
        self.recognizer = sherpa_onnx.OfflineRecognizer.from_cohere_transcribe(
            encoder=str(encoder), decoder=str(decoder), tokens=str(tokens), num_threads=THREADS, language="en"
        )

    def clip(self, samples: np.ndarray) -> tuple[float, list[str]]:
        """Seconds, and what was said; each of the made-up pieces is a word."""
        began = time.perf_counter()
        stream = self.recognizer.create_stream()
        stream.accept_waveform(RATE, samples)
        self.recognizer.decode_stream(stream)
        return time.perf_counter() - began, stream.result.text.split()

    def parts(self, samples: np.ndarray, repeats: int) -> tuple[float, float]:
        """Seconds for everything but the tokens after the first, and for each of those."""
        self.open(self.folder / "tokens.txt")
        runs = [self.clip(samples) for _ in range(repeats)]
        whole, said = float(np.median([spent for spent, _ in runs])), runs[0][1]
        if len(said) < 2:
            raise Skip(f"it said {said}; an empty text is what a failed run gives, too")
        lines = (self.folder / "tokens.txt").read_text(encoding="utf-8").splitlines()
        first = f"▁{said[0]}"
        swap = {first: END_OF_TEXT, END_OF_TEXT: first}
        ids = dict(line.rsplit(" ", 1) for line in lines)
        changed = self.folder / "tokens.ends-at-once"
        changed.write_text("".join(f"{swap.get(piece, piece)} {i}\n" for piece, i in ids.items()), encoding="utf-8")
        self.open(changed)
        changed.unlink()
        ended = [self.clip(samples) for _ in range(repeats)]
        if any(text for _, text in ended):
            raise Skip("the text did not end at once")
        start = float(np.median([spent for spent, _ in ended]))
        return start, (whole - start) / (len(said) - 1)


class TranscribeCpp:
    """transcribe.cpp, through the package transcribe-cpp."""

    def __init__(self, models: Models, gguf: Path) -> None:
        os.environ.setdefault("TRANSCRIBE_NO_REPETITION_GUARD", "1")  # it would drop repeated tokens
        try:
            import transcribe_cpp
        except ImportError as error:
            raise Skip(str(error)) from error
        transcribe_cpp.set_log_callback(lambda level, message: None)
        self.library = transcribe_cpp
        self.model = transcribe_cpp.Model(str(gguf), backend="cpu")

    def _run(self, samples: np.ndarray, n_tokens: int) -> tuple[Any, int]:
        session: Any = self.model.session(n_threads=THREADS, n_ctx=10 + n_tokens)  # the prompt has 10
        try:
            result: Any = session.run(samples, language="en")
        except self.library.OutputTruncated as cut:  # the usual end, with random weights
            result = cut.partial_result
        return result.timings, len(result.text.split())  # each of the made-up pieces is a word

    def parts(self, samples: np.ndarray, repeats: int) -> tuple[float, float]:
        """Seconds for everything but the tokens after the first, and for each of those."""
        counts = (4, 64)
        runs = {n: [self._run(samples, n) for _ in range(repeats)] for n in counts}
        decode = {n: float(np.median([timings.decode_ms for timings, _ in runs[n]])) for n in counts}
        said = {n: runs[n][0][1] for n in counts}
        if said[64] <= said[4]:
            raise Skip(f"said {said[64]} tokens where 64 were allowed")
        per_token = (decode[64] - decode[4]) / (said[64] - said[4])
        rest = [timings.mel_ms + timings.encode_ms for timings, _ in runs[64]]
        return (float(np.median(rest)) + decode[4] - per_token * (said[4] - 1)) / 1e3, per_token / 1e3


def reference_extractor() -> Any:
    try:
        from transformers import CohereAsrFeatureExtractor
    except ImportError as error:
        raise Skip(f"the reference's feature extractor: {error}") from error
    return CohereAsrFeatureExtractor()


def rows(models: Models) -> dict[str, Callable[[], Any]]:
    """Name in the table -> opens the runtime, or raises Skip."""
    found: dict[str, Callable[[], Any]] = {
        "card's script, card's files": lambda: Card(models),
        "cohere_lite, card's files": lambda: Lite(models, "card"),
        "cohere_lite, int8": lambda: Lite(models, "int8", long=True),
        "cohere_lite, int8, no cache": lambda: Lite(models, "int8", cache=False),
        "cohere_lite, int4 decoder": lambda: Lite(models, "int4"),
        "transformers, float32": lambda: Transformers(models, "float32"),
        "transformers, bfloat16": lambda: Transformers(models, "bfloat16"),
        "sherpa-onnx, our static files": lambda: Sherpa(models, "static"),
        "sherpa-onnx, card's files": lambda: Sherpa(models, "card"),
        "onnx-asr": _onnx_asr,
    }
    for path in models.gguf:
        found[f"transcribe.cpp, {path.stem}"] = partial(TranscribeCpp, models, path)
    if not models.gguf:
        found["transcribe.cpp"] = _no_gguf
    return found


def _onnx_asr() -> None:
    raise Skip("reads a contract (decoder_mems) that neither cohere_lite/export nor the card writes")


def _no_gguf() -> None:
    raise Skip("no GGUF file was given (--gguf)")
