"""Whether what was opened computes what it should, tried at load: for every provider but the CPU, where nobody else
would notice, and for the CPU when asked.

Two things have been seen to go wrong without an error: caches bound in a memory that kernels do not use, so that each
step sees what an earlier clip left instead of the tokens before it; and kernels that compute garbage. The text is
fluent in both cases, and wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..contracts.contract import Clip, Contract
from ..contracts.fast import FastContract
from ..decode import NOT_NUMBERS
from ..errors import ModelError, ProviderError, logger
from ..graphfile import GraphFile, read_graph_file
from ..mel import SAMPLE_RATE
from ..model import DEMO_FOLDER
from ..session import Session, ort
from .masked import MaskedEncoder, unmasked
from .on_device import on_device

GOLDEN_FOLDER = DEMO_FOLDER.with_name("golden")  # tools/golden_model makes it
GOLDEN_PRECISIONS = ("int8", "int4", "fp32", "fp16", "q8f16", "q4f16")
GOLDEN_TOKENS = np.array([[18, 4, 5, 13, 40, 23, 31]])
N_PROMPT = 3  # tokens that are fed at once; the others come one by one

# How far logits may be apart, as a part of their spread (_apart). By measurement:
# - Caches, one by one against all at once: float32 4e-6, float16 and blocks of 4 bits 0.008, our INT8 0.012. Published
#   INT8 decoders have one scale for all that is fed, which moves with the number of tokens: 0.067. At full size, with
#   random weights: float16 4e-4, 4 bits 0.019, INT8 0.016, published INT8 0.039. With caches of the embedded model in
#   the wrong memory 0.73, on WebGPU 0.62.
MAX_APART, MAX_APART_INT8 = 0.05, 0.2
# - Golden numbers: float32 5e-7, float16 and weights in blocks 0.0031, OpenVINO's bfloat16 0.0073, INT8 0.025 (x86 with
#   VNNI, with AVX2, with SSE alone; ARM with dot products and with i8mm). With the output of one operator halved 0.06
#   and more; of SME's INT8 kernels under an emulator 0.58.
MAX_OFF, MAX_OFF_INT8 = 0.015, 0.05


def check_model(
    contract: Contract, precision: str, provider: str, on_cpu: bool, open_graph: Callable[[GraphFile], Session]
) -> None:
    """precision: of the model;  provider: as the user calls it;  open_graph: opens a graph as the model's were.

    Raises ModelError, on another provider than the CPU ProviderError, if caches or kernels fail the test, or do not run
    at all."""
    try:
        check_caches(contract, precision)
        check_kernels(precision, on_cpu, open_graph, isinstance(contract.encoder, MaskedEncoder))
    except ModelError as error:
        if on_cpu:
            raise
        instead = "--precision fp32, " if "16" in precision else ""  # of which OpenVINO has the better kernels
        raise ProviderError(
            f"{provider} failed the self-check: {error}; {instead}--provider cpu, or another version of {provider}, "
            "may work"
        ) from error


def check_caches(contract: Contract, precision: str) -> None:
    """Feed a clip's tokens one by one after another clip's, beside it, and all at once, which needs no caches: a
    position's logits depend on those before it alone. Raises ModelError."""
    tone = 0.3 * np.sin(0.3 * np.arange(SAMPLE_RATE // 2))
    # noise and a tone: logits that are 60 % off each other's; of two lengths, for a batch to be padded
    other, clip = contract.encode(tone.astype(np.float32)), contract.encode(golden_samples()[: SAMPLE_RATE // 4])
    tokens = np.random.default_rng(0).integers(0, contract.vocabulary_size, (2, 7))[:, : contract.max_positions]
    _step_by_step(contract, [other], tokens[:1])
    found = {"after another clip": _step_by_step(contract, [clip], tokens[1:])[-1, 0]}
    if contract.takes_batches:
        found["beside another clip"] = _step_by_step(contract, [other, clip], tokens)[-1, 1]
    contract.start([clip])
    expected = contract.step(tokens[1:])[0].copy()
    contract.start([clip])
    chosen = int(contract.choose(tokens[1:])[0][0])
    contract.release()
    allowed = MAX_APART_INT8 if "int8" in precision or precision == "unknown" else MAX_APART
    for how, logits in found.items():
        if not np.isfinite([logits, expected]).all():
            raise ModelError(NOT_NUMBERS)
        if not (apart := _apart(logits, expected)) <= allowed:
            raise ModelError(
                f"tokens fed one by one {how} give logits that are {apart:.0%} off those of the same tokens fed at "
                f"once ({allowed:.0%} allowed): the decoder does not find in its caches what it wrote there"
            )
    if not expected.max() - expected[chosen] <= allowed * expected.std():
        raise ModelError(f"the decoder chose token {chosen}, while its logits say {expected.argmax()}")


def check_kernels(
    precision: str, on_cpu: bool, open_graph: Callable[[GraphFile], Session], is_standard: bool = False
) -> None:
    """Run the golden model, in the precision nearest to the user's, and compare its logits with those recorded.

    is_standard: whether the encoder is to be made of standard operators, as the user's. Raises ModelError."""
    if not GOLDEN_FOLDER.is_dir():
        logger.info("kernels were not compared with golden numbers: cohere_lite/golden is not in this copy")
        return
    name = golden_precision(precision, on_cpu)
    try:
        expected = np.load(GOLDEN_FOLDER / "logits.npy")
        found = run_golden(GOLDEN_FOLDER, name, open_graph, is_standard)
    except ModelError as error:
        raise ModelError(f"the small {name} model of the self-check does not run: {error}") from error
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{GOLDEN_FOLDER}, the self-check's own, is not complete: {error}") from error
    allowed = MAX_OFF_INT8 if name in ("int8", "int4") else MAX_OFF  # int4's encoder is INT8
    if not (off := _apart(found, expected)) <= allowed:  # NaN, too
        raise ModelError(
            f"logits of a small {name} model are {off:.1%} off their golden numbers ({allowed:.1%} allowed): kernels "
            f"that onnxruntime {ort.__version__} chooses on this machine compute wrong numbers"
        )


def golden_precision(precision: str, on_cpu: bool) -> str:
    """The golden model's precision that uses the kernels nearest to those of a model's decoder."""
    decoder = precision.split(" and ")[-1].replace("bf16", "f16")
    if decoder.endswith("16"):
        return decoder if decoder in GOLDEN_PRECISIONS else "fp16"
    return {"fp32": "fp32", "q4": "int4"}.get(decoder, "int8") if on_cpu else "fp32"


def run_golden(
    folder: Path, name: str, open_graph: Callable[[GraphFile], Session], is_standard: bool = False
) -> NDArray[np.float32]:
    """The golden model's logits of the golden tokens, (steps, vocabulary). Raises ModelError."""
    encoder_name = "int8" if name == "int4" else name
    if is_standard:
        encoder_name = "fp16.standard" if name.endswith("16") else "fp32.standard"
    names = [f"encoder.{encoder_name}.onnx", f"decoder.{name}.onnx"]
    encoder, decoder = (open_graph(read_graph_file(folder / name)) for name in names)
    contract = on_device(FastContract, decoder)(unmasked(encoder), decoder, {})
    logits = _step_by_step(contract, [contract.encode(golden_samples())], GOLDEN_TOKENS)
    contract.release()
    return logits[:, 0]


def golden_samples() -> NDArray[np.float32]:
    """Noise, 4 s: 50 encoder frames, each unlike the others. Attention to 32 frames and more has another kernel on
    WebGPU, which is wrong on Vulkan in software (logits 2 to 13 % off; of a chirp, whose frames are alike, 0.4 %)."""
    n = np.arange(4 * SAMPLE_RATE, dtype=np.int64)
    return (0.4 * (n**3 % 65_537 / 65_537 - 0.5)).astype(np.float32)  # a permutation: 65537 is a prime, 2 modulo 3


def _step_by_step(contract: Contract, clips: list[Clip], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (steps, clips, vocabulary) after the first few tokens, and after each of the others."""
    contract.start(clips)
    steps = [tokens[:, :N_PROMPT], *tokens.T[N_PROMPT:, :, None]]
    return np.array([contract.step(fed).copy() for fed in steps])


def _apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The root mean square of their difference, as a part of the standard deviation of what is expected."""
    return float(np.sqrt(np.mean((found - expected) ** 2)) / np.std(expected))
