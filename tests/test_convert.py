"""Published graphs -> the fast layout (cohere_lite/export/published.py): the same weights, number by number, whatever
the graphs' inner names and operators are; or one sentence, and nothing written."""

import errno
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from published import needs_espeak, standin

from cohere_lite.export import check
from cohere_lite.export.__main__ import export, main
from cohere_lite.export.graph import Graph, quantize_blocks, quantize_columns
from cohere_lite.export.matrix import Blocks, Columns, dense, packed, same, scaled, side_by_side, unpacked
from cohere_lite.export.paths import Graph as PublishedGraph
from cohere_lite.export.published import Published
from cohere_lite.model import find_model

pytest.importorskip("safetensors")

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
PRODUCTS = ("encoder.layers.2.self_attn.v_proj", "encoder.layers.5.conv.pointwise_conv1", "decoder.layers.1.mlp.fc2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Our own exports, by contract and precision: "static" is the published contract A."""
    made: dict[tuple[str, str], Path] = {}

    def folder(contract: str, precision: str) -> Path:
        if (contract, precision) not in made:
            made[contract, precision] = tmp_path_factory.mktemp(f"{contract}-{precision}")
            export(CHECKPOINT, made[contract, precision], precision, contract)
        return made[contract, precision]

    return folder


def edited(folder: Path, out: Path, edit: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy with both graphs edited, and weights in another file."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.onnx*"))
    for path in folder.glob("*.onnx"):
        model = onnx.load(path)
        edit(model)
        onnx.save(
            model, out / path.name, save_as_external_data=True, location=f"{path.stem}.weights", size_threshold=1024
        )
    return out


def assert_same_files(one: Path, other: Path, pattern: str = "*") -> None:
    names = sorted(path.name for path in one.glob(pattern))
    assert names == sorted(path.name for path in other.glob(pattern))
    names = [name for name in names if not name.startswith("align.")]  # a checkpoint's knows the heads, too
    assert names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", None), ("int8", None), ("int4", None), ("fp32", "fp32")])
def test_weights_are_those_of_a_direct_export(folders, tmp_path: Path, precision: str, wanted: str | None) -> None:
    """By construction: files equal, but for an INT8 decoder: its columns become blocks that hold the same weights."""
    said = export(folders("static", precision), tmp_path, wanted)
    assert said[0].startswith("the same ")
    direct = folders("fast", wanted or {"fp32": "int8"}.get(precision, precision))
    assert_same_files(tmp_path, direct, "encoder*" if precision == "int8" else "*")
    if precision == "int8":
        source, found = (
            Published(find_model(folders("static", precision))),
            initializers(tmp_path / "decoder.int8.onnx"),
        )
        for name in ("decoder.layers.0.mlp.fc1", "decoder.layers.1.encoder_attn.o_proj", "proj_out"):
            matrix = source.matrix(name)
            stored, scale = found[f"{name}.weight"], found[f"{name}.scale"]
            middle = np.full(scale.shape, 128, np.uint8)
            np.testing.assert_array_equal(
                Blocks(stored, scale, middle, 8, stored.shape[2], matrix.shape[0]).dense(), dense(matrix)
            )
        assert "decoder.embed_tokens.weight" not in found  # tied


