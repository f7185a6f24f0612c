"""tools/bench: what is compared computes the same model, and the report says what was measured."""

import json
import re
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from cohere_lite.contracts.contract import Contract
from cohere_lite.export.__main__ import export
from cohere_lite.model import DEMO_FOLDER
from tools.bench import device, front, gpu
from tools.bench.__main__ import cell, child, print_report, summary
from tools.bench.copies import onnxruntime_copies, torch_copies
from tools.bench.models import Models
from tools.bench.runtimes import Lite, rows
from tools.bench.worker import measure
from tools.random_checkpoint import Shape, write_random_checkpoint

PROMPT = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]
PARTS = ("mel_11_s", "resample_minute", "command", "reference_mel_11_s")
ROOT = Path(__file__).parents[1]
MEL = np.random.default_rng(0).standard_normal((128, 250), np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    models = Models(tmp_path_factory.mktemp("models"), ())
    write_random_checkpoint(models.checkpoint, Shape(2, 64, 4, 128, 16, 9, 128, 2, 128, 4, 96, 48, 300))
    for precision in ("int8", "fp32"):
        export(models.checkpoint, models.folder(precision), precision)
    return models


def logits(runtime: Lite) -> np.ndarray:
    runtime.encode({"mel": MEL[None]})
    return np.array([runtime.step(fed)[0].copy() for fed in (PROMPT, [30], [31])])


@pytest.mark.slow
@pytest.mark.reference
def test_the_cards_files_compute_the_model(models: Models) -> None:
    """By construction: traced from transformers and quantised by the card's recipe, against our FP32 export. By record
    the error is 0.05 of the logits' root mean square; of another model it would be 1.4."""
    pytest.importorskip("torch")
    from tools.published.kinds import write_published

    write_published(models.checkpoint, models.folder("card"), "card")
    exact, found = (logits(Lite(models, name, cache=False)) for name in ("fp32", "card"))
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < 0.15


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize(
    ("kind", "peer"),
    [
        ("audio-int8", "transcribe-rs's loop, audio int8"),
        ("merged-int8", "transformers.js's loop, merged int8"),
        ("mems-int8", "onnx-asr, mems int8"),
    ],
)
def test_the_peers_loops_compute_the_same(models: Models, kind: str, peer: str) -> None:
    """On one file and the same features (onnx-asr's own lack the dither), by the likeliest token of each step."""
    pytest.importorskip("torch")
    from tools.published.kinds import write_published

    write_published(models.checkpoint, models.folder(kind), kind)
    samples = MEL.reshape(-1)[:32000] * np.float32(0.1)
    ours, others = (rows(models)[name]() for name in (f"cohere_lite, {kind.replace('-', ' ')}", peer))
    features = ours.features(samples)
    ours.encode(features)
    others.encode(tuple(features.values()) if kind == "mems-int8" else others.features(samples))
    for fed in PROMPT, [30], [31], [32], [33]:
        assert ours.step(fed).argmax() == others.step(fed)


def test_every_column_is_measured(models: Models) -> None:
    found = measure(lambda: Lite(models, "int8", cache=False), quick=True)
    columns = {"load_s", "encoder_10_s", "token_10_s", "language_10_s", "clip_10_s", "words_10_s"}
    assert set(found) == columns | {"peak_mb", "private_mb"}
    assert min(found.values()) > 0
    # by construction: a clip is the features, the encoder, the prompt and 34 more steps
    assert found["clip_10_s"] > found["token_10_s"]
    assert found["private_mb"] < found["peak_mb"]


@pytest.mark.slow
def test_the_parts_around_the_model_are_measured() -> None:
    """On 0.1 s of sound, once."""
    found = front.measure(MEL.reshape(-1)[:1600], np.zeros(4410, np.float32), repeats=1)
    assert {"mel_11_s", "resample_minute", "command"} <= set(found) <= {*PARTS}
    assert min(found.values()) > 0


def test_every_tool_runs_in_ci() -> None:
    """Or a change of the package breaks one, and nobody sees it: every module of tools/ that is a command, except those
    that another one starts."""
    gate = (ROOT / ".ci" / "run").read_text()
    commands = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in sorted((ROOT / "tools").rglob("*.py"))
        if path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text()
    ]
    assert len(commands) >= 8
    started = {f"tools.bench.{name}" for name in ("device", "floors", "front", "gpu", "worker")}
    started |= {"tools.fuzz.engine"}
    assert "tools/bench/gpu.sh --" in gate  # which starts tools.bench.gpu
    assert [c for c in commands if c not in started and not re.search(rf"-m {re.escape(c)} ", gate)] == []


