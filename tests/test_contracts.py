"""The contracts: chosen by signature, fed what their encoders take, in the types and the memory of their graphs."""

import gc
import json
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import OrtValue
from scripted import END, A, B, C, write_model
from scripted_contracts import write_mems, write_merged

from cohere_lite import ModelError, OptionError, Transcriber
from cohere_lite.contracts import CONTRACTS
from cohere_lite.contracts.caches import Caches
from cohere_lite.contracts.contract import fixed_size
from cohere_lite.decode import decode
from cohere_lite.mel import log_mel
from cohere_lite.model import DEMO_FOLDER, load_model
from cohere_lite.session import Session, Value

SAMPLES = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)


def scripted(folder: Path, **how: str) -> Path:
    return write_model(folder, [C] * 9 + [A, B, END], max_positions=16, **how)  # type: ignore[arg-type]


def test_names_are_told_apart() -> None:
    assert [contract.name for contract in CONTRACTS] == ["fast", "static", "audio", "merged", "pinned", "mems"]


@pytest.mark.parametrize(("encoder_input", "name"), [("mel", "static"), ("audio", "audio")])
def test_the_encoder_is_fed_what_it_takes(tmp_path: Path, encoder_input: str, name: str) -> None:
    """By hand: the scripted encoder gives the mean of what it is fed: of the samples, or of their features."""
    transcriber = Transcriber(scripted(tmp_path, encoder_input=encoder_input))
    assert transcriber.facts["contract"] == name
    clip = transcriber._model.contract.encode(SAMPLES)
    mean = {"mel": log_mel(SAMPLES).mean(), "audio": SAMPLES.mean()}[encoder_input]
    np.testing.assert_allclose(clip.values["n_layer_cross_k"].numpy().ravel(), [mean, mean], rtol=1e-3, atol=1e-7)
    assert clip.seconds == 0.5
    assert transcriber.transcribe(SAMPLES, rate=16000, skip_silence=False).text == "a b"


@pytest.mark.parametrize("encoder_input", ["mel", "audio"])
def test_a_float16_encoder(tmp_path: Path, encoder_input: str) -> None:
    """By hand, as above: what is fed is rounded to 11 bits."""
    transcriber = Transcriber(scripted(tmp_path, encoder_input=encoder_input, dtype="float16"))
    features = transcriber._model.contract.features(SAMPLES)[encoder_input]
    clip = transcriber._model.contract.encode(SAMPLES)
    found = clip.values["n_layer_cross_k"].numpy().ravel()
    np.testing.assert_allclose(found, features.astype(np.float16).astype(np.float32).mean(), rtol=1e-4, atol=1e-7)
    assert transcriber.transcribe(SAMPLES, rate=16000, skip_silence=False).text == "a b"


@pytest.mark.parametrize("name", ["tokens", "offset", "in_n_layer_self_v_cache", "n_layer_cross_k"])
def test_a_decoder_that_lacks_an_input_is_another(tmp_path: Path, name: str) -> None:
    """By definition of the contract: here it goes by another name."""
    path = scripted(tmp_path) / "decoder.onnx"
    decoder = onnx.load(path)
    for node in decoder.graph.node:
        node.input[:] = ["other" if taken == name else taken for taken in node.input]
    (taken,) = [taken for taken in decoder.graph.input if taken.name == name]
    taken.name = "other"
    onnx.save(decoder, path)
    with pytest.raises(ModelError, match=r"decoder\.onnx is unknown: it takes .* and gives "):
        load_model(tmp_path)


