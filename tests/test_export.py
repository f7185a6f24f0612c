"""cohere_lite/export: the graphs compute what transformers computes, whatever the checkpoint's shape and style."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from decoding import Decoder

from cohere_lite import Transcriber
from cohere_lite.export.__main__ import export, main
from cohere_lite.export.graph import Graph, block_size, quantize_blocks, quantize_columns
from cohere_lite.model import load_model
from tools.random_checkpoint import Shape, hub_config, write_random_checkpoint

safetensors = pytest.importorskip("safetensors.numpy")

SMALL = Shape(
    encoder_layers=2,
    encoder_width=64,
    encoder_heads=4,
    encoder_ffn=128,
    subsampling_channels=16,
    decoder_layers=2,
    decoder_width=48,
    decoder_heads=3,
    decoder_ffn=96,
    max_positions=48,
    vocab_size=300,
)
SHAPES = {
    "small": SMALL,
    "one layer each": Shape(1, 32, 2, 64, 8, 9, 128, 1, 32, 2, 64, 32, 40),
    "narrow encoder, deep decoder": Shape(2, 48, 6, 80, 16, 5, 128, 5, 64, 4, 64, 64, 777),
    "real head sizes": Shape(3, 320, 2, 256, 32, 9, 128, 1, 256, 2, 128, 32, 500),
}
CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
EXTRA = ["onnx", "safetensors", "ml_dtypes", "sentencepiece"]  # the packages of the extra `export`
N_CLIPS = 50  # over all shapes, of 1 to 600 mel frames
PROMPT = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]  # ids of tools.random_checkpoint's special tokens


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_random_checkpoint(folder, SMALL)
    return folder


def features(n_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((128, n_frames), np.float32)


def step_logits(decoder: Decoder, mel: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Logits after the prompt and after each of `tokens`, (1 + len(tokens), vocabulary), fed as the runtime feeds."""
    decoder.start([mel])
    return np.array([decoder.step([fed])[0].copy() for fed in (PROMPT, *([token] for token in tokens))])


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("name", SHAPES)
def test_fp32_equals_transformers(name: str, tmp_path: Path) -> None:
    """By reference: logits within 1e-4 of the largest, greedy tokens the same, in both contracts."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = SHAPES[name]
    write_random_checkpoint(tmp_path, shape, seed=len(name))
    for contract in ("fast", "static"):
        export(tmp_path, tmp_path / contract, "fp32", contract)
    reference = transformers.CohereAsrForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    varied: set[int] = set()
    decoders = {contract: Decoder(load_model(tmp_path / contract)) for contract in ("fast", "static")}
    lengths = np.random.default_rng(1).integers(1, 600, -(-N_CLIPS // len(SHAPES)))
    for seed, n_frames in enumerate([1, 8, 9, *lengths[3:]]):
        mel = features(int(n_frames), seed)
        with torch.no_grad():
            expected = reference.generate(
                torch.from_numpy(mel.T[None].copy()),
                decoder_input_ids=torch.tensor([PROMPT]),
                max_length=shape.max_positions,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        text = expected.sequences[0, len(PROMPT) :].tolist()
        logits = torch.cat(expected.logits).numpy()
        for decoder in decoders.values():
            found = decoder.decode([mel], PROMPT)[0]
            end = [] if found.truncated else [3]
            # the reference stops at max_length tokens; the runtime still takes the logits of the last position
            assert [*found.tokens, *end][: len(text)] == text
            varied |= set(text)
            stepped = step_logits(decoder, mel, text[:-1])
            assert np.abs(stepped - logits).max() <= 1e-4 * np.abs(logits).max()
    assert len(varied) > 10  # else the comparison of tokens says little


@pytest.mark.reference
def test_names_and_config_of_both_styles_give_the_same_graph(checkpoint: Path, tmp_path: Path) -> None:
    """By construction: one checkpoint, saved by transformers too, and with the hub's nested config."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    export(checkpoint, tmp_path / "sharded")

    model = transformers.CohereAsrForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "saved")
    own_names = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    (tmp_path / "own").mkdir()
    safetensors.save_file(own_names, tmp_path / "own" / "model.safetensors")
    (tmp_path / "own" / "config.json").write_text((checkpoint / "config.json").read_text())
    (tmp_path / "saved" / "config.json").write_text(json.dumps(hub_config(SMALL)))
    for folder in ("saved", "own"):
        (tmp_path / folder / "tokens.txt").write_text((checkpoint / "tokens.txt").read_text())
        export(tmp_path / folder, tmp_path / folder / "onnx")
        for file in sorted((tmp_path / "sharded").iterdir()):
            assert (tmp_path / folder / "onnx" / file.name).read_bytes() == file.read_bytes(), (folder, file.name)