def test_what_cannot_run_says_why(models: Models) -> None:
    assert "no GGUF file" in child("worker", "quick", "transcribe.cpp", str(models.root))["skipped"]
    assert child("worker", "quick", "cohere_lite, int4 decoder", str(models.root))["skipped"].startswith("failed: ")
    with_files = Models(models.root, (Path("a.gguf"), Path("b.gguf")))
    assert {"transcribe.cpp, a", "transcribe.cpp, b"} <= set(rows(with_files))
    assert "transcribe.cpp" not in rows(with_files)


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: medians, and the quotients of the medians."""
    assert summary([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "n": 3}

    def row(**values: float) -> dict:
        return {key: summary([value]) for key, value in values.items()}

    print_report(
        {
            "encoder_layers": 48,
            "rows": {
                "card's script, card's files": row(encoder_10_s=1.5, token_10_s=0.09, clip_10_s=4.5),
                "cohere_lite, int8": row(
                    encoder_10_s=0.75, token_10_s=0.0075, clip_10_s=1.0, tokens_per_s=100, tokens_per_s_batch=250
                ),
                "sherpa-onnx, our static files": row(token_10_s=0.02, clip_10_s=3.0),
            },
            "skipped": {"onnx-asr": "no export for it"},
            "floors": row(encoder_10_s=0.5, encoder_30_s=1.5, token_int8=0.005, token_int4=0.003, bytes_per_s=2e10)
            | row(token_bytes=0.007),
            "front": row(mel_11_s=0.005, reference_mel_11_s=0.006, resample_minute=0.012, command=0.3),
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "| 48 encoder layers | 10 s | token at 10 s, ms | 10 s clip, 35 tokens, s | tokens/s, 30 s pieces | 8 at once |"
    )
    assert "| cohere_lite, int8 | 750 | 7.5 | 1.00 | 100 | 250 |" in lines
    assert "| sherpa-onnx, our static files |  | 20.0 | 3.00 |  |  |" in lines
    assert "skipped: onnx-asr: no export for it" in lines
    assert cell({"clip_30_s": summary([4.5])}, "ten_minutes_s", 1, 0) == "~90"  # 20 pieces of 30 s
    assert cell({"clip_30_s": summary([4.5]), "ten_minutes_s": summary([70.4])}, "ten_minutes_s", 1, 0) == "70"
    for line in (
        "card's script / cohere_lite, encoder_10_s: 2.00",
        "card's script / cohere_lite, token_10_s: 12.00",
        "card's script / cohere_lite, clip_10_s: 4.50",
        "cohere_lite / floor, token at 10 s: 1.50",
        "cohere_lite / floor, encoder_10_s: 1.50",
        "sherpa-onnx, our static files / cohere_lite, clip_10_s: 3.00",
        "8 pieces at once / one by one, tokens/s: 2.50",
        "reference / cohere_lite, features: 1.2",
    ):
        assert line in lines


@pytest.fixture
def work(models: Models, tmp_path: Path) -> Path:
    """What the bench for a GPU makes, the embedded model in place of an export of its checkpoint."""
    (tmp_path / "decoder").symlink_to(models.root)
    (tmp_path / "full").symlink_to(models.root)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "int8").symlink_to(DEMO_FOLDER)
    (tmp_path / "demo" / "fp32").symlink_to(models.folder("fp32"))
    return tmp_path


SIZES = device.Sizes(few=2, many=4, clips={1: 3}, copied=1 << 20, repeats=1)


def test_what_a_device_takes_is_measured(work: Path) -> None:
    assert device.bandwidth("cpu", work, "fp32", SIZES)["device"] == "cpu"
    found = device.tokens("cpu", work, "fp32", SIZES)
    assert set(found) == {"load_s", "token_1_ms", "token_8_ms", "run_ms", "weight_bytes"}
    # by formula: matrices (the encoder has those of the cross-attention's keys and values), and tables of tokens and
    # positions; norms and biases are the rest
    weights = 4 * (2 * (6 * 128 * 128 + 2 * 128 * 96) + (300 + 48) * 128)
    assert weights < found["weight_bytes"] < 1.05 * weights
    found = device.clips("cpu", work, "fp32", SIZES)
    assert set(found) == {"load_s", "features_1_s_ms", "encoder_1_s_ms", "clip_1_s_ms"}


def test_another_choice_than_the_cpus_is_found(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = device.same("cpu", work, "fp32", SIZES)
    assert (found["ok"], found["tokens"], found["equal"], found["largest_gap"]) == (True, 4, 4, 0)
    assert found["largest_logprob_error"] < 1e-5

    def least_likely(contract: Contract, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return contract.step(tokens).argmin(axis=1), np.zeros(len(tokens))

    monkeypatch.setattr(Contract, "choose", least_likely)
    found = device.same("cpu", work, "fp32", SIZES)
    assert (found["ok"], found["equal"]) == (False, 0)


def test_another_text_is_found(work: Path) -> None:
    assert device.text("cpu", work, "int8", SIZES)["ok"]
    assert not device.text("cpu", work, "fp32", SIZES)["ok"]  # another model's


def test_a_real_profile_is_read(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: nothing is copied between nodes that run on the CPU."""
    monkeypatch.setattr(ort, "SessionOptions", ort.SessionOptions)  # put back afterwards
    found = device.copies("cpu", work, "fp32", SIZES)
    assert found["ok"]
    assert found["elsewhere"] == []
    assert found["between_nodes"] == {"copies_a_run": 0, "bytes_a_run": 0, "largest_bytes": 0, "too_large": 0}


