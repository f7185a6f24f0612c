"""What the products and the memory alone would take: the encoder and the decoder with everything else left out.

python -m tools.bench.floors MODELS_ROOT     (started by python -m tools.bench; prints one JSON object)
"""

import json
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort

from cohere_lite.export.graph import Graph

from .models import Models
from .runtimes import THREADS
from .worker import median

ENCODER_SAMPLE = 2  # layers built and timed: 75 MB of weights, beyond the caches; the others cost the same
ENCODER_ROWS = {10: 125, 30: 375}  # seconds of audio: encoder frames
REPEATS = 9


def main() -> int:
    models = Models(Path(sys.argv[1]), ())
    shape = models.shape
    width, ffn = shape.encoder_width, shape.encoder_ffn
    encoder = [(width, ffn), (ffn, width), (width, 3 * width), (width, width), (width, 2 * width), (width, width)]
    encoder += [(width, ffn), (ffn, width)]
    width, ffn = shape.decoder_width, shape.decoder_ffn
    decoder = [(width, 3 * width), *[(width, width)] * 3, (width, ffn), (ffn, width)] * shape.decoder_layers
    decoder.append((width, shape.vocab_size))
    found: dict[str, float] = {}
    layers = shape.encoder_layers / ENCODER_SAMPLE
    spent = products("int8", encoder * ENCODER_SAMPLE, list(ENCODER_ROWS.values()))
    found |= {f"encoder_{seconds}_s": layers * value for seconds, value in zip(ENCODER_ROWS, spent, strict=True)}
    for name, product in (("int8", "int8b"), ("int4", "int4b")):
        found[f"token_{name}"] = products(product, decoder, [1])[0]
    found["bytes_per_s"] = bandwidth()
    found["token_bytes"] = (models.folder("int8") / "decoder.int8.onnx.data").stat().st_size / found["bytes_per_s"]
    json.dump(found, sys.stdout)
    return 0


def products(kind: str, shapes: list[tuple[int, int]], row_counts: list[int]) -> list[float]:
    """Seconds for x (rows, n_in) times a matrix of its own for each of the shapes, as cohere_lite/export writes
    products, for each of the numbers of rows."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        graph = Graph(Path(folder) / "products.onnx", kind)
        inputs = {n_in: graph.input(f"x{n_in}", "float32", ["rows", n_in]) for n_in in {n_in for n_in, _ in shapes}}
        for i, (n_in, n_out) in enumerate(shapes):
            weight = random.standard_normal((n_in, n_out), np.float32)
            product = graph.linear(f"product{i}", inputs[n_in], weight, np.zeros(n_out, np.float32))
            graph.output(graph.node("Identity", product, out=f"y{i}"), "float32", ["rows", n_out])
        graph.save({})
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = ort.InferenceSession(str(Path(folder) / "products.onnx"), options)
    spent = []
    for rows in row_counts:
        binding = session.io_binding()
        for n_in, name in inputs.items():
            binding.bind_cpu_input(name, random.standard_normal((rows, n_in), np.float32))
        for output in session.get_outputs():
            binding.bind_output(output.name)
        spent.append(median(REPEATS, session.run_with_iobinding, binding))
    return spent


def bandwidth() -> float:
    """Bytes a second, read by all threads at once from memory that no cache holds."""
    halves = np.ones((THREADS, 2**26), np.float32)  # 256 MiB each

    def read() -> None:
        readers = [threading.Thread(target=half.sum) for half in halves]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()

    return halves.nbytes / median(REPEATS, read)


if __name__ == "__main__":
    sys.exit(main())
