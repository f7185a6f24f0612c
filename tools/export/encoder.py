"""The Conformer encoder as a graph: log-mel -> what the decoder's cross-attention reads.

Written for one clip at a time, its valid frames only: that equals the reference's masked run bit for bit and needs no
mask. Folded at export: BatchNorm into the depthwise convolution, the attention scale and both content biases into
Q/K/V's one product, the factor 1/2 of each feed-forward into its second product.
"""

from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .graph import CONTRIB, Graph, quantize_columns
from .norms import add_and_norm, layer_norm

BATCH_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm1d's default, which the reference keeps


def write_encoder(graph: Graph, checkpoint: Checkpoint, max_encoder_frames: int, pointwise: str, layout: str) -> None:
    """Add the whole encoder. `max_encoder_frames` (80 ms each in the real model) bounds the length of a clip;
    `pointwise` is the precision of the Conformer's pointwise convolutions, "fp32" or "int8"."""
    dims = checkpoint.dimensions
    mel = graph.input("mel", "float32", ["batch", dims.n_mels, "mel_frames"])
    x = _subsample(graph, checkpoint, mel)
    positions = _Positions(graph, x, max_encoder_frames, dims.encoder_width)
    for i in range(dims.encoder_layers):
        layer = f"encoder.layers.{i}"
        sum_, x = x, layer_norm(graph, checkpoint, f"{layer}.norm_feed_forward1", x)
        branch = _feed_forward(graph, checkpoint, f"{layer}.feed_forward1", x)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_self_att", sum_, branch)
        branch = _attention(graph, checkpoint, f"{layer}.self_attn", x, positions)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_conv", sum_, branch)
        branch = _convolution(graph, checkpoint, f"{layer}.conv", x, pointwise)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_feed_forward2", sum_, branch)
        branch = _feed_forward(graph, checkpoint, f"{layer}.feed_forward2", x)
        sum_, x = add_and_norm(graph, checkpoint, f"{layer}.norm_out", sum_, branch)
    _cross_attention_inputs(graph, checkpoint, x, layout)