@pytest.mark.parametrize("contract", ["fast", "static"])
@pytest.mark.parametrize(
    ("precision", "pointwise", "limit"), [("int8", "int8", 0.08), ("int8", "fp32", 0.08), ("int4", None, 0.45)]
)
def test_quantised_stays_near_fp32(
    checkpoint: Path, tmp_path: Path, contract: str, precision: str, pointwise: str | None, limit: float
) -> None:
    """By record: root mean square error of the logits 0.029 to 0.043 of theirs, with an INT4 decoder 0.29; with INT8
    scales 10 % too small it was 0.18."""
    export(checkpoint, tmp_path / "fp32", "fp32", contract)
    export(checkpoint, tmp_path / "quantised", precision, contract, pointwise)
    exact, quantised = (
        step_logits(Decoder(load_model(tmp_path / p)), features(250), [30, 31]) for p in ("fp32", "quantised")
    )
    error = np.sqrt(np.mean((quantised - exact) ** 2) / np.mean(exact**2))
    print(f"error {contract} {precision} {pointwise}: {error:.3f}")
    assert 1e-4 < error < limit


def test_int4_is_for_the_decoder(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path, "int4")
    assert {path.name for path in tmp_path.glob("*.onnx")} == {"encoder.int8.onnx", "decoder.int4.onnx"}


def test_quantize_columns() -> None:
    """By hand: a column's largest magnitude becomes 127; rounding is to the nearest; zeros stay."""
    weight = np.array([[1.0, 0.0, -254.0], [-0.5, 0.0, 3.0]], np.float32)
    quantized, scale = quantize_columns(weight)
    np.testing.assert_array_equal(quantized, [[127, 0, -127], [-64, 0, 2]])  # -63.5 and 1.5 to even
    np.testing.assert_allclose(scale, [1 / 127, 1, 2])


def test_quantize_blocks() -> None:
    """By hand: the largest magnitude of a block becomes -128 (4 bits: -8), its sign in the scale; the middle is added;
    4-bit numbers in pairs, low half first. A row of 33 has two blocks of 32, the second one nearly all padding."""
    weight = np.zeros((2, 33), np.float32)
    weight[0, :3] = [1, -0.5, 0.25]
    weight[1, 32] = -3
    stored, scale = quantize_blocks(weight, 8)
    assert stored.shape == (2, 2, 32)
    assert stored[0, 0, :4].tolist() == [0, 192, 96, 128]
    assert stored[1, 1, :2].tolist() == [0, 128]
    assert (stored[0, 1] == 128).all()
    np.testing.assert_array_equal(scale, [[-1 / 128, 1], [1, 3 / 128]])

    stored, scale = quantize_blocks(weight, 4)
    assert stored.shape == (2, 2, 16)
    assert stored[0, 0, :3].tolist() == [0 | 12 << 4, 6 | 8 << 4, 8 | 8 << 4]
    assert stored[1, 1, :2].tolist() == [0 | 8 << 4, 8 | 8 << 4]
    np.testing.assert_array_equal(scale, [[-1 / 8, 1], [1, 3 / 8]])


@pytest.mark.parametrize(("n_in", "size"), [(1024, 128), (4096, 128), (320, 64), (160, 32), (33, 32), (1, 32)])
def test_block_size(n_in: int, size: int) -> None:
    """By hand: the largest of 128, 64 and 32 that divides a row."""
    assert block_size(n_in) == size


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("n_in", [256, 33])
def test_block_product(tmp_path: Path, bits: int, n_in: int) -> None:
    """By formula: activations of one value a block are exact in INT8: the product is that with the stored weights."""
    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((n_in, 48), np.float32), random.standard_normal(48).astype(np.float32)
    graph = Graph(tmp_path / "product.onnx", f"int{bits}b")
    product = graph.linear("linear", graph.input("x", "float32", ["rows", n_in]), weight, bias)
    graph.output(graph.node("Identity", product, out="y"), "float32", ["rows", 48])
    graph.save({})

    stored, scale = quantize_blocks(weight.T, bits)
    if bits == 4:
        stored = np.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:2], -1)
    exact = ((stored.astype(np.float32) - 2 ** (bits - 1)) * scale[..., None]).reshape(48, -1)[:, :n_in].T
    assert np.abs(exact - weight).max() <= np.abs(weight).max() / 2 ** (bits - 1) * 1.01  # a step
    x = np.repeat(random.standard_normal((3, stored.shape[1]), np.float32), block_size(n_in), axis=1)[:, :n_in]
    session = ort.InferenceSession(tmp_path / "product.onnx")
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ exact + bias, rtol=1e-4, atol=1e-4)


def test_padding_is_masked(checkpoint: Path, tmp_path: Path) -> None:
    """By construction: encoder_length hides what follows it, for each clip of a batch its own."""
    export(checkpoint, tmp_path, "fp32")
    session = ort.InferenceSession(tmp_path / "decoder.fp32.onnx")
    random = np.random.default_rng(0)
    inputs = {value.name: value.shape for value in session.get_inputs()}

    def logits(batch: int, frames: int, lengths: list[int], cross: dict[str, np.ndarray]) -> np.ndarray:
        feed = {"tokens": np.array([PROMPT] * batch), "offset": np.array(0), "encoder_length": np.array(lengths)}
        past = {name: np.zeros((batch, *shape[1:]), np.float32) for name, shape in inputs.items() if "past" in name}
        return session.run(["logits"], feed | past | cross)[0]

    def shape_of(name: str, batch: int, frames: int) -> list[int]:
        return [{"batch": batch, "encoder_frames": frames}.get(size, size) for size in inputs[name]]

    cross_names = [name for name in inputs if "cross" in name]
    cross = {name: random.standard_normal(shape_of(name, 2, 12), np.float32) for name in cross_names}
    both = logits(2, 12, [12, 7], cross)
    for clip, length in enumerate([12, 7]):
        cut = {name: value[clip : clip + 1, :, :length] for name, value in cross.items()}
        np.testing.assert_allclose(both[clip : clip + 1], logits(1, length, [length], cut), atol=1e-5)


