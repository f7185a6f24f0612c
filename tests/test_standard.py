"""The encoder of standard operators, which takes a mask: its operators are those that TensorRT and CoreML have, and its
numbers those of the ordinary encoder (which test_export.py compares with transformers), padded or not. On the CPU
provider: no machine of ours has one of these two."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cohere_lite import ModelError
from cohere_lite.contracts.contract import Clip
from cohere_lite.contracts.fast import FastContract
from cohere_lite.decode import decode
from cohere_lite.devices.engines import at_length
from cohere_lite.devices.masked import MaskedEncoder, PaddedEncoder
from cohere_lite.devices.on_device import DeviceContract
from cohere_lite.export.__main__ import export, main
from cohere_lite.graphfile import read_graph_file
from cohere_lite.model import Model, load_model
from cohere_lite.session import Session, open_session, session_options
from tools.random_checkpoint import Shape, write_random_checkpoint

LISTS = json.loads((Path(__file__).parent / "standard_operators.json").read_text())
SMALL = Shape(2, 64, 4, 128, 16, 9, 128, 2, 64, 4, 96, 40, 300)
MAX_AUDIO_S = 10.0
LENGTHS = [100, 255, 1000]  # mel frames: a multiple of 4, odd, the longest
N_FRAMES = [1, 2, 7, 8, 9, 63, 99, 100, 101, 255, 256, 999, 1000]
PROMPT = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and of it for each precision an ordinary export, and one of standard operators: "fp32-standard"."""
    folder = tmp_path_factory.mktemp("random")
    write_random_checkpoint(folder, SMALL)
    for precision in ("fp32", "fp16"):
        export(folder, folder / precision, precision, max_audio_s=MAX_AUDIO_S)
        export(folder, folder / f"{precision}-standard", precision, max_audio_s=MAX_AUDIO_S, standard=True)
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Model]:
    return {name: load_model(folder / name) for name in ("fp32", "fp16", "fp32-standard", "fp16-standard")}


def padded(path: Path, lengths: list[int] = LENGTHS, opened: list[int] | None = None) -> PaddedEncoder:
    """The encoder for some lengths, on the CPU; `opened` is told which are opened."""
    make = partial(session_options, 1, True, False)

    def open_at(n_frames: int) -> Session:
        if opened is not None:
            opened.append(n_frames)
        return open_session(read_graph_file(path), None, partial(at_length, make, n_frames), "off")

    return PaddedEncoder(open_at, lengths)


def features(n_frames: int) -> np.ndarray:
    return np.random.default_rng(n_frames).standard_normal((1, 128, n_frames), np.float32)


def encoded(encoder: Session, mel: np.ndarray) -> dict[str, np.ndarray]:
    values = encoder.call({"mel": mel}, dict.fromkeys(encoder.outputs, ("cpu", 0)))
    return {name: value.numpy().copy() for name, value in values.items()}


