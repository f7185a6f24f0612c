"""Decoding with caches in a GPU's memory (devices/on_device.py), here in the CPU's with the same calls: what comes out
is what the ordinary contract gives. tests/test_webgpu.py has a memory that NumPy cannot reach."""

import ctypes
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from cohere_lite.contracts.fast import FastContract
from cohere_lite.decode import decode
from cohere_lite.devices.on_device import DeviceContract, on_device
from cohere_lite.devices.recorded import find_step
from cohere_lite.devices.side_by_side import SideBySide, graph_bytes
from cohere_lite.errors import ProviderError
from cohere_lite.export.__main__ import export
from cohere_lite.model import Model, load_model
from cohere_lite.session import OrtValue, Session
from tools.random_checkpoint import Shape, write_random_checkpoint

PROMPT = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("random")
    write_random_checkpoint(folder, Shape(2, 64, 4, 128, 16, 9, 128, 2, 64, 4, 96, 40, 300))
    export(folder, folder / "fp32", "fp32")
    model = load_model(folder / "fp32")
    model.contract.decoder.beside = lambda graph: Session(ort.InferenceSession(graph), Path("beside.onnx"))
    return model


@pytest.fixture(scope="module")
def device_contract(model: Model) -> DeviceContract:
    return DeviceContract(model.contract.encoder, model.contract.decoder, {})


def clips_of(contract: FastContract, lengths: list[int]) -> list:
    """Of so many mel frames, 100 a second."""
    numbers = [np.random.default_rng(n).standard_normal((1, 128, n), np.float32) for n in lengths]
    return [contract.encode_features({"mel": mel}, mel.shape[2] / 100) for mel in numbers]


@pytest.mark.parametrize("lengths", [[100], [120, 80, 300, 16, 64], [50, 50]])
def test_the_same_as_on_the_cpu(model: Model, device_contract: DeviceContract, lengths: list[int]) -> None:
    """By the ordinary contract, each clip alone; twice, since the second finds what the first left."""
    for _ in range(2):
        alone = [decode(model.contract, [clip], PROMPT, 2)[0] for clip in clips_of(model.contract, lengths)]
        found = decode(device_contract, clips_of(device_contract, lengths), PROMPT, 2)
        assert [decoded.tokens for decoded in found] == [decoded.tokens for decoded in alone]
        for one, other in zip(found, alone, strict=True):
            assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-5)


