"""Make cohere_lite/golden/: a tiny random model and its logits, which kernels that compute garbage do not give
(cohere_lite/devices/selfcheck.py).

    python -m tools.golden_model [FOLDER]

One layer each, with every operator of the real graphs, exported by cohere_lite.export in each precision; logits are
those of the float32 graphs on the CPU (tests/test_selfcheck.py compares them with transformers'). The weights of a
matrix are 1, 3 and 8 times a power of two, which 4-bit and 8-bit blocks and float16 hold exactly: so one set of
logits is right for all precisions, and the files compress well.
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import load_file, save_file

from cohere_lite.devices.selfcheck import GOLDEN_FOLDER, GOLDEN_PRECISIONS, run_golden
from cohere_lite.export.__main__ import export
from cohere_lite.session import open_session, session_options
from tools.random_checkpoint import Shape, write_random_checkpoint

SHAPE = Shape(
    encoder_layers=1,
    encoder_width=32,
    encoder_heads=2,
    encoder_ffn=128,
    subsampling_channels=8,
    decoder_layers=1,
    decoder_width=32,
    decoder_heads=2,
    decoder_ffn=128,
    max_positions=32,
    vocab_size=64,
)
LEVELS = np.array([-3, -1, 1, 3], np.float32)
QUARTILES = np.array([-0.6745, 0, 0.6745])  # of the normal distribution


def write_golden_checkpoint(folder: Path) -> None:
    write_random_checkpoint(folder, SHAPE)
    for path in folder.glob("*.safetensors"):
        save_file({name: with_levels(name, tensor) for name, tensor in load_file(path).items()}, path)


def with_levels(name: str, tensor: np.ndarray) -> np.ndarray:
    """A matrix with a level for each quartile. The largest number of each row becomes 8 or -8, so that its blocks, of
    all of its 128 columns at most, have an exact scale; beside it comes a 3 of the other sign: kernels for CPUs without
    VNNI add two products in 16 bits, where two large weights of one sign overflow (seen: logits off by 40 %)."""
    if tensor.ndim < 2:
        return tensor
    weights = tensor.astype(np.float32).reshape(len(tensor), -1)
    levels = LEVELS[np.digitize(weights / weights.std(), QUARTILES)]
    rows, largest = np.arange(len(levels)), np.abs(weights).argmax(axis=1)
    sign = np.sign(weights[rows, largest])
    levels[rows, np.minimum(largest ^ 1, levels.shape[1] - 1)] = -3 * sign
    levels[rows, largest] = 8 * sign
    gain = 0.8 if re.search("linear_(q|k|pos)|(query|key)_net", name) else 0.4  # attention that is not the same to all
    return (levels * 2 ** np.round(np.log2(gain * levels.shape[1] ** -0.5))).reshape(tensor.shape).astype(tensor.dtype)


def share_weights(standard: Path, ordinary: Path) -> None:
    """Put an encoder of standard operators beside the ordinary one, whose weights are the same and are called alike."""
    if Path(f"{standard}.data").read_bytes() != Path(f"{ordinary}.data").read_bytes():
        raise ValueError(f"{standard} has other weights than {ordinary}")
    standard.replace(ordinary.with_suffix(".standard.onnx"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.golden_model", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=GOLDEN_FOLDER, help="default: cohere_lite/golden")
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as checkpoint:
        write_golden_checkpoint(Path(checkpoint))
        for name in GOLDEN_PRECISIONS:
            bits, is_half = name.startswith("q") and int(name[1]), name.endswith("f16")
            export(Path(checkpoint), folder, "fp16" if is_half else name, weight_bits=bits or None, max_audio_s=10)
        for name in ("fp32", "fp16"):
            export(Path(checkpoint), Path(checkpoint) / "standard", name, max_audio_s=10, standard=True)
            share_weights(Path(checkpoint) / "standard" / f"encoder.{name}.onnx", folder / f"encoder.{name}.onnx")
    # steps are checked on the user's model, and word times cannot make a text wrong
    for path in (folder / "tokens.txt", *folder.glob("step.*"), *folder.glob("align.*")):
        path.unlink()
    options = partial(session_options, 1, True, False)
    logits = run_golden(folder, "fp32", partial(open_session, opener=None, make_options=options, cache="off"))
    np.save(folder / "logits.npy", logits)
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