def test_a_type_that_cannot_be_fed_is_said_at_load(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder\.onnx takes bfloat16, and not float32 or float16"):
        load_model(scripted(tmp_path, dtype="bfloat16"))


def test_batches_only_where_rows_can_be_moved(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match='batch_size is 2, but only exports of the "fast" contract'):
        Transcriber(scripted(tmp_path), batch_size=2)
    assert load_model(DEMO_FOLDER).contract.takes_batches


def test_clips_can_be_decoded_again() -> None:
    """By construction: what an interrupted run left behind changes nothing."""
    model = load_model()
    prompt, end = model.vocabulary.prompt("en"), model.vocabulary.end_of_text
    clips = [model.contract.encode(SAMPLES[: n * 1000]) for n in (4, 8, 6)]
    expected = decode(model.contract, clips, prompt, end)
    model.contract.start(clips[:2])
    model.contract.step([prompt] * 2)
    assert decode(model.contract, clips, prompt, end) == expected


def test_one_clip_is_read_where_the_encoder_wrote_it() -> None:
    contract = load_model().contract
    clip = contract.encode(SAMPLES)
    contract.start([clip])
    assert all(contract.decoder._bound[name] is value for name, value in clip.values.items())


@pytest.mark.parametrize("n_clips", [1, 2])
def test_decoded_clips_are_let_go(n_clips: int) -> None:
    """Of what the encoder gave, and of copies of it side by side, nothing stays: it may be large. What stays are the
    outputs, the caches among them."""
    model = load_model()
    clips = [model.contract.encode(SAMPLES) for _ in range(n_clips)]
    alive = [weakref.ref(value) for clip in clips for value in clip.values.values()]
    decode(model.contract, clips, model.vocabulary.prompt("en"), model.vocabulary.end_of_text)
    del clips
    gc.collect()
    assert not any(value() for value in alive)
    assert model.contract._cross == {}  # type: ignore[attr-defined]
    assert model.contract.decoder._bound.keys() <= model.contract.decoder.outputs.keys()


def test_sizes_that_a_graph_must_state() -> None:
    """By hand: axis 0, which is -2, too, has 3; axis 1 has a name; there are no others."""
    value = Value((3, "n"), np.dtype(np.float32), ("cpu", 0))
    loaded = SimpleNamespace(inputs={"x": value}, outputs={"y": value}, path=Path("decoder.onnx"))
    for name in "xy":
        assert fixed_size(loaded, name, 0) == fixed_size(loaded, name, -2) == 3  # type: ignore[arg-type]
        for axis in (1, -1, 2, -3):
            with pytest.raises(ModelError, match=f"'{name}' has shape .*, without a fixed size at axis {axis}$"):
                fixed_size(loaded, name, axis)  # type: ignore[arg-type]


def changed(folder: Path, name: str, change: Callable[[onnx.GraphProto], None]) -> Path:
    model = onnx.load(folder / name)
    change(model.graph)
    onnx.save(model, folder / name)
    return folder


def test_more_outputs_are_left_alone(tmp_path: Path) -> None:
    """An encoder that gives its input back, too."""

    def echo(graph: onnx.GraphProto) -> None:
        graph.node.append(helper.make_node("Identity", ["mel"], ["echo"]))
        graph.output.append(helper.make_tensor_value_info("echo", TensorProto.FLOAT, ["batch", 128, "t"]))

    transcriber = Transcriber(changed(scripted(tmp_path), "encoder.onnx", echo))
    assert transcriber._model.contract.encode(SAMPLES).values.keys() == {"n_layer_cross_k", "n_layer_cross_v"}
    assert transcriber.transcribe(SAMPLES, rate=16000, skip_silence=False).text == "a b"


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_more_inputs_are_told_at_load(tmp_path: Path, name: str) -> None:
    def need(graph: onnx.GraphProto) -> None:
        graph.input.append(helper.make_tensor_value_info("length", TensorProto.INT64, [1]))

    with pytest.raises(ModelError, match=rf"{name} takes length, too: not the 'static' contract's"):
        load_model(changed(scripted(tmp_path), name, need))


def test_an_encoder_of_integers_is_told_at_load(tmp_path: Path) -> None:
    """Samples of -1..1 would all be 0."""

    def of_integers(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.elem_type = TensorProto.INT64

    with pytest.raises(ModelError, match=r"encoder\.onnx takes int64, and not float"):
        load_model(changed(scripted(tmp_path, encoder_input="audio"), "encoder.onnx", of_integers))


def test_an_offset_with_an_axis(tmp_path: Path) -> None:
    """Of shape (1,) instead of (): the same words."""

    def with_axis(graph: onnx.GraphProto) -> None:
        (offset,) = (value for value in graph.input if value.name == "offset")
        offset.type.tensor_type.shape.dim.add().dim_value = 1
        for node in graph.node:
            node.input[:] = ["scalar" if name == "offset" else name for name in node.input]
        graph.node.insert(0, helper.make_node("Squeeze", ["offset"], ["scalar"]))

    transcriber = Transcriber(changed(scripted(tmp_path), "decoder.onnx", with_axis))
    assert transcriber.transcribe(SAMPLES, rate=16000, skip_silence=False).text == "a b"


KINDS = {
    "merged": write_merged,
    "merged-fp16": partial(write_merged, dtype="float16"),
    "merged-fused": partial(write_merged, fused=True),
    "merged-fused-fp16": partial(write_merged, fused=True, dtype="float16"),
    "pinned": partial(write_merged, pinned=True),
    "pinned-fp16": partial(write_merged, pinned=True, dtype="float16"),
    "mems": write_mems,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_contracts_are_fed_what_they_take(tmp_path: Path, kind: str) -> None:
    """By hand: the scripted decoders say "c" for ever if rows of the caches are not those of all positions before, or
    masks, lengths, positions or the cross-attention's keys and values are not those of this clip's first step."""
    transcriber = Transcriber(KINDS[kind](tmp_path / "model", [C] * 9 + [A, B, A, END]))
    assert transcriber.facts["contract"] == kind.partition("-")[0]
    contract = transcriber._model.contract
    assert contract.max_positions == 14  # config.json's, or the pinned caches'
    if kind != "mems":  # whose graph lays the new rows of each layer after the old ones
        assert contract._caches.in_place == ("fused" in kind or "pinned" in kind)  # type: ignore[attr-defined]
    for samples in SAMPLES, SAMPLES[::-1], SAMPLES[:3000] * 0.1:
        assert transcriber.transcribe(samples, rate=16000, skip_silence=False).text == "a b a"


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_contracts_stop_at_their_limit(tmp_path: Path, kind: str) -> None:
    """By hand: 14 positions less 10 of the prompt are 5 answers, of which the last is fed no more."""
    transcriber = Transcriber(KINDS[kind](tmp_path / "model", [C] * 9 + [A, B, A, B]))
    (segment,) = transcriber.transcribe(SAMPLES, rate=16000, skip_silence=False).segments
    assert (segment.text.split()[:4], len(segment.tokens), segment.truncated) == (["a", "b", "a", "b"], 5, True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_contracts_allocate_their_caches_once(tmp_path: Path, kind: str) -> None:
    """By address: whatever is fed or received lies in the two buffers that are there from the start."""
    contract = load_model(KINDS[kind](tmp_path / "model", [C] * 9 + [A, B, A, END])).contract
    caches = contract._caches  # type: ignore[attr-defined]
    starts = {array.ctypes.data for arrays in caches._arrays for array in arrays.values()}
    contract.start([contract.encode(SAMPLES)])
    for tokens in [[0] * 10], [[0]], [[0]]:
        contract.step(tokens)
        for length in 3, 7, 14:
            values = [*caches.inputs(length).values(), *caches.outputs(length).values()]
            assert {value.data_ptr() for value in values} <= starts


def test_nothing_of_a_clip_stays(tmp_path: Path) -> None:
    for kind, write in KINDS.items():
        model = load_model(write(tmp_path / kind, [C] * 9 + [A, B, A, END]))
        clip = model.contract.encode(SAMPLES)
        alive = [weakref.ref(value) for value in clip.values.values()]
        decode(model.contract, [clip], model.vocabulary.prompt("en"), model.vocabulary.end_of_text)
        del clip
        gc.collect()
        assert not any(value() for value in alive), kind


def test_a_cross_bias_that_the_encoder_does_not_give(tmp_path: Path) -> None:
    """By WinSTT's definition, where its padding does not fit: 0 for each encoder frame, of which there are 3 here."""
    folder = write_merged(tmp_path / "model", [C] * 9 + [A, END])

    def need(graph: onnx.GraphProto) -> None:
        graph.input.append(helper.make_tensor_value_info("cross_bias", TensorProto.FLOAT, [1, 1, 1, "frames"]))
        graph.node.append(helper.make_node("Size", ["cross_bias"], ["n_frames"]))
        graph.node.append(helper.make_node("ReduceL1", ["cross_bias"], ["sum"], keepdims=0))
        graph.output.append(helper.make_tensor_value_info("n_frames", TensorProto.INT64, []))
        graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, []))

    contract = load_model(changed(folder / "onnx", "decoder_model_merged.onnx", need)).contract
    contract.start([contract.encode(SAMPLES)])
    given = contract.decoder.call(  # type: ignore[attr-defined]
        {"cross_bias": contract._clip["cross_bias"], "position_ids": [[0]], "num_logits_to_keep": 1, "input_ids": [[0]]}  # type: ignore[attr-defined]
        | {"attention_mask": [[1]], "encoder_hidden_states": np.zeros((1, 3, 2))}
        | dict.fromkeys([name for name in contract.decoder.inputs if name.startswith("past")], np.zeros((1, 2, 0, 8))),
        {"n_frames": ("cpu", 0), "sum": ("cpu", 0)},
    )
    assert [int(given[name].numpy()) for name in ("n_frames", "sum")] == [3, 0]


def test_an_encoder_of_another_type_than_the_decoder(tmp_path: Path) -> None:
    """Encoder and decoder of different precisions: here the decoder takes float16, rounded to 11 bits."""
    folder = scripted(tmp_path, encoder_input="audio")

    def half(graph: onnx.GraphProto) -> None:
        for value in graph.input:
            if value.name.startswith("n_layer_cross"):
                value.type.tensor_type.elem_type = TensorProto.FLOAT16

    transcriber = Transcriber(changed(folder, "decoder.onnx", half))
    clip = transcriber._model.contract.encode(SAMPLES * np.float32(0.1) + 0.3)
    value = clip.values["n_layer_cross_k"].numpy()
    assert value.dtype == np.float16
    mean = (SAMPLES * np.float32(0.1) + 0.3).mean()
    np.testing.assert_allclose(value.ravel(), [mean, mean], rtol=2**-11)
    assert transcriber.transcribe(SAMPLES, rate=16000, skip_silence=False).text == "a b"


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_encoder_that_gives_no_numbers(tmp_path: Path, number: float) -> None:
    """Seen in front ends inside of the graph: said, and never printed as words, which this decoder would have."""

    def spoil(graph: onnx.GraphProto) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(number), "spoil"))
        graph.node[-1].op_type = "Add"
        graph.node[-1].input.append("spoil")

    transcriber = Transcriber(changed(scripted(tmp_path, encoder_input="audio"), "encoder.onnx", spoil))
    with pytest.raises(ModelError, match=r"encoder\.onnx gave NaN for 0\.50 s of audio"):
        transcriber.transcribe(SAMPLES, rate=16000, skip_silence=False)


