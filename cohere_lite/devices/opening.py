"""A graph opened on a provider other than the CPU, or one sentence that says why it cannot be."""

import ctypes
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import ModelError, ProviderError
from ..graphfile import MODEL_GRAPH, GraphFile, fields
from ..session import CPU, Options, OrtValue, Session, ort
from .providers import PROVIDERS, Plan, quiet_log, reason

# The option with which a provider records the launches of a run, and repeats them in the next ones.
_RECORDS = {"cuda": "enable_cuda_graph", "webgpu": "enableGraphCapture"}
_GRAPH_NODES, _NODE_INPUT, _NODE_OP_TYPE = 1, 1, 4  # field numbers: onnx/onnx.proto
_KEY_PADDING_MASK = 4  # which input of MultiHeadAttention it is
_GRAPH_ERRORS = ("InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel")  # onnxruntime's, of the file alone

# Operators that OpenVINO names among its 25 lines of errors, and what of them it cannot read; INT8 has both.
_UNREAD = {"DynamicQuantizeMatMul": "DynamicQuantizeMatMul", "QuickGelu": "QuickGelu in 16 bits"}
# onnxruntime says so of a node that no provider takes; the first where a plugin is asked.
_NO_KERNEL = re.compile(r"Provider type for (\w+) node|Could not find an implementation for (\w+)\(")


def open_on(plans: list[Plan], graph: GraphFile, make_options: Options) -> Session:
    """Raises ModelError, ProviderError."""
    first = plans[0]
    if first.name == "webgpu" and any(
        len(inputs) > _KEY_PADDING_MASK and inputs[_KEY_PADDING_MASK]
        for operator, inputs in _nodes(graph.path)
        if operator == b"MultiHeadAttention"
    ):
        raise ModelError(
            f"{graph.path.name} gives MultiHeadAttention a key_padding_mask, for which webgpu has no kernel: "
            "export with --precision fp16 or fp32"
        )

    records = _RECORDS.get(first.name, "")

    def opened_on(model: Path | bytes, recorded: bool = False) -> Session:
        options = make_options()
        options_of = [{key: value for key, value in plan.options.items() if key != records} for plan in plans]
        if recorded:
            options_of[0][records] = "1"
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for split.py
        providers = None
        if first.devices:
            for plan, own in zip(plans, options_of, strict=True):
                options.add_provider_for_devices(plan.devices, own)
        else:
            providers = [*((plan.ep, own) for plan, own in zip(plans, options_of, strict=True)), PROVIDERS["cpu"][0]]
        with quiet_log():
            try:
                # its own fallback to other providers prints to standard output, where the text goes
                given = model if isinstance(model, bytes) else str(model)
                session = ort.InferenceSession(given, options, providers=providers, enable_fallback=0)
            except Exception as error:  # onnxruntime's own classes share no base but this one
                raise _failure(first, graph, error) from error
        if session.get_providers()[0] != first.ep:  # it only warns, and runs on what is left
            raise _failure(first, graph, None)
        return Session(session, graph.path)

    opened = opened_on(graph.path)
    opened.beside = opened_on
    if records and first.options.get(records, "1") not in ("0", "false"):
        opened.recorded = partial(opened_on, recorded=True)
    _check_memory(first, opened)
    return opened


def _failure(plan: Plan, graph: GraphFile, error: Exception | None) -> Exception:
    """error: None where onnxruntime said nothing."""
    if error and type(error).__name__ in _GRAPH_ERRORS:
        return ModelError(f"onnxruntime {ort.__version__} cannot load {graph.path}: {reason(error)}")
    if library := _missing_library(plan):
        return ProviderError(f"{plan.name} needs {library}, which is not found: {_where_it_is(library)}")
    if unread := [held for operator, held in _UNREAD.items() if plan.name == "openvino" and operator in str(error)]:
        return ModelError(
            f"{graph.path.name} holds {unread[0]}, which OpenVINO cannot read: export with --precision fp32"
        )
    if found := _NO_KERNEL.search(str(error)):
        operator = found[1] or found[2]
        return ModelError(
            f"{graph.path.name} holds {operator} in a type for which neither {plan.name} nor the CPU has a kernel "
            "(bfloat16, unless the provider is cuda): export with --precision fp16 or fp32"
        )
    said = reason(error) if error else "onnxruntime would run it on the CPU (no such device or driver on this machine?)"
    asked = "".join(f" with {key}={value}" for key, value in plan.options.items())
    return ProviderError(f"{plan.name}{asked} cannot open {graph.path.name}: {said}")


def _missing_library(plan: Plan) -> str | None:
    """The first library that a provider built in needs and that is not there; None where the system does not tell."""
    folder = Path(ort.__file__).parent / "capi"
    for path in () if plan.devices else folder.glob(f"libonnxruntime_providers_{plan.name}.so"):
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            if found := re.match(r"(\S+): cannot open shared object file", str(error)):
                return found[1]
    return None


def _where_it_is(library: str) -> str:
    if library.startswith("libcuda.so"):
        return "it comes with NVIDIA's driver"
    if library.startswith("libnv"):  # libnvinfer, libnvonnxparser
        return "it comes with TensorRT"
    return f"pip install {PROVIDERS['cuda'][1]}"


def _check_memory(plan: Plan, opened: Session) -> None:
    """Raises ProviderError where Python cannot have values in the provider's memory: onnxruntime-webgpu."""
    for device in {value.device for value in (*opened.inputs.values(), *opened.outputs.values())} - {CPU}:
        try:
            OrtValue.ortvalue_from_shape_and_type([1], np.float32, *device)
        except RuntimeError as error:
            package = PROVIDERS[plan.name][1]
            raise ProviderError(
                f"the {plan.name} of this onnxruntime ({ort.__version__}) gives Python none of its memory: "
                f"pip install onnxruntime {package} in its place"
            ) from error


def _nodes(path: Path) -> Iterator[tuple[bytes, list[bytes]]]:
    """The operator of each node and the names of its inputs; subgraphs are left out."""
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        suppress(LookupError, ValueError),  # a damaged file, which onnxruntime will tell
    ):
        for model_field, content in fields(data, slice(0, len(data))):
            for field, node in fields(data, content) if model_field == MODEL_GRAPH else ():
                if field == _GRAPH_NODES:
                    parts = [(number, data[at]) for number, at in fields(data, node)]
                    operator = next((text for number, text in parts if number == _NODE_OP_TYPE), b"")
                    yield operator, [text for number, text in parts if number == _NODE_INPUT]
