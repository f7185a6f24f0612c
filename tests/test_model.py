"""Model folders: found by signature, refused with a reason."""

import os
import re
from contextlib import suppress
from pathlib import Path
from random import Random

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, save_model
from scripted import END, A, write_model

from cohere_lite.errors import ModelError, ModelFileNotFound, OptionError
from cohere_lite.export.__main__ import export
from cohere_lite.graphfile import GraphFile, check_external_data, read_graph_file
from cohere_lite.model import DEMO_FOLDER, find_graphs, load_model
from cohere_lite.session import CPU
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
    assert model.contract.name == "static"
    assert [*model.contract.encoder.inputs] == ["mel"]


def test_fast_contract(exported: Path) -> None:
    assert load_model(exported).contract.name == "fast"


def test_graph_file_agrees_with_onnx_runtime(exported: Path) -> None:
    """By reference: names as onnxruntime gives them; external bytes as the exporter wrote them, a step's for the
    decoder; word times' graph reads a part of these."""
    for path in exported.glob("*.onnx"):
        graph, session = read_graph_file(path), ort.InferenceSession(path)
        assert graph.inputs == tuple(value.name for value in session.get_inputs())
        assert graph.outputs == tuple(value.name for value in session.get_outputs())
        data = path.with_name(re.sub("step|align", "decoder", path.name) + ".data")
        ((name, n_bytes),) = graph.external_bytes.items()
        assert name == data.name
        assert n_bytes == data.stat().st_size or ("align" in path.name and n_bytes < data.stat().st_size)


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
    with pytest.raises(
        ModelError, match=r"decoder of the 'fast' contract, in static/; encoder\.onnx is an encoder of the 'static'"
    ):
        load_model(static)


@pytest.mark.parametrize(
    ("inputs", "outputs", "found"),
    [
        (["input_features"], ["last_hidden_state"], "model.onnx is an encoder of the 'merged' contract"),
        (["audio_signal", "length"], ["encoder_embeddings", "encoder_mask"], "is an encoder of the 'mems' contract"),
        (["audio_signal", "length"], ["outputs", "encoded_lengths"], "a transducer .*, which is another kind"),
        (["input_features", "length"], ["hidden_states_out"], "eschmidbauer's export, .*, and not supported"),
        (["decoder_input_ids"], ["logits", "self_key_0"], "vernacula's export, .*, and not supported"),
        (["image"], ["cat", "dog"], "is unknown: it takes image and gives cat, dog"),
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


@pytest.mark.slow
def test_damaged_onnx(tmp_path: Path) -> None:
    """Random bytes changed, removed and inserted: read or refused, without another error."""
    path, random = tmp_path / "graph.onnx", Random(0)
    graphs = [file.read_bytes() for file in DEMO_FOLDER.glob("*.onnx")]
    n_read = 0
    for _ in range(1000):
        damaged = bytearray(random.choice(graphs))
        for _ in range(random.choice((1, 4))):
            at = random.randrange(random.choice((200, len(damaged))))
            damaged[at : at + random.randrange(3)] = random.randbytes(random.randrange(3))
        path.write_bytes(damaged)
        with suppress(ModelError):
            check_external_data(read_graph_file(path))
        with suppress(ModelError):
            n_read += bool(read_graph_file(path).inputs)
    assert n_read > 50  # most damage is found before there is a graph to check


def graph_bytes(field: int, content: bytes) -> bytes:
    """The field in an ONNX file's graph, after an output."""
    graph = b"\x62\x03\x0a\x01y" + bytes([field << 3 | 2]) + varint(len(content)) + content
    return b"\x3a" + varint(len(graph)) + graph


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a" + b"\x85" + b"\x80" * 9 + b"\x00" + b"\x62\x03\x0a\x01y",  # the length 5 in eleven bytes
        graph_bytes(12, b"\x0a" + varint(5000) + b"n" * 5000),  # a name of 5,000 letters
        graph_bytes(11, b"") * 100_001,  # as many inputs
        graph_bytes(5, b"\x6a\x06\x0a\x01k\x12\x01v" + b"\x68"),  # a key without its number at the end
        graph_bytes(12, b"\x0a\x05y") + b"\x08\x01" * 4,  # a name that reaches beyond its message
        graph_bytes(5, b"\x6f"),  # wire type 7, which does not exist
    ],
)
def test_limits_of_onnx(tmp_path: Path, content: bytes) -> None:
    """Written by hand after protobuf's encoding; the limits are those of graphfile.py, and protobuf's ten bytes."""
    path = tmp_path / "graph.onnx"
    path.write_bytes(graph_bytes(11, b"\x0a\x01x"))
    assert read_graph_file(path) == GraphFile(path, ("x",), ("y",), {})
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX file, or damaged"):
        read_graph_file(path)