def test_rows_that_end_run_on_unseen(
    model: Model, device_contract: DeviceContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each clip is made to end after a number of tokens of its own; what it says until then is the same as alone. By
    hand: all rows, eight for five clips, run until the longest has ended, 17 tokens and end-of-text."""
    ends = [13, 17, 11, 15, 13]
    clips = clips_of(device_contract, [120, 80, 300, 16, 64])
    free = [decode(device_contract, [clip], PROMPT, 2)[0].tokens for clip in clips]
    said, rows, rows_fed = [0] * 5, list(range(5)), []
    choose, keep, run = device_contract.choose, device_contract.keep, device_contract.feed

    def scripted(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, logprobs = choose(tokens)
        for row, clip in enumerate(rows):
            found[row] = 2 if said[clip] == ends[clip] else found[row]
            said[clip] += 1
        return found, logprobs

    def followed(kept: list[int]) -> list[int]:
        rows[:] = [rows[row] for row in kept]
        return keep(kept)

    def counted(tokens: np.ndarray) -> None:
        rows_fed.append(len(tokens))
        run(tokens)

    for name, replaced in {"choose": scripted, "keep": followed, "feed": counted}.items():
        monkeypatch.setattr(device_contract, name, replaced)
    found = decode(device_contract, clips, PROMPT, 2)
    assert [decoded.tokens for decoded in found] == [tokens[:end] for tokens, end in zip(free, ends, strict=True)]
    assert rows_fed == [8] * 18


def test_caches_are_allocated_once(model: Model) -> None:
    """By hand: the same buffer is past and present, at each step and for each clip."""
    device_contract = DeviceContract(model.contract.encoder, model.contract.decoder, {})
    clip = clips_of(device_contract, [80])
    device_contract.start(clip)
    bound = device_contract.decoder._bound
    address = bound["past_key_0"].data_ptr()
    assert bound["present_key_0"].data_ptr() == address
    rows = []
    for tokens in ([18, 4, 5], [7], [9]):
        device_contract.choose([tokens])
        written = np.abs(bound["past_key_0"].numpy()).max(axis=(0, 1, 3)) > 0
        rows.append(int(written.sum()))
    assert rows == [3, 4, 5]
    device_contract.start(clip)
    assert device_contract.decoder._bound["past_key_0"].data_ptr() == address


def test_logits_stay_there(device_contract: DeviceContract) -> None:
    """Only the chosen token and its log-probability are bound to the CPU's memory; logits are where they are asked
    for, and no longer for the next clip."""
    clip = clips_of(device_contract, [80])
    device_contract.start(clip)
    token, logprob = device_contract.choose([PROMPT])
    assert "logits" not in device_contract.decoder._bound
    device_contract.start(clip)
    logits = device_contract.step([PROMPT])[0].astype(np.float64)
    assert token == logits.argmax()
    assert logprob[0] == pytest.approx(-np.log(np.exp(logits - logits.max()).sum()), rel=1e-5)
    device_contract.release()
    device_contract.start(clip)
    device_contract.choose([PROMPT])
    assert "logits" not in device_contract.decoder._bound
    device_contract.release()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_side_by_side(model: Model, dtype: type) -> None:
    """By NumPy."""
    arrays = [np.random.default_rng(n).standard_normal((1, 2, n, 4)).astype(dtype) for n in (3, 5, 1)]
    lay_out = SideBySide(model.contract.decoder)
    for count in (3, 2, 3):
        found = lay_out("cross_key_0", [OrtValue.ortvalue_from_numpy(array) for array in arrays[:count]]).numpy()
        assert found.shape == (count, 2, 5, 4)
        for row, array in zip(found, arrays, strict=False):
            np.testing.assert_array_equal(row[:, : array.shape[2]], array[0])
            assert not row[:, array.shape[2] :].any()


def test_side_by_side_in_bfloat16(model: Model) -> None:
    """By NumPy; bfloat16 is the upper half of float32. The CPU, as CUDA, cannot pad it."""
    values = []
    for n in (3, 1):
        value = OrtValue.ortvalue_from_shape_and_type((1, 2, n, 4), TensorProto.BFLOAT16)
        value.update_inplace(np.full((1, 2, n, 4), 0x3F80 + n, np.uint16))
        values.append(value)
    found = SideBySide(model.contract.decoder)("cross_key_0", values)
    assert (found.element_type(), found.shape()) == (TensorProto.BFLOAT16, [2, 2, 3, 4])
    held = np.frombuffer(ctypes.string_at(found.data_ptr(), 96), np.uint16).reshape(2, 2, 3, 4)
    assert (held[0] == 0x3F83).all()
    assert (held[1, :, :1] == 0x3F81).all()
    assert not held[1, :, 1:].any()


def test_the_graph_written_by_hand_is_what_onnx_writes() -> None:
    """Byte for byte (protobuf writes fields by number): two clips of float16."""
    inputs, nodes = [], []
    for i in range(2):
        inputs.append(helper.make_tensor_value_info(f"clip_{i}", TensorProto.FLOAT16, [None] * 4))
        inputs.append(helper.make_tensor_value_info(f"pads_{i}", TensorProto.INT64, [None]))
        nodes.append(helper.make_node("Pad", [f"clip_{i}", f"pads_{i}"], [f"padded_{i}"]))
    nodes.append(helper.make_node("Concat", ["padded_0", "padded_1"], ["clips"], axis=0))
    output = helper.make_tensor_value_info("clips", TensorProto.FLOAT16, [None] * 4)
    graph = helper.make_graph(nodes, "side by side", inputs, [output])
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    expected.opset_import[0].ClearField("domain")  # empty, which is written out there
    found = onnx.load_from_string(graph_bytes(2, TensorProto.FLOAT16))
    assert found == expected
    onnx.checker.check_model(found)


def test_only_where_caches_are_in_another_memory(model: Model) -> None:
    """By definition: OpenVINO's and CoreML's values are in the CPU's."""
    decoder = model.contract.decoder
    assert on_device(FastContract, decoder) is FastContract
    elsewhere = type(
        "Elsewhere", (), {"inputs": {"past_key_0": decoder.inputs["past_key_0"]._replace(device=("cuda", 0))}}
    )
    assert on_device(FastContract, elsewhere()) is DeviceContract  # type: ignore[arg-type]


# -- steps that are recorded: here they are run anew each time, on the same buffers


@pytest.fixture(scope="module")
def recorded_contract(model: Model) -> DeviceContract:
    decoder = model.contract.decoder
    decoder.recorded = lambda path: Session(ort.InferenceSession(str(path)), path)
    try:
        return DeviceContract(model.contract.encoder, decoder, {})
    finally:
        decoder.recorded = None


@pytest.fixture
def runs(recorded_contract: DeviceContract, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which graph runs, one after the other."""
    found: list[str] = []

    def followed(name: str, session: Session) -> None:
        run = session.run

        def run_and_tell(*how: object) -> None:
            found.append(name)
            run(*how)  # type: ignore[arg-type]

        monkeypatch.setattr(session, "run", run_and_tell)

    followed("decoder", recorded_contract.decoder)
    followed("step", recorded_contract._recorded._session)  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("lengths", [[100], [120, 80, 300, 16, 64], [50, 50], [101]])
def test_recorded_steps(model: Model, recorded_contract: DeviceContract, runs: list[str], lengths: list[int]) -> None:
    """By the ordinary contract, each clip alone. The prompt goes through the decoder, every later token through the
    step's graph. In this order other numbers of clips have come between the first clip and the last."""
    for _ in range(2):
        alone = [decode(model.contract, [clip], PROMPT, 2)[0] for clip in clips_of(model.contract, lengths)]
        runs.clear()
        found = decode(recorded_contract, clips_of(recorded_contract, lengths), PROMPT, 2)
        longest = max(len(one.tokens) + (not one.truncated) for one in alone)
        assert runs == ["decoder"] + ["step"] * (longest - 1)
        assert [decoded.tokens for decoded in found] == [decoded.tokens for decoded in alone]
        for one, other in zip(found, alone, strict=True):
            assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-5)


def test_logits_of_recorded_steps(model: Model, recorded_contract: DeviceContract, runs: list[str]) -> None:
    """By the ordinary contract."""
    expected, found = [], []
    for contract, logits in ((model.contract, expected), (recorded_contract, found)):
        contract.start(clips_of(contract, [120]))  # type: ignore[arg-type]
        logits += [contract.step(fed)[0].copy() for fed in ([PROMPT], [[7]], [[9]])]
        contract.release()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert runs[-3:] == ["decoder", "step", "step"]


def test_a_recording_keeps_its_buffers(recorded_contract: DeviceContract) -> None:
    """Or the next clip would be read where the first one was: every value is bound once for a number of rows, and the
    decoder reads the encoder's output from the same buffers."""
    step, places = recorded_contract._recorded, []
    assert step is not None
    for lengths in ([100], [30, 60, 90], [200]):
        recorded_contract.start(clips_of(recorded_contract, lengths))
        recording, bound = step._recording, recorded_contract.decoder._bound
        assert recording.binding.get_outputs()  # it is bound
        for name, value in bound.items():
            if name in recording.values and name != "encoder_length":
                assert value is recording.values[name], name
        places.append({name: value.data_ptr() for name, value in recording.values.items()})
        recorded_contract.release()
    assert places[0] == places[2]
    assert len({*places[0].values(), *places[1].values()}) == 2 * (len(places[0]) - 4)  # 4: past and present are one


def test_a_clip_that_is_too_long_for_a_recording(recorded_contract: DeviceContract, runs: list[str]) -> None:
    """35 s are 438 frames; of an encoder that takes more than the decoder was exported for, nothing may be cut off."""
    assert recorded_contract._recorded.n_frames == 438  # type: ignore[union-attr]
    (clip,) = clips_of(recorded_contract, [8])
    for n_frames, expected in ((438, "step"), (439, "decoder")):
        longer = {name: np.repeat(value.numpy(), n_frames, axis=2) for name, value in clip.values.items()}
        values = {name: OrtValue.ortvalue_from_numpy(array) for name, array in longer.items()}
        recorded_contract.start([clip._replace(values=values)])
        recorded_contract.step([PROMPT])
        recorded_contract.step([[7]])
        recorded_contract.release()
        assert runs[-1] == expected


def test_what_cannot_be_recorded(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider that refuses is told of, and no graph or no such provider is nothing to tell of."""

    def refuse(path: Path) -> Session:
        raise ProviderError(f"cuda with enable_cuda_graph=1 cannot open {path.name}: a node on the CPU")

    decoder = model.contract.decoder
    assert find_step(decoder) is None
    monkeypatch.setattr(decoder, "recorded", refuse)
    with caplog.at_level("WARNING", "cohere_lite"):
        assert find_step(decoder) is None
    (told,) = caplog.messages
    assert told.startswith("steps of the decoder are launched kernel by kernel, which is slower: cuda with enable_cuda")
    assert "cannot open step.fp32.onnx" in told
    for name in ("decoder.fp16.onnx", "other.onnx"):  # the first without a step beside it
        monkeypatch.setattr(decoder, "path", decoder.path.with_name(name))
        assert find_step(decoder) is None
    assert len(caplog.messages) == 1