def test_copies_of_a_profile(tmp_path: Path) -> None:
    """By hand, in the form that onnxruntime 1.32 wrote with its WebGPU plugin, and that of PyTorch's traces: two runs
    with three copies, one of them a row of 16,384 logits, and a run before them that does not count."""

    def node(op_name: str, size: int) -> dict:
        return {"cat": "Node", "name": "Memcpy_kernel_time", "args": {"op_name": op_name, "output_size": str(size)}}

    run = {"cat": "Session", "name": "model_run", "args": {}}
    before = [node("MemcpyToHost", 1 << 20), run]
    first = [node("MemcpyFromHost", 8), node("MemcpyToHost", 65536), node("MatMul", 1 << 20), run]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps([*before, *first, node("MemcpyToHost", 8), run]))
    expected = {"copies_a_run": 1.5, "bytes_a_run": 32776, "largest_bytes": 65536, "too_large": 1}
    assert onnxruntime_copies(path, 2).summary() == expected
    with pytest.raises(ValueError, match=r"shows 3 runs .* 4 runs were made"):
        onnxruntime_copies(path, 4)
    path.write_text(json.dumps([run, run]))
    with pytest.raises(ValueError, match="2 runs and 0 nodes"):
        onnxruntime_copies(path, 2)

    def copy(name: str, size: int) -> dict:
        return {"cat": "gpu_memcpy", "name": f"Memcpy {name}", "args": {"bytes": size}}

    copies = [
        copy("HtoD (Pageable -> Device)", 8),
        copy("DtoH (Device -> Pageable)", 65536),
        copy("DtoD (Device -> Device)", 1 << 20),
        copy("DtoH (Device -> Pinned)", 8),
    ]
    path.write_text(json.dumps({"traceEvents": [*copies, {"cat": "kernel", "name": "gemm"}, {"name": "no category"}]}))
    assert torch_copies(path, 2).summary() == expected
    path.write_text(json.dumps({"traceEvents": copies}))
    with pytest.raises(ValueError, match="no kernel"):
        torch_copies(path, 2)


