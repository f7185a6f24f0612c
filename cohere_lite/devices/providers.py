"""Execution providers other than the CPU: from the names that people use to what opens a session on them.

onnxruntime has some built in, depending on its package; others are packages of their own, plugins, which it loads."""

import difflib
import importlib
import os
import pkgutil
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..errors import OptionError, ProviderError
from ..session import ort

# onnxruntime's name of each, and the package that has it.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "'onnxruntime-gpu[cuda,cudnn]'"),
    "tensorrt": ("TensorrtExecutionProvider", "'onnxruntime-gpu[cuda,cudnn]'"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-ep-openvino"),
    "webgpu": ("WebGpuExecutionProvider", "onnxruntime-ep-webgpu"),
    "mlx": ("MLXExecutionProvider", "onnxruntime-ep-mlx"),
    "qnn": ("QNNExecutionProvider", "onnxruntime-qnn"),
    "nv_tensorrt_rtx": ("NvTensorRTRTXExecutionProvider", "onnxruntime-ep-nv-tensorrt-rtx"),
}
_SYSTEMS = {"directml": "Windows", "coreml": "macOS", "mlx": "macOS"}  # where alone there is such a package
_NVIDIA = ("cuda", "tensorrt")
_NUMBERED = (*_NVIDIA, "directml")  # built in, they take an option device_id

_LOADED: dict[str, str] = {}  # plugins: onnxruntime's name of each
_OPENED: set[str] = set()  # in this process, or in one that it was forked from
_INHERITED: set[str] = set()  # those: WebGPU waits in the child, for ever, for threads of the parent's
getattr(os, "register_at_fork", lambda **_: None)(after_in_child=lambda: _INHERITED.update(_OPENED))  # POSIX


class Plan(NamedTuple):
    """What opens a session on a provider.  ep: onnxruntime's name of it;  options: the provider's own;  devices:
    OrtEpDevice, of a plugin; none of one that is built in"""

    name: str
    ep: str
    options: dict[str, str]
    devices: list[Any]


def find_plans(providers: Sequence[str]) -> list[Plan]:
    """The providers to open a session on, the preferred one first; onnxruntime's CPU provider takes what they leave.
    [] for the CPU alone. Raises OptionError; ProviderError for what is not installed, or not on this machine."""
    if not providers:
        raise OptionError(f"providers is {providers!r}; it must be a list such as ['cuda', 'cpu']")
    asked = [parse_provider(text) for text in providers]
    names = [name for name, _, _ in asked]
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"providers is {providers!r}; it names {twice[0]} twice")
    asked = asked[: names.index("cpu")] if "cpu" in names else asked  # nothing is left for those after it
    if asked and not hasattr(ort.InferenceSession, "get_input_memory_infos"):
        # bound in another memory than the one that kernels use, caches give wrong text
        raise ProviderError(
            f"onnxruntime {ort.__version__} does not tell which memory {names[0]} uses: pip install -U onnxruntime "
            "(1.24.4 or newer)"
        )
    if inherited := [name for name, _, _ in asked if name in _INHERITED]:
        raise ProviderError(
            f"{inherited[0]} was in use before this process was forked, and works in the parent alone: start processes "
            'with "spawn" or "forkserver"'
        )
    plans = []
    with quiet_log():
        for name, number, options in asked:
            plans.append(_plan(name, number, options))
            if name == "tensorrt" and "cuda" not in names:  # it leaves most of a graph, which is not for the CPU
                plans.append(_plan("cuda", number, {}))
    if len({bool(plan.devices) for plan in plans}) > 1:
        kinds = [f"{plan.name} is {'a plugin' if plan.devices else 'built in'}" for plan in plans]
        raise OptionError(f"providers is {providers!r}, but {', '.join(kinds)}, and one session takes one kind")
    _OPENED.update(plan.name for plan in plans)
    return plans


def parse_provider(text: str) -> tuple[str, int | None, dict[str, str]]:
    """ "cuda:1,key=value" -> ("cuda", 1, {"key": "value"}). Raises OptionError."""
    name, colon, rest = text.partition(":")
    items = rest.split(",") if colon else []
    number = int(items.pop(0)) if items and re.fullmatch("[0-9]+", items[0]) else None
    pairs = [item.partition("=")[::2] for item in items]
    if not re.fullmatch(r"\w+", name, re.ASCII) or not all(key and value for key, value in pairs):
        raise OptionError(f"provider {text!r} is not understood; it must be as cuda, cuda:1 or cuda:1,KEY=VALUE,...")
    name = {ep.lower(): known for known, (ep, _) in PROVIDERS.items()}.get(name.lower(), name)
    if name not in PROVIDERS and _plugin(name) is None:
        known = [*PROVIDERS, *(name for name in _plugins() if name not in PROVIDERS)]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)  # not cpu for gpu
        hint = f"; did you mean {close[0]}?" if close else ""
        raise OptionError(f"unknown provider {name!r}; known: {', '.join(known)}{hint}")
    options = dict(pairs)
    if len(options) < len(pairs):
        raise OptionError(f"provider {text!r} names an option twice")
    if name == "cpu" and colon:
        raise OptionError(f"provider {text!r}: cpu takes no device number and no options")
    return name, number, options


