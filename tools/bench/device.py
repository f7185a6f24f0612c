"""One step of the bench on a device, in a process of its own: its memory is gone after it, and so is its crash. Prints
one JSON object.

    python -m tools.bench.device STEP PROVIDER WORK PRECISION full|quick     (started by python -m tools.bench.gpu)
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from cohere_lite.mel import log_mel

from .copies import onnxruntime_copies, torch_copies
from .gpu import in_float16
from .models import Models
from .runtimes import RATE, Transformers
from .worker import median, timed

BATCHES = (1, 8)  # clips side by side
TRACED = 20  # tokens
# By how much the CPU may prefer another token than the device's, in standard deviations of the logits. By record, the
# root mean square of float16's rounding is 0.0015 of one (random weights, real size); bfloat16 has three bits less.
NEAR_TIE, NEAR_TIE_BF16 = 0.05, 0.2


class Sizes(NamedTuple):
    """few, many: tokens; what one takes is the difference of two decodings, over the difference of these;
    clips: seconds of audio: tokens, as in speech (0: the encoder alone);  copied: bytes, beyond all caches;
    repeats: of everything; the median counts."""

    few: int
    many: int
    clips: dict[int, int]
    copied: int
    repeats: int


SIZES = {
    "full": Sizes(10, 110, {5: 0, 10: 35, 30: 100}, 1 << 31, 5),
    "quick": Sizes(2, 12, {1: 4, 2: 0}, 1 << 24, 2),
}


class Ours:
    """cohere_lite, decoding for a given number of tokens: with random weights no text ends."""

    def __init__(self, models: Models, precision: str, provider: str) -> None:
        from cohere_lite.model import load_model

        model = load_model(models.folder(precision), providers=[provider], cache="off")
        self.contract: Any = model.contract
        self.prompt = model.vocabulary.prompt("en")
        self.features = self.contract.features
        self.takes_batches = self.contract.takes_batches

    def encode(self, features: dict[str, np.ndarray], batch: int = 1) -> None:
        """One clip, which then stands for `batch` of them."""
        self.clips = [self.contract.encode_features(features, seconds=0)] * batch

    def prompted(self) -> np.ndarray:
        """The tokens that follow the prompt, (clips,)."""
        self.contract.start(self.clips)
        return self.contract.choose([self.prompt] * len(self.clips))[0]

    def decode(self, n_tokens: int) -> None:
        tokens = self.prompted()
        for _ in range(n_tokens - 1):
            tokens, _ = self.contract.choose(tokens[:, None])
        self.contract.release()

    def graph(self) -> Callable[[], Any]:
        """That of one token, again and again at the same position, without choosing in Python. Recorded, it is fed and
        its token read: WebGPU returns before the work is done."""
        tokens = self.prompted()[:, None]
        self.contract.choose(tokens)
        if step := getattr(self.contract, "_step", None):
            return partial(step, tokens, len(self.prompt), ["next_token"])
        return self.contract.decoder.run


class Theirs(Transformers):
    """transformers in bfloat16, on the GPU if the provider is CUDA. Features are ours, which are equal to its own: some
    versions' extractor needs packages that their model does not."""

    takes_batches = True

    def __init__(self, models: Models, precision: str, provider: str) -> None:
        super().__init__(models, precision, "cuda" if provider == "cuda" else "cpu")

    def features(self, samples: np.ndarray) -> Any:
        return self.torch.from_numpy(log_mel(samples).T[None]).to(self.model.device, self.model.dtype)

    def encode(self, features: Any, batch: int = 1) -> None:
        super().encode(features.repeat(batch, 1, 1))
        self.clips = [self.prompt] * batch

    def decode(self, n_tokens: int) -> None:
        self.past = None
        tokens = self.choose(self.clips)
        for _ in range(n_tokens - 1):
            tokens = self.choose([[token] for token in tokens])


RUNTIMES: dict[str, Callable[..., Any]] = {"bfloat16": Theirs}  # precisions of PyTorch's; the others are our exports'


def opened(models: Models, precision: str, provider: str) -> Any:
    return RUNTIMES.get(precision, Ours)(models, precision, provider)


