"""One interface over each runtime, to time its parts. A runtime that is not installed, or has no files to load, says so
in `Skip`.

A clip goes through features -> encode -> step (the prompt) -> step ...; what the tokens say does not matter, as the
weights are random. Runtimes that only take a whole clip have `clip` and `parts` instead.
"""

import os
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from cohere_lite.extras.detect import first_tokens, n_compared
from cohere_lite.tokens import read_tokens
from cohere_lite.transcribe import BATCH_SIZE

from .models import Models

THREADS = 2
RATE = 16000
END_OF_TEXT = "<|endoftext|>"
CANDIDATES = 14  # languages that the reference supports


class Skip(Exception):
    """Why a runtime cannot be measured here."""


class Lite:
    """cohere_lite; `cache`: keep prepared copies;  `long`: also to be measured on ten minutes of audio."""

    def __init__(self, models: Models, folder: str, cache: bool = True, long: bool = False) -> None:
        from cohere_lite.model import load_model

        model = load_model(models.folder(folder), threads=THREADS, cache=models.cache if cache else "off")
        self.long = long
        self.model, self.contract = model, model.contract
        self.prompt = model.vocabulary.prompt("en")
        self.features = self.contract.features

    def encode(self, *clips: dict[str, np.ndarray]) -> None:
        self.clips = len(clips)
        self.contract.release()  # what the last clips left may be as large as what is to come
        self.encoded = [self.contract.encode_features(features, seconds=0) for features in clips]
        self.contract.start(self.encoded)

    def step(self, tokens: list[int]) -> np.ndarray:
        """The logits, (clips, vocabulary)."""
        return self.contract.step([tokens] * self.clips)

    def find_language(self, seconds: float) -> None:
        """What it takes after the encoder, of a clip of so many seconds. What the tokens say does not matter."""
        prompts, never = [self.prompt] * CANDIDATES, -1
        first_tokens(self.contract, self.encoded[0], prompts, never, n_compared(seconds), BATCH_SIZE)

    def words(self, samples: np.ndarray, n_tokens: int) -> Callable[[], object] | None:
        """What times the words of a clip that is through the encoder; None where the model has no graph for it."""
        from cohere_lite import OptionError
        from cohere_lite.decode import Decoded
        from cohere_lite.extras.word_times import WordTimer

        try:
            timer = WordTimer(self.model)
        except OptionError:
            return None
        clip = self.contract.encode(samples)
        ids = [i for i, piece in enumerate(self.model.vocabulary.pieces) if not piece.startswith("<")]
        tokens = tuple(np.resize(ids, n_tokens).tolist())
        return partial(timer, clip, samples, self.prompt, Decoded(tokens, False, False, 0.0, (0.0,) * n_tokens), 0.0)


