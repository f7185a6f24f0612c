"""Several models in a folder: which one runs, by the names of files and what is in them."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from scripted import END, A, B, C, write_model
from scripted_contracts import write_mems, write_merged

from cohere_lite import ModelError, OptionError, Transcriber
from cohere_lite.extras.precisions import ON_CPU, ON_OTHERS, best_precision, graph_precision, named_precision
from cohere_lite.graphfile import read_graph_file
from cohere_lite.model import DEMO_FOLDER, load_model

SCRIPT = [C] * 9 + [A, B, END]


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("encoder_model.onnx", None),
        ("encoder_model_fp16.onnx", "fp16"),
        ("encoder_model_quantized.onnx", "int8"),
        ("decoder_model_merged_q4.onnx", "q4"),
        ("decoder_model_merged_q4f16.onnx", "q4f16"),
        ("decoder_model_merged_q4f16_dyn.onnx", "q4f16"),
        ("encoder_model_uint8.onnx", "uint8"),
        ("cohere-encoder.int8.onnx", "int8"),
        ("cohere-decoder.int4.onnx", "q4"),
        ("encoder-model.int8.onnx", "int8"),
        ("encoder-model?int8.onnx", "int8"),
        ("onnx/int8/encoder.onnx", "int8"),
        ("my-fp16x-model.onnx", None),
        ("Encoder.INT8.onnx", "int8"),
        ("encoder.q8f16.onnx", "q8f16"),
        ("decoder.q8bf16.onnx", "q8bf16"),
        ("decoder.q4bf16.onnx", "q4bf16"),
        ("decoder.bf16.onnx", "bf16"),
        ("decoder.xbf16.onnx", None),
    ],
)
def test_named_precision(name: str, precision: str | None) -> None:
    """By the conventions of transformers.js, sherpa-onnx, onnx-asr, Handy and the card."""
    assert named_precision(name) == precision


def several(folder: Path, *names: str) -> Path:
    """A model of the "merged" contract in each of these precisions ("": none named), all alike."""
    write_merged(folder, SCRIPT)
    for role, graph in {"encoder": "encoder_model", "decoder": "decoder_model_merged"}.items():
        path = folder / "onnx" / f"{graph}.onnx"
        for name in names:
            role_name, _, precision = name.rpartition(":")
            if precision and role_name in ("", role):
                shutil.copy(path, path.with_name(f"{graph}_{precision}.onnx"))
        if "" not in names:
            path.unlink()
    return folder


@pytest.mark.parametrize(
    ("names", "asked", "used"),
    [
        (["q4", "quantized", "fp16", ""], None, "int8"),
        (["q4", "q4f16", "fp16", ""], None, "q4"),
        (["q4f16", "fp16", ""], None, "q4f16"),
        (["fp16", ""], None, "fp32"),
        (["bf16", "q8bf16", "q4bf16", "q8f16", "fp16"], None, "fp16"),
        (["bf16", "q8bf16", "q4bf16", "q8f16", "fp16"], "q8f16", "q8f16"),
        (["fp16", "q8f16"], "Q8F16", "q8f16"),
        (["q4", "quantized", "fp16", ""], "fp16", "fp16"),
        (["q4", "quantized", "fp16", ""], "fp32", "fp32"),
        (["q4", "quantized", "fp16", ""], "int4", "q4"),
        (["q4", "quantized", "fp16", ""], "Quantized", "int8"),
        (["encoder:q4", "decoder:fp16"], None, "q4 and fp16"),
        (["encoder:fp16", "encoder:fp32", "decoder:q4", "decoder:int8"], None, "fp32 and int8"),
        (["encoder:fp16", "encoder:fp32", "decoder:q4", "decoder:int8"], "fp16", "fp16 and int8"),
        (["encoder:int8", "decoder:int8", "decoder:int4"], None, "int8"),
        (["encoder:int8", "decoder:int8", "decoder:int4"], "int4", "int8 and q4"),
    ],
)
def test_the_best_or_the_one_that_is_asked_for(tmp_path: Path, names: list[str], asked: str | None, used: str) -> None:
    transcriber = Transcriber(several(tmp_path / "model", *names), precision=asked)
    assert transcriber.facts["precision"] == used
    found = [
        session.path.stem for session in (transcriber._model.contract.encoder, transcriber._model.contract.decoder)
    ]
    assert " and ".join(dict.fromkeys(named_precision(name) or "fp32" for name in found)) == used


def test_on_other_providers_than_the_cpu() -> None:
    """By definition: kernels for INT8 are rare there, those for float16 fast."""
    assert (best_precision(ON_CPU, None, True), best_precision(ON_CPU, None, False)) == ("int8", "fp16")
    assert best_precision(["q4", "int8", "fp32", "q8f16"], None, False) == "q8f16"
    assert best_precision(["bf16", "fp32"], None, False) == "fp32"  # WebGPU and DirectML have no bfloat16
    assert {*ON_CPU} == {*ON_OTHERS}
    assert best_precision(["bnb4"], None, True) == "bnb4"  # rather than none


def test_a_precision_that_is_not_there(tmp_path: Path) -> None:
    folder = several(tmp_path / "model", "q4", "fp16")
    with pytest.raises(OptionError, match=r"model has no precision 'int8'; it has fp16, q4$"):
        load_model(folder, precision="int8")
    with pytest.raises(OptionError, match=r"has no precision 'q4'; it has int8$"):
        load_model(DEMO_FOLDER, precision="q4")


def test_two_that_precision_does_not_tell_apart(tmp_path: Path) -> None:
    folder = several(tmp_path / "model", "q4", "fp16")
    shutil.copy(folder / "onnx" / "encoder_model_q4.onnx", folder / "onnx" / "another.q4.onnx")
    with pytest.raises(ModelError, match=r"more than one encoder: another\.q4\.onnx, encoder_model_q4\.onnx; keep one"):
        load_model(folder)
    assert load_model(folder, precision="fp16").precision == "fp16"


def test_graphs_that_were_renamed(tmp_path: Path) -> None:
    """As voxtype's: the file with the weights keeps its name. Without one, the operators tell."""
    folder = write_merged(tmp_path / "model", SCRIPT)
    encoder = read_graph_file(folder / "onnx" / "encoder_model.onnx")
    assert graph_precision(encoder) == "fp32"
    assert graph_precision(encoder._replace(external_bytes={"encoder_model_q4f16.onnx_data": 1})) == "q4f16"
    for name in "encoder", "decoder":
        shutil.copy(DEMO_FOLDER / f"{name}.int8.onnx", tmp_path / f"{name}.onnx")
    assert graph_precision(read_graph_file(tmp_path / "encoder.onnx")._replace(external_bytes={})) == "int8"
    assert graph_precision(read_graph_file(tmp_path / "decoder.onnx")._replace(external_bytes={})) == "int8"
    weight = onnx.numpy_helper.from_array(np.zeros((64, 64), np.float16), "w")
    half = onnx.load(encoder.path)
    half.graph.initializer.append(weight)
    onnx.save(half, tmp_path / "half.onnx")
    assert graph_precision(read_graph_file(tmp_path / "half.onnx")) == "fp16"
    product = half.graph.node.add(op_type="MatMulNBits")  # the operator's default: 4 bits
    onnx.save(half, tmp_path / "half.onnx")
    assert graph_precision(read_graph_file(tmp_path / "half.onnx")) == "q4f16"
    product.attribute.append(onnx.helper.make_attribute("block_size", 4))
    product.attribute.append(onnx.helper.make_attribute("bits", 8))
    onnx.save(half, tmp_path / "half.onnx")
    assert graph_precision(read_graph_file(tmp_path / "half.onnx")) == "q8f16"
    half.graph.initializer[-1].data_type = onnx.TensorProto.BFLOAT16
    onnx.save(half, tmp_path / "half.onnx")
    assert graph_precision(read_graph_file(tmp_path / "half.onnx")) == "q8bf16"
    output = half.graph.node.add(op_type="MatMulNBits")
    output.attribute.append(onnx.helper.make_attribute("bits", 4))
    onnx.save(half, tmp_path / "half.onnx")
    assert graph_precision(read_graph_file(tmp_path / "half.onnx")) == "q4bf16"
    del half.graph.node[-2:]
    onnx.save(half, tmp_path / "half.onnx")
    assert graph_precision(read_graph_file(tmp_path / "half.onnx")) == "bf16"