def bandwidth(provider: str, work: Path, precision: str, sizes: Sizes) -> dict[str, Any]:
    """Bytes a second of a copy in the device's memory, read and written bytes together."""
    from cohere_lite.export.graph import Graph
    from cohere_lite.graphfile import read_graph_file
    from cohere_lite.session import CPU, OrtValue, find_opener, open_session, ort, session_options

    with TemporaryDirectory() as folder:
        path = Path(folder) / "copy.onnx"
        with Graph(path, "float") as graph:
            graph.input("x", "float32", ["n"])
            graph.output("y", "float32", ["n"])
            graph.output("last", "float32", [1])  # it reaches the host when the copy is done
            graph.node("Identity", "x", out="y")
            graph.node("Slice", "y", graph.constant([-1]), graph.constant([np.iinfo(np.int64).max]), out="last")
            graph.save({})

        def options() -> ort.SessionOptions:
            made = session_options(threads=None, spin=True, stop=False)
            made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # they would leave the copy out
            return made

        session = open_session(read_graph_file(path), find_opener([provider]), options, "off")
        device = session.inputs["x"].device

        def seconds(n: int) -> float:
            x, y = (OrtValue.ortvalue_from_shape_and_type([n], np.float32, *device) for _ in "xy")
            x.update_inplace(np.ones(n, np.float32))

            def copy() -> float:
                return session.call({"x": x}, {"y": y, "last": CPU})["last"].numpy()[0]

            if copy() != 1:
                raise ValueError("the copy is not what was copied")
            return median(sizes.repeats, copy)

        n, few = sizes.copied // 4, sizes.copied // 64
        return {"device": device[0], "bytes_per_s": 2 * 4 * (n - few) / (seconds(n) - seconds(few))}


def tokens(provider: str, work: Path, precision: str, sizes: Sizes) -> dict[str, Any]:
    """What a token takes, in a batch of one and of eight, on 10 s of audio; of the decoder alone."""
    models = Models(work / "decoder", ())
    load_s, runtime = timed(opened, models, precision, provider)
    features = runtime.features(noise(min(10, max(sizes.clips))))
    found: dict[str, Any] = {"load_s": load_s}
    for batch in BATCHES if runtime.takes_batches else BATCHES[:1]:
        runtime.encode(features, batch)
        runtime.decode(sizes.few)  # touches memory, and picks kernels
        few, many = (median(sizes.repeats, runtime.decode, n) for n in (sizes.few, sizes.many))
        found[f"token_{batch}_ms"] = (many - few) / (sizes.many - sizes.few) * 1e3
    if isinstance(runtime, Ours):
        runtime.encode(features)
        found["run_ms"] = median(sizes.many, runtime.graph()) * 1e3
        if getattr(runtime.contract, "_recorded", None):  # and the same, kernel by kernel
            runtime.contract._recorded = None
            found["unrecorded_ms"] = median(sizes.many, runtime.graph()) * 1e3
        (weights,) = models.folder(precision).glob("decoder.*.data")
        found["weight_bytes"] = weights.stat().st_size
    return found


def clips(provider: str, work: Path, precision: str, sizes: Sizes) -> dict[str, Any]:
    """The encoder, and whole clips from samples to tokens, at full size. The encoder's time is that of a clip with few
    tokens, less that of these: a step of the decoder ends when all is done, on any provider."""
    load_s, runtime = timed(opened, Models(work / "full", ()), precision, provider)
    found: dict[str, Any] = {"load_s": load_s}

    def encode_and_decode(features: Any, n_tokens: int) -> None:
        runtime.encode(features)
        runtime.decode(n_tokens)

    def whole(samples: np.ndarray, n_tokens: int) -> None:
        encode_and_decode(runtime.features(samples), n_tokens)

    for seconds, n_tokens in sizes.clips.items():
        samples = noise(seconds)
        features = runtime.features(samples)
        encode_and_decode(features, sizes.few)
        both = median(sizes.repeats, encode_and_decode, features, sizes.few)
        found[f"features_{seconds}_s_ms"] = median(sizes.repeats, runtime.features, samples) * 1e3
        found[f"encoder_{seconds}_s_ms"] = (both - median(sizes.repeats, runtime.decode, sizes.few)) * 1e3
        if n_tokens:
            found[f"clip_{seconds}_s_ms"] = median(sizes.repeats, whole, samples, n_tokens) * 1e3
    return found


def text(provider: str, work: Path, precision: str, sizes: Sizes) -> dict[str, Any]:
    """The embedded model, whose weights are trained: its text, twice in a row, is the CPU's."""
    from cohere_lite import Transcriber
    from cohere_lite.model import DEMO_FOLDER

    sample = DEMO_FOLDER / "sample.wav"
    wanted = Transcriber().transcribe(sample).text
    there = Transcriber(work / "demo" / precision, providers=[provider], cache="off")
    found = [there.transcribe(sample).text for _ in range(2)]
    return {"texts": found, "ok": found == [wanted] * 2}