def test_caches_in_the_wrong_memory_are_found() -> None:
    """By hand: kernels use the GPU's memory for caches and the CPU's for tokens."""

    def value(memory: str) -> SimpleNamespace:
        return SimpleNamespace(device_name=lambda: memory)

    on_gpu, on_cpu = SimpleNamespace(device=("cuda", 0)), SimpleNamespace(device=("cpu", 0))
    inputs = {"tokens": on_cpu, "past_key_0": on_gpu, "cross_key_0": on_gpu}
    decoder = SimpleNamespace(inputs=inputs, outputs={"present_key_0": on_gpu, "logits": on_gpu})
    shared = value("cuda")
    right = {"tokens": value("cpu"), "cross_key_0": value("cuda"), "past_key_0": shared, "present_key_0": shared}
    decoder._bound = right
    assert device.elsewhere(decoder) == []
    decoder._bound = right | {"cross_key_0": value("cpu")}
    assert device.elsewhere(decoder) == ["cross_key_0 is in cpu memory, its kernels use cuda"]
    decoder._bound = right | {"present_key_0": value("cuda")}
    assert device.elsewhere(decoder) == ["past_key_0 does not share its buffer with what is written"]
    decoder._bound = right | {"logits": value("cpu")}
    assert device.elsewhere(decoder) == ["logits are bound, too: each run copies them"]


def test_what_a_gpu_lacks_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.missing("cpu", tmp_path, quick=True) is None
    old = not hasattr(ort.InferenceSession, "get_input_memory_infos")  # before 1.24
    needed = "pip install -U onnxruntime" if old else "pip install 'onnxruntime-gpu"
    assert needed in str(gpu.missing("cuda", tmp_path, quick=True))
    monkeypatch.setattr(gpu.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(int(3e9)))
    assert "has 3 GB free, models take 24" in str(gpu.missing("cpu", tmp_path, quick=False))
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name == "onnx" else name)
    lines = str(gpu.missing("cuda", tmp_path, quick=True)).splitlines()
    assert [line.partition(" has ")[2] for line in lines] == ["no onnx: pip install onnx"]


def test_plan_for_a_gpu(tmp_path: Path) -> None:
    """What matters most comes first, and everything is made before it is measured."""
    steps = [name for name, _ in gpu.plan("cuda", ["fp16", "q4f16"], tmp_path, quick=False)]
    assert steps[:4] == ["bandwidth fp32", "weights decoder", "export decoder fp16", "tokens fp16"]
    assert len(set(steps)) == len(steps)
    for first, then in (
        ("export demo q4f16", "text q4f16"),
        ("weights full", "export full fp16"),
        ("export full fp16", "clips fp16"),
        ("clips fp16", "export decoder q4f16"),
        ("export decoder q4f16", "same q4f16"),
    ):
        assert steps.index(first) < steps.index(then)


@pytest.mark.parametrize(("precision", "twin"), [("bf16", "fp16"), ("q8bf16", "q8f16"), ("q4bf16", "q4f16")])
def test_the_cpu_runs_bf16_in_float16(tmp_path: Path, precision: str, twin: str) -> None:
    for precisions in [precision], [twin, precision], [precision, twin]:
        steps = [name for name, _ in gpu.plan("cuda", precisions, tmp_path, quick=False)]
        assert steps.index(f"export decoder {twin}") < steps.index(f"same {precision}")
        assert len(set(steps)) == len(steps)