@pytest.mark.parametrize(
    ("source", "precision", "weight_bits", "name"),
    [
        ("fp32", "fp16", None, "fp16"),
        ("fp32", "fp16", 8, "q8f16"),
        ("fp32", "bf16", 4, "q4bf16"),
        ("int8", "fp16", None, "fp16"),
        ("int8", "fp16", 8, "q8f16"),
        ("int8", "bf16", 8, "q8bf16"),
        ("int4", "fp16", None, "fp16"),
        ("int4", "fp16", 4, "q4f16"),
    ],
)
def test_device_graphs_of_published_folders(
    folders, tmp_path: Path, source: str, precision: str, weight_bits: int | None, name: str
) -> None:
    """By construction: from floats, the files of a direct export. What is quantised keeps its numbers, in blocks, or
    becomes the floats that it stands for, rounded."""
    said = export(folders("static", source), tmp_path / "out", precision, weight_bits=weight_bits)
    if precision == "fp16":
        assert said[0].startswith("the same ")
        assert find_model(tmp_path / "out").precision == name
    else:
        assert said[0] == "not compared with the source: onnxruntime's CPU provider has no kernels for bfloat16"
    assert len(said) == 2  # what was compared, and sizes: no number was rounded for a second time
    if source == "fp32":
        export(CHECKPOINT, tmp_path / "direct", precision, weight_bits=weight_bits)
        assert_same_files(tmp_path / "out", tmp_path / "direct")
        return
    before, found = Published(find_model(folders("static", source))), {}
    for role in ("encoder", "decoder"):
        found |= initializers(tmp_path / "out" / f"{role}.{name}.onnx")
    for product in ("encoder.layers.2.conv.pointwise_conv1", "decoder.layers.0.mlp.fc1", "proj_out"):
        stored, matrix = found[f"{product}.weight"], before.matrix(product)
        assert isinstance(matrix, Columns | Blocks)
        if weight_bits is None:
            np.testing.assert_array_equal(stored, matrix.dense().astype(np.float16))
            continue
        blocks = matrix if isinstance(matrix, Blocks) else matrix.in_blocks(stored.shape[2])
        np.testing.assert_array_equal(stored, blocks.stored)
        scale = found[f"{product}.scale"]
        np.testing.assert_array_equal(scale, blocks.scale.astype(scale.dtype))
        assert scale.dtype.name == {"fp16": "float16", "bf16": "bfloat16"}[precision]


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def scramble(model: onnx.ModelProto) -> None:
    """New names for everything but inputs and outputs; and nodes in an order that a reader must not rely on."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return name if name in kept else names.setdefault(name, f"onnx::{len(names) * 7919 % 100_003}")

    for tensor in model.graph.initializer:
        tensor.name = new(tensor.name)
    for node in model.graph.node:
        node.name = ""
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for parts in (model.graph.initializer, model.graph.node):
        shuffled = list(parts)
        random.Random(0).shuffle(shuffled)
        del parts[:]
        parts.extend(shuffled)
    del model.metadata_props[:]


def test_names_mean_nothing(folders, tmp_path: Path) -> None:
    """By construction: weights are found by what they do."""
    export(folders("static", "int8"), tmp_path / "plain")
    export(edited(folders("static", "int8"), tmp_path / "scrambled", scramble), tmp_path / "found")
    assert_same_files(tmp_path / "plain", tmp_path / "found")


def with_zero_points(model: onnx.ModelProto) -> None:
    """The same weights as unsigned numbers that are not symmetric."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    generator = np.random.default_rng(0)
    for node in model.graph.node:
        if node.op_type != "DynamicQuantizeMatMul" or node.output[0] == "logits":  # its matrix is the embedding, too
            continue
        numbers = numpy_helper.to_array(tensors[node.input[1]]).astype(np.int16)
        zero = generator.integers(-128 - numbers.min(axis=0), 128 - numbers.max(axis=0))
        unsigned = (numbers + zero + 128).astype(np.uint8)
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(unsigned, node.input[1]))
        name = f"{node.input[1]}.zero"
        model.graph.initializer.append(numpy_helper.from_array((zero + 128).astype(np.uint8), name))
        node.input[3] = name


