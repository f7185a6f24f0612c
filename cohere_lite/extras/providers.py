"""Execution providers other than the CPU, by the names that people use."""

from collections.abc import Sequence

from ..errors import OptionError, ProviderError
from ..session import CPU_ONLY, ort

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


def find_providers(providers: Sequence[str]) -> list[str]:
    """onnxruntime's names, with the CPU last for what the others leave. Raises OptionError, ProviderError."""
    if not providers:
        raise OptionError(f"providers is {providers!r}; it must be a list such as ['cuda', 'cpu']")
    names = [PROVIDERS.get(provider, provider) for provider in providers]
    there = ort.get_available_providers()
    for provider, name in zip(providers, names, strict=True):
        if name not in PROVIDERS.values():
            raise OptionError(f"unknown provider {provider!r}; known: {', '.join(PROVIDERS)}")
        if name not in there:
            raise ProviderError(
                f"this onnxruntime ({ort.__version__}) has no {name}; it has {', '.join(there)} "
                "(another provider needs another onnxruntime package)"
            )
    return names if CPU_ONLY[0] in names else names + CPU_ONLY
