"""Model folders: found by signature, refused with a reason."""

import os
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, save_model
from scripted import END, A, write_model

from cohere_lite.errors import ModelError, ModelFileNotFound, OptionError, ProviderError
from cohere_lite.export.__main__ import export
from cohere_lite.graphfile import read_graph_file
from cohere_lite.model import load_model
from tools.random_checkpoint import Shape, write_random_checkpoint


@pytest.fixture
def static(tmp_path: Path) -> Path:
    return write_model(tmp_path / "static", [A, A, END], max_positions=6)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    write_random_checkpoint(folder / "checkpoint", Shape(1, 32, 2, 64, 8, 9, 128, 1, 32, 2, 64, 32, 300))
    export(folder / "checkpoint", folder / "fast", "fp32")
    return folder / "fast"


def copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def tiny_graph(path: Path, inputs: list[str], outputs: list[str]) -> None:
    def values(names: list[str]) -> list:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in names]

    nodes = [helper.make_node("Identity", [inputs[0]], [name]) for name in outputs]
    save_model(helper.make_model(helper.make_graph(nodes, "g", values(inputs), values(outputs))), path)


def test_file_names_do_not_matter(static: Path) -> None:
    (static / "encoder.onnx").rename(static / "decoder-of-something.onnx")
    (static / "decoder.onnx").rename(static / "b.onnx")
    model = load_model(static)
    assert model.contract == "static"
    assert model.encoder.get_inputs()[0].name == "mel"


def test_fast_contract(exported: Path) -> None:
    assert load_model(exported).contract == "fast"


def test_graph_file_agrees_with_onnx_runtime(exported: Path) -> None:
    """By reference: names as onnxruntime gives them; external bytes as the exporter wrote them."""
    for path in exported.glob("*.onnx"):
        graph, session = read_graph_file(path), ort.InferenceSession(path)
        assert graph.inputs == tuple(value.name for value in session.get_inputs())
        assert graph.outputs == tuple(value.name for value in session.get_outputs())
        data = path.with_name(path.name + ".data")
        assert graph.external_bytes == {data.name: data.stat().st_size}