def test_a_graph_that_may_not_be_read(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one in the folder is left out; where it is needed, the error is one of ours."""

    def read(path: Path) -> GraphFile:
        if path.name.startswith(refused):
            raise PermissionError(13, "Permission denied", str(path))
        return read_graph_file(path)

    monkeypatch.setitem(find_graphs.__globals__, "read_graph_file", read)
    folder = copy(exported, tmp_path / "model")
    (folder / "other.onnx").touch()
    refused = "other"
    load_model(folder)
    refused = "encoder"
    with pytest.raises(ModelError, match=r"Permission denied: .*encoder\.fp32\.onnx"):
        load_model(folder)


def external_graph(path: Path, location: str, **entries: str) -> Path:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], b"abcd", raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weights.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weights])
    path.parent.mkdir()
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


@pytest.mark.parametrize("location", ["../w", "sub/../../w", "{}/w", "C:\\w", "..\\w", "\\\\host\\w"])
def test_weights_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "w").write_bytes(b"abcd")
    path = external_graph(tmp_path / "model" / "graph.onnx", location.format(tmp_path))
    with pytest.raises(ModelError, match=r"graph\.onnx keeps its weights in '.*w', outside of its folder"):
        read_graph_file(path)


def test_weights_in_a_sub_folder(tmp_path: Path) -> None:
    """By reference: onnxruntime loads them, too."""
    path = external_graph(tmp_path / "model" / "graph.onnx", "sub/w", length="4")
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "w").write_bytes(b"abcd")
    graph = read_graph_file(path)
    assert graph == GraphFile(path, ("x",), ("y",), {"sub/w": 4})
    check_external_data(graph)
    assert ort.InferenceSession(path).get_inputs()[0].name == "x"


def test_weights_that_share_a_file_and_are_inputs_too(tmp_path: Path) -> None:
    """As before IR version 4, and in any order: the first ends at byte 6, the second at 4."""
    path = external_graph(tmp_path / "model" / "graph.onnx", "w", offset="2", length="4")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    model.graph.initializer[1].name = "v"
    model.graph.initializer[1].external_data[1].value = "0"
    model.graph.input.add().name = "w"
    path.write_bytes(model.SerializeToString())
    assert read_graph_file(path) == GraphFile(path, ("x",), ("y",), {"w": 6})


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"location": "w" * 300}, "keeps its weights in 'www.*', which is not beside it"),
        ({"location": "a\0b"}, r"keeps its weights in 'a\\x00b', which is not beside it"),
        ({"location": "graph.onnx", "offset": "9" * 4000, "length": "9" * 4000}, "an incomplete copy or download"),
        ({"location": "graph.onnx", "length": "9" * 5000}, "not an ONNX file, or damaged"),
        ({"location": "graph.onnx", "length": "four"}, "not an ONNX file, or damaged"),
    ],
)
def test_weights_that_cannot_be(tmp_path: Path, entries: dict[str, str], expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        check_external_data(read_graph_file(external_graph(tmp_path / "model" / "graph.onnx", **entries)))


def test_hidden_files_are_left_alone(static: Path) -> None:
    """macOS puts a "._" file beside every file on a foreign disk."""
    (static / "._encoder.onnx").write_bytes(b"Mac OS X")
    assert load_model(static).contract.name == "static"


def test_caches_without_a_fixed_size(static: Path) -> None:
    model = onnx.load(static / "decoder.onnx")
    for value in model.graph.input:
        if value.name == "in_n_layer_self_k_cache":
            value.type.tensor_type.shape.dim[3].dim_param = "positions"
    onnx.save(model, static / "decoder.onnx")
    with pytest.raises(ModelError, match=r"'in_n_layer_self_k_cache' has shape .*, without a fixed size at axis 3"):
        load_model(static)


def test_providers(static: Path) -> None:
    """The others: test_providers.py."""
    opened = load_model(static, ["CPUExecutionProvider"]).contract.decoder
    assert {value.device for value in opened.inputs.values()} == {CPU}
    with pytest.raises(OptionError, match=r"unknown provider 'gpu'; known: cpu, cuda,"):
        load_model(static, ["gpu"])
    with pytest.raises(OptionError, match="must be a list"):
        load_model(static, "cpu")


def test_threads(static: Path) -> None:
    """Up to 64, and up to the processors that there are."""
    for threads in (0, max(64, os.cpu_count() or 1) + 1):
        with pytest.raises(OptionError, match=f"threads is {threads}; it must be 1 to "):
            load_model(static, threads=threads)
    assert load_model(static, threads=1).contract.encoder._session.get_session_options().intra_op_num_threads == 1


def test_spinning(exported: Path) -> None:
    """The encoder's threads stop at the end of its run, to leave the cores to the decoder's, which wait for the next
    step; with spin=False nobody spins."""
    keys = ("session.intra_op.allow_spinning", "session.force_spinning_stop")
    for spin, encoder, decoder in ((True, ["1", "1"], ["1", "0"]), (False, ["0", "1"], ["0", "0"])):
        contract = load_model(exported, spin=spin).contract
        for session, expected in ((contract.encoder, encoder), (contract.decoder, decoder)):
            options = session._session.get_session_options()
            assert [options.get_session_config_entry(key) for key in keys] == expected


@pytest.mark.parametrize("said", ["8", "abc", "nan", "-1"])
def test_a_longest_piece_that_cannot_be(static: Path, said: str) -> None:
    """Said at load: cutting looks for a quiet point in 5 s, and needs as many before them."""
    model = onnx.load(static / "encoder.onnx")
    model.metadata_props.add(key="max_audio_s", value=said)
    onnx.save(model, static / "encoder.onnx")
    with pytest.raises(
        ModelError, match=rf"encoder\.onnx: its metadata says max_audio_s '{said}'; it must be 10 seconds"
    ):
        load_model(static)


@pytest.mark.parametrize(("said", "longest"), [("10", 10), ("20.5", 20.5), ("60", 35), ("inf", 35)])
def test_the_longest_piece(static: Path, said: str, longest: float) -> None:
    """Never more than the reference feeds, 35 s."""
    model = onnx.load(static / "encoder.onnx")
    model.metadata_props.add(key="max_audio_s", value=said)
    onnx.save(model, static / "encoder.onnx")
    assert load_model(static).max_chunk_s == longest


def test_weights_that_are_a_link_elsewhere(exported: Path, tmp_path: Path) -> None:
    """Links within the folder, and links of both files to one folder, as in the hub's cache, are right."""
    data = "encoder.fp32.onnx.data"
    for links, elsewhere in (([data], True), ([data, "encoder.fp32.onnx"], False)):
        blobs = tmp_path / f"blobs{len(links)}"
        blobs.mkdir()
        folder = copy(exported, tmp_path / f"model{len(links)}")
        for name in links:
            (folder / name).rename(blobs / name)
            (folder / name).symlink_to(blobs / name)
        if elsewhere:
            with pytest.raises(
                ModelError, match=rf"keeps its weights in '{data}', a link to .*, outside of its folder"
            ):
                load_model(folder)
        else:
            assert load_model(folder).contract.name == "fast"
    folder = copy(exported, tmp_path / "within")
    (folder / data).rename(folder / "weights")
    (folder / data).symlink_to("weights")
    assert load_model(folder).contract.name == "fast"


def test_a_vocabulary_of_another_model(static: Path) -> None:
    """Whisper's has languages, but no startofcontext; a translator's has neither."""
    tokens = static / "tokens.txt"
    text = tokens.read_text(encoding="utf-8")
    tokens.write_text(text.replace("<|startofcontext|>", "<|startoflm|>"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokens\.txt has no '<\|startofcontext\|>'; is it from a Cohere"):
        load_model(static)
    tokens.write_text(text.replace("<|", "<<"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokens\.txt has no language, such as '<\|en\|>'; is it from a Cohere"):
        load_model(static)


def test_a_config_that_is_none(static: Path) -> None:
    """Not read where the graphs tell all."""
    (static / "config.json").write_text("[")
    load_model(static)


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(OptionError, match="model is '', as of a variable that was never set"):
        load_model("")
