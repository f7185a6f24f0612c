"""onnxruntime: the one place where it is imported, and a graph that is open.

Since 1.29 its packages send events to their maker and keep an identifier in the user's cache, on Linux and macOS too,
unless a variable is set before the first import (its Privacy.md). Whatever somebody set it to stays."""

import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from onnxruntime import OrtValue

from .errors import ModelError, OptionError, ProviderError, number
from .graphfile import GraphFile

# On the CPU, fusing a residual sum with the layer norm after it replaces two fast kernels with a slow one
# (export/norms.py).
SLOW_FUSIONS = ["SkipLayerNormFusion"]

BFLOAT16 = np.dtype("V2")  # NumPy has none: two bytes that it does not look into
_NAMED = {"float": "f4", "float16": "f2", "bfloat16": "V2", "int64": "i8", "int32": "i4", "bool": "?"}
DTYPES = {f"tensor({name})": np.dtype(dtype) for name, dtype in _NAMED.items()}
Device = tuple[str, int]  # a memory, and which of several, as OrtValue takes them
CPU: Device = ("cpu", 0)
_DEVICES = ("cpu", "cuda", "dml", "webgpu", "cann")  # OrtValue's names; those of OrtMemoryInfo begin with them


class Value(NamedTuple):
    """An input or output. shape: numbers, and names or None where the size is free;  device: the memory that kernels
    read it from or write it to."""

    shape: tuple[int | str | None, ...]
    dtype: np.dtype
    device: Device


class Session:
    """A graph that is open, and what is bound to it: a value stays bound, and alive, until another takes its place. For
    one thread at a time (turns.py)."""

    def __init__(self, session: ort.InferenceSession, path: Path) -> None:
        """Raises ModelError for inputs or outputs of a type that cannot be fed, ProviderError for an unknown memory."""
        self.path = path
        self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.inputs = _values(session, path, session.get_inputs(), "get_input_memory_infos")
        self.outputs = _values(session, path, session.get_outputs(), "get_output_memory_infos")
        self.beside: Callable[[bytes], Session] | None = None  # opens a graph on the same GPU: devices/opening.py
        self.recorded: Callable[[Path], Session] | None = None  # and one to be recorded: devices/recorded.py
        self._session = session
        self._binding = session.io_binding()
        # the binding alone does not keep the arrays behind the values alive (onnxruntime <= 1.23)
        self._bound: dict[str, OrtValue] = {}
        self._arrays: dict[str, tuple[NDArray, OrtValue]] = {}  # of `feed` and `receive`

    def bind(self, name: str, value: OrtValue) -> None:
        """Bind an input, or an output, which every run then writes there."""
        bind = self._binding.bind_ortvalue_input if name in self.inputs else self._binding.bind_ortvalue_output
        bind(name, value)
        self._bound[name] = value

    def feed(self, name: str, value: ArrayLike) -> None:
        """Copy a value to an input, in the type that the graph takes."""
        array, fed = self._array(name, np.shape(value), self.inputs[name].dtype)
        array[...] = value
        self.bind(name, fed)  # for a GPU, binding is what copies it to the device

    def receive(self, name: str, shape: tuple[int, ...]) -> NDArray:
        """The array, in the CPU's memory, that every run writes an output of this shape to."""
        array, received = self._array(name, shape, self.outputs[name].dtype)
        self.bind(name, received)
        return array

    def _array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[NDArray, OrtValue]:
        """One for each input or output, made anew when the shape changes."""
        if name not in self._arrays or self._arrays[name][0].shape != shape:
            array = np.empty(shape, dtype)
            self._arrays[name] = array, OrtValue.ortvalue_from_numpy(array)
        return self._arrays[name]

    def release(self) -> None:
        """Let go of what is bound: it may be large, and a run copies outputs to the CPU that nobody reads."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._bound = {}

    def call(
        self, feeds: Mapping[str, ArrayLike | OrtValue], outputs: Mapping[str, Device | OrtValue]
    ) -> dict[str, OrtValue]:
        """Run once on these inputs, arrays in the type that the graph takes; the outputs that are named, each written
        where its value says, or made anew on its device."""
        binding = self._session.io_binding()
        held: list[OrtValue] = []
        for name, feed in feeds.items():
            if not isinstance(feed, OrtValue):
                # not ascontiguousarray, which gives a number an axis
                feed = OrtValue.ortvalue_from_numpy(np.asarray(feed, self.inputs[name].dtype, order="C"))
            held.append(feed)
            binding.bind_ortvalue_input(name, feed)
        for name, output in outputs.items():
            if isinstance(output, OrtValue):
                binding.bind_ortvalue_output(name, output)
            else:
                binding.bind_output(name, *output)
        self.run(binding)
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def run(self, binding: ort.IOBinding | None = None, options: ort.RunOptions | None = None) -> None:
        """Run on what is bound. Raises ModelError."""
        try:
            self._session.run_with_iobinding(binding or self._binding, options)
        except Exception as error:  # onnxruntime's own classes share no base but this one
            if type(error) is not RuntimeError and not type(error).__module__.startswith("onnxruntime"):
                raise  # a signal handler's: it has nothing to do with the model
            reason = " ".join(str(error).split())
            raise ModelError(f"onnxruntime {ort.__version__} failed to run {self.path.name}: {reason}") from error


def _values(session: ort.InferenceSession, path: Path, arguments: list[ort.NodeArg], infos: str) -> dict[str, Value]:
    """infos: the method that tells which memory kernels use: bound in another, shared caches give wrong text."""
    devices = [CPU] * len(arguments)
    if hasattr(session, infos):  # before onnxruntime 1.24, which devices/providers.py therefore refuses
        devices = [_device(info) for info in getattr(session, infos)()]
    found = {}
    for argument, device in zip(arguments, devices, strict=True):
        if argument.type not in DTYPES:
            raise ModelError(f"{path}: {argument.name!r} is a {argument.type}; supported are {', '.join(DTYPES)}")
        found[argument.name] = Value(tuple(argument.shape), DTYPES[argument.type], device)
    return found


def _device(info: ort.capi.onnxruntime_pybind11_state.OrtMemoryInfo) -> Device:
    """As OrtValue knows a memory; "CudaPinned" and "OpenVINO_shared_CPU" are the CPU's, which the device reaches."""
    name = info.name.lower()
    if name == "cpu" or "pinned" in name or str(info.device_mem_type).endswith("HOST_ACCESSIBLE"):
        return CPU
    if found := [device for device in _DEVICES if name.startswith(device)]:
        return found[0], info.device_id
    raise ProviderError(f"the provider uses a memory called {info.name!r}; known: {', '.join(_DEVICES)}")


