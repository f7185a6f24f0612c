"""What TensorRT and CoreML would be given. No machine of ours has one of them: onnxruntime is scripted: it takes note
of what it is asked for, and runs that on the CPU."""

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime as ort
import pytest
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite import ModelError, Transcriber
from cohere_lite.devices import selfcheck
from cohere_lite.devices.masked import PaddedEncoder
from cohere_lite.export.__main__ import export
from cohere_lite.model import load_model

pytestmark = pytest.mark.skipif(
    not hasattr(ort.InferenceSession, "get_input_memory_infos"), reason="onnxruntime before 1.24 is refused"
)

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
CPU, CUDA, TENSORRT, COREML = (
    f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt", "CoreML")
)  # fmt: skip


class Asked(NamedTuple):
    """Of one session. n_frames: of mel, a name where it is free;  providers: with their options"""

    graph: str
    n_frames: int | str
    providers: list[tuple[str, dict[str, str]]]


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model, exported for clips of up to 12.5 s."""
    folder = tmp_path_factory.mktemp("demo")
    for precision in ("fp16", "fp32"):
        export(CHECKPOINT, folder / precision, precision, max_audio_s=12.5, standard=True)
    export(CHECKPOINT, folder / "ordinary", "fp16")
    return folder


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What sessions were opened, in order, those of the self-check among them."""
    real, seen = ort.InferenceSession, list[Asked]()

    class Scripted(real):  # type: ignore[misc, valid-type]
        def __init__(self, path: str, options: Any, providers: list, **how: Any) -> None:
            how.pop("enable_fallback", None)
            super().__init__(path, options, [CPU], **how)
            self.names = [name if isinstance(name, str) else name[0] for name in providers]
            with_options = [(name, {}) if isinstance(name, str) else name for name in providers]
            n_frames = {value.name: value.shape for value in self.get_inputs()}.get("mel", [0])[-1]
            seen.append(Asked(Path(path).name, n_frames, with_options))

        def get_providers(self) -> list[str]:
            return self.names

    monkeypatch.setattr(ort, "InferenceSession", Scripted)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, COREML, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    return seen