class StaticLoop:
    """The published scripts for the contracts "static" (the card's, with the reference's feature extractor) and "audio"
    (transcribe-rs's): onnxruntime with default options, caches as arrays that are passed in and come back each step."""

    def __init__(self, models: Models, folder: str) -> None:
        self.encoder, self.decoder = sessions(models.folder(folder))
        self.takes_audio = self.encoder.get_inputs()[0].name == "audio"
        self.extractor = None if self.takes_audio else reference_extractor()
        self.prompt = read_tokens(models.folder(folder) / "tokens.txt").prompt("en")
        self.cache_shape = next(i.shape for i in self.decoder.get_inputs() if "self_k" in i.name)
        self.cache_shape[1] = 1

    def features(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        if self.extractor is None:
            return {"audio": samples[None]}
        features = self.extractor(samples, sampling_rate=RATE, return_tensors="np")["input_features"]
        return {"mel": np.ascontiguousarray(features.transpose(0, 2, 1)[:, :, : len(samples) // 160])}

    def encode(self, features: dict[str, np.ndarray]) -> None:
        self.cross = dict(zip(("n_layer_cross_k", "n_layer_cross_v"), self.encoder.run(None, features), strict=True))
        self.past = [np.zeros(self.cache_shape, np.float32) for _ in "kv"]
        self.offset = 0

    def step(self, tokens: list[int]) -> int:
        past = {f"in_n_layer_self_{part}_cache": value for part, value in zip("kv", self.past, strict=True)}
        feed = {"tokens": np.array([tokens]), "offset": np.array(self.offset)} | past | self.cross
        logits, *self.past = self.decoder.run(None, feed)
        self.offset += len(tokens)
        return likeliest(logits)


class MergedLoop:
    """What transformers.js does with the contract "merged", in Python: the caches that a step gives are fed to the
    next; the cross-attention's are those of the first."""

    def __init__(self, models: Models, folder: str) -> None:
        self.encoder, self.decoder = sessions(models.folder(folder) / "onnx")
        self.extractor = reference_extractor()
        self.prompt = read_tokens(models.folder(folder) / "tokenizer.json").prompt("en")
        self.outputs = [output.name for output in self.decoder.get_outputs()]

    def features(self, samples: np.ndarray) -> np.ndarray:
        features = self.extractor(samples, sampling_rate=RATE, return_tensors="np")["input_features"]
        return np.ascontiguousarray(features[:, : len(samples) // 160])

    def encode(self, features: np.ndarray) -> None:
        (self.states,) = self.encoder.run(["last_hidden_state"], {"input_features": features})
        self.past = {
            value.name: np.zeros([1, value.shape[1], 0, value.shape[3]], np.float32)
            for value in self.decoder.get_inputs()
            if value.name.startswith("past_key_values")
        }
        self.offset = 0

    def step(self, tokens: list[int]) -> int:
        total = self.offset + len(tokens)
        feed = {"input_ids": np.array([tokens]), "attention_mask": np.ones((1, total), np.int64)}
        feed |= {"position_ids": np.arange(self.offset, total)[None], "num_logits_to_keep": np.array(1)}
        feed |= {"encoder_hidden_states": self.states} | self.past
        given = dict(zip(self.outputs, self.decoder.run(self.outputs, feed), strict=True))
        self.past |= {
            name.replace("present", "past_key_values"): value
            for name, value in given.items()
            if ".decoder." in name or (".encoder." in name and self.offset == 0)
        }
        self.offset = total
        return likeliest(given["logits"])


class OnnxAsr:
    """onnx-asr: the steps of its own greedy loop."""

    def __init__(self, models: Models, folder: str) -> None:
        try:
            import onnx_asr
            import onnxruntime as ort
        except ImportError as error:
            raise Skip(str(error)) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.model: Any = onnx_asr.load_model(
            "nemo-conformer-aed", models.folder(folder), quantization="int8", sess_options=options
        ).asr
        self.prompt = self.model._transcribe_input[0].tolist()  # type: ignore[attr-defined]

    def features(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.model._preprocessor(samples[None], np.array([len(samples)]))

    def encode(self, features: tuple[np.ndarray, np.ndarray]) -> None:
        self.encoded = self.model._encode(*features)
        layers, width = (self.model._decoder.get_inputs()[3].shape[axis] for axis in (0, 3))
        self.mems = np.empty((layers, 1, 0, width), np.float32)

    def step(self, tokens: list[int]) -> int:
        logits, self.mems = self.model._decode(np.array([tokens]), *self.encoded, self.mems)
        return likeliest(logits)


class Transformers:
    """The reference implementation, `dtype` "float32" or "bfloat16"; `device`: "cpu" or "cuda"."""

    def __init__(self, models: Models, dtype: str, device: str = "cpu") -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise Skip(str(error)) from error
        torch.set_num_threads(THREADS)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.model = transformers.CohereAsrForConditionalGeneration.from_pretrained(
            models.checkpoint, dtype=getattr(torch, dtype)
        ).eval()
        self.model.to(device)
        self.prompt = read_tokens(models.checkpoint / "tokens.txt").prompt("en")

    @cached_property
    def extractor(self) -> Any:
        return reference_extractor()

    def features(self, samples: np.ndarray) -> Any:
        found = self.extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"]
        return found[:, : len(samples) // 160].to(self.model.device, self.model.dtype)

    def encode(self, mel: Any) -> None:
        self.encoded = self.model.get_encoder()(mel)
        self.past = None

    def step(self, tokens: list[int]) -> None:
        self.choose([tokens])

    def choose(self, tokens: list[list[int]]) -> list[int]:
        """The likeliest next token of each clip."""
        ids = self.torch.tensor(tokens, device=self.model.device)
        output = self.model(
            decoder_input_ids=ids, encoder_outputs=self.encoded, past_key_values=self.past, use_cache=True
        )
        self.past = output.past_key_values
        return output.logits[:, -1].argmax(-1).tolist()


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


def likeliest(logits: np.ndarray) -> int:
    """The token that a greedy decoder goes on with; logits (1, n, vocabulary)."""
    return int(logits[0, -1].argmax())


def sessions(folder: Path) -> list[Any]:
    """The encoder's and the decoder's, as published scripts open them."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    paths = [next(folder.glob(f"*{part}*.onnx")) for part in ("encoder", "decoder")]
    return [ort.InferenceSession(str(path), options) for path in paths]


def reference_extractor() -> Any:
    try:
        from transformers import CohereAsrFeatureExtractor
    except ImportError as error:
        raise Skip(f"the reference's feature extractor: {error}") from error
    return CohereAsrFeatureExtractor()


def rows(models: Models) -> dict[str, Callable[[], Any]]:
    """Name in the table -> opens the runtime, or raises Skip."""
    found: dict[str, Callable[[], Any]] = {
        "card's script, card's files": lambda: StaticLoop(models, "card"),
        "cohere_lite, card's files": lambda: Lite(models, "card"),
        "cohere_lite, card's files converted": lambda: Lite(models, "card-fast"),
        "transcribe-rs's loop, audio int8": lambda: StaticLoop(models, "audio-int8"),
        "cohere_lite, audio int8": lambda: Lite(models, "audio-int8"),
        "cohere_lite, audio int8 converted": lambda: Lite(models, "audio-int8-fast"),
        "transformers.js's loop, merged q4": lambda: MergedLoop(models, "merged-q4"),
        "cohere_lite, merged q4": lambda: Lite(models, "merged-q4"),
        "cohere_lite, merged q4 converted": lambda: Lite(models, "merged-q4-fast"),
        "transformers.js's loop, merged int8": lambda: MergedLoop(models, "merged-int8"),
        "cohere_lite, merged int8": lambda: Lite(models, "merged-int8"),
        "onnx-asr, mems int8": lambda: OnnxAsr(models, "mems-int8"),
        "cohere_lite, mems int8": lambda: Lite(models, "mems-int8"),
        "cohere_lite, int8": lambda: Lite(models, "int8", long=True),
        "cohere_lite, int8, no cache": lambda: Lite(models, "int8", cache=False),
        "cohere_lite, int4 decoder": lambda: Lite(models, "int4"),
        "transformers, float32": lambda: Transformers(models, "float32"),
        "transformers, bfloat16": lambda: Transformers(models, "bfloat16"),
        "sherpa-onnx, our static files": lambda: Sherpa(models, "static"),
        "sherpa-onnx, card's files": lambda: Sherpa(models, "card"),
    }
    for path in models.gguf:
        found[f"transcribe.cpp, {path.stem}"] = partial(TranscribeCpp, models, path)
    if not models.gguf:
        found["transcribe.cpp"] = _no_gguf
    return found


def _no_gguf() -> None:
    raise Skip("no GGUF file was given (--gguf)")