def session_options(threads: int | None, spin: bool, stop: bool) -> ort.SessionOptions:
    """threads: None for the physical cores;  spin: threads without work wait for more in a busy loop, for some 80 ms: a
    step of the decoder is then 1.2 to 1.6 times as fast, but another process on the same cores slows it down more;
    stop: at the end of each run they sleep at once, to leave the cores to the other session's. Raises OptionError."""
    # Of more, each waits for a core: the demonstration model's 11 tokens took 4 s with 100 threads on two cores, 38 s
    # with 1,000.
    most = max(64, os.cpu_count() or 1)
    if threads is not None:
        threads = number("threads", threads, f"1 to {most} on this machine", 1, most, whole=True)
    else:
        try:
            from .extras.cores import available_cores

            threads = available_cores()
        except ImportError:
            threads = 0  # onnxruntime then counts the machine's
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # fatal ones only: warnings of graph optimisation mean nothing to a user, and errors are raised
    options.log_severity_level = 4
    # A plan of memory per input shape pays for fixed shapes only: with clips of all lengths it took no less time, and
    # 515 instead of 303 MB for the full-size encoder (30 s of audio, onnxruntime 1.32).
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.force_spinning_stop", str(int(stop)))
    return options


Options = Callable[[], ort.SessionOptions]  # new ones at each call
Cache = str | PathLike[str] | None  # where prepared copies are kept: see extras/prepared.py
Opener = Callable[[GraphFile, Options, Cache], Session]  # of graphs on other providers than the CPU


def find_opener(providers: Sequence[str]) -> Opener | None:
    """None for the CPU alone. Raises OptionError, ProviderError."""
    if not isinstance(providers, (list, tuple)) or not all(isinstance(name, str) for name in providers):
        raise OptionError(f"providers is {providers!r}; it must be a list such as ['cuda', 'cpu']")
    if tuple(providers) == ("cpu",):
        return None
    try:
        from .devices.engines import opener_on
    except ImportError as error:
        needed = f"cohere_lite/devices/providers.py, which is not in this copy, or not whole ({error})"
        raise ProviderError(f"providers other than ['cpu'] need {needed}") from None
    return opener_on(providers)


def open_session(graph: GraphFile, opener: Opener | None, make_options: Options, cache: Cache) -> Session:
    """Raises ModelError, ProviderError."""
    if opener:
        return opener(graph, make_options, cache)
    try:  # prepared copies have weights packed for the CPU
        from .extras.prepared import open_prepared
    except ImportError:
        pass  # large models then take longer to open
    else:
        if prepared := open_prepared(graph, make_options, SLOW_FUSIONS, cache):
            return Session(prepared, graph.path)
    how = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": SLOW_FUSIONS}
    try:
        session = ort.InferenceSession(str(graph.path), make_options(), **how)
    except Exception as error:  # onnxruntime's own classes share no base but this one
        reason = " ".join(str(error).split())
        raise ModelError(f"onnxruntime {ort.__version__} cannot load {graph.path}: {reason}") from error
    return Session(session, graph.path)
