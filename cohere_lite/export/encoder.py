"""The Conformer encoder as a graph: log-mel -> what the decoder's cross-attention reads.

Written for one clip at a time, its valid frames only: that equals the reference's masked run bit for bit and needs no
mask; with standard operators clips may be padded and masked (standard.py). Folded at export: BatchNorm into the
depthwise convolution, the attention scale and both content biases into Q/K/V's one product, the factor 1/2 of each
feed-forward into its second product.
"""

from typing import Any

import numpy as np
from onnx import TensorProto

from .graph import CONTRIB, Graph
from .matrix import dense, scaled, side_by_side
from .norms import add_and_norm, layer_norm
from .source import Source
from .standard import Padding, attention_of_standard_operators, by_distance

BATCH_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm1d's default, which the reference keeps


def write_encoder(graph: Graph, checkpoint: Source, max_encoder_frames: int, pointwise: str, contract: str) -> None:
    """Add the whole encoder. `max_encoder_frames` (80 ms each in the real model) bounds the length of a clip;
    `pointwise` is the product of the Conformer's pointwise convolutions. Six INT8 layers of the real width with random
    weights are 3.2 % off FP32 with "int8" there, 3.1 % with "float", in 258 and 346 MB; 30 s of audio take 0.52 and
    0.62 s."""
    dims = checkpoint.dimensions
    mel = graph.input("mel", "float32", ["batch", dims.n_mels, "mel_frames"])
    padding = Padding(graph, dims.subsampling_layers) if graph.standard else None
    x = _subsample(graph, checkpoint, mel, padding)
    heads, _ = checkpoint.shape("encoder.layers.0.self_attn.bias_u")
    positions = _Positions(graph, x, max_encoder_frames, dims.encoder_width, heads)
    for i in range(dims.encoder_layers):
        layer = f"encoder.layers.{i}"
        sum_, x = x, layer_norm(graph, checkpoint, f"{layer}.norm_feed_forward1", x)
        branch = _feed_forward(graph, checkpoint, f"{layer}.feed_forward1", x)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_self_att", sum_, branch)
        branch = _attention(graph, checkpoint, f"{layer}.self_attn", x, positions, padding)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_conv", sum_, branch)
        branch = _convolution(graph, checkpoint, f"{layer}.conv", x, pointwise, padding)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_feed_forward2", sum_, branch)
        branch = _feed_forward(graph, checkpoint, f"{layer}.feed_forward2", x)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_out", sum_, branch)
    _cross_attention_inputs(graph, checkpoint, x, contract)