def _plan(name: str, number: int | None, options: dict[str, str]) -> Plan:
    if name in _NVIDIA:
        _preload_libraries()
    ep, package = PROVIDERS.get(name, ("", ""))
    devices = _devices(_LOADED.get(name, ep))  # the program, or onnxruntime itself, may have loaded the plugin
    # which is available, too, once it is loaded
    if not devices and name not in _LOADED and ep in ort.get_available_providers():
        if number is not None:
            if name not in _NUMBERED:
                raise OptionError(f"provider {name}:{number}: this onnxruntime's {name} takes no device number")
            options = {"device_id": str(number), **options}
        return Plan(name, ep, options, [])
    if not devices and (module := _plugin(name)):
        devices = _devices(_load_plugin(name, module))
        if not devices:
            raise ProviderError(f"{name}: {module} is installed, but finds no device on this machine that it could use")
    if not devices:
        needed = f"pip install {package}"
        if name in _SYSTEMS:
            needed += f", which has it on {_SYSTEMS[name]} only"
        elif name in _NUMBERED:
            needed += " in place of onnxruntime"
        raise ProviderError(
            f"{name} is not installed; this onnxruntime ({ort.__version__}) has {_built_in()}: {needed}"
        )
    if number is not None and number >= len(devices):
        there = ", ".join(f"{name}:{i}" for i in range(len(devices)))
        raise ProviderError(f"{name}:{number} is not on this machine; {there} {'are' if devices[1:] else 'is'}")
    return Plan(name, devices[0].ep_name, options, [devices[number or 0]])


def _built_in() -> str:
    return ", ".join(name for name, (ep, _) in PROVIDERS.items() if ep in ort.get_available_providers())


def _devices(ep: str) -> list[Any]:
    """Of a plugin."""
    return [found for found in ort.get_ep_devices() if found.ep_name == ep and "library_path" in found.ep_metadata]


def _plugins() -> list[str]:
    """Of plugins that are installed."""
    prefix = "onnxruntime_ep_"
    return sorted(found.name.removeprefix(prefix) for found in pkgutil.iter_modules() if found.name.startswith(prefix))


def _plugin(name: str) -> str | None:
    """The module of a plugin, if it is installed: "onnxruntime_ep_webgpu"; or "onnxruntime_qnn", an older way."""
    modules = [f"onnxruntime_ep_{name}", *([f"onnxruntime_{name}"] if name in PROVIDERS else [])]
    return next((module for module in modules if find_spec(module)), None)


def _load_plugin(name: str, module: str) -> str:
    """Once a process; onnxruntime's name of the provider. Raises ProviderError."""
    if name in _LOADED:
        return _LOADED[name]
    try:
        plugin: Any = importlib.import_module(module)
        # mlx has names of its own
        library = (plugin.get_library_path if hasattr(plugin, "get_library_path") else plugin.library_path)()
        ep = plugin.get_ep_name() if hasattr(plugin, "get_ep_name") else plugin.EP_NAME
        ort.register_execution_provider_library(ep, str(library))
    except Exception as error:  # a module that fails in any way; onnxruntime's own classes, which share no base
        if "already registered" not in str(error):  # by the program, and there is no device
            raise ProviderError(f"{name}: {module} cannot be loaded: {reason(error)}") from error
    _LOADED[name] = ep
    return str(ep)


def _preload_libraries() -> None:
    """NVIDIA's, where pip has put them: onnxruntime finds them if they are loaded already."""
    # It prints what it does not find. Not redirect_stdout, which would take what other threads print meanwhile.
    vars(ort)["print"] = lambda *said, **how: None
    try:
        ort.preload_dlls()
    finally:
        vars(ort).pop("print", None)


@contextmanager
def quiet_log() -> Iterator[None]:
    """Without onnxruntime's log on standard error, some lines of colour and source paths: we raise what is to be said.
    Afterwards the level is onnxruntime's default, as it does not tell which one was set."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)


def reason(error: Exception) -> str:
    """What onnxruntime says, in one line, without its error codes and the places in its source."""
    text = " ".join(str(error).split())
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Exception during initialization: ", "", text)
    text = re.sub(r"\S+\.(cc|cpp|h):\d+ ([^()]*::[^()]*\([^()]*\)( const)?( \[with [^\]]*\])?|\w+) ", "", text)
    return text if len(text) <= 300 else f"{text[:300]} ..."
