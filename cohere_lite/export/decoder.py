"""The Transformer decoder as a graph, in two contracts that differ in how they keep keys and values.

fast    One buffer per layer, past and present sharing it (GroupQueryAttention writes the new row in place); cross
        keys and values arrive by head; a length per clip masks the padding of a batch; logits of the last position
        only. A clip's numbers do not depend on the others in a batch. Graphs for accelerators mask by what is added to
        the scores, and give the likeliest token and its log-probability, too.
static  The published contract, read by position by sherpa-onnx: all layers stacked in one tensor. Attention reads
        only the filled part of the past, and one scatter per step writes the new rows, so a runtime may bind the
        same buffer as input and output: rows are written at positions >= offset and read only below.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from .graph import BLOCK_BITS, CONTRIB, MASKED, Graph, StoredBlocks
from .matrix import Blocks, Columns, Matrix, dense, same, scaled, side_by_side
from .norms import add_and_norm, layer_norm
from .source import Source

# (layer, query/key/value (B, n, 3 width)) -> (B, n, width), and (layer, query (B, n, width)) -> (B, n, width)
Attention = Callable[[int, str], str]


def write_decoder(graph: Graph, checkpoint: Source, contract: str) -> None:
    """Add the whole decoder; inputs and outputs are those of the contract."""
    dims = checkpoint.dimensions
    tokens = graph.input("tokens", "int64", ["batch", "n_tokens"])
    graph.output("logits", "float32", ["batch", 1 if contract == "fast" else "n_tokens", dims.vocab_size])
    if contract == "fast":
        offset = graph.input("offset", "int64", [])
        self_attention, cross_attention = _fast_attention(graph, checkpoint, tokens, offset)
    else:
        # sherpa-onnx feeds by position: tokens, self k, self v, cross k, cross v, offset
        self_attention, cross_attention = _static_attention(graph, checkpoint, tokens)
        offset = "offset"
    embedding = _Embedding(graph, checkpoint)
    x = graph.node("Add", embedding.look_up(tokens), _positions(graph, checkpoint, tokens, offset))
    x = layer_norm(graph, checkpoint, "decoder.embedding_layernorm", x)
    sum_, x = x, layer_norm(graph, checkpoint, "decoder.layers.0.input_layernorm", x)
    for i in range(dims.decoder_layers):
        layer = f"decoder.layers.{i}"
        weight, bias = _scaled_queries(checkpoint, f"{layer}.self_attn", "qkv")
        qkv = graph.linear(f"{layer}.self_attn.qkv", x, weight, bias)
        branch = _linear(graph, checkpoint, f"{layer}.self_attn.o_proj", self_attention(i, qkv))
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.post_attention_layernorm", sum_, branch)
        query = graph.linear(
            f"{layer}.encoder_attn.q_proj", x, *_scaled_queries(checkpoint, f"{layer}.encoder_attn", "q")
        )
        branch = _linear(graph, checkpoint, f"{layer}.encoder_attn.o_proj", cross_attention(i, query))
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.final_layernorm", sum_, branch)
        branch = graph.node("Relu", _linear(graph, checkpoint, f"{layer}.mlp.fc1", x))
        branch = _linear(graph, checkpoint, f"{layer}.mlp.fc2", branch)
        last = i + 1 == dims.decoder_layers
        next_norm = "decoder.norm" if last else f"decoder.layers.{i + 1}.input_layernorm"
        sum_, x = add_and_norm(graph, checkpoint, next_norm, sum_, branch)
    if contract == "fast":
        x = graph.node("Slice", x, graph.constant([-1]), graph.constant([np.iinfo(np.int64).max]), graph.constant([1]))
    embedding.logits(x)
    if contract == "fast" and graph.for_devices:
        _next_token(graph)


def _next_token(graph: Graph) -> None:
    """The likeliest token and its log-probability, so that a device hands over two numbers and not all logits. In
    float32; NaN among the logits makes the log-probability NaN: ReduceMax may overlook it, the sum does not."""
    graph.output("next_token", "int64", ["batch"])
    graph.output("next_logprob", "float32", ["batch"])
    logits = graph.node("Squeeze", "logits", graph.constant([1]))
    graph.node("ArgMax", logits, axis=1, keepdims=0, out="next_token")
    largest = graph.node("ReduceMax", logits, axes=[1], keepdims=1)
    below = graph.node("Exp", graph.node("Sub", logits, largest))
    total = graph.node("ReduceSum", below, graph.constant([1]), keepdims=0)
    graph.node("Neg", graph.node("Log", total), out="next_logprob")


def _fast_attention(graph: Graph, checkpoint: Source, tokens: str, offset: str) -> tuple[Attention, Attention]:
    dims = checkpoint.dimensions
    heads, head_dim = dims.decoder_heads, dims.decoder_width // dims.decoder_heads
    encoder_length = graph.input("encoder_length", "int64", ["batch"])
    for i in range(dims.decoder_layers):
        for part in ("key", "value"):
            graph.input(f"past_{part}_{i}", graph.float_type, ["batch", heads, dims.max_positions, head_dim])
            graph.output(f"present_{part}_{i}", graph.float_type, ["batch", heads, dims.max_positions, head_dim])
    for i in range(dims.decoder_layers):
        for part in ("key", "value"):
            graph.input(f"cross_{part}_{i}", graph.float_type, ["batch", heads, "encoder_frames", head_dim])

    # GroupQueryAttention counts per row the past and new tokens, less one, and their number over all rows.
    batch_shape = graph.node("Shape", encoder_length)
    n_tokens = graph.node("Gather", graph.node("Shape", tokens), graph.constant(1))
    total = graph.node("Cast", graph.node("Add", offset, n_tokens), to=TensorProto.INT32)
    last = graph.node("Sub", total, graph.constant(1, "int32"))
    lengths = graph.node("Expand", last, batch_shape)

    if graph.for_devices:
        mask = ["", "", _padding_mask(graph, encoder_length, batch_shape, n_tokens, heads)]
    else:  # the CPU's own, which WebGPU has not
        mask = ["", graph.node("Cast", encoder_length, to=TensorProto.INT32)]

    def self_attention(i: int, qkv: str) -> str:
        return graph.nodes(
            "GroupQueryAttention",
            *[qkv, "", "", f"past_key_{i}", f"past_value_{i}", lengths, total],
            domain=CONTRIB,
            num_heads=heads,
            kv_num_heads=heads,
            scale=1.0,
            out=[f"self_attention_{i}", f"present_key_{i}", f"present_value_{i}"],
        )[0]

    def cross_attention(i: int, query: str) -> str:
        inputs = [query, f"cross_key_{i}", f"cross_value_{i}", *mask]
        return graph.node("MultiHeadAttention", *inputs, domain=CONTRIB, num_heads=heads, scale=1.0)

    return self_attention, cross_attention


def _padding_mask(graph: Graph, encoder_length: str, batch_shape: str, n_tokens: str, heads: int) -> str:
    """What is added to the scores of the cross-attention, (B, heads, n, frames): DirectML takes no broadcast sizes."""
    frames = graph.node("Gather", graph.node("Shape", "cross_key_0"), graph.constant(2))
    numbers = graph.node("Range", graph.constant(0), frames, graph.constant(1))
    seen = graph.node("Less", numbers, graph.node("Reshape", encoder_length, graph.constant([-1, 1, 1, 1])))
    by_frame = graph.node("Where", seen, *(graph.constant(value, graph.float_type) for value in (0, MASKED)))
    sizes = [graph.node("Reshape", size, graph.constant([1])) for size in (n_tokens, frames)]
    shape = graph.node("Concat", batch_shape, graph.constant([heads]), *sizes, axis=0)
    return graph.node("Expand", by_frame, shape)


def _static_attention(graph: Graph, checkpoint: Source, tokens: str) -> tuple[Attention, Attention]:
    dims = checkpoint.dimensions
    layers, width, heads = dims.decoder_layers, dims.decoder_width, dims.decoder_heads
    head_dim = width // heads
    cache_shape: list[int | str] = [layers, "batch", heads, dims.max_positions, head_dim]
    for part in "kv":
        graph.input(f"in_n_layer_self_{part}_cache", "float32", cache_shape)
        graph.output(f"out_n_layer_self_{part}_cache", "float32", cache_shape)
    for part in "kv":
        graph.input(f"n_layer_cross_{part}", "float32", [layers, "batch", "encoder_frames", width])
    offset = graph.input("offset", "int64", [])

    batch, n_tokens = graph.nodes("Split", graph.node("Shape", tokens), graph.constant([1, 1]), out=2)
    zero, one = graph.constant(0), graph.constant(1)
    total = graph.node("Squeeze", graph.node("Add", offset, n_tokens))
    new_positions = graph.node("Range", offset, total, one)
    keys = graph.node("Range", zero, total, one)
    visible = graph.node("LessOrEqual", keys, graph.node("Unsqueeze", new_positions, graph.constant([1])))
    causal_mask = graph.node("Where", visible, graph.constant(0, "float32"), graph.constant(-np.inf, "float32"))
    filled = graph.node("Reshape", offset, graph.constant([1]))
    new_rows: dict[str, list[str]] = {"k": [], "v": []}

    def split_heads(x: str) -> str:
        return graph.node(
            "Transpose", graph.node("Reshape", x, graph.constant([0, 0, heads, head_dim])), perm=[0, 2, 1, 3]
        )

    def past_and_new(i: int, part: str, new: str) -> str:
        new_rows[part].append(graph.node("Unsqueeze", new, graph.constant([0])))
        starts = graph.constant([i, 0])
        ends = graph.node("Concat", graph.constant([i + 1]), filled, axis=0)
        past = graph.node("Slice", f"in_n_layer_self_{part}_cache", starts, ends, graph.constant([0, 3]))
        return graph.node("Concat", graph.node("Squeeze", past, graph.constant([0])), new, axis=2)

    def self_attention(i: int, qkv: str) -> str:
        query, key, value = (
            split_heads(x) for x in graph.nodes("Split", qkv, graph.constant([width] * 3), axis=2, out=3)
        )
        key, value = past_and_new(i, "k", key), past_and_new(i, "v", value)
        scores = graph.node("MatMul", query, graph.node("Transpose", key, perm=[0, 1, 3, 2]))
        probabilities = graph.node("Softmax", graph.node("Add", scores, causal_mask), axis=-1)
        mixed = graph.node("Transpose", graph.node("MatMul", probabilities, value), perm=[0, 2, 1, 3])
        if i + 1 == layers:
            write_rows()
        return graph.node("Reshape", mixed, graph.constant([0, 0, width]))

    def write_rows() -> None:
        # where each new row goes, (layers, B, heads, n, 4): its layer, clip, head and position
        clips = graph.node("Range", zero, graph.node("Squeeze", batch), one)
        axes = [
            graph.constant(np.arange(layers).reshape(-1, 1, 1, 1, 1)),
            graph.node("Reshape", clips, graph.constant([1, -1, 1, 1, 1])),
            graph.constant(np.arange(heads).reshape(1, 1, -1, 1, 1)),
            graph.node("Reshape", new_positions, graph.constant([1, 1, 1, -1, 1])),
        ]
        sizes = [graph.constant([layers]), batch, graph.constant([heads]), n_tokens, graph.constant([1])]
        shape = graph.node("Concat", *sizes, axis=0)
        indices = graph.node("Concat", *(graph.node("Expand", axis, shape) for axis in axes), axis=4)
        for part in "kv":
            rows = graph.node("Concat", *new_rows[part], axis=0)
            name = f"out_n_layer_self_{part}_cache"
            graph.node("ScatterND", f"in_n_layer_self_{part}_cache", indices, rows, out=name)

    def cross_attention(i: int, query: str) -> str:
        key, value = (graph.node("Gather", f"n_layer_cross_{part}", graph.constant(i), axis=0) for part in "kv")
        return graph.node("MultiHeadAttention", query, key, value, domain=CONTRIB, num_heads=heads, scale=1.0)

    return self_attention, cross_attention


class _Embedding:
    """The token table, looked up and, tied to it, multiplied as the output matrix: the file holds it once.

    float: columns (width, vocabulary). INT8: the same with a scale per token, or rows in blocks, each with its scale.
    Four bits are too few for the output matrix: it stays INT8, unless it comes in 4-bit blocks."""

    def __init__(self, graph: Graph, checkpoint: Source) -> None:
        self.graph = graph
        self.product = "int8b" if graph.product in BLOCK_BITS else graph.product
        table = self._converted(checkpoint.matrix("decoder.embed_tokens"))
        output = self._converted(checkpoint.matrix("proj_out")) if "proj_out.weight" in checkpoint else table
        self.width, _ = table.shape
        self.bias = graph.weight("proj_out.bias", checkpoint.tensor("proj_out.bias"))
        self.output: Any = self._store("proj_out", output)
        self.table: Any = self.output if same(output, table) else self._store("decoder.embed_tokens", table)

    def _converted(self, matrix: Matrix) -> Matrix:
        """A column, or a row of blocks, for each token."""
        if self.product == "float":
            return dense(matrix)
        return self.graph.in_columns(matrix) if self.product == "int8" else self.graph.in_blocks(matrix, 8)

    def _store(self, name: str, matrix: Matrix) -> str | list[str] | StoredBlocks:
        if isinstance(matrix, Columns):
            return self.graph.store_columns(name, matrix)
        if isinstance(matrix, Blocks):
            return self.graph.store_blocks(name, matrix)
        return self.graph.weight(f"{name}.weight", matrix)

    def look_up(self, tokens: str) -> str:
        """tokens int64 (B, n) -> floats (B, n, width)."""
        graph = self.graph
        if self.product == "int8b":
            return self._look_up_blocks(self.table, tokens)
        if self.product == "float":
            return graph.node("Transpose", graph.node("Gather", self.table, tokens, axis=1), perm=[1, 2, 0])
        numbers, scale, zero = self.table
        rows = graph.node("Transpose", graph.node("Gather", numbers, tokens, axis=1), perm=[1, 2, 0])
        rows = graph.node("Cast", rows, to=TensorProto.FLOAT)
        if zero:
            shift = graph.node("Cast", graph.node("Gather", zero, tokens), to=TensorProto.FLOAT)
            rows = graph.node("Sub", rows, graph.node("Unsqueeze", shift, graph.constant([2])))
        return graph.node(
            "Mul", rows, graph.node("Unsqueeze", graph.node("Gather", scale, tokens), graph.constant([2]))
        )

    def _look_up_blocks(self, table: StoredBlocks, tokens: str) -> str:
        graph = self.graph

        def rows(name: str) -> str:
            numbers = graph.node("Gather", name, tokens)
            if table.bits == 8:
                return graph.cast(numbers, "uint8", graph.float_type)
            halves = self._halves(graph.cast(numbers, "uint8", "float32"))  # CUDA has no Floor of bfloat16
            return graph.cast(halves, "float32", graph.float_type)

        blocks = rows(table.weight)
        if table.zero:
            n_blocks = graph.constant([-(-table.n_in // table.size)])
            zero = graph.node("Slice", rows(table.zero), graph.constant([0]), n_blocks, graph.constant([2]))
            middle = graph.node("Unsqueeze", zero, graph.constant([3]))
        else:
            middle = graph.constant(2 ** (table.bits - 1), graph.float_type)
        blocks = graph.node("Sub", blocks, middle)
        scale = graph.node("Unsqueeze", graph.node("Gather", table.scale, tokens), graph.constant([3]))
        scaled_rows = graph.node("Mul", blocks, scale)
        flat = graph.node("Reshape", scaled_rows, graph.constant([0, 0, -1]))
        return graph.node("Slice", flat, graph.constant([0]), graph.constant([self.width]), graph.constant([2]))

    def _halves(self, pairs: str) -> str:
        """Bytes as floats (..., n) -> the two 4-bit numbers in each, low half first (..., 2 n)."""
        graph = self.graph
        high = graph.node("Floor", graph.node("Mul", pairs, graph.constant(1 / 16, "float32")))
        low = graph.node("Sub", pairs, graph.node("Mul", high, graph.constant(16, "float32")))
        parts = [graph.node("Unsqueeze", half, graph.constant([-1])) for half in (low, high)]
        shape = graph.node("Shape", pairs)
        ahead = graph.node("Slice", shape, graph.constant([0]), graph.constant([-1]))
        flat = graph.node("Concat", ahead, graph.constant([-1]), axis=0)
        return graph.node("Reshape", graph.node("Concat", *parts, axis=-1), flat)

    def logits(self, x: str) -> None:
        """x (B, n, width) -> the output "logits", float32 (B, n, vocabulary)."""
        graph = self.graph
        out = "logits" if graph.float_type == "float32" else None
        if self.product == "float":
            logits = graph.node("Add", graph.node("MatMul", x, self.output), self.bias, out=out)
        elif self.product == "int8":
            logits = graph.column_product(x, self.output, self.bias, out=out)
        else:
            logits = graph.block_product(x, self.output, self.bias, out=out)
        if out is None:
            graph.cast(logits, graph.float_type, "float32", out="logits")


def _positions(graph: Graph, checkpoint: Source, tokens: str, offset: str) -> str:
    """Rows offset .. offset + n of the position table, (n, width)."""
    table = graph.weight("decoder.pos_emb.weight", checkpoint.tensor("decoder.pos_emb.weight"))
    start = graph.node("Reshape", offset, graph.constant([1]))
    n_tokens = graph.node("Slice", graph.node("Shape", tokens), graph.constant([1]), graph.constant([2]))
    return graph.node("Slice", table, start, graph.node("Add", start, n_tokens), graph.constant([0]))


def _linear(graph: Graph, checkpoint: Source, name: str, x: str) -> str:
    return graph.linear(name, x, *checkpoint.linear(name))


def _scaled_queries(checkpoint: Source, name: str, parts: str) -> tuple[Matrix, np.ndarray]:
    """The projections called `parts`, side by side, the queries' (first) multiplied by the attention's scale: with any
    other scale than 1, onnxruntime's attention does not use its kernels for a single row (30 s of audio: 8.2 instead
    of 7.2 ms a step)."""
    weights, biases = map(list, zip(*(checkpoint.linear(f"{name}.{part}_proj") for part in parts), strict=True))
    scale = np.float32(checkpoint.scale(f"{name}.q_proj"))
    weights[0], biases[0] = scaled(weights[0], scale), biases[0] * scale
    return side_by_side(weights), np.concatenate(biases)