def same(provider: str, work: Path, precision: str, sizes: Sizes) -> dict[str, Any]:
    """The decoder at full size, step by step on the tokens that the CPU chooses: the device chooses the same, or one
    that the CPU likes nearly as well. The CPU has no kernels for bfloat16: it runs the same weights in float16."""
    models = Models(work / "decoder", ())
    here = Ours(models, in_float16(precision), "cpu")
    there = Ours(models, precision, provider)
    features = here.features(noise(min(10, max(sizes.clips))))
    for runtime in (here, there):
        runtime.encode(features)
        runtime.contract.start(runtime.clips)
    fed = np.array([here.prompt])
    gaps, logprobs = [], []
    for _ in range(sizes.many):
        (logits,) = here.contract.step(fed)
        (chosen,), (logprob,) = there.contract.choose(fed)
        gaps.append(float((logits.max() - logits[chosen]) / logits.std()))
        exact = logits.astype(float) - logits.max()
        logprobs.append(float(abs(logprob - (exact[chosen] - np.log(np.exp(exact).sum())))))
        fed = logits.argmax()[None, None]
    allowed = NEAR_TIE_BF16 if precision.endswith("bf16") else NEAR_TIE
    return {
        "tokens": len(gaps),
        "equal": sum(gap == 0 for gap in gaps),
        "largest_gap": max(gaps),
        "largest_logprob_error": max(logprobs),
        "ok": max(gaps) < allowed and bool(np.isfinite(logprobs).all()),
    }


def copies(provider: str, work: Path, precision: str, sizes: Sizes) -> dict[str, Any]:
    """That caches stay on the device while clips are decoded: the memory that they are bound in is the kernels', past
    and present are one buffer, and profiles show no copy larger than those of tokens."""
    with TemporaryDirectory() as folder:
        profile_sessions(Path(folder))
        ours = Ours(Models(work / "decoder", ()), precision, provider)
        decoder = ours.contract.decoder
        features = ours.features(noise(min(10, max(sizes.clips))))
        found: dict[str, Any] = {"elsewhere": [], "by_the_driver": {}}
        runs = 0  # of the decoder; those before, at load, may be tests that read caches
        a_text = 1 if getattr(ours.contract, "_recorded", None) else TRACED  # a recorded step has no nodes in a profile
        for batch in BATCHES if ours.takes_batches else BATCHES[:1]:
            ours.encode(features, batch)
            ours.prompted()
            found["elsewhere"] += elsewhere(decoder)
            ours.decode(TRACED)
            runs += 1 + a_text
            if provider == "cuda":
                found["by_the_driver"][batch] = traced_copies(ours, Path(folder) / "trace.json")
                runs += a_text
        found["between_nodes"] = onnxruntime_copies(Path(decoder._session.end_profiling()), runs).summary()
    profiles = [found["between_nodes"], *found["by_the_driver"].values()]
    return found | {"ok": not found["elsewhere"] and all(profile.get("too_large") == 0 for profile in profiles)}


def profile_sessions(folder: Path) -> None:
    """Every session that is opened from now on writes a profile."""
    from cohere_lite.session import ort

    original, number = ort.SessionOptions, count()

    def profiling() -> Any:
        options = original()
        options.enable_profiling, options.profile_file_prefix = True, str(folder / f"session-{next(number)}")
        return options

    ort.SessionOptions = profiling


def elsewhere(decoder: Any) -> list[str]:
    """Caches that are not where the kernels read or write them, buffers that past and present do not share, and logits
    that are copied to the host though the caches are not there."""
    found = []
    if "logits" in decoder._bound and decoder.inputs["past_key_0"].device[0] != "cpu":
        found.append("logits are bound, too: each run copies them")
    for name, value in decoder._bound.items():
        expected = (decoder.inputs | decoder.outputs)[name].device
        if name.startswith(("past_", "present_", "cross_")) and value.device_name() != expected[0]:
            found.append(f"{name} is in {value.device_name()} memory, its kernels use {expected[0]}")
        if name.startswith("past_") and decoder._bound[name.replace("past_", "present_")] is not value:
            found.append(f"{name} does not share its buffer with what is written")
    return found


def traced_copies(ours: Ours, trace: Path) -> dict[str, Any]:
    """Of CUDA, while clips are decoded, their start included."""
    try:
        import torch

        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            ours.decode(TRACED)
        profile.export_chrome_trace(str(trace))
        return torch_copies(trace, TRACED).summary()
    except Exception as error:  # without it nothing is proven, but what else was found is worth having
        return {"failed": f"{type(error).__name__}: {error}"}


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(int(seconds * RATE), np.float32) * np.float32(0.05)


STEPS: dict[str, Callable[[str, Path, str, Sizes], dict[str, Any]]] = {
    step.__name__: step for step in (bandwidth, tokens, same, copies, text, clips)
}


def main() -> int:
    step, provider, work, precision, size = sys.argv[1:]
    json.dump(STEPS[step](provider, Path(work), precision, SIZES[size]), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