def test_zero_points(folders, tmp_path: Path) -> None:
    """By construction: weights stay what they were, in signed numbers; products get zero points."""
    source = edited(folders("static", "int8"), tmp_path / "source", with_zero_points)
    said = export(source, tmp_path / "out")
    assert said[0].startswith("the same ")
    before, after = (Published(find_model(folder)) for folder in (folders("static", "int8"), source))
    for name in PRODUCTS:
        assert not same(before.matrix(name), after.matrix(name))
        np.testing.assert_array_equal(dense(before.matrix(name)), dense(after.matrix(name)))
    encoder, decoder = (initializers(tmp_path / "out" / f"{part}.int8.onnx") for part in ("encoder", "decoder"))
    name = "encoder.layers.0.feed_forward1.linear1"
    assert encoder[f"{name}.weight"].dtype == encoder[f"{name}.zero_point"].dtype == np.int8
    scaled_by = encoder[f"{name}.scale"]
    weight = (encoder[f"{name}.weight"].astype(np.float32) - encoder[f"{name}.zero_point"]) * scaled_by
    np.testing.assert_array_equal(weight, dense(before.matrix(name)))
    assert decoder["decoder.layers.0.mlp.fc1.zero_point"].dtype == np.uint8


def test_a_published_decoder_decides_about_the_precision(folders, tmp_path: Path, capsys) -> None:
    """INT8 is not quantised for a second time; the files say what they are."""
    assert main([str(folders("static", "int8")), str(tmp_path / "out"), "--precision", "int4"]) == 1
    assert "int4 would round its weights for a second time" in capsys.readouterr().err
    for precision, bits, message in (
        (
            "int8",
            4,
            "the source is INT8: --weights 4 would round its weights for a second time; use --weights 8, or none",
        ),
        ("int4", 8, "the source has weights of 4 bits, which --weights 4 keeps as they are"),
    ):
        options = ["--precision", "fp16", "--weights", str(bits)]
        assert main([str(folders("static", precision)), str(tmp_path / "out"), *options]) == 1
        assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_fast_folder_is_left_alone(folders, tmp_path: Path, capsys) -> None:
    fast = folders("fast", "int8")
    assert main([str(fast), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{fast} is in the fast layout already: nothing to do\n"
    message = f"error: {fast} is in the fast layout, int8: another one is made from what that was made from\n"
    for option in (
        "--precision bf16 --weights 8",
        "--precision int4",
        "--max-audio-s 60",
        "--pointwise fp32",
        "--contract static",
        "--target web",
    ):
        assert main([str(fast), str(tmp_path / "out"), *option.split()]) == 1
        assert capsys.readouterr().err == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", [".", ".."])
def test_the_constants_of_the_language_come_along(folders, tmp_path: Path, where: str) -> None:
    """Beside the graphs or one level up, as where they are read. Those of another model are told, not lost."""
    source = shutil.copytree(folders("static", "int8"), tmp_path / "model" / "onnx")
    constants = '{"temperature": 0.5, "other": -2.0}'
    (source / where / "language.json").write_text(constants)
    export(source, tmp_path / "out")
    export(CHECKPOINT, tmp_path / "out")  # has none
    assert (tmp_path / "out" / "language.json").read_text() == constants
    shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "language.json").write_text("{}")
    assert not any("language.json" in line for line in export(tmp_path / "checkpoint", tmp_path / "out"))
    assert (tmp_path / "out" / "language.json").read_text() == "{}"
    said = f"{tmp_path / 'out' / 'language.json'} is left as it was; its constants are for one model only"
    assert said in export(CHECKPOINT, tmp_path / "out")


def test_graphs_of_any_case(folders, tmp_path: Path) -> None:
    """Read as the command reads them."""
    source = shutil.copytree(folders("fast", "int8"), tmp_path / "source")
    for graph in source.glob("*.onnx"):
        graph.rename(graph.with_suffix(".ONNX"))
    assert export(source, tmp_path / "out")[0].startswith(f"{source} is in the fast layout already")


def test_a_folder_is_not_written_over(folders, tmp_path: Path, capsys) -> None:
    source = shutil.copytree(folders("static", "int8"), tmp_path / "source")
    assert main([str(source), str(source)]) == 1
    assert "is the folder to convert; name another one" in capsys.readouterr().err


def drop_norms(model: onnx.ModelProto) -> None:
    """Another model: no norm after each layer of the encoder."""
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and "norm_out" in node.input[1]:
            node.op_type, node.input[:] = "Identity", node.input[:1]
            del node.attribute[:]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: next(folder.glob("encoder*.data")).unlink(), "keeps its weights in 'encoder.int8.onnx.data'"),
        (lambda folder: (folder / "tokens.txt").unlink(), "has no tokens.txt, nor vocabulary.txt"),
        (lambda folder: (folder / "tokens.txt").write_text("a 0\nb 1\n"), "has no language"),
        (lambda folder: next(folder.glob("decoder*.onnx")).unlink(), "no encoder and decoder that belong together"),
        (lambda folder: next(folder.glob("decoder*.onnx")).write_bytes(b"PK"), "not an ONNX file"),
    ],
)
def test_spoilt_folders(folders, tmp_path: Path, capsys, spoil, message: str) -> None:
    source = shutil.copytree(folders("static", "int8"), tmp_path / "source")
    spoil(source)
    assert main([str(source), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_model(folders, tmp_path: Path, capsys) -> None:
    source = edited(folders("static", "int8"), tmp_path / "source", drop_norms)
    assert main([str(source), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "the encoder's layer 2 is product, product, norm, attention" in error
    assert not (tmp_path / "out").exists()


def test_bounds_of_rounding(folders) -> None:
    """By hand: 6 and 2 layers; to 4 bits only if the source is not quantised."""
    source = Published(find_model(folders("static", "fp32")))
    assert check.rounding(source, None) == pytest.approx(0.04 * 8**0.5)
    assert check.rounding(source, "int4") == check.rounding(source, "q4f16") == 0.4
    assert check.rounding(source, "q8f16") == pytest.approx(0.04 * 8**0.5)
    assert check.rounding(Published(find_model(folders("static", "int4"))), "int4") < 0.2


def test_a_misread_graph_is_not_written(folders, tmp_path: Path, monkeypatch, capsys) -> None:
    """By construction: attention's scale left out."""
    monkeypatch.setattr(Published, "scale", lambda self, name: 0.3 if name.endswith("self_attn.q_proj") else 1.0)
    assert main([str(folders("static", "fp32")), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the converted graphs' logits are ")
    assert error.endswith("nothing was written\n")
    assert not (tmp_path / "out").exists()


def test_a_full_disk(folders, tmp_path: Path, monkeypatch, capsys) -> None:
    def full(self: Graph, metadata: dict) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Graph, "save", full)
    assert main([str(folders("static", "int8")), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"
    assert not (tmp_path / "out").exists()


def test_a_shorter_clip(folders, tmp_path: Path) -> None:
    """By construction: the table of relative positions is cut on both sides."""
    export(folders("static", "int8"), tmp_path / "converted", max_audio_s=20)
    export(CHECKPOINT, tmp_path / "direct", max_audio_s=20)
    name = "encoder.layers.0.self_attn.relative_keys"
    found, expected = (initializers(tmp_path / out / "encoder.int8.onnx") for out in ("converted", "direct"))
    assert found[name].shape == expected[name].shape == (192, 500)
    weights = [tensors[name] * tensors[f"{name}.scale"][:, None] for tensors in (found, expected)]
    assert np.abs(weights[0] - weights[1]).max() <= found[f"{name}.scale"].max()
    with pytest.raises(ValueError, match="knows 876 relative positions; 1000 were asked for"):
        export(folders("static", "int8"), tmp_path / "longer", max_audio_s=40)


def test_vocabularies_of_others(folders, tmp_path: Path) -> None:
    """By construction: tokens.txt as vocab.json, {piece: id}, one level up."""
    graphs = shutil.copytree(folders("static", "int8"), tmp_path / "model" / "onnx")
    lines = (graphs / "tokens.txt").read_text(encoding="utf-8").splitlines()
    (graphs / "tokens.txt").unlink()
    pieces = dict(line.rsplit(" ", 1) for line in lines)
    (tmp_path / "model" / "vocab.json").write_text(json.dumps({piece: int(i) for piece, i in pieces.items()}))
    export(tmp_path / "model", tmp_path / "out")
    assert_same_files(tmp_path / "out", folders("fast", "int8"), "tokens.txt")


# A product in all the forms in which files have it: what is read is what onnxruntime computes with.

N_IN, N_OUT = 64, 24


def int8_weights(per_channel: bool, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    low, high = (0, 256) if dtype == "uint8" else (-128, 128)
    n = N_OUT if per_channel else 1
    zero = generator.integers(low + 100, high - 100, n).astype(dtype)
    scale = generator.uniform(0.01, 0.02, n).astype(np.float32)
    shape = (n,) if per_channel else ()
    return generator.integers(low, high, (N_IN, N_OUT)).astype(dtype), scale.reshape(shape), zero.reshape(shape)


def product(form: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray], int]:
    """Nodes x -> y, their weights, and the opset."""
    generator = np.random.default_rng(2)
    weight, bias = (
        generator.standard_normal((N_IN, N_OUT), np.float32),
        generator.standard_normal(N_OUT).astype(np.float32),
    )
    contrib = {"domain": "com.microsoft"}
    kind, _, variant = form.partition(" ")
    if kind == "MatMul":
        nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["b", "p"], ["y"])]
        return nodes, {"w": weight, "b": bias}, 17
    if kind == "Transposed":
        nodes = [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])]
        nodes += [helper.make_node("MatMul", ["x", "t"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
        return nodes, {"w": np.ascontiguousarray(weight.T), "b": bias}, 17
    if kind == "Gemm":
        return (
            [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
            {"w": np.ascontiguousarray(weight.T), "b": bias},
            17,
        )
    if kind == "MatMulNBits":
        bits = int(variant[0])
        stored, scale = quantize_blocks(weight.T, bits)
        tensors = {"w": stored, "s": scale.reshape(-1)}
        if "zero" in variant:
            zero = generator.integers(3, 9, scale.shape).astype(np.uint8)
            tensors["z"] = (packed(zero) if bits == 4 else zero).reshape(-1)
        attributes = {"K": N_IN, "N": N_OUT, "bits": bits, "block_size": 64}
        inputs = ["x", "w", "s", *(["z"] if "z" in tensors else [])]
        nodes = [helper.make_node("MatMulNBits", inputs, ["p"], **attributes, **contrib)]
        return [*nodes, helper.make_node("Add", ["p", "b"], ["y"])], {**tensors, "b": bias}, 17
    if kind == "DequantizeLinear4":
        numbers = generator.integers(-8, 8, (N_IN, N_OUT))
        tensors = {"s": generator.uniform(0.01, 0.02, (2, N_OUT)).astype(np.float32), "b": bias}
        nodes = [
            helper.make_node(
                "Constant", [], ["w"], value=helper.make_tensor("w", TensorProto.INT4, numbers.shape, numbers)
            ),
            helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=32),
            helper.make_node("MatMul", ["x", "d"], ["p"]),
            helper.make_node("Add", ["p", "b"], ["y"]),
        ]
        return nodes, tensors, 21
    numbers, scale, zero = int8_weights("channel" in variant, "uint8" if "uint8" in variant else "int8")
    tensors = {"w": numbers, "s": scale, "z": zero, "b": bias}
    if kind == "DequantizeLinear":
        nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1)]
        nodes += [helper.make_node("MatMul", ["x", "d"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
        return nodes, tensors, 17
    if kind == "DynamicQuantizeMatMul":
        return [helper.make_node(kind, ["x", "w", "s", "z", "b"], ["y"], **contrib)], tensors, 17
    quantised = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"])
    if kind == "MatMulIntegerToFloat":
        return [quantised, helper.make_node(kind, ["q", "w", "qs", "s", "qz", "z", "b"], ["y"], **contrib)], tensors, 17
    nodes = [
        quantised,
        helper.make_node("MatMulInteger", ["q", "w", "qz", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
    ]
    if "apart" in variant:
        nodes += [helper.make_node("Mul", ["f", "qs"], ["m"]), helper.make_node("Mul", ["m", "s"], ["p"])]
    else:
        nodes += [helper.make_node("Mul", ["qs", "s"], ["m"]), helper.make_node("Mul", ["f", "m"], ["p"])]
    return [*nodes, helper.make_node("Add", ["p", "b"], ["y"])], tensors, 17


FORMS = [
    *("MatMul", "Transposed", "Gemm", "MatMulNBits 4", "MatMulNBits 8", "MatMulNBits 4 zero", "MatMulNBits 8 zero"),
    *("DequantizeLinear", "DequantizeLinear uint8 channel", "DequantizeLinear4"),
    *("DynamicQuantizeMatMul channel", "DynamicQuantizeMatMul uint8", "MatMulIntegerToFloat channel"),
    *("MatMulInteger", "MatMulInteger uint8 channel", "MatMulInteger apart"),
]


def test_a_product_that_is_multiplied_afterwards(folders, tmp_path: Path) -> None:
    """By construction: a product of twice the weights, halved, is the same product, to the last bit."""
    name = "decoder.layers.0.mlp.fc2"

    def halved(model: onnx.ModelProto) -> None:
        graph = model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        if f"{name}.weight" not in stored:
            return  # the encoder
        for part in "weight", "bias":
            doubled = 2 * numpy_helper.to_array(stored[f"{name}.{part}"])
            stored[f"{name}.{part}"].CopyFrom(numpy_helper.from_array(doubled, f"{name}.{part}"))
        graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
        (at,) = [i for i, node in enumerate(graph.node) if f"{name}.bias" in node.input]
        result = graph.node[at].output[0]
        graph.node[at].output[0] = "doubled"
        graph.node.insert(at + 1, helper.make_node("Mul", ["doubled", "half"], [result]))

    source = edited(folders("static", "fp32"), tmp_path / "source", halved)
    before, after = (Published(find_model(folder)) for folder in (folders("static", "fp32"), source))
    for one, other in zip(before.linear(name), after.linear(name), strict=True):
        np.testing.assert_array_equal(one, other)


def test_options_that_do_not_fit(folders, tmp_path: Path, capsys) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main([str(folders("static", "int8")), str(file)]) == 1
    assert capsys.readouterr().err == f"error: {file} is a file; name a folder for the result\n"
    assert main([str(CHECKPOINT), str(tmp_path / "out"), "--from", "q4"]) == 1
    assert capsys.readouterr().err == f"error: {CHECKPOINT} is a checkpoint; --from chooses among published graphs\n"
    assert not (tmp_path / "out").exists()


def test_ctrl_c(folders, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "compare", interrupt)
    assert main([str(folders("static", "int8")), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
    assert not (tmp_path / "out").exists()


def test_a_factor_after_a_product(tmp_path: Path) -> None:
    """By hand: (x w + b) / 2, whatever moves in between, and the shape that tells the heads."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["s"]),
        helper.make_node("Reshape", ["s", "by_head"], ["r"]),
        helper.make_node("Mul", ["half", "r"], ["y"]),
    ]
    tensors = {"w": np.ones((4, 6), np.float32), "b": np.ones(6, np.float32), "half": np.array([0.5], np.float32)}
    tensors["by_head"] = np.array([0, 0, 2, 3])
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["clips", "rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["clips", "rows", 2, 3])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "product.onnx")
    read = PublishedGraph(tmp_path / "product.onnx")
    (way,) = read.back("y", None)
    assert (way.source.out, way.factor, way.heads) == ("y", 0.5, (2, 3))
    assert way.source.bias is not None
    np.testing.assert_array_equal(way.source.bias(), np.ones(6))


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_product(tmp_path: Path, form: str) -> None:
    """By reference: rows of the identity times the matrix, by onnxruntime; quantised, they are exact."""
    nodes, tensors, opset = product(form)
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", N_IN])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", N_OUT])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    session = ort.InferenceSession(path)
    # One by one: of 64 rows in INT8, onnxruntime 1.23.0 spoils the last on processors with AMX.
    rows = np.eye(N_IN, dtype=np.float32)[:, None]
    expected = np.concatenate([session.run(None, {"x": row})[0] for row in rows])

    (found,) = PublishedGraph(path).weighted
    assert (found.kind, found.shape, found.out) == ("P", (N_IN, N_OUT), "y")
    matrix = found.read()
    assert found.bias is not None
    assert isinstance(matrix, np.ndarray) == (form in ("MatMul", "Transposed", "Gemm"))
    if isinstance(matrix, Columns):
        assert matrix.numbers.dtype == matrix.zero.dtype == np.int8
    np.testing.assert_allclose(dense(matrix) + found.bias(), expected, rtol=1e-5, atol=1e-5)


def test_columns_by_hand() -> None:
    """Unsigned numbers become signed; both forms stand for the same weights, and so do blocks of them."""
    numbers, zero = np.array([[0, 255], [130, 3]], np.uint8), np.array([128, 3], np.uint8)
    columns = Columns.of(numbers, np.array([0.5], np.float32), zero)
    np.testing.assert_array_equal(columns.numbers, [[-128, 127], [2, -125]])
    np.testing.assert_array_equal(columns.dense(), [[-64, 126], [1, 0]])
    blocks = columns.in_blocks(32)
    assert (blocks.stored.shape, blocks.scale.shape, blocks.has_zero_points) == ((2, 1, 32), (2, 1), True)
    np.testing.assert_array_equal(blocks.dense(), columns.dense())
    for n_in in (32, 33, 65):  # the last block is padded with zero points
        odd = Columns.of(np.full((n_in, 1), 200, np.uint8), np.array([0.5], np.float32), np.array([130], np.uint8))
        assert set(odd.in_blocks(32).stored.ravel()[n_in:]) <= {130}
        np.testing.assert_array_equal(odd.in_blocks(32).dense(), np.full((n_in, 1), 35))
    with pytest.raises(ValueError, match="2 columns has 3 scales"):
        Columns.of(numbers, np.ones(3, np.float32))


def test_side_by_side_and_scaled() -> None:
    """By construction: numbers stay, in both forms; the factor goes into the scales; mixed forms become floats."""
    weight = np.random.default_rng(0).standard_normal((64, 6), np.float32)
    columns = Columns.of(*quantize_columns(weight))
    stored, scale = quantize_blocks(weight.T, 4)
    blocks = Blocks(stored, scale, np.full(scale.shape, 8, np.uint8), 4, 64, 64)
    for matrix in (weight, columns, blocks):
        both = side_by_side([scaled(matrix, 0.5), matrix])
        assert type(both) is type(matrix)
        np.testing.assert_array_equal(
            dense(both), np.concatenate([dense(matrix) * np.float32(0.5), dense(matrix)], axis=1)
        )
    mixed = side_by_side([columns, blocks])
    assert isinstance(mixed, np.ndarray)
    np.testing.assert_array_equal(mixed, np.concatenate([columns.dense(), blocks.dense()], axis=1))


def test_pairs_of_numbers() -> None:
    """By hand: low half first, an odd row padded."""
    numbers = np.array([[1, 2, 15]], np.uint8)
    np.testing.assert_array_equal(packed(numbers), [[0x21, 0x0F]])
    np.testing.assert_array_equal(unpacked(packed(numbers)), [[1, 2, 15, 0]])


def test_agreement_by_hand() -> None:
    """Logits less a constant are the same; a tie may fall either way, a preference may not; other logits are other."""
    logits = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32) * 3
    near = logits + np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32) * 0.05
    assert check.agreement(logits, logits + 7, 0.1).apart < 1e-5
    found = check.agreement(logits, near, 0.1)
    assert 0.01 < found.apart < 0.03
    assert (found.near_ties, found.n_tokens) == (0, 4)

    tied, moved = logits.copy(), near.copy()
    best = logits[0].argmax()
    tied[0, (best + 1) % 50] = logits[0, best] - 0.05
    moved[0, (best + 1) % 50] = moved[0, best] + 0.1
    assert check.agreement(tied, moved, 0.2).near_ties == 1
    other = np.argsort(logits[0])[-12]
    moved[0, other] = logits[0, best] + 0.5
    with pytest.raises(ValueError, match=f"give token {other} where the source gives {best}"):
        check.agreement(tied, moved, 0.2)
    with pytest.raises(ValueError, match="apart from the source's"):
        check.agreement(logits, logits[:, ::-1], 0.9)
    with pytest.raises(ValueError, match="not numbers"):
        check.agreement(logits, logits * np.nan, 0.1)


def test_batch_norm_may_be_folded_or_not(tmp_path: Path) -> None:
    """By hand: where it is a node of its own, its numbers are found with the convolution."""
    parts = {name: np.full(3, i + 1, np.float32) for i, name in enumerate(("gamma", "beta", "mean", "variance"))}
    tensors = {"w": np.ones((3, 1, 5), np.float32), "b": np.zeros(3, np.float32), **parts}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], group=3, pads=[2, 2]),
        helper.make_node("BatchNormalization", ["c", *parts], ["y"]),
    ]
    shape = ["batch", 3, "frames"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph(
        nodes, "conv", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in tensors.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "conv.onnx")
    (found,) = PublishedGraph(tmp_path / "conv.onnx").weighted
    assert (found.kind, found.out) == ("C", "y")
    assert {name: float(value[0]) for name, value in found.norm.items()} == {
        "weight": 1, "bias": 2, "running_mean": 3, "running_var": 4
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.reference
@needs_espeak
@pytest.mark.parametrize("kind", ["merged-q4", "audio-int4", "card-fp32", "mems-fp32"])
def test_standins_in_float32(tmp_path: Path, kind: str) -> None:
    """By reference: graphs without INT8 activations come out equal: logits within 1e-4, but for contract B's front end
    and its last frame."""
    said = export(standin(kind), tmp_path, "fp32")
    largest = float(said[0].split(", ")[-1].split()[0])
    assert largest < (0.3 if kind.startswith("audio") else 1e-4)


KINDS = [
    *("card", "card-uint8", "card-fp16", "card-dynamo", "card-inline", "audio-int8", "audio-int4"),
    *("merged-fp32", "merged-int8", "merged-q4f16", "merged-arabic", "masterx", "mems-int8"),
]


@pytest.mark.slow
@pytest.mark.reference
@needs_espeak
@pytest.mark.parametrize("kind", KINDS)
def test_standins_of_published_folders(tmp_path: Path, kind: str) -> None:
    """By reference: traced by torch, quantised by onnxruntime, in every contract and family."""
    source = standin(kind)
    said = export(source, tmp_path)
    assert said[0].startswith("the same ")
    assert float(said[0].split("logits ")[1].split("%")[0]) < 5
    matrices = [Published(find_model(source)).matrix(name) for name in PRODUCTS]
    quantised = {"fp16": np.ndarray, "fp32": np.ndarray}.get(kind.split("-")[-1], (Columns, Blocks))
    assert isinstance(matrices[0], quantised)
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx", ".data", ".txt"}