def _subsample(graph: Graph, checkpoint: Source, mel: str, padding: Padding | None) -> str:
    """mel (B, n_mels, T) -> (B, ceil(T / 8), width). The reference convolves (time, mel); here the kernels are
    transposed instead of the input. The convolutions stay float: few, and sensitive."""
    dims = checkpoint.dimensions
    x = graph.node("Unsqueeze", graph.cast(mel, "float32", graph.conv_type), graph.constant([1]))

    def conv(x: str, index: int, **attributes: Any) -> str:
        name = f"encoder.subsampling.layers.{index}"
        weight = checkpoint.tensor(f"{name}.weight").swapaxes(2, 3)
        parts = [
            x,
            graph.weight(f"{name}.weight", weight, graph.conv_type),
            graph.weight(f"{name}.bias", checkpoint.tensor(f"{name}.bias"), graph.conv_type),
        ]
        return graph.node("Conv", *parts, **attributes)

    channels, _, kernel, _ = checkpoint.shape("encoder.subsampling.layers.0.weight")
    halving: dict[str, Any] = {"strides": [2, 2], "pads": [(kernel - 1) // 2] * 4}
    x = graph.node("Relu", conv(x, 0, **halving))
    for i in range(1, dims.subsampling_layers):
        if padding:
            x = padding.clear(x, i)
        x = conv(x, 3 * i - 1, group=channels, **halving)
        x = graph.node("Relu", conv(x, 3 * i))
    x = graph.cast(x, graph.conv_type, graph.float_type)
    x = graph.node("Transpose", x, perm=[0, 3, 1, 2])  # (B, T / 8, channels, n_mels / 8)
    weight, bias = checkpoint.linear("encoder.subsampling.linear")
    x = graph.node("Reshape", x, graph.constant([0, 0, weight.shape[0]]))
    scale = np.float32(checkpoint.scale("encoder.subsampling.linear"))
    return graph.linear("encoder.subsampling.linear", x, scaled(weight, scale), bias * scale)


class _Positions:
    """Relative positions, worked out once per graph: where to cut the table of every layer, and what to pick from it.

    Every layer projects the same sinusoids with its own matrix, so the product is a table, made at export: column c
    holds position `max_frames - c`. A run over T frames reads positions T .. -(T - 1), 2 T columns; query i finds
    key j at column T - i + j. Picking them with an index reads and writes half of what shifting the rows into place
    by slices does, in all threads (30 s of audio: 10.7 instead of 14.3 ms a layer).
    """

    def __init__(self, graph: Graph, x: str, max_frames: int, width: int, heads: int) -> None:
        shape = graph.node("Shape", x)
        batch, frames, _ = graph.nodes("Split", shape, graph.constant([1, 1, 1]), out=3)
        middle = graph.constant([max_frames])
        self.start = graph.node("Sub", middle, frames)
        self.end = graph.node("Add", middle, frames)
        self.frames = frames
        if not graph.standard:
            self.columns = self._index(graph, batch, frames, heads)
        # as ParakeetEncoderRelPositionalEncoding: sine and cosine interleaved, in float64 here
        position = np.arange(max_frames, -max_frames, -1)[:, None]
        angle = position / 10000.0 ** (np.arange(0, width, 2) / width)
        self.sinusoids = (
            np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(2 * max_frames, width).astype(np.float32)
        )

    @staticmethod
    def _index(graph: Graph, batch: str, frames: str, heads: int) -> str:
        """The column of query i's key j, (B, heads, T, T)."""
        keys = graph.node("Range", graph.constant(0), graph.node("Squeeze", frames), graph.constant(1))
        columns = graph.node("Sub", graph.node("Add", keys, frames), graph.node("Unsqueeze", keys, graph.constant([1])))
        columns = graph.node("Cast", columns, to=TensorProto.INT32)
        scores = graph.node("Concat", batch, graph.constant([heads]), frames, frames, axis=0)
        return graph.node("Expand", columns, scores)


def _attention(
    graph: Graph, checkpoint: Source, name: str, x: str, positions: _Positions, padding: Padding | None
) -> str:
    heads, head_dim = checkpoint.shape(f"{name}.bias_u")
    scale = np.float32(checkpoint.scale(f"{name}.q_proj"))
    (q, q_bias), (k, k_bias), (v, v_bias) = (checkpoint.linear(f"{name}.{p}_proj") for p in "qkv")
    bias_u, bias_v = (checkpoint.tensor(f"{name}.bias_{b}").reshape(-1) for b in "uv")
    qkv = graph.linear(
        f"{name}.qkv",
        x,
        side_by_side([scaled(q, scale), k, v]),
        np.concatenate([(q_bias + bias_u) * scale, k_bias, v_bias]),
    )
    query, key, value = graph.nodes("Split", qkv, graph.constant([heads * head_dim] * 3), axis=2, out=3)
    # query holds q + u; the position term wants q + v
    shift = graph.weight(f"{name}.bias_v_minus_u", (bias_v - bias_u) * scale)
    position_query = graph.node("Add", query, shift)
    keys, key_scale = _position_keys(graph, checkpoint, name, positions)
    if key_scale:
        position_query = graph.node("Mul", position_query, key_scale)
    position_query = graph.node("Reshape", position_query, graph.constant([0, 0, heads, head_dim]))
    by_column = graph.node("MatMul", graph.node("Transpose", position_query, perm=[0, 2, 1, 3]), keys)
    if padding:
        scores = graph.node("Add", by_distance(graph, by_column, positions.frames), padding.unseen)
    else:
        scores = graph.node("GatherElements", by_column, positions.columns, axis=3)
    if graph.for_devices:
        # WebGPU's MultiHeadAttention (onnxruntime-ep-webgpu 0.4.0) is 10 to 30 % off from 32 rows on, on Vulkan in
        # software, and TensorRT and CoreML have none
        mixed = attention_of_standard_operators(graph, query, key, value, scores, (heads, head_dim))
    else:
        inputs = [query, key, value, "", "", scores]
        mixed = graph.node("MultiHeadAttention", *inputs, domain=CONTRIB, num_heads=heads, scale=1.0)
    return graph.linear(f"{name}.o_proj", mixed, *checkpoint.linear(f"{name}.o_proj"))


def _position_keys(graph: Graph, checkpoint: Source, name: str, positions: _Positions) -> tuple[str, str]:
    """The keys of the positions in reach, (heads, head_dim, 2 T), and what to multiply each channel of the queries by
    ("": nothing). INT8 by channel: half the bytes of the matrix it replaces at the real size, and 2 T rows of product
    less to compute. Scaling T queries is cheaper than 2 T keys (DequantizeLinear: 3.5 ms a layer at 30 s of audio)."""
    heads, head_dim = checkpoint.shape(f"{name}.bias_u")
    table, scale = checkpoint.relative_keys(name, positions.sinusoids), ""
    if graph.product == "int8":
        columns = graph.in_columns(table)
        if isinstance(table, np.ndarray):
            graph.note("relative keys", table, columns)
        numbers, scale = columns.numbers, graph.weight(f"{name}.relative_keys.scale", columns.scale)
    else:
        numbers = dense(table)
    stored = graph.weight(f"{name}.relative_keys", np.ascontiguousarray(numbers.T))
    keys = graph.node("Slice", stored, positions.start, positions.end, graph.constant([1]))
    if scale:
        keys = graph.node("Cast", keys, to=TensorProto.FLOAT)
    return graph.node("Reshape", keys, graph.constant([heads, head_dim, -1])), scale


def _convolution(graph: Graph, checkpoint: Source, name: str, x: str, pointwise: str, padding: Padding | None) -> str:
    width = checkpoint.dimensions.encoder_width
    x = graph.linear(f"{name}.pointwise_conv1", x, *checkpoint.linear(f"{name}.pointwise_conv1"), product=pointwise)
    value, gate = graph.nodes("Split", x, graph.constant([width] * 2), axis=2, out=2)
    x = graph.node("Mul", value, graph.node("Sigmoid", gate))
    weight, bias = _fold_batch_norm(checkpoint, name)
    kernel = weight.shape[-1]
    # An image of one row: onnxruntime has blocked kernels for two dimensions only, and takes the transposes into them
    # (0.11 instead of 0.66 ms for 125 frames).
    row = graph.constant([1])
    x = graph.cast(x, graph.float_type, graph.conv_type)
    x = graph.node("Transpose", graph.node("Unsqueeze", x, row), perm=[0, 3, 1, 2])
    if padding:
        x = padding.clear(x)
    x = graph.node(
        "Conv",
        x,
        graph.weight(f"{name}.depthwise_conv.weight", weight[:, :, None], graph.conv_type),
        graph.weight(f"{name}.depthwise_conv.bias", bias, graph.conv_type),
        group=width,
        pads=[0, (kernel - 1) // 2] * 2,
    )
    x = graph.cast(x, graph.conv_type, graph.float_type)
    x = _silu(graph, graph.node("Squeeze", graph.node("Transpose", x, perm=[0, 2, 3, 1]), row))
    return graph.linear(f"{name}.pointwise_conv2", x, *checkpoint.linear(f"{name}.pointwise_conv2"), product=pointwise)


def _fold_batch_norm(checkpoint: Source, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Depthwise convolution then BatchNorm over running statistics: one convolution, weight (width, 1, kernel)."""
    weight = checkpoint.tensor(f"{name}.depthwise_conv.weight")
    bias_name = f"{name}.depthwise_conv.bias"
    bias = checkpoint.tensor(bias_name) if bias_name in checkpoint else np.zeros(len(weight), np.float32)
    if f"{name}.norm.weight" not in checkpoint:  # an exporter has folded it already
        return weight, bias
    gamma, beta, mean, variance = (
        checkpoint.tensor(f"{name}.norm.{p}").astype(np.float64)
        for p in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return (weight * gain[:, None, None]).astype(np.float32), ((bias - mean) * gain + beta).astype(np.float32)


def _feed_forward(graph: Graph, checkpoint: Source, name: str, x: str) -> str:
    """Half of the feed-forward module's output, as the Conformer adds it."""
    x = _silu(graph, graph.linear(f"{name}.linear1", x, *checkpoint.linear(f"{name}.linear1")))
    weight, bias = checkpoint.linear(f"{name}.linear2")
    scale = np.float32(checkpoint.scale(f"{name}.linear2"))
    return graph.linear(f"{name}.linear2", x, scaled(weight, scale), bias * scale)


def _cross_attention_inputs(graph: Graph, checkpoint: Source, x: str, contract: str) -> None:
    """Project to the decoder's width, then the keys and values of all decoder layers in one product."""
    dims = checkpoint.dimensions
    layers, width, heads = dims.decoder_layers, dims.decoder_width, dims.decoder_heads
    head_dim = width // heads
    x = graph.linear("decoder.proj", x, *checkpoint.linear("decoder.proj"))
    names = [f"decoder.layers.{i}.encoder_attn.{p}_proj" for p in "kv" for i in range(layers)]
    weights, biases = zip(*(checkpoint.linear(name) for name in names), strict=True)
    x = graph.linear("cross_attention", x, side_by_side(weights), np.concatenate(biases))
    if contract == "static":
        x = graph.node("Reshape", x, graph.constant([0, 0, 2, layers, width]))
        x = graph.node("Transpose", x, perm=[2, 3, 0, 1, 4])  # key or value, layer, batch, frame, channel
        outputs = ["n_layer_cross_k", "n_layer_cross_v"]
        key, value = graph.nodes("Split", x, graph.constant([1, 1]), axis=0, out=2)
        for part, name in [(key, outputs[0]), (value, outputs[1])]:
            graph.node("Squeeze", part, graph.constant([0]), out=name)
            graph.output(name, graph.float_type, [layers, "batch", "encoder_frames", width])
        return
    parts = graph.nodes("Split", x, graph.constant([width] * 2 * layers), axis=2, out=2 * layers)
    names = [f"cross_{part}_{i}" for part in ("key", "value") for i in range(layers)]
    for name, part in zip(names, parts, strict=True):
        by_head = graph.node("Reshape", part, graph.constant([0, 0, heads, head_dim]))
        graph.node("Transpose", by_head, perm=[0, 2, 1, 3], out=name)
        graph.output(name, graph.float_type, ["batch", heads, "encoder_frames", head_dim])


def _silu(graph: Graph, x: str) -> str:
    if graph.standard:
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    return graph.node("QuickGelu", x, domain=CONTRIB, alpha=1.0)  # x sigmoid(alpha x), in one pass over memory