def test_folder_that_is_none(tmp_path: Path, static: Path) -> None:
    with pytest.raises(ModelFileNotFound, match="nowhere does not exist; a model is a folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"encoder\.onnx is a file; a model is a folder"):
        load_model(static / "encoder.onnx")
    with pytest.raises(ModelFileNotFound, match=r"holds no \.onnx file; it holds static"):
        load_model(tmp_path)


def test_without_tokens(static: Path) -> None:
    (static / "tokens.txt").unlink()
    with pytest.raises(ModelFileNotFound, match=r"has no tokens\.txt"):
        load_model(static)


def test_tokens_of_another_model(static: Path) -> None:
    with open(static / "tokens.txt", "a", encoding="utf-8") as file:
        file.write("▁more 18\n")
    with pytest.raises(ModelError, match=r"tokens\.txt lists 19 tokens, the decoder knows 18"):
        load_model(static)


def test_two_encoders(static: Path) -> None:
    (static / "another.onnx").write_bytes((static / "encoder.onnx").read_bytes())
    with pytest.raises(ModelError, match=r"more than one encoder: another\.onnx, encoder\.onnx; keep one pair"):
        load_model(static)


def test_halves_of_two_contracts(static: Path, exported: Path) -> None:
    (static / "decoder.onnx").unlink()
    for file in exported.glob("decoder*"):
        (static / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"decoder of the 'fast' layout; encoder\.onnx is an encoder of the 'static'"):
        load_model(static)


@pytest.mark.parametrize(
    ("inputs", "outputs", "found"),
    [
        (["audio"], ["n_layer_cross_k"], "front end inside the graph"),
        (["input_features"], ["last_hidden_state"], "an Optimum export"),
        (["audio_signal", "length"], ["encoder_embeddings"], "an onnx-asr export"),
        (["image"], ["cat", "dog"], "takes image and gives cat, dog: unknown"),
    ],
)
def test_other_exports_are_named(tmp_path: Path, inputs: list[str], outputs: list[str], found: str) -> None:
    tiny_graph(tmp_path / "model.onnx", inputs, outputs)
    (tmp_path / "tokens.txt").write_text("a 0\n")
    with pytest.raises(ModelError, match=found):
        load_model(tmp_path)


def test_external_data_missing_or_cut_in_half(exported: Path, tmp_path: Path) -> None:
    folder = copy(exported, tmp_path / "copy")
    data = folder / "encoder.fp32.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=rf"{len(whole) // 2} bytes, but encoder\.fp32\.onnx needs {len(whole)}"):
        load_model(folder)
    data.unlink()
    with pytest.raises(
        ModelFileNotFound, match=r"keeps its weights in 'encoder\.fp32\.onnx\.data', which is not beside"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    "content", [b"", b"Entry not found", b"<!DOCTYPE html><html></html>", b"\x00" * 100, b"\x3a\xff\xff\xff\x0f"]
)
def test_not_onnx(static: Path, content: bytes) -> None:
    (static / "encoder.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"encoder\.onnx: not an ONNX file"):
        load_model(static)


def test_onnx_cut_short_anywhere(static: Path) -> None:
    """Whatever the length, our error and no other: either not read, or read and refused."""
    whole = (static / "decoder.onnx").read_bytes()
    for length in range(0, len(whole), 37):
        (static / "decoder.onnx").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            load_model(static)


def test_hidden_files_are_left_alone(static: Path) -> None:
    """macOS puts a "._" file beside every file on a foreign disk."""
    (static / "._encoder.onnx").write_bytes(b"Mac OS X")
    assert load_model(static).contract == "static"


def test_caches_without_a_fixed_size(static: Path) -> None:
    model = onnx.load(static / "decoder.onnx")
    for value in model.graph.input:
        if value.name == "in_n_layer_self_k_cache":
            value.type.tensor_type.shape.dim[3].dim_param = "positions"
    onnx.save(model, static / "decoder.onnx")
    with pytest.raises(ModelError, match="'in_n_layer_self_k_cache' has no fixed size"):
        load_model(static)


def test_providers(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_model(static, ["CPUExecutionProvider"]).device == "cpu"
    with pytest.raises(OptionError, match=r"unknown provider 'gpu'; known: cpu, cuda,"):
        load_model(static, ["gpu"])
    with pytest.raises(OptionError, match="must be a list"):
        load_model(static, "cpu")
    with pytest.raises(ProviderError, match=r"has no DmlExecutionProvider; it has .*CPUExecutionProvider"):
        load_model(static, ["directml"])
    # onnxruntime says it has CUDA, but its libraries do not load: it warns, and runs on the CPU
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderError, match=r"CUDAExecutionProvider was asked for, but encoder\.onnx would run on CPU"),
    ):
        load_model(static, ["cuda"])


def test_threads(static: Path) -> None:
    """Up to 64, and up to the processors that there are."""
    for threads in (0, max(64, os.cpu_count() or 1) + 1):
        with pytest.raises(OptionError, match=f"threads is {threads}; it must be 1 to "):
            load_model(static, threads=threads)
    assert load_model(static, threads=1).encoder.get_session_options().intra_op_num_threads == 1


def test_spinning(exported: Path) -> None:
    """The encoder's threads stop at the end of its run, to leave the cores to the decoder's, which wait for the next
    step; with spin=False nobody spins."""
    keys = ("session.intra_op.allow_spinning", "session.force_spinning_stop")
    for spin, encoder, decoder in ((True, ["1", "1"], ["1", "0"]), (False, ["0", "1"], ["0", "0"])):
        model = load_model(exported, spin=spin)
        for session, expected in ((model.encoder, encoder), (model.decoder, decoder)):
            options = session.get_session_options()
            assert [options.get_session_config_entry(key) for key in keys] == expected
