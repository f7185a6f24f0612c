"""Other providers than the CPU: the names and options, what opens them, what is said where they cannot run, and which
nodes they leave to the CPU.

onnxruntime's own functions are scripted where a provider is needed that no machine of ours has. The plugins for WebGPU
and OpenVINO are used where they are installed and find a device: pip install onnxruntime-ep-webgpu
onnxruntime-ep-openvino, and for WebGPU on a CPU ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 and a software Vulkan, such as
chromium's: VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import onnxruntime as ort
import pytest
from conftest import COMMAND
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite import ModelError, OptionError, ProviderError, Transcriber
from cohere_lite.cli.options import parse_arguments
from cohere_lite.devices import opening, providers, split
from cohere_lite.devices.opening import open_on
from cohere_lite.devices.providers import PROVIDERS, Plan, find_plans, parse_provider
from cohere_lite.export.__main__ import export
from cohere_lite.graphfile import read_graph_file
from cohere_lite.model import DEMO_FOLDER
from cohere_lite.session import session_options

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
ENCODER, DECODER = (read_graph_file(DEMO_FOLDER / f"{role}.int8.onnx") for role in ("encoder", "decoder"))
EPS = {name: ep for name, (ep, _) in PROVIDERS.items()}


@pytest.fixture(autouse=True)
def any_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before 1.24 can be scripted, too."""
    if not hasattr(ort.InferenceSession, "get_input_memory_infos"):
        monkeypatch.setattr(ort.InferenceSession.__mro__[1], "get_input_memory_infos", None, raising=False)


def options() -> ort.SessionOptions:
    return session_options(1, True, False)


