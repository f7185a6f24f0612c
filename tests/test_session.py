"""Sessions: what stays bound, in which memory; providers, threads, cores."""

import ctypes
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from cohere_lite import ProviderError, model, session
from cohere_lite.devices.on_device import zeros
from cohere_lite.extras import cores
from cohere_lite.graphfile import read_graph_file
from cohere_lite.model import DEMO_FOLDER

DECODER = DEMO_FOLDER / "decoder.int8.onnx"


def opened(path: Path = DECODER) -> session.Session:
    return session.open_session(read_graph_file(path), None, lambda: session.session_options(1, True, False), "off")


def test_what_is_bound_stays_alive() -> None:
    """A value that nobody else holds. (Without it, onnxruntime <= 1.23 reads memory that is no longer ours.)"""
    loaded = opened()
    value = session.OrtValue.ortvalue_from_numpy(np.zeros((1, 4, 384, 40), np.float32))
    alive = weakref.ref(value)
    loaded.bind("past_key_0", value)
    loaded.bind("present_key_0", value)
    del value
    gc.collect()
    assert alive() is not None
    loaded.bind("past_key_0", session.OrtValue.ortvalue_from_numpy(np.zeros((1, 4, 384, 40), np.float32)))
    gc.collect()
    assert alive() is not None  # still an output
    loaded.release()
    gc.collect()
    assert alive() is None
    assert not loaded._bound


def test_what_is_fed_is_bound_anew_each_time() -> None:
    """For a GPU, binding is what copies a value there: without it, every step would see the first one's."""
    loaded = opened()
    fed = []

    def bind(name: str, value: session.OrtValue) -> None:
        fed.append((name, int(value.numpy())))

    loaded._binding = Mock(bind_ortvalue_input=bind)
    for offset in (0, 10, 11):
        loaded.feed("offset", offset)
    assert fed == [("offset", 0), ("offset", 10), ("offset", 11)]


def test_what_is_fed_has_the_graphs_type() -> None:
    loaded = opened()
    loaded.inputs["tokens"] = loaded.inputs["tokens"]._replace(dtype=np.dtype(np.int32))
    loaded.feed("tokens", [[1, 2, 3]])
    assert loaded._bound["tokens"].data_type() == "tensor(int32)"
    assert loaded._bound["tokens"].numpy().tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "kind", "device"),
    [
        ("Cpu", "DEFAULT", ("cpu", 0)),
        ("Cuda", "DEFAULT", ("cuda", 1)),
        ("CudaPinned", "HOST_ACCESSIBLE", ("cpu", 0)),
        ("CUDAPinned", "DEFAULT", ("cpu", 0)),
        ("DML", "DEFAULT", ("dml", 1)),
        ("WebGPU_Buf", "DEFAULT", ("webgpu", 1)),
        ("OpenVINO_shared_CPU", "HOST_ACCESSIBLE", ("cpu", 0)),
    ],
)
def test_memory_by_what_onnxruntime_calls_it(name: str, kind: str, device: session.Device) -> None:
    """By record: the names that providers of onnxruntime 1.32 give. The CPU's memory has one number, that of a second
    GPU's has another."""
    info = SimpleNamespace(name=name, device_id=1, device_mem_type=f"OrtDeviceMemoryType.{kind}")
    assert session._device(info) == device


def test_memory_that_is_not_known_is_an_error() -> None:
    """Caches bound in another memory than the one that kernels read give wrong text without an error."""
    with pytest.raises(ProviderError, match="uses a memory called 'Abacus'"):
        session._device(SimpleNamespace(name="Abacus", device_mem_type="OrtDeviceMemoryType.DEFAULT"))


def test_an_onnxruntime_that_cannot_tell_the_memory() -> None:
    """1.23, which opens no other provider than the CPU (test_providers.py)."""
    argument = SimpleNamespace(name="x", type="tensor(float)", shape=[1])
    assert session._values(SimpleNamespace(), DECODER, [argument], "no_such_method")["x"].device == session.CPU


def test_the_slow_fusion_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By reference: the nodes that onnxruntime runs of a sum and its layer norm, as exports by tracing have them."""
    weights = {"scale": np.ones(16, np.float32), "bias": np.zeros(16, np.float32)}
    nodes = [
        helper.make_node("Add", ["x", "y"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "bias"], ["z"], axis=-1),
    ]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 16]) for name in "xyz"}
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [values["x"], values["y"]], [values["z"]], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    make = session.session_options

    def run_as() -> list[str]:
        def saving(*how: object) -> ort.SessionOptions:
            options = make(*how)  # type: ignore[arg-type]
            options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
            return options

        with monkeypatch.context() as patch:
            patch.setattr(session, "session_options", saving)
            opened(tmp_path / "g.onnx")
        return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]

    assert run_as() == ["Add", "LayerNormalization"]
    monkeypatch.setattr(session, "SLOW_FUSIONS", [])
    assert run_as() == ["SkipLayerNormalization"]


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 7)
    assert session.session_options(None, True, False).intra_op_num_threads == 7
    assert session.session_options(3, True, False).intra_op_num_threads == 3


def test_threads_reach_both_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    make = session.session_options

    def counted(*how: object) -> ort.SessionOptions:
        options = make(*how)  # type: ignore[arg-type]
        seen.append(options.intra_op_num_threads)
        return options

    monkeypatch.setattr(model, "session_options", counted)
    model.load_model(threads=3)
    assert set(seen) == {3}


@pytest.mark.parametrize("name", ["float", "float16", "bfloat16"])
def test_zeros_of_each_type(name: str) -> None:
    """By their bytes: NumPy has no bfloat16 to look at."""
    dtype = session.DTYPES[f"tensor({name})"]
    value = zeros(session.Value((2, "n"), dtype, session.CPU), (2, 30_000))
    assert (value.data_type(), value.shape()) == (f"tensor({name})", [2, 30_000])
    assert not any(ctypes.string_at(value.data_ptr(), 60_000 * dtype.itemsize))