def furthest(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Of the largest number of each output."""
    assert found.keys() == expected.keys()
    assert {name: value.shape for name, value in found.items()} == {n: value.shape for n, value in expected.items()}
    return max(float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in expected.items())


@pytest.mark.parametrize(("precision", "most"), [("fp32", 3e-6), ("fp16", 3e-3)])
@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_the_same_numbers(models: dict[str, Model], precision: str, most: float, n_frames: int) -> None:
    """By the ordinary export, as the runtime opens both; most: of float32 and float16, over two layers."""
    mel = features(n_frames)
    ordinary, standard = (models[name].contract.encoder for name in (precision, f"{precision}-standard"))
    assert isinstance(standard, MaskedEncoder)
    assert furthest(encoded(standard, mel), encoded(ordinary, mel)) < most


@pytest.fixture(scope="module")
def padding(folder: Path) -> dict[str, PaddedEncoder]:
    return {name: padded(folder / f"{name}-standard" / f"encoder.{name}.onnx") for name in ("fp32", "fp16")}


@pytest.mark.parametrize(("precision", "most"), [("fp32", 3e-6), ("fp16", 3e-3)])
@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_padding_changes_nothing(
    models: dict[str, Model], padding: dict[str, PaddedEncoder], precision: str, most: float, n_frames: int
) -> None:
    """By the ordinary export, without padding."""
    mel = features(n_frames)
    expected = encoded(models[precision].contract.encoder, mel)
    assert furthest(encoded(padding[precision], mel), expected) < most


def test_a_session_for_each_length_that_is_needed(folder: Path) -> None:
    """By hand: the longest at the start, others once, and the shortest that will do."""
    opened: list[int] = []
    encoder = padded(folder / "fp32-standard" / "encoder.fp32.onnx", [1000, 100, 255], opened)
    assert opened == [1000]
    for n_frames, expected in [(256, [1000]), (101, [1000, 255]), (255, [1000, 255]), (1, [1000, 255, 100])]:
        encoded(encoder, features(n_frames))
        assert opened == expected
    with pytest.raises(
        ModelError, match=r"encoder\.fp32\.onnx is open for 1000 mel frames at most; the clip has 1001$"
    ):
        encoded(encoder, features(1001))


@pytest.mark.parametrize("contract", [FastContract, DeviceContract])
def test_clips_of_several_lengths(folder: Path, models: dict[str, Model], contract: type[FastContract]) -> None:
    """By the ordinary export, each clip alone: a batch of clips that came out of sessions of different lengths."""
    decoder = models["fp32"].contract.decoder
    decoder.beside = lambda graph: Session(ort.InferenceSession(graph), Path("beside.onnx"))
    found = contract(padded(folder / "fp32-standard" / "encoder.fp32.onnx"), decoder, {})

    def clips(of: FastContract) -> list[Clip]:
        return [of.encode_features({"mel": features(n)}, n / 100) for n in (120, 80, 300, 16, 64)]

    ordinary = models["fp32"].contract
    alone = [decode(ordinary, [clip], PROMPT, 2)[0] for clip in clips(ordinary)]  # type: ignore[arg-type]
    assert [one.tokens for one in decode(found, clips(found), PROMPT, 2)] == [one.tokens for one in alone]
    assert len({token for one in alone for token in one.tokens}) > 5


@pytest.mark.reference
@pytest.mark.parametrize("n_frames", [1, 8, 101, 999])
def test_padded_equals_transformers(folder: Path, padding: dict[str, PaddedEncoder], n_frames: int) -> None:
    """By reference: its encoder's output, padded and masked likewise, projected to a decoder layer's keys."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    reference = transformers.CohereAsrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    mel = features(n_frames)
    length = next(length for length in LENGTHS if length >= n_frames)
    whole = torch.zeros(1, length, 128)
    whole[:, :n_frames] = torch.from_numpy(mel[0].T)
    mask = (torch.arange(length) < n_frames)[None]
    n_valid = -(-n_frames // 8)
    with torch.no_grad():
        hidden = reference.model.encoder(whole, attention_mask=mask).last_hidden_state[:, :n_valid]
        hidden = reference.model.decoder.proj(hidden)
        layer = reference.model.decoder.layers[1].encoder_attn
        key = layer.k_proj(hidden).view(1, n_valid, 4, 16).transpose(1, 2).numpy()
    found = encoded(padding["fp32"], mel)["cross_key_1"]
    assert np.abs(found - key).max() < 1e-4 * np.abs(key).max()


@pytest.mark.folder
def test_a_copy_without_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cohere_lite.devices.masked", None)
    with pytest.raises(ModelError, match=r"fp32\.onnx takes a mask, which needs cohere_lite/devices/masked\.py$"):
        load_model(folder / "fp32-standard")


# -- operators and shapes


def optimised(path: Path, n_frames: int | None) -> onnx.ModelProto:
    """As a provider is given it, with the weights left out.  n_frames: None: as it is written"""
    if n_frames is None:
        return onnx.load(path, load_external_data=False)
    options = at_length(ort.SessionOptions, n_frames)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # what comes before providers
    options.optimized_model_filepath = str(path.with_name("optimised.bin"))
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(path.with_name("optimised.bin"), load_external_data=False)


@pytest.fixture(params=["fp32", "fp16"])
def encoder(request: pytest.FixtureRequest, folder: Path) -> Path:
    return folder / f"{request.param}-standard" / f"encoder.{request.param}.onnx"


def test_tensorrt_has_the_operators(encoder: Path) -> None:
    """By the list of TensorRT's parser; and `axes` must be constants."""
    model = optimised(encoder, None)
    nodes, constants = model.graph.node, {tensor.name for tensor in model.graph.initializer}
    assert {node.op_type for node in nodes} <= {*LISTS["tensorrt"].split()}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    axes = {"Slice": 3, "Squeeze": 1, "Unsqueeze": 1}
    taken = [node.input[axes[node.op_type]] for node in nodes if node.op_type in axes]
    assert len(taken) > 10
    assert {*taken} <= constants


def test_coreml_has_the_operators_once_lengths_are_known(encoder: Path) -> None:
    """By the list of CoreML's ML programs; what is said there must be constant: shapes, bounds, bias."""
    model = optimised(encoder, 255)
    nodes, constants = model.graph.node, {tensor.name for tensor in model.graph.initializer}
    # the CPU provider's own, for float16 without a kernel there
    constants |= {node.output[0] for node in nodes if node.op_type == "Cast" and node.input[0] in constants}
    assert {node.op_type for node in nodes} <= {*LISTS["coreml"].split()}
    assert {node.domain for node in nodes} == {""}
    assert "Gemm" not in {node.op_type for node in nodes}  # see at_length
    fixed = ("Slice", "Split", "Reshape", "Conv", "LayerNormalization", "Squeeze", "Unsqueeze")
    assert {name for node in nodes if node.op_type in fixed for name in node.input[1:]} <= constants


@pytest.mark.parametrize("n_frames", [1000, 255, 1])
def test_all_shapes_are_numbers_once_lengths_are_known(encoder: Path, n_frames: int) -> None:
    model = onnx.shape_inference.infer_shapes(optimised(encoder, n_frames))
    values = {v.name: v for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    outputs = {name for node in model.graph.node for name in node.output}
    assert outputs <= values.keys()
    assert not [
        name
        for name, value in values.items()
        if any(not dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    ]


def test_the_decoder_is_the_ordinary_one(folder: Path) -> None:
    """Byte for byte; and the encoder's weights are, with their order."""
    for name in ("decoder.fp16.onnx", "decoder.fp16.onnx.data", "encoder.fp16.onnx.data"):
        assert (folder / "fp16-standard" / name).read_bytes() == (folder / "fp16" / name).read_bytes()


@pytest.mark.parametrize(
    "options", [[], ["--precision", "int8"], ["--precision", "bf16"], ["--precision", "fp16", "--weights", "8"],
                ["--precision", "fp32", "--contract", "static"]],
)  # fmt: skip
def test_what_there_is_no_such_export_of(
    folder: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(folder), str(tmp_path / "out"), *options, "--operators", "standard"]) == 1
    said = "error: standard operators are for fp32 and fp16 in the fast contract, without --weights\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "out").exists()


def test_from_published_graphs(folder: Path, tmp_path: Path) -> None:
    """Of the static contract; the converter compares tokens and logits before it writes."""
    export(folder, tmp_path / "static", "fp32", "static", max_audio_s=MAX_AUDIO_S)
    assert (
        main([str(tmp_path / "static"), str(tmp_path / "out"), "--precision", "fp32", "--operators", "standard"]) == 0
    )
    mel = features(101)
    found, expected = (
        encoded(load_model(path).contract.encoder, mel) for path in (tmp_path / "out", folder / "fp32-standard")
    )
    assert furthest(found, expected) < 1e-5