def test_the_two_decoders_of_masterx(tmp_path: Path) -> None:
    """One encoder, whose keys and values both decoders can use: the one whose shapes are free is the faster on a CPU;
    the other runs where it stands alone."""
    folder = write_merged(tmp_path / "model", SCRIPT, pinned=True)
    write_merged(tmp_path / "free", SCRIPT)
    shutil.move(folder / "onnx" / "decoder_model_merged.onnx", folder / "onnx" / "decoder_model_merged_q4.onnx")
    shutil.copy(
        tmp_path / "free" / "onnx" / "decoder_model_merged.onnx", folder / "onnx" / "decoder_model_merged_q4_dyn.onnx"
    )
    transcriber = Transcriber(folder)
    assert transcriber.facts["contract"] == "merged"
    (folder / "onnx" / "decoder_model_merged_q4_dyn.onnx").unlink()
    assert Transcriber(folder).facts["contract"] == "pinned"


def test_the_folder_itself_comes_first(tmp_path: Path) -> None:
    """As transcribe-rs looks: the folder, then its onnx/."""
    folder = write_merged(tmp_path / "model", SCRIPT)
    for path in folder.glob("onnx/*.onnx"):
        shutil.copy(path, folder)
    assert load_model(folder).contract.encoder.path == folder / "encoder_model.onnx"
    assert load_model(folder / "onnx").contract.encoder.path == folder / "onnx" / "encoder_model.onnx"  # names it
    (folder / "onnx" / "tokens.txt").unlink(missing_ok=True)
    write_model(folder / "onnx", SCRIPT, max_positions=16)  # the better kind comes before the folder
    assert load_model(folder).contract.name == "static"


