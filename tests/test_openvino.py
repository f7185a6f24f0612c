"""OpenVINO on a processor, for real: the plugin, which takes Intel's alone (onnxruntime-ep-openvino), or the
onnxruntime that it is built into, which takes AMD's, too (onnxruntime-openvino, in place of onnxruntime). What the CPU
provider gives is what is expected."""

import logging
from pathlib import Path

import numpy as np
import pytest

from cohere_lite import ProviderError, Transcriber
from cohere_lite.audio import open_audio
from cohere_lite.cli.run import main
from cohere_lite.contracts.fast import FastContract
from cohere_lite.decode import decode
from cohere_lite.devices import providers
from cohere_lite.export.__main__ import export
from cohere_lite.model import DEMO_FOLDER, Model, load_model

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
SAMPLE = DEMO_FOLDER / "sample.wav"
TEXT = "Turn on the light in the living room."


@pytest.fixture(scope="module", autouse=True)
def plan() -> providers.Plan:
    """Here, and not at import: the gate's runs that allow no skipping leave these tests out."""
    try:
        return providers.find_plans(["openvino"])[0]
    except ProviderError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    export(CHECKPOINT, folder, "fp32")
    return folder


def decoded(model: Model, end: int | None) -> tuple[int, ...]:
    with open_audio(SAMPLE) as audio:
        samples = np.concatenate([block[:, 0] for block in audio.blocks]).astype(np.float32)
    clip = model.contract.encode(samples[:end])
    return decode(model.contract, [clip], model.vocabulary.prompt("en"), model.vocabulary.end_of_text)[0].tokens


def test_caches_are_those_of_the_cpu(fp32: Path) -> None:
    """One buffer as past and as present, in the memory that NumPy reads: the second clip finds what the first, which
    was longer, has left."""
    here, there = load_model(fp32), load_model(fp32, ["openvino"])
    assert isinstance(here.contract, FastContract)
    assert isinstance(there.contract, FastContract)
    for end in (None, 24_000):
        tokens = decoded(there, end)
        assert tokens == decoded(here, end)
        n_positions = len(there.vocabulary.prompt("en")) + len(tokens)
        for name, cache in there.contract._past.items():
            apart = np.abs(cache[0] - here.contract._past[name][0])[:, :n_positions]  # rows of more clips may be there
            # up to 4.7; 2e-6 was seen, 0.01 with the plugin, which computes in bfloat16 where the processor does
            assert apart.max() < 0.05, name
    assert there.vocabulary.decode(decoded(there, None)) == TEXT


def test_text_twice(fp32: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is warned of: no other export would run better."""
    with caplog.at_level(logging.WARNING, "cohere_lite"):
        transcriber = Transcriber(fp32, providers=["openvino"])
        assert [transcriber.transcribe(SAMPLE).text for _ in range(2)] == [TEXT, TEXT]
    assert not caplog.records
    for role in ("encoder", "decoder"):
        assert transcriber.facts["nodes"][role]["openvino"] > 50


def test_int8(plan: providers.Plan, capfd: pytest.CaptureFixture[str]) -> None:
    """The demonstration model. What is built in takes its products, and cannot read them; the plugin leaves them to
    the CPU."""
    code = main(["--provider", "openvino", str(SAMPLE)])
    said = capfd.readouterr()
    if plan.devices:
        assert (code, said.out) == (0, TEXT + "\n")
        assert "51 DynamicQuantizeMatMul run on the CPU: export with --precision fp32" in said.err
    else:
        assert (code, said.out) == (1, "")
        assert said.err.strip().count("\n") == 0
        assert "DynamicQuantizeMatMul, which OpenVINO cannot read: export with --precision fp32" in said.err


def test_float16_is_refused_in_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(CHECKPOINT, tmp_path, "fp16")
    capfd.readouterr()
    assert main(["--provider", "openvino", "--model", str(tmp_path), str(SAMPLE)]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.strip().count("\n") == 0
    assert "QuickGelu in 16 bits, which OpenVINO cannot read: export with --precision fp32" in said.err