@pytest.mark.parametrize(
    ("write", "shape"),
    [
        (scripted, ["b", 80, "t"]),
        (partial(write_merged, script=[A]), ["b", 128, 3000]),
        (partial(write_mems, script=[A]), [1, 64, "t"]),
    ],
)
def test_features_of_another_model(tmp_path: Path, write: Callable[..., Path], shape: list[int | str]) -> None:
    """Whisper's graphs have the names of "static" (sherpa-onnx's) or "merged" (Optimum's), Canary's those of "mems"."""
    folder = write(tmp_path / "model")
    (path,) = [path for path in folder.rglob("*.onnx") if "encoder" in path.name]
    encoder = onnx.load(path)
    for dim, size in zip(encoder.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        setattr(dim, "dim_value" if isinstance(size, int) else "dim_param", size)
    del encoder.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(encoder, path)
    with pytest.raises(ModelError, match=r"takes \w+ \[.*\], another model's: Cohere Transcribe has 128 mel bins"):
        load_model(folder)


def test_caches_of_whisper(tmp_path: Path) -> None:
    """sherpa-onnx's Whisper has the same names; its caches are not by head: (layers, B, positions, width)."""

    def flat(graph: onnx.GraphProto) -> None:
        for value in [*graph.input, *graph.output]:
            if "self" in value.name:
                del value.type.tensor_type.shape.dim[2]

    with pytest.raises(ModelError, match=r"takes caches \[1, 'batch', 16, 2\], and not one by head: another model's"):
        load_model(changed(scripted(tmp_path), "decoder.onnx", flat))


def test_canary(tmp_path: Path) -> None:
    """Its graphs have the names of "mems", its vocabulary the same special tokens; but no pieces for bytes (published
    as istupakov/canary-1b-v2-onnx)."""
    folder = write_mems(tmp_path / "model", [A])
    vocab = folder / "vocab.txt"
    vocab.write_text(vocab.read_text(encoding="utf-8").replace("<0x00>", "<|spkchange|>"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"vocab\.txt has no pieces for bytes .*: Canary's"):
        load_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_caches_in_the_memory_of_a_device(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is made of the CPU's memory, where new values are full of NaN: what a step gives must be what the next
    is fed. The kinds that go in place do so there, too."""

    def new(shape, dtype, *device) -> OrtValue:
        assert device == ("cuda", 1)
        return on_cpu(np.full(tuple(shape), np.nan, dtype))

    on_cpu = OrtValue.ortvalue_from_numpy
    folder = KINDS[kind](tmp_path / "model", [C] * 9 + [A, B, A, END])
    in_place = load_model(folder).contract._caches.in_place  # type: ignore[attr-defined]
    copied = {("cpu", 0): lambda array: array, ("cuda", 1): np.copy}
    monkeypatch.setattr(
        OrtValue, "ortvalue_from_numpy", lambda array, *device: on_cpu(copied[device or ("cpu", 0)](array))
    )
    monkeypatch.setattr(OrtValue, "ortvalue_from_shape_and_type", new)
    before = Caches.__init__

    def on_a_device(self: Caches, decoder: Session, names, shape, axis: int) -> None:
        decoder = SimpleNamespace(inputs={name: v._replace(device=("cuda", 1)) for name, v in decoder.inputs.items()})
        before(self, decoder, names, shape, axis)

    monkeypatch.setattr(Caches, "__init__", on_a_device)
    transcriber = Transcriber(folder)
    assert transcriber._model.contract._caches.in_place == in_place  # type: ignore[attr-defined]
    for samples in SAMPLES, SAMPLES[::-1]:
        assert transcriber.transcribe(samples, rate=16000, skip_silence=False).text == "a b a"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_failed_clip_leaves(tmp_path: Path, kind: str) -> None:
    """NaN in all buffers changes nothing of the next clip."""
    model = load_model(KINDS[kind](tmp_path / "model", [C] * 9 + [A, B, A, END]))
    caches = model.contract._caches  # type: ignore[attr-defined]
    for _ in range(2):
        caches.fill(lambda shape: np.full(shape, np.nan))
        caches.turn()
    found = decode(model.contract, [model.contract.encode(SAMPLES)], model.vocabulary.prompt("en"), END)
    assert found[0].tokens == (A, B, A)


@pytest.mark.parametrize("value", ["abc", -5, 1, 10**9, [1], 16.5, None, True])
@pytest.mark.parametrize(("kind", "key"), [("merged", "max_position_embeddings"), ("mems", "max_sequence_length")])
def test_a_limit_that_is_none(tmp_path: Path, kind: str, key: str, value: object) -> None:
    folder = KINDS[kind](tmp_path / "model", [A])
    (folder / "config.json").write_text(json.dumps({key: value}))
    with pytest.raises(ModelError, match=rf"config\.json says {key} .*: no number of tokens"):
        load_model(folder)


@pytest.mark.parametrize("text", ["[", "[" * 100_000, "[]", "7", "version https://git-lfs.github.com/spec/v1"])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    folder = write_merged(tmp_path / "model", [A])
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json: not (JSON|a JSON object|a configuration, but a Git LFS po)"):
        load_model(folder)


def test_a_config_of_another_model(tmp_path: Path) -> None:
    """Parakeet's and older Canaries' have 80."""
    folder = write_mems(tmp_path / "model", [A])
    (folder / "config.json").write_text('{"features_size": 80}')
    with pytest.raises(ModelError, match=r"config\.json says features_size 80; Cohere Transcribe has 128 mel bins"):
        load_model(folder)


def test_an_encoder_and_a_decoder_of_different_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder\.onnx gives n_layer_cross_. .* 2\], decoder\.onnx takes .* 3\]: f"):
        load_model(write_model(tmp_path, [A, END], max_positions=16, decoder_width=3))