@pytest.mark.parametrize("kind", [write_merged, write_mems])
def test_a_list_of_tokens_is_missing(tmp_path: Path, kind) -> None:
    folder = kind(tmp_path / "a" / "model", SCRIPT)
    for name in "tokenizer.json", "vocab.txt":
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"has no tokens\.txt, nor vocabulary\.txt, .* or vocab\.json"):
        load_model(folder)


def test_files_of_other_precisions_may_be_missing(tmp_path: Path) -> None:
    """`git lfs pull --include "*q4*"` leaves pointers in place of the others."""
    folder = several(tmp_path / "model", "q4", "fp16", "")
    pointer = folder / "onnx" / "decoder_model_merged_fp16.onnx"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for asked in None, "q4":
        assert load_model(folder, precision=asked).precision == "q4"
    with pytest.raises(ModelError, match=r"merged_fp16\.onnx: not an ONNX file, but a Git LFS pointer"):
        load_model(folder, precision="fp16")


def test_a_precision_behind_the_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(tmp_path / "owner" / "name", "q4", "fp16")
    monkeypatch.chdir(tmp_path)
    assert load_model("owner/name:fp16").precision == "fp16"
    assert load_model("owner/name:fp16", precision="fp16").precision == "fp16"
    with pytest.raises(OptionError, match="owner/name:fp16 names a precision, and precision is 'q4'"):
        load_model("owner/name:fp16", precision="q4")


def test_another_precision_that_was_not_fetched(tmp_path: Path) -> None:
    """Its name holds the one that is asked for: "q4f16" is not "q4". And a folder that is called like a graph."""
    folder = write_merged(tmp_path / "model", [C] * 9 + [A, B, END])
    for path in [*folder.glob("onnx/*.onnx")]:
        path.rename(path.with_name(f"{path.stem}_q4.onnx"))
    pointer = folder / "onnx" / "decoder_model_merged_q4f16.onnx"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "onnx" / "weights.onnx").mkdir()
    assert load_model(folder, precision="q4").precision == "q4"
    with pytest.raises(ModelError, match=r"merged_q4f16\.onnx: not an ONNX file, but a Git LFS pointer"):
        load_model(folder, precision="Q4F16")


@pytest.mark.parametrize("name", ["bf16", "q8bf16"])
def test_bfloat16_is_not_for_a_cpu(tmp_path: Path, name: str) -> None:
    """By record: onnxruntime 1.32 has no product of it there, and would say so in its own words."""
    folder = write_model(tmp_path, SCRIPT, max_positions=16)
    for path in folder.glob("*.onnx"):
        path.rename(path.with_suffix(f".{name}.onnx"))
    with pytest.raises(ModelError, match=f"is {name}, which no CPU runs: use --provider cuda, or another export"):
        load_model(folder)