def test_weights_nobody_asked_for_are_an_error(checkpoint: Path, tmp_path: Path) -> None:
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    safetensors.save_file({"encoder.layers.0.adapter.weight": np.ones(3, np.float32)}, tmp_path / "extra.safetensors")
    for file in checkpoint.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    index["weight_map"]["encoder.layers.0.adapter.weight"] = "extra.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"1 tensors .* not used, e\.g\. encoder\.layers\.0\.adapter\.weight"):
        export(tmp_path, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda folder: (folder / "tokens.txt").write_text("▁ 0\n", encoding="utf-8"),
            "the vocabulary lists 1 tokens, the model knows ",
        ),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "tokens.txt").unlink(), "none of tokens.txt, tokenizer.json, tokenizer.model"),
        (lambda folder: (folder / "model.safetensors.index.json").unlink(), "neither model.safetensors nor"),
        (lambda folder: (folder / "config.json").write_text("{}"), "neither `transf_decoder`"),
    ],
)
def test_incomplete_checkpoint(checkpoint: Path, tmp_path: Path, capsys, break_it, message: str) -> None:
    for file in checkpoint.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    break_it(tmp_path)
    assert main([str(tmp_path), str(tmp_path / "onnx")]) == 1
    assert message in capsys.readouterr().err


def test_a_clip_longer_than_the_position_table(checkpoint: Path, tmp_path: Path) -> None:
    """By formula: 10 s are 1000 mel frames, 125 encoder frames. The graph takes no more, and says so; the runtime does
    not ask it to: by cut.Chunks, silence is cut 5 s before the limit."""
    export(checkpoint, tmp_path, "fp32", max_audio_s=10)
    session = ort.InferenceSession(tmp_path / "encoder.fp32.onnx")
    assert session.run(["cross_value_0"], {"mel": features(1000)[None]})[0].shape[2] == 125
    with pytest.raises(Exception, match="GatherElements"):
        session.run(None, {"mel": features(1001)[None]})
    transcript = Transcriber(tmp_path).transcribe(np.zeros(12 * 16000, np.float32), rate=16000)
    assert [(segment.start, segment.end) for segment in transcript.segments] == [(0, 5), (5, 12)]
    for max_audio_s in (9, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"max_audio_s is {max_audio_s}; cutting long audio"):
            export(checkpoint, tmp_path, max_audio_s=max_audio_s)


@pytest.mark.parametrize("contract", ["fast", "static"])
def test_a_contract_has_one_name(checkpoint: Path, tmp_path: Path, contract: str) -> None:
    """By construction: what is asked for, what the files say and what the runtime finds."""
    export(checkpoint, tmp_path, contract=contract)
    for graph in tmp_path.glob("*.onnx"):
        assert ort.InferenceSession(graph).get_modelmeta().custom_metadata_map["contract"] == contract
    assert load_model(tmp_path).contract.name == contract


def test_an_unknown_contract(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contract is 'sherpa'; it must be one of fast, static"):
        export(checkpoint, tmp_path / "onnx", contract="sherpa")
    assert not (tmp_path / "onnx").exists()


def without(packages: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process where these packages cannot be imported."""
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({packages})); "
    code += "runpy.run_module('cohere_lite.export', run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.folder
def test_help_needs_no_extra() -> None:
    result = without([*EXTRA, "torch"], "--help")
    assert result.stdout.startswith("usage: python -m cohere_lite.export ")
    assert "--contract {fast,static}" in result.stdout
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.folder
@pytest.mark.parametrize("package", EXTRA)
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path, package: str) -> None:
    """The demonstration model's checkpoint needs all of them: bfloat16 weights, a SentencePiece tokenizer."""
    for file in CHECKPOINT.iterdir():
        if file.name != "tokens.txt":
            shutil.copy(file, tmp_path)
    result = without([package], str(tmp_path), str(tmp_path / "onnx"))
    assert result.returncode == 1
    assert package in result.stderr
    assert result.stderr.endswith("the export needs: pip install 'cohere-lite[export]'\n")
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("onnx/*"))


def test_nothing_is_left_of_an_export_that_fails(checkpoint: Path, tmp_path: Path, capsys) -> None:
    """A shard cut in half: one line says what is wrong, and no file looks like a model."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in checkpoint.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    shard = copy / "model-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert main([str(copy), str(tmp_path / "onnx")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {shard}: not a safetensors file, or damaged (")
    assert not (tmp_path / "onnx").exists()
