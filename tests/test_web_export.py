"""Exports for browsers: weights in several files, and caches of any length that give the same tokens."""

import hashlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.external_data_helper import uses_external_data
from published import standin

from cohere_lite.audio import mix, open_audio
from cohere_lite.errors import ModelError
from cohere_lite.export.__main__ import export, main
from cohere_lite.export.web import shard
from cohere_lite.mel import log_mel
from cohere_lite.model import DEMO_FOLDER, load_model
from cohere_lite.tokens import read_tokens
from tools.web.__main__ import main as build_page
from tools.web.models import describe_model

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
TEXT = "Turn on the light in the living room."

pytestmark = pytest.mark.folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web")
    export(CHECKPOINT, made, target="web", shard_mb=0.5)
    return made


def weights(path: Path) -> dict[str, bytes]:
    """Of a graph's tensors, wherever they are."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}


def heard(folder: Path, first_positions: int, precision: str = "int8") -> str:
    """The sample's text, from caches that begin with so many positions and grow as the page's do."""
    encoder, decoder = (
        ort.InferenceSession(str(folder / f"{role}.{precision}.onnx")) for role in ("encoder", "decoder")
    )
    vocabulary = read_tokens(folder / "tokens.txt")
    with open_audio(DEMO_FOLDER / "sample.wav") as audio:
        samples = np.concatenate([mix(block, None)[:, 0] for block in audio.blocks])
    names = [value.name for value in encoder.get_outputs()]
    feeds = dict(zip(names, encoder.run(names, {"mel": log_mel(samples)[None]}), strict=True))
    feeds["encoder_length"] = np.array([feeds["cross_value_0"].shape[2]])
    past = {value.name: value for value in decoder.get_inputs() if value.name.startswith("past_")}
    for name, value in past.items():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        feeds[name] = np.zeros([*shape[:2], first_positions, shape[3]], np.float32)
    tokens, said, offset = vocabulary.prompt("en"), [], 0
    while len(said) < 30:
        while feeds["past_key_0"].shape[2] < offset + len(tokens):
            for name in past:
                feeds[name] = np.concatenate([feeds[name], np.zeros_like(feeds[name])], axis=2)
        feeds |= {"tokens": np.array([tokens]), "offset": np.array(offset)}
        outputs = dict(zip([value.name for value in decoder.get_outputs()], decoder.run(None, feeds), strict=True))
        for name in past:
            feeds[name] = outputs[name.replace("past", "present")]
        offset += len(tokens)
        tokens = [int(outputs["logits"][0, -1].argmax())]
        if tokens[0] == vocabulary.end_of_text:
            break
        said += tokens
    return vocabulary.decode(said)


@pytest.mark.parametrize("first_positions", [10, 16, 384])
def test_caches_of_any_length(folder: Path, first_positions: int) -> None:
    assert heard(folder, first_positions) == TEXT


def test_decoder_has_products_by_channel(folder: Path) -> None:
    """By measurement those in blocks are five times as slow in WebAssembly."""
    operators = {node.op_type for node in onnx.load(folder / "decoder.int8.onnx", load_external_data=False).graph.node}
    assert "DynamicQuantizeMatMul" in operators
    assert "MatMulNBits" not in operators


def test_metadata_says_how_long_caches_may_be(folder: Path) -> None:
    model = onnx.load(folder / "decoder.int8.onnx", load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["max_positions"] == "384"
    assert metadata["precision"] == "int8"
    caches = [value for value in (*model.graph.input, *model.graph.output) if "_key_" in value.name]
    past = [[size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim] for value in caches]
    assert past.count(["batch", 4, "positions", 40]) == 4  # past and present of 2 layers


def test_weights_are_in_files_of_that_size(folder: Path, tmp_path: Path) -> None:
    export(CHECKPOINT, tmp_path, target="web", shard_mb=100)
    for role in ("encoder", "decoder"):
        files = sorted(folder.glob(f"{role}*.data"))
        assert len(files) > 1
        assert {path.name for path in tmp_path.glob(f"{role}*.data")} == {f"{role}.int8.onnx.00.data"}
        assert weights(folder / f"{role}.int8.onnx") == weights(tmp_path / f"{role}.int8.onnx")
        model = onnx.load(folder / f"{role}.int8.onnx", load_external_data=False)
        counts: dict[str, int] = {}
        for tensor in filter(uses_external_data, model.graph.initializer):
            place = {entry.key: entry.value for entry in tensor.external_data}
            counts[place["location"]] = counts.get(place["location"], 0) + 1
            assert int(place["offset"]) % 64 == 0
        assert counts.keys() == {path.name for path in files}
        for path in files:
            assert path.stat().st_size <= 500_000 or counts[path.name] == 1


def test_a_tensor_larger_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    """By hand: 4, 2 and 1 kB in files of 3 kB, a float of 4 bytes at a time."""
    arrays = {
        name: np.full(size, i, np.float32) for i, (name, size) in enumerate(zip("abc", (1024, 512, 256), strict=True))
    }
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph([], "g", [], [onnx.helper.make_tensor_value_info("a", 1, [1024])], tensors)
    path = tmp_path / "a.onnx"
    onnx.save_model(
        onnx.helper.make_model(graph), path, save_as_external_data=True, location="a.onnx.data", size_threshold=0
    )
    model = onnx.load(path, load_external_data=False)
    files = shard(model, path, 3000)
    path.write_bytes(model.SerializeToString())
    assert [file.stat().st_size for file in files] == [4096, 2048, 1024]
    assert not (tmp_path / "a.onnx.data").exists()
    for name, data in weights(path).items():
        assert data == arrays[name].tobytes()


def test_weights_of_8_bits_are_those_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    """The encoder is the one that cohere_lite itself has, to the last bit."""
    export(CHECKPOINT, tmp_path)
    digests = [
        {name: hashlib.sha256(data).hexdigest() for name, data in weights(of / "encoder.int8.onnx").items()}
        for of in (folder, tmp_path)
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("precision", "bits", "name"), [("fp32", None, "fp32"), ("fp16", 4, "q4f16"), ("fp16", None, "fp16")]
)
def test_for_webgpu(precision: str, bits: int | None, name: str, tmp_path: Path) -> None:
    export(CHECKPOINT, tmp_path, precision, weight_bits=bits, target="web", shard_mb=1)
    model = onnx.load(tmp_path / f"decoder.{name}.onnx", load_external_data=False)
    assert "next_token" in {value.name for value in model.graph.output}
    assert len([*tmp_path.glob("*.onnx")]) == 2  # no step to be recorded, which the page does not use
    if precision == "fp32":
        assert heard(tmp_path, 16, "fp32") == TEXT


def test_opened_in_python(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"decoder.int8.onnx is for browsers \(--target web\), .* export without it"):
        load_model(folder)


@pytest.mark.slow
def test_from_published_graphs(tmp_path: Path) -> None:
    """Compared with the source before caches are opened; weights in blocks of 4 bits are quantised again, and told."""
    said = export(standin("merged-q4"), tmp_path, target="web")
    assert "products in 4-bit blocks became INT8" in " ".join(said)
    assert heard(tmp_path, 16) == TEXT


def test_what_the_page_is_told(folder: Path) -> None:
    """By hand: the demonstration model has 2 decoder layers of 4 heads, 40 channels each, and 384 positions."""
    model, files = describe_model(folder, "mine")
    (pair,) = model["pairs"]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {path.name for path in files} == model["files"].keys() == sizes.keys()
    assert {name: file["bytes"] for name, file in model["files"].items()} == sizes
    digest = hashlib.sha256((folder / "tokens.txt").read_bytes()).hexdigest()
    assert model["files"]["tokens.txt"]["sha256"] == digest
    expected = {"precision": "int8", "device": "wasm", "heads": 4, "head_dim": 40, "positions": None}
    expected |= {"max_positions": 384, "float_type": "float32", "max_audio_s": 35.0, "bytes": sum(sizes.values())}
    assert {name: pair[name] for name in expected} == expected
    assert pair["encoder"]["data"] == sorted(name for name in sizes if re.match(r"encoder.*\.data", name))
    (shipped,) = describe_model(DEMO_FOLDER, "demonstration")[0]["pairs"]
    assert shipped["positions"] == shipped["max_positions"] == 384


@pytest.mark.parametrize(("precision", "float_type"), [("fp32", "float32"), ("fp16", "float16")])
def test_graphs_that_choose_by_themselves_are_for_webgpu(precision: str, float_type: str, tmp_path: Path) -> None:
    export(CHECKPOINT, tmp_path, precision)
    (pair,) = describe_model(tmp_path, "mine")[0]["pairs"]
    assert (pair["device"], pair["float_type"]) == ("webgpu", float_type)


def test_the_best_for_each_device_comes_first(tmp_path: Path) -> None:
    """As the package chooses: on others than the CPU float16 before float32, where they have it."""
    for precision in "int8", "fp32", "fp16":
        export(CHECKPOINT, tmp_path, precision)
    pairs = describe_model(tmp_path, "mine")[0]["pairs"]
    assert [(pair["device"], pair["precision"]) for pair in pairs] == [
        ("wasm", "int8"),
        ("webgpu", "fp16"),
        ("webgpu", "fp32"),
    ]


def test_folders_that_are_no_model(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written, and nothing fetched."""
    static, lacking = tmp_path / "static", tmp_path / "lacking"
    export(CHECKPOINT, static, contract="static")
    shutil.copytree(folder, lacking)
    (lacking / "decoder.int8.onnx.00.data").unlink()
    messages = {
        tmp_path / "nowhere": "is no folder",
        static: "no encoder and decoder of one precision in the fast layout",
        lacking: "keeps its weights in 'decoder.int8.onnx.00.data', which is not beside it",
        tmp_path: "has no tokens.txt",
    }
    for source, message in messages.items():
        assert build_page([str(tmp_path / "out"), str(source)]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "tools.web.build", "tools.web.models":
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert build_page([str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; writing the page needs: pip install '.[export]'")


@pytest.mark.skipif(sys.platform == "win32", reason="there, no program's current folder can be replaced")
@pytest.mark.parametrize("out", [".", "../link"])
def test_a_page_where_one_works_or_behind_a_link(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction; without npm and a model, which take a while."""
    monkeypatch.setattr("tools.web.build._add_onnxruntime", lambda page: None)
    monkeypatch.setattr("tools.web.build._add_demonstration", lambda page: {})
    page = tmp_path / "page"
    page.mkdir()
    for name in "models.json", "old.js":
        (page / name).touch()
    (tmp_path / "link").symlink_to("page")
    monkeypatch.chdir(page)
    assert build_page([out]) == 0
    assert (page / "models.json").read_text() == "[\n {}\n]\n"
    assert (page / "index.html").is_file()
    assert not (page / "old.js").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "page"]
    assert (tmp_path / "link").is_symlink()


def test_a_file_too_large_for_browsers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.web.models.MAX_FILE_BYTES", 4_000_000)  # of 2.1 GB
    with pytest.raises(ModelError, match="--target web"):
        describe_model(DEMO_FOLDER, "demonstration")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "web", "--precision", "int4"], "for the web there are int8"),
        (["--target", "web", "--precision", "bf16"], "for the web there are int8"),
        (["--target", "web", "--contract", "static"], "for the web there are int8"),
        (["--shard-mb", "5"], "it is for the web"),
        (["--target", "web", "--shard-mb", "0"], "more than 0"),
    ],
)
def test_refused(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(CHECKPOINT), str(tmp_path / "out"), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_that_is_ready_for_cohere_lite_is_none_for_the_web(tmp_path: Path) -> None:
    export(CHECKPOINT, tmp_path / "fast")
    with pytest.raises(ValueError, match="another one is made from what that was made from"):
        export(tmp_path / "fast", tmp_path / "web", target="web")