def _subsample(graph: Graph, checkpoint: Checkpoint, mel: str) -> str:
    """mel (B, n_mels, T) -> (B, ceil(T / 8), width). The reference convolves (time, mel); here the kernels are
    transposed instead of the input. The convolutions stay float: few, and sensitive."""
    dims = checkpoint.dimensions
    x = graph.node("Unsqueeze", mel, graph.constant([1]))

    def conv(x: str, index: int, **attributes: Any) -> str:
        name = f"encoder.subsampling.layers.{index}"
        weight = checkpoint.tensor(f"{name}.weight").swapaxes(2, 3)
        parts = [
            x,
            graph.weight(f"{name}.weight", weight),
            graph.weight(f"{name}.bias", checkpoint.tensor(f"{name}.bias")),
        ]
        return graph.node("Conv", *parts, **attributes)

    channels, _, kernel, _ = checkpoint.shape("encoder.subsampling.layers.0.weight")
    halving: dict[str, Any] = {"strides": [2, 2], "pads": [(kernel - 1) // 2] * 4}
    x = graph.node("Relu", conv(x, 0, **halving))
    for i in range(1, dims.subsampling_layers):
        x = conv(x, 3 * i - 1, group=channels, **halving)
        x = graph.node("Relu", conv(x, 3 * i))
    x = graph.node("Transpose", x, perm=[0, 3, 1, 2])  # (B, T / 8, channels, n_mels / 8)
    weight, bias = checkpoint.linear("encoder.subsampling.linear")
    x = graph.node("Reshape", x, graph.constant([0, 0, weight.shape[0]]))
    scale = np.float32(dims.encoder_input_scale)
    return graph.linear("encoder.subsampling.linear", x, weight * scale, bias * scale)


class _Positions:
    """Relative positions, worked out once per graph: where to cut the table of every layer, and how to shift.

    Every layer projects the same sinusoids with its own matrix, so the product is a table, made at export: column c
    holds position `max_frames - c`. A run over T frames reads positions T .. -(T - 1), 2 T columns. In the scores
    (T, 2 T), query i finds the key j at column T - i + j, that is at T + i (2 T - 1) + j counted through the rows:
    dropping the first T numbers and reading rows of 2 T - 1 puts key j into column j.
    """

    def __init__(self, graph: Graph, x: str, max_frames: int, width: int) -> None:
        self.frames = graph.node("Slice", graph.node("Shape", x), graph.constant([1]), graph.constant([2]))
        middle = graph.constant([max_frames])
        self.start = graph.node("Sub", middle, self.frames)
        self.end = graph.node("Add", middle, self.frames)
        row = graph.node("Sub", graph.node("Add", self.frames, self.frames), graph.constant([1]))
        self.shifted_shape = graph.node("Concat", graph.constant([0, 0]), self.frames, row, axis=0)
        # as ParakeetEncoderRelPositionalEncoding: sine and cosine interleaved, in float64 here
        position = np.arange(max_frames, -max_frames, -1)[:, None]
        angle = position / 10000.0 ** (np.arange(0, width, 2) / width)
        self.sinusoids = (
            np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(2 * max_frames, width).astype(np.float32)
        )


def _attention(graph: Graph, checkpoint: Checkpoint, name: str, x: str, positions: _Positions) -> str:
    heads, head_dim = checkpoint.shape(f"{name}.bias_u")
    scale = np.float32(head_dim**-0.5)
    (q, q_bias), (k, k_bias), (v, v_bias) = (checkpoint.linear(f"{name}.{p}_proj") for p in "qkv")
    bias_u, bias_v = (checkpoint.tensor(f"{name}.bias_{b}").reshape(-1) for b in "uv")
    qkv = graph.linear(
        f"{name}.qkv",
        x,
        np.concatenate([q * scale, k, v], axis=1),
        np.concatenate([(q_bias + bias_u) * scale, k_bias, v_bias]),
    )
    query, key, value = graph.nodes("Split", qkv, graph.constant([heads * head_dim] * 3), axis=2, out=3)
    # query holds q + u; the position term wants q + v
    shift = graph.weight(f"{name}.bias_v_minus_u", (bias_v - bias_u) * scale)
    position_query = graph.node("Add", query, shift)

    def by_head(x: str, perm: list[int]) -> str:
        return graph.node("Transpose", graph.node("Reshape", x, graph.constant([0, 0, heads, head_dim])), perm=perm)

    content = graph.node("MatMul", by_head(query, [0, 2, 1, 3]), by_head(key, [0, 2, 3, 1]))
    table = _position_table(graph, checkpoint, name, positions)
    by_position = graph.node("MatMul", by_head(position_query, [0, 2, 1, 3]), table)
    probabilities = graph.node(
        "Softmax", graph.node("Add", content, _relative_shift(graph, by_position, positions)), axis=-1
    )
    mixed = graph.node("MatMul", probabilities, by_head(value, [0, 2, 1, 3]))
    mixed = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph.node("Reshape", mixed, graph.constant([0, 0, heads * head_dim]))
    return graph.linear(f"{name}.o_proj", mixed, *checkpoint.linear(f"{name}.o_proj"))


def _position_table(graph: Graph, checkpoint: Checkpoint, name: str, positions: _Positions) -> str:
    """The keys of the positions in reach, (heads, head_dim, 2 T). INT8 by channel: half the bytes of the matrix
    it replaces at the real size, and 2 T rows of product less to compute."""
    heads, head_dim = checkpoint.shape(f"{name}.bias_u")
    weight, _ = checkpoint.linear(f"{name}.relative_k_proj")
    table = positions.sinusoids @ weight
    scale = None
    if graph.precision == "int8":
        table, scale = quantize_columns(table)
    stored = graph.weight(f"{name}.relative_keys", np.ascontiguousarray(table.T))
    cut = graph.node("Slice", stored, positions.start, positions.end, graph.constant([1]))
    if scale is not None:
        cut = graph.node("DequantizeLinear", cut, graph.weight(f"{name}.relative_keys.scale", scale), axis=0)
    return graph.node("Reshape", cut, graph.constant([heads, head_dim, -1]))


def _relative_shift(graph: Graph, scores: str, positions: _Positions) -> str:
    """(B, heads, T, 2 T) by position -> (B, heads, T, T) by key; see _Positions."""
    flat = graph.node("Reshape", scores, graph.constant([0, 0, -1]))
    to_the_end = graph.constant([np.iinfo(np.int64).max])
    flat = graph.node("Slice", flat, positions.frames, to_the_end, graph.constant([2]))
    rows = graph.node("Reshape", flat, positions.shifted_shape)
    return graph.node("Slice", rows, graph.constant([0]), positions.frames, graph.constant([3]))


def _convolution(graph: Graph, checkpoint: Checkpoint, name: str, x: str, pointwise: str) -> str:
    width = checkpoint.dimensions.encoder_width
    x = graph.linear(f"{name}.pointwise_conv1", x, *checkpoint.linear(f"{name}.pointwise_conv1"), precision=pointwise)
    value, gate = graph.nodes("Split", x, graph.constant([width] * 2), axis=2, out=2)
    x = graph.node("Mul", value, graph.node("Sigmoid", gate))
    weight, bias = _fold_batch_norm(checkpoint, name)
    kernel = weight.shape[-1]
    x = graph.node("Transpose", x, perm=[0, 2, 1])
    x = graph.node(
        "Conv",
        x,
        graph.weight(f"{name}.depthwise_conv.weight", weight),
        graph.weight(f"{name}.depthwise_conv.bias", bias),
        group=width,
        pads=[(kernel - 1) // 2] * 2,
    )
    x = graph.node("Transpose", _silu(graph, x), perm=[0, 2, 1])
    return graph.linear(
        f"{name}.pointwise_conv2", x, *checkpoint.linear(f"{name}.pointwise_conv2"), precision=pointwise
    )


def _fold_batch_norm(checkpoint: Checkpoint, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Depthwise convolution then BatchNorm over running statistics: one convolution, weight (width, 1, kernel)."""
    weight = checkpoint.tensor(f"{name}.depthwise_conv.weight")
    bias_name = f"{name}.depthwise_conv.bias"
    bias = checkpoint.tensor(bias_name) if bias_name in checkpoint else np.zeros(len(weight), np.float32)
    gamma, beta, mean, variance = (
        checkpoint.tensor(f"{name}.norm.{p}").astype(np.float64)
        for p in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return (weight * gain[:, None, None]).astype(np.float32), ((bias - mean) * gain + beta).astype(np.float32)


def _feed_forward(graph: Graph, checkpoint: Checkpoint, name: str, x: str) -> str:
    """Half of the feed-forward module's output, as the Conformer adds it."""
    x = _silu(graph, graph.linear(f"{name}.linear1", x, *checkpoint.linear(f"{name}.linear1")))
    weight, bias = checkpoint.linear(f"{name}.linear2")
    return graph.linear(f"{name}.linear2", x, weight * np.float32(0.5), bias * np.float32(0.5))


def _cross_attention_inputs(graph: Graph, checkpoint: Checkpoint, x: str, layout: str) -> None:
    """Project to the decoder's width, then the keys and values of all decoder layers in one product."""
    dims = checkpoint.dimensions
    layers, width, heads = dims.decoder_layers, dims.decoder_width, dims.decoder_heads
    head_dim = width // heads
    x = graph.linear("decoder.proj", x, *checkpoint.linear("decoder.proj"))
    names = [f"decoder.layers.{i}.encoder_attn.{p}_proj" for p in "kv" for i in range(layers)]
    weights, biases = zip(*(checkpoint.linear(name) for name in names), strict=True)
    x = graph.linear("cross_attention", x, np.concatenate(weights, axis=1), np.concatenate(biases))
    if layout == "sherpa":
        x = graph.node("Reshape", x, graph.constant([0, 0, 2, layers, width]))
        x = graph.node("Transpose", x, perm=[2, 3, 0, 1, 4])  # key or value, layer, batch, frame, channel
        outputs = ["n_layer_cross_k", "n_layer_cross_v"]
        key, value = graph.nodes("Split", x, graph.constant([1, 1]), axis=0, out=2)
        for part, name in [(key, outputs[0]), (value, outputs[1])]:
            graph.node("Squeeze", part, graph.constant([0]), out=name)
            graph.output(name, "float32", [layers, "batch", "encoder_frames", width])
        return
    parts = graph.nodes("Split", x, graph.constant([width] * 2 * layers), axis=2, out=2 * layers)
    for i, part in enumerate(parts):
        part = graph.node("Reshape", part, graph.constant([0, 0, heads, head_dim]))
        layer = i % layers
        if i < layers:  # keys head by head and already transposed: queries multiply them as they are
            graph.node("Transpose", part, perm=[0, 2, 3, 1], out=f"cross_key_{layer}")
            graph.output(f"cross_key_{layer}", "float32", ["batch", heads, head_dim, "encoder_frames"])
        else:
            graph.node("Transpose", part, perm=[0, 2, 1, 3], out=f"cross_value_{layer}")
            graph.output(f"cross_value_{layer}", "float32", ["batch", heads, "encoder_frames", head_dim])


def _silu(graph: Graph, x: str) -> str:
    return graph.node("QuickGelu", x, domain=CONTRIB, alpha=1.0)  # x sigmoid(alpha x), in one pass over memory