def test_results_are_kept_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    programs = {
        "tokens fp16": "print('a warning'); print('{\"load_s\": 1, \"token_1_ms\": 0.5}')",
        "same fp16": "print('{\"ok\": false}')",
        "clips fp16": f"import shutil; shutil.copy({str(out)!r}, {str(tmp_path / 'before')!r}); exit('out of memory')",
    }
    monkeypatch.setattr(gpu, "missing", lambda *arguments: None)
    monkeypatch.setattr(gpu, "about", lambda provider: {"cpu": "a CPU", "onnxruntime": "1.32.0", "gpu": "a GPU"})
    monkeypatch.setattr(gpu, "plan", lambda *arguments: [(n, [sys.executable, "-c", p]) for n, p in programs.items()])
    assert gpu.main(["--out", str(out)]) == 1
    assert list(json.loads((tmp_path / "before").read_text())["steps"]) == ["tokens fp16", "same fp16"]
    found = json.loads(out.read_text())
    assert found["steps"]["tokens fp16"]["token_1_ms"] == 0.5
    assert found["steps"]["clips fp16"]["failed"] == "out of memory"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a GPU; cuda, onnxruntime 1.32.0; full size"
    assert "clips fp16: out of memory" in lines
    assert any(line.startswith("same fp16: WRONG") for line in lines)
    monkeypatch.setattr(gpu, "MINUTES", 0)
    assert gpu.main(["--out", str(out)]) == 1
    assert {step["failed"] for step in json.loads(out.read_text())["steps"].values()} == {"no time was left"}


def test_a_step_that_takes_too_long_is_stopped() -> None:
    assert "no time was left after" in gpu.run([sys.executable, "-c", "import time; time.sleep(600)"], 0.2)["failed"]


def test_report_of_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 300 MB at 3 TB/s are 0.1 ms."""
    steps = {
        "bandwidth fp32": {"bytes_per_s": 3e12},
        "tokens fp16": {"load_s": 1, "token_1_ms": 0.2, "token_8_ms": 0.4, "run_ms": 0.15, "weight_bytes": 3e8}
        | {"unrecorded_ms": 0.6},
        "tokens bfloat16": {"load_s": 1, "token_1_ms": 9.0, "token_8_ms": 10.0},
        "clips fp16": {"load_s": 1, "features_10_s_ms": 5.04, "encoder_10_s_ms": 7.0, "clip_10_s_ms": 20.0},
        "clips bfloat16": {"load_s": 1, "features_10_s_ms": 6.0, "encoder_10_s_ms": 14.0, "clip_10_s_ms": 350.0},
    }
    on = {"cpu": "a CPU", "gpu": "a GPU", "onnxruntime": "1.32.0"}
    gpu.print_report({"machine": on, "provider": "cuda", "size": "full", "steps": steps})
    assert capsys.readouterr().out.splitlines() == [
        "a GPU; cuda, onnxruntime 1.32.0; full size",
        "| decoder | ms a token | of 8 clips | the graph alone | kernel by kernel | floor |",
        "|---|---|---|---|---|---|",
        "| fp16 | 0.200 | 0.400 | 0.150 | 0.600 | 0.100 |",
        "| transformers bfloat16 | 9.000 | 10.000 |  |  |  |",
        "",
        "copy: 3000 GB/s, read and written",
        "fp16: a token takes 2.00 times its floor (target: 1.5)",
        "fp16: transformers takes 45.00 and 25.00 times as long for a token of one and of 8 clips (target: 2)",
        "",
        "| ms | features 10 s | encoder 10 s | clip 10 s |",
        "|---|---|---|---|",
        "| fp16 | 5.0 | 7.0 | 20.0 |",
        "| transformers bfloat16 | 6.0 | 14.0 | 350.0 |",
    ]