@pytest.fixture
def asked(checked: list[Asked], monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What sessions were opened, in order, without a self-check."""
    monkeypatch.setattr(selfcheck, "check_model", lambda *how: None)
    return checked


def kept(cache: Path) -> Path:
    """The one folder that was made."""
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    return folder


def profile(n_frames: int) -> str:
    return f"mel:1x128x{n_frames},mel_mask:1x{n_frames}"


def test_tensorrt(standard: Path, asked: list[Asked], tmp_path: Path) -> None:
    """By hand, from TensorRT's page in onnxruntime's documentation: 12.5 s are 1,250 mel frames; the graph is float16;
    the decoder is CUDA's."""
    transcriber = Transcriber(standard / "fp16", providers=["tensorrt:1"], cache=tmp_path)
    folder = str(kept(tmp_path))
    expected = {
        "trt_profile_min_shapes": profile(1),
        "trt_profile_opt_shapes": profile(1250),
        "trt_profile_max_shapes": profile(1250),
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        "device_id": "1",
    }
    cuda, cpu = (CUDA, {"device_id": "1"}), (CPU, {})
    assert asked == [
        Asked("encoder.fp16.onnx", "mel_frames", [(TENSORRT, expected), cuda, cpu]),
        Asked("decoder.fp16.onnx", 0, [cuda, cpu]),
    ]
    assert transcriber.transcribe(SAMPLE).text == SAMPLE_TEXT


def test_what_the_user_says_comes_first(standard: Path, asked: list[Asked], tmp_path: Path) -> None:
    load_model(standard / "fp16", ["tensorrt:trt_fp16_enable=0,trt_engine_cache_path=/x", "cuda:a=b"], cache=tmp_path)
    (_, options), cuda, _ = asked[0].providers
    assert (options["trt_fp16_enable"], options["trt_engine_cache_path"]) == ("0", "/x")
    assert options["trt_timing_cache_path"] == str(kept(tmp_path))
    assert cuda == (CUDA, {"a": "b"})


def test_float32_stays_float32_and_nothing_is_kept(standard: Path, asked: list[Asked]) -> None:
    load_model(standard / "fp32", ["tensorrt"], cache="off")
    assert {*asked[0].providers[0][1]} == {f"trt_profile_{what}_shapes" for what in ("min", "opt", "max")}


def test_coreml(standard: Path, asked: list[Asked], tmp_path: Path) -> None:
    """By hand, from CoreML's page in onnxruntime's documentation. The longest session is opened at once; the sample, of
    2.5 s, wants the shortest, 5 s; the decoder is the CPU's, and no session's that was asked to run elsewhere."""
    transcriber = Transcriber(standard / "fp32", providers=["coreml:MLComputeUnits=CPUAndGPU"], cache=tmp_path)
    assert isinstance(transcriber._model.contract.encoder, PaddedEncoder)

    def expected(n_frames: int) -> Asked:
        options = {
            "ModelFormat": "MLProgram",
            "RequireStaticInputShapes": "1",
            "ModelCacheDirectory": str(kept(tmp_path) / str(n_frames)),
            "MLComputeUnits": "CPUAndGPU",
        }
        return Asked("encoder.fp32.onnx", n_frames, [(COREML, options), (CPU, {})])

    assert asked == [expected(1250), Asked("decoder.fp32.onnx", 0, [(CPU, {})])]
    assert [path.name for path in kept(tmp_path).iterdir()] == ["1250"]
    for _ in range(2):
        assert transcriber.transcribe(SAMPLE).text == SAMPLE_TEXT
    assert asked[2:] == [expected(500)]
    assert transcriber.facts["nodes"].keys() == {"encoder"}


def test_coreml_keeps_nothing(standard: Path, asked: list[Asked]) -> None:
    load_model(standard / "fp32", ["coreml"], cache="off")
    assert asked[0].providers[0] == (COREML, {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"})


def test_the_lengths(standard: Path, asked: list[Asked]) -> None:
    """By hand: 5 and 10 s, and the model's 12.5; not 20."""
    encoder = load_model(standard / "fp32", ["coreml"], cache="off").contract.encoder
    assert isinstance(encoder, PaddedEncoder)
    assert encoder._lengths == [500, 1000, 1250]


@pytest.mark.parametrize("provider", ["tensorrt", "coreml"])
def test_an_encoder_with_operators_of_onnxruntimes_own(standard: Path, asked: list[Asked], provider: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(standard / "ordinary", [provider], cache="off")
    assert str(caught.value) == (
        f"encoder.fp16.onnx is not made of standard operators alone, and {provider} has no others: "
        "export with --precision fp16 --operators standard"
    )
    assert not asked


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_other_providers_run_it_as_it_is(standard: Path, asked: list[Asked], provider: str, tmp_path: Path) -> None:
    transcriber = Transcriber(standard / "fp32", providers=[provider], cache=tmp_path)
    assert transcriber.transcribe(SAMPLE).text == SAMPLE_TEXT
    assert asked[0].n_frames == "mel_frames"
    assert asked[0].providers[0] == ({"cpu": CPU, "cuda": CUDA}[provider], {})
    assert not [*tmp_path.iterdir()]


def test_what_takes_long_is_told(
    standard: Path, asked: list[Asked], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not of what was compiled before."""
    caplog.set_level(logging.INFO, "cohere_lite")

    def told(provider: str, cache: Path | str) -> list[str]:
        caplog.clear()
        load_model(standard / "fp32", [provider], cache=cache)
        return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]

    compiling = "compiling encoder.fp32.onnx for this machine, which takes minutes"
    assert told("tensorrt", "off") == [f"{compiling} at each start: the cache is off"]
    for provider, place in [("tensorrt", "."), ("coreml", "1250")]:
        cache = tmp_path / provider
        first = told(provider, cache)
        folder = kept(cache) / place
        assert first == [f"{compiling}, once; kept in {folder}"]
        (folder / "compiled").write_text("")
        assert told(provider, cache) == []


def test_what_was_compiled_of_another_state_is_not_used(standard: Path, asked: list[Asked], tmp_path: Path) -> None:
    """By definition: providers do not look whether it is the same graph."""

    def folder() -> Path:
        load_model(standard / "fp32", ["coreml"], cache=tmp_path / "cache")
        return kept(tmp_path / "cache")

    first = folder()
    assert folder() == first
    (first / "1250" / "compiled").write_text("")
    graph = standard / "fp32" / "encoder.fp32.onnx"
    os.utime(graph, ns=(0, graph.stat().st_mtime_ns + 1))
    second = folder()
    assert second != first
    assert not [*(second / "1250").iterdir()]
    assert not first.exists()


def test_a_folder_that_cannot_be_written(
    standard: Path, asked: list[Asked], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file is there: the model is loaded all the same, and nothing kept."""
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "cohere_lite"):
        load_model(standard / "fp32", ["tensorrt"], cache=tmp_path / "file")
    assert "trt_engine_cache_path" not in asked[0].providers[0][1]
    assert [record.getMessage() for record in caplog.records if "is kept in" in record.getMessage()]


@pytest.mark.parametrize(("provider", "precision"), [("tensorrt", "fp16"), ("coreml", "fp32")])
def test_the_self_check(standard: Path, checked: list[Asked], provider: str, precision: str) -> None:
    """The golden model's encoder is made of standard operators, too, and runs where the user's does."""
    load_model(standard / precision, [provider], cache="off")
    ran = [(asked.graph, asked.providers[0][0]) for asked in checked]
    encoder, decoder = {"tensorrt": (TENSORRT, CUDA), "coreml": (COREML, CPU)}[provider]
    assert (f"encoder.{precision}.standard.onnx", encoder) in ran
    assert ran.count((f"decoder.{precision}.onnx", decoder)) == 2
    assert {runs for graph, runs in ran if graph.startswith("encoder")} == {encoder}
