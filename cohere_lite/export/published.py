"""Published ONNX graphs -> their weights by transformers' names, as checkpoint.py gives those of a checkpoint.

A weight gets its name from where the data meets it: the operations that the audio (or the tokens) flow through, in
order, with attention's projections told apart by what becomes of their results.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..model import ModelFiles, _config
from .attention import Attention, attentions
from .checkpoint import Dimensions
from .matrix import Blocks, Columns, Matrix, columns, dense, scaled
from .paths import Graph
from .vocabulary import write_tokens
from .weighted import CONVS, Weighted

ENCODER_LAYER = "NPPNANPCPNPPN"  # norm, product, convolution, attention
DECODER_LAYER = "NANANPP"
N_MELS = 128
LETTERS = {"N": "norm", "P": "product", "C": "convolution", "A": "attention"}


class Published:
    """The weights of two graphs, by transformers' names, read when asked for."""

    def __init__(self, source: ModelFiles) -> None:
        """Raises ValueError or OSError for graphs that are damaged, incomplete, or of another model."""
        self._vocabulary = source.vocabulary
        self._products: dict[str, tuple[Weighted, slice | None]] = {}
        self._arrays: dict[str, Callable[[], np.ndarray]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._scales: dict[str, float] = {}
        self._tables: dict[str, Callable[[], Matrix]] = {}  # relative keys that are in the graph as a table
        encoder = Graph(source.graphs.encoder.path)
        self.max_audio_s = encoder.metadata_max_audio_s
        supported = _config(source.graphs.encoder.path).get("supported_languages") or []
        self.languages = encoder.metadata.get("languages") or ",".join(supported)
        encoder_sizes = self._read_encoder(encoder)
        decoder = Graph(source.graphs.decoder.path)
        decoder_sizes = self._read_decoder(decoder, encoder)
        self.dimensions = Dimensions(**encoder_sizes, **decoder_sizes)
        self._check_sizes()

    # The interface of Checkpoint

    def __contains__(self, name: str) -> bool:
        return name in self._arrays or name.removesuffix(".weight") in self._products

    def names(self) -> list[str]:
        """transformers' names of all weights, in alphabetical order."""
        return sorted({*self._arrays, *(f"{name}.weight" for name in self._products)})

    def shape(self, name: str) -> tuple[int, ...]:
        """As `tensor(name)` has it. Raises ValueError for an unknown name."""
        return self._shapes[name] if name in self._shapes else self.tensor(name).shape

    def tensor(self, name: str) -> np.ndarray:
        """A weight as float32, C-contiguous. Raises ValueError for an unknown name."""
        if name not in self._arrays:
            raise ValueError(f"the graphs have no {name!r}")
        return np.ascontiguousarray(self._arrays[name](), dtype=np.float32)

    def matrix(self, name: str) -> Matrix:
        """A product's weights as stored, (n_in, n_out), or a table's, a column for each row of it."""
        if name not in self._products:
            raise ValueError(f"the graphs have no {name!r}")
        product, part = self._products[name]
        return product.read() if part is None else columns(product.read(), part)

    def linear(self, name: str) -> tuple[Matrix, np.ndarray]:
        """As Checkpoint.linear, with the weights as they are stored."""
        matrix = self.matrix(name)
        product, part = self._products[name]
        bias = np.zeros(product.shape[1], np.float32) if product.bias is None else product.bias()
        bias = bias if part is None else bias[part]
        if name not in self._scales and product.factor != 1 and product.kind == "P":
            return scaled(matrix, product.factor), bias * np.float32(product.factor)
        return matrix, bias

    def scale(self, name: str) -> float:
        """What a product's result is multiplied by."""
        return self._scales.get(name, 1.0)

    def relative_keys(self, name: str, sinusoids: np.ndarray) -> Matrix:
        """The keys of relative positions, (positions, width)."""
        if f"{name}.relative_k_proj" in self._products:
            return sinusoids @ dense(self.linear(f"{name}.relative_k_proj")[0])
        table = self._tables[name]()
        surplus = table.shape[0] - len(sinusoids)
        if surplus < 0:
            raise ValueError(f"the encoder knows {table.shape[0]} relative positions; {len(sinusoids)} were asked for")
        middle = slice(surplus // 2, table.shape[0] - surplus // 2)
        if isinstance(table, Columns):
            return Columns(table.numbers[middle], table.scale, table.zero)
        return dense(table)[middle]

    @property
    def decoder_precision(self) -> str | None:
        """ "int8" or "int4", where the decoder's products are quantised."""
        matrix = self.matrix("decoder.layers.0.mlp.fc1")
        if isinstance(matrix, np.ndarray):
            return None
        return "int4" if isinstance(matrix, Blocks) and matrix.bits == 4 else "int8"

    def write_tokens(self, out: Path) -> None:
        """Write tokens.txt. Raises ValueError."""
        write_tokens(self._vocabulary.pieces, out, self.dimensions.vocab_size)

    def finish(self) -> None:
        """Nothing to check: every operation of the graphs has its place, or __init__ had raised."""

    # Who is who

    def _read_encoder(self, graph: Graph) -> dict[str, int]:
        seed = next(iter(graph.inputs))
        live = graph.dependents(seed)
        chain = [found for found in graph.weighted if found.out in live]
        start = next((i for i, found in enumerate(chain) if _halves(found)), None)
        if start is None:
            raise ValueError(f"{graph.path.name}: no convolution that halves the frame rate: not Cohere Transcribe")
        end = next((i for i, w in enumerate(chain) if i > start and w.kind == "P" and w.node.op not in CONVS), None)
        if end is None:
            raise ValueError(f"{graph.path.name}: no product after the convolutions: not Cohere Transcribe")
        time_axis = _time_axis(graph, chain[end])
        for i, conv in enumerate(chain[start:end]):
            index = 0 if i == 0 else 3 * ((i + 1) // 2) - (i % 2)
            self._add_conv2d(f"encoder.subsampling.layers.{index}", conv, turned=time_axis == 3)
        self._add("encoder.subsampling.linear", chain[end], scaled=True)

        found = attentions(graph, live)
        rest = _without_projections(chain[end + 1 :], found)
        layers = _layers(graph, found, "encoder", rest, "", ENCODER_LAYER, "P")
        for i, (layer, attention) in enumerate(zip(layers, found, strict=True)):
            name = f"encoder.layers.{i}"
            norms = ("norm_feed_forward1", "norm_self_att", "norm_conv", "norm_feed_forward2", "norm_out")
            for norm, weighted in zip(norms, (w for w in layer if w.kind == "N"), strict=True):
                self._add_norm(f"{name}.{norm}", weighted)
            products = (w for w in layer if w.kind == "P")
            for product in ("feed_forward1.linear1", "feed_forward1.linear2", "self_attn.o_proj", *CONV_MODULE):
                self._add(f"{name}.{product}", next(products), scaled=product.endswith("linear2"))
            self._add_depthwise(f"{name}.conv", next(w for w in layer if w.kind == "C"))
            self._add_attention(f"{name}.self_attn", attention, True, graph)
        self._add("decoder.proj", rest[len(layers) * len(ENCODER_LAYER)])
        heads = found[0].heads
        width = found[0].query.source.shape[1] if found[0].query.part is None else heads[0] * heads[1]
        return {
            "n_mels": N_MELS,
            "subsampling_layers": (end - start + 1) // 2,
            "encoder_layers": len(layers),
            "encoder_width": width,
            "encoder_heads": heads[0],
        }

    def _read_decoder(self, graph: Graph, encoder: Graph) -> dict[str, int]:
        tokens = "tokens" if "tokens" in graph.inputs else "input_ids"
        live = graph.dependents(tokens)
        chain = [found for found in graph.weighted if found.out in live]
        tables = [w for w in chain if w.kind == "E"]
        found = attentions(graph, live)
        rest = _without_projections([w for w in chain if w.kind != "E"], found)
        layers = _layers(graph, found, "decoder", rest, "N", DECODER_LAYER, "NP")
        self_attention, cross_attention = found[0::2], found[1::2]
        for i, layer in enumerate(layers):
            name = f"decoder.layers.{i}"
            norms = ("input_layernorm", "post_attention_layernorm", "final_layernorm")
            for norm, weighted in zip(norms, (w for w in layer if w.kind == "N"), strict=True):
                self._add_norm(f"{name}.{norm}", weighted)
            names = ("self_attn.o_proj", "encoder_attn.o_proj", "mlp.fc1", "mlp.fc2")
            for product, weighted in zip(names, (w for w in layer if w.kind == "P"), strict=True):
                self._add(f"{name}.{product}", weighted)
            self._add_attention(f"{name}.self_attn", self_attention[i], False, graph)
            self._add_attention(f"{name}.encoder_attn", cross_attention[i], False, graph)
        self._add_cross(cross_attention, encoder)
        self._add_norm("decoder.embedding_layernorm", rest[0])
        self._add_norm("decoder.norm", rest[-2])
        output = rest[-1]
        fitting = [table for table in tables if table.shape == output.shape]
        embedding = _tied(graph, live, output) or next(iter(fitting), None)
        if embedding is None:
            raise ValueError(f"{graph.path.name}: no table of embeddings is looked up with {tokens!r}")
        added = [path for path in graph.back(_norm_input(rest[0]), None) if path.source.kind == "E"]
        positions = [path for path in added if path.source.out not in live]
        if not positions:
            raise ValueError(f"{graph.path.name}: no table of positions is added to the embeddings")
        self._products["proj_out"] = output, None
        self._products["decoder.embed_tokens"] = embedding, None
        self._arrays["proj_out.bias"] = lambda: self.linear("proj_out")[1]
        table = positions[0]
        self._arrays["decoder.pos_emb.weight"] = lambda: dense(scaled(table.source.read(), table.factor)).T
        heads, head_dim = _cache_heads(graph) or self_attention[0].heads
        return {
            "decoder_layers": len(layers),
            "decoder_width": heads * head_dim,
            "decoder_heads": heads,
            "max_positions": table.source.shape[1],
            "vocab_size": output.shape[1],
        }

    def _add(self, name: str, product: Weighted, part: slice | None = None, scaled: bool = False) -> None:
        self._products[name] = product, part
        if scaled:
            self._scales[name] = product.factor

    def _add_norm(self, name: str, norm: Weighted) -> None:
        self._arrays[f"{name}.weight"] = lambda: dense(norm.read())
        self._arrays[f"{name}.bias"] = norm.bias or (lambda: np.zeros(norm.shape, np.float32))

    def _add_conv2d(self, name: str, conv: Weighted, turned: bool) -> None:
        n_out = conv.shape[1] if conv.kind == "P" else conv.shape[0]

        def weight() -> np.ndarray:
            kernel = dense(conv.read())
            kernel = kernel.T[:, :, None, None] if conv.kind == "P" else kernel
            return kernel.swapaxes(2, 3) if turned else kernel

        self._arrays[f"{name}.weight"] = weight
        self._arrays[f"{name}.bias"] = conv.bias or (lambda: np.zeros(n_out, np.float32))
        self._shapes[f"{name}.weight"] = (*conv.shape[::-1], 1, 1) if conv.kind == "P" else conv.shape

    def _add_depthwise(self, name: str, conv: Weighted) -> None:
        channels, _, *kernel = conv.shape
        self._arrays[f"{name}.depthwise_conv.weight"] = lambda: dense(conv.read()).reshape(channels, 1, max(kernel))
        if conv.bias:
            self._arrays[f"{name}.depthwise_conv.bias"] = conv.bias
        for part, value in conv.norm.items():
            self._arrays[f"{name}.norm.{part}"] = partial(np.asarray, value)

    def _add_attention(self, name: str, attention: Attention, positions: bool, graph: Graph) -> None:
        self._add(f"{name}.q_proj", attention.query.source, attention.query.part)
        self._scales[f"{name}.q_proj"] = attention.scale
        for letter, path in (("k", attention.key), ("v", attention.value)):
            if path is not None:
                self._add(f"{name}.{letter}_proj", path.source, path.part)
                if letter == "k":  # its factor is in the queries' scale
                    self._scales[f"{name}.k_proj"] = 1.0
        if not positions:
            return
        for letter, path in (("u", attention.query), ("v", attention.position_query)):
            if path is None:
                raise ValueError(f"{graph.path.name}: {name} has no relative positions: not Cohere Transcribe")
            bias = np.sum(path.added, axis=0) if path.added else np.zeros(attention.heads)
            bias = np.asarray(bias, np.float32).reshape(attention.heads)
            self._arrays[f"{name}.bias_{letter}"] = partial(np.asarray, bias)
            self._shapes[f"{name}.bias_{letter}"] = attention.heads
        if attention.position_key is not None:
            self._add(f"{name}.relative_k_proj", attention.position_key.source, attention.position_key.part)
            self._scales[f"{name}.relative_k_proj"] = 1.0
            return
        tensor, gains = attention.position_table, attention.position_query.gains  # type: ignore[union-attr]

        def table() -> Matrix:
            numbers = np.ascontiguousarray(graph.array(tensor).T)
            return Columns.of(numbers, gains[0]) if gains else numbers.astype(np.float32)

        self._tables[name] = table

    def _add_cross(self, attentions: list[Attention], encoder: Graph) -> None:
        """Keys and values of the cross-attention: the decoder's products, or the encoder's."""
        for letter in "kv":
            if all((a.key if letter == "k" else a.value) is not None for a in attentions):
                continue
            word = {"k": "key", "v": "value"}[letter]
            stacked = f"n_layer_cross_{letter}"
            apart = [f"cross_attn.{i}.encoder.{word}" for i in range(len(attentions))]
            outputs = [stacked] if stacked in encoder.outputs else apart
            if missing := [name for name in outputs if name not in encoder.outputs]:
                raise ValueError(f"{encoder.path.name} has no output {missing[0]!r}, nor has the decoder its product")
            paths = [path for name in outputs for path in encoder.back(name, None) if path.source.kind == "P"]
            if not paths:
                raise ValueError(f"{encoder.path.name}: {outputs[0]!r} is not the result of products")
            if (len(paths) == 1 and len(attentions) > 1) or (outputs == [stacked] and paths[0].part):
                width = paths[0].source.shape[1] // len(attentions)
                first = 0
                if paths[0].source.shape[1] == 2 * len(attentions) * attentions[0].width:  # keys, then values
                    width //= 2
                    first = width * len(attentions) * "kv".index(letter)
                parts = [slice(first + i * width, first + (i + 1) * width) for i in range(len(attentions))]
                found: list[tuple[Weighted, slice | None]] = [(paths[0].source, part) for part in parts]
            else:
                found = [(path.source, path.part) for path in paths]
            if len(found) != len(attentions):
                raise ValueError(
                    f"{encoder.path.name}: {outputs[0]!r} is made by {len(found)} products, not {len(attentions)}"
                )
            for i, (product, part) in enumerate(found):
                self._add(f"decoder.layers.{i}.encoder_attn.{letter}_proj", product, part)

    def _check_sizes(self) -> None:
        """Raises ValueError where products do not fit together."""
        dims = self.dimensions
        mels = -(-dims.n_mels // 2**dims.subsampling_layers)
        channels = self.shape("encoder.subsampling.layers.0.weight")[0]
        expected = {
            "encoder.subsampling.linear": (channels * mels, dims.encoder_width),
            "decoder.proj": (dims.encoder_width, dims.decoder_width),
            "proj_out": (dims.decoder_width, dims.vocab_size),
            "decoder.embed_tokens": (dims.decoder_width, dims.vocab_size),
        }
        for name, (product, part) in self._products.items():
            n_out = product.shape[1] if part is None else part.stop - part.start
            found = product.shape[0], n_out
            width = dims.encoder_width if name.startswith("encoder.") else dims.decoder_width
            wanted = expected.get(name, (width, width) if re.search("attn.[qkvo]_proj", name) else found)
            if found != wanted:
                raise ValueError(f"{name}: a product of {found[0]} x {found[1]}, expected {wanted[0]} x {wanted[1]}")


CONV_MODULE = ("conv.pointwise_conv1", "conv.pointwise_conv2", "feed_forward2.linear1", "feed_forward2.linear2")


def _halves(found: Weighted) -> bool:
    """Whether it is the first convolution of the subsampling: of an image with one channel."""
    return (
        found.kind == "C"
        and len(found.shape) == 4
        and found.shape[1] == 1
        and _strides(found) == [2, 2]
        and (found.node.attributes.get("group", 1) == 1)
    )


def _strides(found: Weighted) -> list[int]:
    return list(found.node.attributes.get("strides", []))


def _time_axis(graph: Graph, linear: Weighted) -> int:
    """Which axis of the convolved images is time: the one that comes before the channels in the product's input."""
    name, perm = linear.node.inputs[0], None
    while perm is None and name in graph.producer and name not in graph.by_out:
        node = graph.producer[name]
        perm = node.attributes.get("perm") if node.op == "Transpose" else None
        name = node.inputs[0]
    perm = list(perm or [])
    if perm not in ([0, 2, 1, 3], [0, 3, 1, 2]):
        raise ValueError(f"{graph.path.name}: the convolved images are laid out {perm}, not channels by frequencies")
    return perm[1]


def _without_projections(chain: list[Weighted], found: list[Attention]) -> list[Weighted]:
    """Without attention's q, k and v and norms for k and v alone; what follows an attention is marked as its output."""
    inner = {id(w) for attention in found for w in attention.projections}
    rest = [w for w in chain if id(w) not in inner]
    for attention in found:
        output = next((w for w in rest if w.kind == "P" and w.node.place > attention.place), None)
        if output is not None:
            attention.output = output
    return rest


def _layers(
    graph: Graph, attentions: list[Attention], role: str, rest: list[Weighted], before: str, layer: str, after: str
) -> list[list[Weighted]]:
    """The operations of each layer. Raises ValueError where they are not as the model has them."""
    outputs = {id(a.output) for a in attentions}
    found = "".join("A" if id(w) in outputs else w.kind for w in rest)
    size = len(layer)
    body = found[len(before) :]
    n_layers = 0
    while body[n_layers * size :].startswith(layer):
        n_layers += 1
    tail = body[n_layers * size :]
    cross = role == "encoder" and re.fullmatch("P+", tail)
    complete = len(attentions) == n_layers * layer.count("A")
    if found.startswith(before) and n_layers and complete and (tail == after or cross):
        first = len(before)
        return [rest[first + i * size : first + (i + 1) * size] for i in range(n_layers)]
    words = ", ".join(LETTERS.get(letter, letter) for letter in tail[:size])
    expected = ", ".join(LETTERS[letter] for letter in layer)
    raise ValueError(
        f"{graph.path.name}: the {role}'s layer {n_layers + 1} is {words or 'nothing'}; one of Cohere Transcribe is "
        f"{expected}"
    )


def _tied(graph: Graph, live: set[str], output: Weighted) -> Weighted | None:
    """The output matrix, if tokens are looked up in it."""
    looked_up = [node for node in graph.nodes if node.op == "Gather" and node.inputs[1] in live]
    return output if any(output.weights == node.inputs[0] for node in looked_up) else None


def _norm_input(norm: Weighted) -> str:
    return norm.node.inputs[0]


def _cache_heads(graph: Graph) -> tuple[int, int] | None:
    """(heads, size of a head), from the shape of the caches (..., heads, positions, size)."""
    for name, shape in graph.inputs.items():
        if re.search("self_k_cache|decoder.key", name):
            heads, _, head_dim = shape[-3:]
            if isinstance(heads, int) and isinstance(head_dim, int) and heads > 0 < head_dim:
                return heads, head_dim
    return None