# -- names and options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda", ("cuda", None, {})),
        ("cuda:1", ("cuda", 1, {})),
        ("CUDAExecutionProvider:1", ("cuda", 1, {})),
        ("webgpuexecutionprovider", ("webgpu", None, {})),  # as the command's option has it
        ("tensorrt:trt_fp16_enable=1,trt_engine_cache_enable=1", "trt_fp16_enable trt_engine_cache_enable"),
        ("cuda:1,arena_extend_strategy=kSame", ("cuda", 1, {"arena_extend_strategy": "kSame"})),
        ("webgpu:ep.webgpu.x=a=b:c/d e", ("webgpu", None, {"ep.webgpu.x": "a=b:c/d e"})),
    ],
)
def test_what_is_asked_for(text: str, expected: tuple | str) -> None:
    """By hand."""
    if isinstance(expected, str):
        expected = (text.partition(":")[0], None, dict.fromkeys(expected.split(), "1"))
    assert parse_provider(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "cuda:", "cuda:x", "cuda:-1", "cuda:1,", "cuda:1,2", "cuda:a=", "cuda:=1", "cu da"]
)
def test_malformed_text(text: str) -> None:
    with pytest.raises(OptionError, match="is not understood; it must be as cuda, cuda:1 or cuda:1,KEY=VALUE"):
        parse_provider(text)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["cuba"], r"unknown provider 'cuba'; known: cpu, cuda, .*; did you mean cuda\?$"),
        (["gpu"], "unknown provider 'gpu'; known: cpu, cuda, tensorrt, [a-z_, ]*$"),
        (["cpu:1"], "'cpu:1': cpu takes no device number and no options"),
        (["cuda:a=1,a=2"], "names an option twice"),
        (["cuda:0", "cuda:1"], "names cuda twice"),
        ([], "it must be a list such as"),
    ],
)
def test_what_makes_no_sense(asked: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        find_plans(asked)


def test_the_commands_option_keeps_the_case_of_values() -> None:
    assert parse_arguments(["--provider", "CUDA:1,aB=cD", "a.wav"]).provider == "cuda:1,aB=cD"


# -- built in


@pytest.fixture
def gpu_package(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As onnxruntime-gpu: what is available, and libraries that are not found are printed. What was called."""
    called = []

    def preload_dlls() -> None:
        called.append("preload_dlls")
        exec("print('Failed to load libcublasLt.so.13')", vars(ort))  # by the function that its module has as print

    monkeypatch.setattr(ort, "get_available_providers", lambda: [EPS["tensorrt"], EPS["cuda"], EPS["cpu"]])
    monkeypatch.setattr(ort, "preload_dlls", preload_dlls)
    return called


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["cpu"], []),
        (["cpu", "cuda"], []),
        (["cuda"], [("cuda", {})]),
        (["cuda:1", "cpu"], [("cuda", {"device_id": "1"})]),
        (
            ["tensorrt:1,trt_fp16_enable=1"],
            [("tensorrt", {"device_id": "1", "trt_fp16_enable": "1"}), ("cuda", {"device_id": "1"})],
        ),
        (["tensorrt", "cuda:x=y", "cpu"], [("tensorrt", {}), ("cuda", {"x": "y"})]),
    ],
)
def test_chains(asked: list[str], expected: list, gpu_package: list[str], capfd: pytest.CaptureFixture) -> None:
    """TensorRT leaves its rest to CUDA; what either leaves goes to the CPU, and so does nothing that comes after it."""
    plans = find_plans(asked)
    assert plans == [Plan(name, EPS[name], how, []) for name, how in expected]
    assert bool(gpu_package) == bool(expected)  # the libraries that pip has installed are loaded first
    assert capfd.readouterr().out == ""
    assert "print" not in vars(ort)


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "cpu"])
def test_the_package_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [EPS["cpu"]])
    monkeypatch.setattr(providers, "find_spec", lambda module: None)
    monkeypatch.setattr(ort, "get_ep_devices", list)
    with pytest.raises(ProviderError) as caught:
        find_plans([name])
    assert (
        f"{name} is not installed; this onnxruntime ({ort.__version__}) has cpu: pip install {PROVIDERS[name][1]}"
        in str(caught.value)
    )
    assert ("in place of onnxruntime" in str(caught.value)) == (name in ("cuda", "tensorrt"))


def test_a_number_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [EPS["coreml"], EPS["cpu"]])
    with pytest.raises(OptionError, match="coreml:1: this onnxruntime's coreml takes no device number"):
        find_plans(["coreml:1"])


def test_an_onnxruntime_that_cannot_tell_the_memory(gpu_package: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.24. On the CPU it needs not."""
    monkeypatch.delattr(ort.InferenceSession.__mro__[1], "get_input_memory_infos")
    with pytest.raises(ProviderError, match=rf"{ort.__version__} does not tell which memory cuda uses: pip install -U"):
        find_plans(["cuda"])
    assert find_plans(["CPUExecutionProvider", "cuda"]) == []


# -- plugins


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
    """Installs one called abacus, with so many devices; what was registered."""

    def install(n_devices: int, source: str = "", error: str = "") -> list[tuple[str, str]]:
        registered: list[tuple[str, str]] = []
        source = source or "get_library_path = lambda: 'lib.so'\nget_ep_name = lambda: 'Abacus'"
        (tmp_path / "onnxruntime_ep_abacus.py").write_text(source)

        def register(name: str, path: str) -> None:
            if error:
                raise RuntimeError(error)
            registered.append((name, path))

        of_plugin = {"library_path": "lib.so"}
        found = [SimpleNamespace(ep_name="Abacus", number=i, ep_metadata=of_plugin) for i in range(n_devices)]
        other = SimpleNamespace(ep_name="Abacus.AUTO", number=9, ep_metadata=of_plugin)  # OpenVINO has such a one
        monkeypatch.setattr(ort, "register_execution_provider_library", register)
        monkeypatch.setattr(ort, "get_ep_devices", lambda: [other, *found] if registered else [])
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "onnxruntime_ep_abacus", raising=False)
        monkeypatch.setattr(providers, "_LOADED", {})
        available = ort.get_available_providers()  # by record: of 1.32, with a plugin once it is loaded
        monkeypatch.setattr(ort, "get_available_providers", lambda: [*available, *(["Abacus"] if registered else [])])
        return registered

    return install


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_plugin(is_listed: bool, plugin: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any that is installed."""
    if is_listed:
        monkeypatch.setitem(PROVIDERS, "abacus", ("Abacus", "onnxruntime-ep-abacus"))
    registered = plugin(2)
    first, second = find_plans(["abacus:k=v"]), find_plans(["abacus:1"])
    assert [(plan.name, plan.ep, plan.options, [d.number for d in plan.devices]) for plan in first + second] == [
        ("abacus", "Abacus", {"k": "v"}, [0]),
        ("abacus", "Abacus", {}, [1]),
    ]
    assert registered == [("Abacus", "lib.so")]  # once
    with pytest.raises(ProviderError, match="abacus:2 is not on this machine; abacus:0, abacus:1 are"):
        find_plans(["abacus:2"])
    with pytest.raises(OptionError, match=r"unknown provider 'abacas'; known: cpu.*abacus.*; did you mean abacus\?"):
        find_plans(["abacas"])


def test_a_plugin_that_the_program_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or onnxruntime itself, as 1.32 does with one for CUDA that lies beside it: no package, but devices."""
    device = SimpleNamespace(ep_name=EPS["webgpu"], ep_metadata={"library_path": "lib.so"})
    monkeypatch.setattr(ort, "get_ep_devices", lambda: [device])
    monkeypatch.setattr(ort, "get_available_providers", lambda: [EPS["webgpu"], EPS["cpu"]])
    monkeypatch.setattr(providers, "find_spec", lambda module: None)
    assert find_plans(["webgpu"]) == [Plan("webgpu", EPS["webgpu"], {}, [device])]


def test_a_plugin_with_names_of_its_own(plugin: Callable) -> None:
    """By record: onnxruntime-ep-mlx 0.31."""
    plugin(1, source="EP_NAME = 'Abacus'\ndef library_path(): return 'lib.dylib'")
    assert find_plans(["abacus"])[0].ep == "Abacus"


@pytest.mark.parametrize(
    ("n_devices", "source", "error", "message"),
    [
        (0, "", "", "abacus: onnxruntime_ep_abacus is installed, but finds no device on this machine"),
        (0, "", "already registered", "finds no device on this machine"),
        (
            1,
            "",
            "[ONNXRuntimeError] : 1 : FAIL : libcuda.so.1: cannot open",
            "cannot be loaded: libcuda.so.1: cannot open",
        ),
        (1, "import no_such_module", "", "onnxruntime_ep_abacus cannot be loaded: No module named 'no_such_module'"),
    ],
)
def test_a_plugin_that_cannot_be_used(
    plugin: Callable, n_devices: int, source: str, error: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(n_devices, source, error)
    monkeypatch.setitem(PROVIDERS, "abacus", ("Abacus", "onnxruntime-ep-abacus"))
    for _ in range(2):
        with pytest.raises(ProviderError, match=message):
            find_plans(["abacus"])


def test_a_plugin_and_one_built_in(plugin: Callable, gpu_package: list[str]) -> None:
    plugin(1)
    with pytest.raises(OptionError, match="but abacus is a plugin, cuda is built in, and one session takes one kind"):
        find_plans(["abacus", "cuda"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_cannot_use_what_its_parent_used(plugin: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """By record: with onnxruntime-ep-webgpu 0.4.0 the child waits for ever. By NVIDIA's documentation CUDA cannot be
    initialised there. One that the parent has not used can be."""
    monkeypatch.setattr(providers, "_OPENED", {"cuda"})
    plugin(1)
    find_plans(["abacus"])
    refused = {}
    for name in ("abacus", "cuda", "qnn"):
        pid = os.fork()
        if pid == 0:
            try:
                find_plans([name])
            except ProviderError as error:
                os._exit(1 if "was in use before this process was forked" in str(error) else 2)
            os._exit(3)
        refused[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert refused == {"abacus": 1, "cuda": 1, "qnn": 2}


# -- opening


class Refuses:
    """In place of InferenceSession: how it was opened, and what comes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, result: Exception | list[str]) -> None:
        self.result = result
        self.opened: list[tuple] = []
        self.levels: list[int] = []
        monkeypatch.setattr(ort, "InferenceSession", self)
        monkeypatch.setattr(ort, "set_default_logger_severity", self.levels.append)

    def __call__(self, path: str, options: ort.SessionOptions, **how: object) -> SimpleNamespace:
        assert options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"  # for the split
        self.opened.append((path, how))
        if isinstance(self.result, Exception):
            raise self.result
        return SimpleNamespace(get_providers=lambda: self.result)


def failure(plan: Plan, monkeypatch: pytest.MonkeyPatch, result: Exception | list[str]) -> Exception:
    script = Refuses(monkeypatch, result)
    with pytest.raises((ModelError, ProviderError)) as caught:
        open_on([plan], ENCODER, options)
    assert script.opened == [
        (str(ENCODER.path), {"providers": [(plan.ep, plan.options), EPS["cpu"]], "enable_fallback": 0})
    ]
    assert script.levels == [4, 2]  # silent, then onnxruntime's default again
    assert "\n" not in str(caught.value)
    return caught.value


CUDA = Plan("cuda", EPS["cuda"], {}, [])


@pytest.mark.parametrize(
    ("library", "advice"),
    [
        ("libcuda.so.1", "it comes with NVIDIA's driver"),
        ("libcublasLt.so.13", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        ("libnvinfer.so.10", "it comes with TensorRT"),
    ],
)
def test_the_library_that_is_missing(
    library: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By record: what the system says of onnxruntime-gpu 1.31 without them, when onnxruntime went on with the CPU."""
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    monkeypatch.setattr(ort, "__file__", str(tmp_path / "__init__.py"))

    def load(path: str) -> None:
        assert path.endswith("libonnxruntime_providers_cuda.so")
        raise OSError(f"{library}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(opening.ctypes, "CDLL", load)
    expected = f"cuda needs {library}, which is not found: {advice}"
    assert str(failure(CUDA, monkeypatch, [EPS["cpu"]])) == expected


@pytest.mark.parametrize(
    ("asked", "is_recorded"),
    [({}, True), ({"enable_cuda_graph": "1"}, True), ({"enable_cuda_graph": "0"}, False), ({"x": "y"}, True)],
)
def test_what_records_launches(asked: dict, is_recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the option is for the step's graph alone, whether or not somebody asks for it, and off where somebody
    says so; others are for all graphs."""
    script = Refuses(monkeypatch, [EPS["cuda"]])
    monkeypatch.setattr(opening, "Session", lambda session, path: SimpleNamespace(inputs={}, outputs={}, recorded=None))
    opened = open_on([CUDA._replace(options=asked)], ENCODER, options)
    others = {"x": "y"} if "x" in asked else {}
    assert script.opened[0][1]["providers"][0] == (EPS["cuda"], others)
    assert (opened.recorded is not None) == is_recorded
    if opened.recorded:
        opened.recorded(Path("step.onnx"))
        path, how = script.opened[1]
        assert path == "step.onnx"
        assert how["providers"][0] == (EPS["cuda"], others | {"enable_cuda_graph": "1"})
        script.result = ValueError("damaged")
        with pytest.raises(ProviderError, match=r"cannot open step\.onnx: damaged"):  # not the graph beside it
            opened.recorded(Path("step.onnx"))
        script.result = [EPS["cuda"]]
    directml = open_on([Plan("cpu", EPS["cuda"], {}, [])], ENCODER, options)
    assert directml.recorded is None


PLACE = (
    "[ONNXRuntimeError] : 11 : EP_FAIL : /src/onnxruntime/core/session/ep_plugin_provider_interfaces.cc:393 virtual "
    "std::unique_ptr<onnxruntime::IProvider> onnxruntime::PluginExecutionProviderFactory::CreateProvider(const "
    "OrtSessionOptions&, const OrtLogger&) [ONNXRuntimeError] : 11 : EP_FAIL : /src/core/webgpu_factory.cc:50 "
    "onnxruntime::WebGpuConfig onnxruntime::{anonymous}::ParseEpConfig(const onnxruntime::ConfigOptions&) "
)


@pytest.mark.parametrize(
    ("result", "options", "expected"),
    [
        ([EPS["cpu"]], {}, "cuda cannot open encoder.int8.onnx: onnxruntime would run it on the CPU"),
        (
            RuntimeError(f"{PLACE}Invalid preferred layout: bla\n\n"),
            {"preferredLayout": "bla"},
            "cuda with preferredLayout=bla cannot open encoder.int8.onnx: Invalid preferred layout: bla",
        ),
        (
            RuntimeError("shader_helper.cc:416 GenerateSourceCode Program Transpose requires f16 (1)"),
            {},
            "cuda cannot open encoder.int8.onnx: Program Transpose requires f16 (1)",
        ),
        (RuntimeError("x" * 5000), {}, f"cuda cannot open encoder.int8.onnx: {'x' * 300} ..."),
    ],
)
def test_what_onnxruntime_says(
    result: Exception | list[str], options: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By record, of the WebGPU plugin 0.4.0, shortened."""
    error = failure(CUDA._replace(options=options), monkeypatch, result)
    assert isinstance(error, ProviderError)
    assert str(error).startswith(expected)


def test_a_damaged_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime's word for it is the model's fault, whatever the provider."""
    error = failure(CUDA, monkeypatch, type("InvalidProtobuf", (Exception,), {})("Protobuf parsing failed."))
    assert isinstance(error, ModelError)
    assert str(error).endswith("encoder.int8.onnx: Protobuf parsing failed.")


@pytest.mark.parametrize(
    ("operators", "held"),
    [("QuickGelu_26\n(DynamicQuantizeMatMul)", "DynamicQuantizeMatMul"), ("QuickGelu", "QuickGelu in 16 bits")],
)
def test_openvino_reads_fp32_alone(operators: str, held: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By record: onnxruntime-openvino 1.24.1 with our INT8 and fp16 exports, shortened."""
    said = RuntimeError(f"Errors during ONNX translation:\nCheck 'false' failed\nWhile validating '{operators}'")
    error = failure(Plan("openvino", EPS["openvino"], {}, []), monkeypatch, said)
    assert str(error) == f"encoder.int8.onnx holds {held}, which OpenVINO cannot read: export with --precision fp32"


@pytest.mark.parametrize(
    "said",
    [
        "!node_provider_type.empty() was false. Provider type for MatMul node with name '' is not set.",
        "Could not find an implementation for MatMul(13) node with name ''",
    ],
)
def test_a_type_without_kernels(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By record: onnxruntime 1.32 with our bf16 export, the WebGPU plugin 0.4.0 and the CPU."""
    error = failure(Plan("webgpu", EPS["webgpu"], {}, []), monkeypatch, RuntimeError(said))
    assert isinstance(error, ModelError)
    assert str(error).startswith(
        "encoder.int8.onnx holds MatMul in a type for which neither webgpu nor the CPU has a k"
    )
    assert str(error).endswith("export with --precision fp16 or fp32")


@pytest.mark.filterwarnings("ignore:Duplicate provider")
def test_a_graph_beside_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first one: an error of ours. Here the CPU's provider stands for another."""
    monkeypatch.setattr(opening, "Session", lambda *of: SimpleNamespace(inputs={}, outputs={}))
    opened = open_on([Plan("webgpu", EPS["cpu"], {}, [])], ENCODER, options)
    with pytest.raises(ModelError, match=r"encoder\.int8\.onnx: .*[Pp]rotobuf"):
        opened.beside(b"damaged")


def test_webgpu_has_no_padding_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fail at the first step. The INT8 decoder has one, encoders and fp32 exports have none."""
    webgpu = Plan("webgpu", EPS["webgpu"], {}, [])
    with pytest.raises(
        ModelError, match=r"^decoder\.int8\.onnx gives MultiHeadAttention a key_padding_mask, for which web"
    ):
        open_on([webgpu], DECODER, options)
    export(CHECKPOINT, tmp_path, "fp32")
    for graph in ENCODER, read_graph_file(tmp_path / "decoder.fp32.onnx"):
        script = Refuses(monkeypatch, RuntimeError("opened"))
        with pytest.raises(ProviderError, match="opened"):
            open_on([webgpu], graph, options)
        assert len(script.opened) == 1


def test_memory_that_python_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """By record: onnxruntime-webgpu 1.27.0."""

    def refuse(*how: object) -> None:
        assert how[2:] == ("webgpu", 0)
        raise RuntimeError("Can't allocate memory on the CUDA device using this package of OnnxRuntime.")

    Refuses(monkeypatch, [EPS["webgpu"], EPS["cpu"]])
    value = SimpleNamespace(device=("webgpu", 0))
    monkeypatch.setattr(opening, "Session", lambda *of: SimpleNamespace(inputs={"x": value}, outputs={}))
    monkeypatch.setattr(opening.OrtValue, "ortvalue_from_shape_and_type", refuse)
    with pytest.raises(
        ProviderError, match="gives Python none of its memory: pip install onnxruntime onnxruntime-ep-web"
    ):
        open_on([Plan("webgpu", EPS["webgpu"], {}, [])], ENCODER, options)


# -- the split


def placed(**nodes: str) -> SimpleNamespace:
    """A session with these operators on these providers, a part for each node as onnxruntime has it."""
    parts = [
        SimpleNamespace(ep_name=EPS.get(name, name), get_nodes=lambda op=op: [SimpleNamespace(op_type=op)])
        for name, operators in nodes.items()
        for op in operators.split()
    ]
    return SimpleNamespace(_session=SimpleNamespace(get_provider_graph_assignment_info=lambda: parts))


QUANTISED = placed(webgpu="Conv Add Add Add", cpu="DynamicQuantizeMatMul Slice DynamicQuantizeMatMul")
CLEAN = placed(webgpu="MatMul GroupQueryAttention", cpu="Shape")
ATTENTION = placed(tensorrt="MatMul MatMul", cuda="Add", cpu="GroupQueryAttention MatMulInteger")


@pytest.mark.parametrize(
    ("encoder", "decoder", "provider", "precision", "level", "said"),
    [
        (
            *(QUANTISED, CLEAN, "webgpu:1", "int8", logging.WARNING),
            "webgpu runs 4 of 7 encoder nodes; 2 DynamicQuantizeMatMul run on the CPU: export with --precision fp16",
        ),
        (
            *(CLEAN, ATTENTION, "tensorrt", "fp32", logging.INFO),
            "tensorrt and cuda run 3 of 5 decoder nodes; 1 GroupQueryAttention and 1 MatMulInteger run on the CPU",
        ),
        (
            *(CLEAN, placed(cuda="Add", cpu="GroupQueryAttention"), "cuda", "fp32", logging.WARNING),
            "cuda runs 1 of 2 decoder nodes; 1 GroupQueryAttention run on the CPU: export with --precision fp16",
        ),
        (
            *(CLEAN, placed(cuda="Add", cpu="GroupQueryAttention"), "cuda", "q4f16", logging.INFO),
            "cuda runs 1 of 2 decoder nodes; 1 GroupQueryAttention run on the CPU",
        ),
        (
            *(CLEAN, placed(cpu="MatMulNBits"), "openvino", "q4", logging.WARNING),
            "openvino runs 0 of 1 decoder nodes; 1 MatMulNBits run on the CPU: export with --precision fp32",
        ),
        (CLEAN, CLEAN, "webgpu", "int8", None, None),
    ],
)
def test_what_the_cpu_runs(
    encoder: SimpleNamespace,
    decoder: SimpleNamespace,
    provider: str,
    precision: str,
    level: int | None,
    said: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By hand. A warning only where another export would do better."""
    caplog.set_level(logging.INFO, "cohere_lite")
    split.tell_split(SimpleNamespace(encoder=encoder, decoder=decoder), provider, precision)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == ([(level, said)] if said else [])


def test_the_record_of_the_split(caplog: pytest.LogCaptureFixture) -> None:
    """By hand."""
    caplog.set_level(logging.DEBUG, "cohere_lite")
    assert split.tell_split(SimpleNamespace(encoder=QUANTISED, decoder=CLEAN), "webgpu", "int8") == {
        "nodes": {"encoder": {"webgpu": 4, "cpu": 3}, "decoder": {"webgpu": 2, "cpu": 1}},
        "on_cpu": {"encoder": {"DynamicQuantizeMatMul": 2, "Slice": 1}, "decoder": {"Shape": 1}},
    }
    assert "encoder on webgpu: 4 nodes (3 Add, 1 Conv)" in caplog.messages
    assert "decoder on cpu: 1 nodes (1 Shape)" in caplog.messages
    for name in ("CPUExecutionProvider", "cpuexecutionprovider", "cpu"):
        assert split.tell_split(SimpleNamespace(), name, "int8") == {}


# -- in processes of their own: what reaches the descriptors


def test_stdout_stays_empty_where_a_provider_is_not_installed() -> None:
    result = subprocess.run([*COMMAND, "--provider", "nv_tensorrt_rtx", SAMPLE], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert re.match("error: (nv_tensorrt_rtx is not installed|.* not tell which memory nv_tensorrt_rtx)", result.stderr)


@pytest.mark.folder
def test_stdout_stays_empty_where_a_provider_does_not_start() -> None:
    """onnxruntime prints its own fallback to standard output. By record: onnxruntime-gpu 1.31 without its libraries."""
    program = f"""
import sys
import onnxruntime as ort
def create(self, providers, *more):
    raise RuntimeError("Please install CUDA libraries")
ort.InferenceSession._create_inference_session = create
ort.InferenceSession.get_input_memory_infos = None  # or onnxruntime 1.23 is refused before
ort.get_available_providers = lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
from cohere_lite.cli.run import main
sys.exit(main(["--provider", "cuda", {str(SAMPLE)!r}]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = "error: cuda cannot open encoder.int8.onnx: Please install CUDA libraries\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


# -- the plugins themselves


def offered(name: str) -> bool:
    """Whether the plugin is installed, and finds a device."""
    try:
        return find_spec(f"onnxruntime_ep_{name}") is not None and bool(find_plans([name]))
    except ProviderError:
        return False


webgpu = pytest.mark.skipif("not offered('webgpu')", reason="needs onnxruntime-ep-webgpu and a device for it")
openvino = pytest.mark.skipif("not offered('openvino')", reason="needs onnxruntime-ep-openvino and a device for it")


@webgpu
def test_webgpu_opens_graphs(tmp_path: Path) -> None:
    """By record: the plugin 0.4.0 runs all products and attention of an fp32 export, on memory of its own, and no INT8
    products, of which the encoder has 8 in each of 6 layers and 3 more."""
    plans = find_plans(["webgpu"])
    encoder = open_on(plans, ENCODER, options)
    assert split._operators(encoder)["cpu"]["DynamicQuantizeMatMul"] == 6 * 8 + 3
    assert encoder.outputs["cross_key_0"].device == ("webgpu", 0)
    export(CHECKPOINT, tmp_path, "fp32")
    opened = {
        role: open_on(plans, read_graph_file(tmp_path / f"{role}.fp32.onnx"), options)
        for role in ("encoder", "decoder")
    }
    assert {"MatMul", "GroupQueryAttention", "MultiHeadAttention"} <= split._operators(opened["decoder"])[
        "webgpu"
    ].keys()
    assert [n for n in opened if any(map(split._HEAVY.search, split._operators(opened[n])["cpu"]))] == []
    assert opened["decoder"].inputs["past_key_0"].device == ("webgpu", 0)
    assert opened["decoder"].inputs["tokens"].device == ("cpu", 0)


@webgpu
def test_options_that_webgpu_refuses() -> None:
    with pytest.raises(
        ProviderError, match=r"^webgpu with preferredLayout=bla cannot open encoder.*: Invalid preferred layout: bla$"
    ):
        open_on(find_plans(["webgpu:preferredLayout=bla"]), ENCODER, options)
    with pytest.raises(ProviderError, match="webgpu:9 is not on this machine; webgpu:0"):
        find_plans(["webgpu:9"])


@openvino
def test_openvino(caplog: pytest.LogCaptureFixture) -> None:
    """By record: the plugin 1.8.1 leaves INT8 products to the CPU, and shares its memory."""
    transcriber = Transcriber(providers=["openvino"], threads=1)
    assert transcriber.transcribe(SAMPLE).text == SAMPLE_TEXT
    assert transcriber.facts["on_cpu"]["encoder"]["DynamicQuantizeMatMul"] == 6 * 8 + 3
    assert "51 DynamicQuantizeMatMul run on the CPU: export with --precision fp32" in caplog.text
