"""tools/bench: what is compared computes the same model, and the report says what was measured."""

import re
from pathlib import Path

import numpy as np
import pytest

from cohere_lite.export.__main__ import export
from tools.bench import front
from tools.bench.__main__ import cell, child, print_report, summary
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
    assert set(found) == {"load_s", "encoder_10_s", "token_10_s", "clip_10_s", "peak_mb", "private_mb"}
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
        if "__main__" in path.read_text()
    ]
    assert len(commands) >= 8
    started = {f"tools.bench.{name}" for name in ("floors", "front", "worker")}
    started |= {"tools.fuzz.engine"}
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
