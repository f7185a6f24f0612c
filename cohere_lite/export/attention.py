"""Attention in a published graph: which products make its queries, keys and values, and what scales the scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from .onnxfile import MOVES, SHAPES, Node
from .paths import Graph, Way
from .weighted import MATMULS, Weighted

# Operators that are an attention; the input that is added to the scores.
FUSED = {"MultiHeadAttention": 5, "GroupQueryAttention": 10, "Attention": 3}


@dataclass(eq=False)
class Attention:
    """key, value: None where they come from outside (cross-attention);  position_query, position_key: of the encoder's
    relative positions; position_table: the tensor that holds the keys where an exporter has worked them out;
    scale: what the scores are multiplied by;  heads: (number, size);  place: of the last operator in the graph's order.
    """

    place: int
    query: Way
    key: Way | None
    value: Way | None
    scale: float
    heads: tuple[int, int]
    position_query: Way | None = None
    position_key: Way | None = None
    position_table: str = ""
    output: Weighted | None = None
    extra_norms: tuple[Weighted, ...] = ()

    @property
    def projections(self) -> Iterator[Weighted]:
        """The products of this attention, its output apart, and norms that only they read."""
        paths = (self.query, self.key, self.value, self.position_query, self.position_key)
        yield from (path.source for path in paths if path is not None)
        yield from self.extra_norms

    @property
    def width(self) -> int:
        """Of all heads."""
        return self.heads[0] * self.heads[1]


@dataclass
class _Scores:
    """query, key, value: names of values;  bias: what is added to the scores;  scale: None stands for one over the root
    of a head's size;  softmax: its input, where query and key are multiplied before it."""

    end: Node
    query: str
    key: str
    value: str
    scale: float | None
    heads: int = 0
    bias: str = ""
    softmax: str = ""


def attentions(graph: Graph, live: set[str]) -> list[Attention]:
    """In order. live: the values that depend on the audio, or on the tokens. Raises ValueError."""
    found = []
    for node in graph.nodes:
        if node.op == "com.microsoft.Attention":
            raise ValueError(f"{graph.path.name}: attention fused with its weights (com.microsoft.Attention)")
        if not any(name in live for name in node.outputs):
            continue
        if node.op in FUSED:
            found.append(_resolve(graph, live, _fused(node)))
        elif node.op == "Softmax" and (end := _after_softmax(graph, node)):
            found.append(_resolve(graph, live, _decomposed(node, end)))
    found.sort(key=lambda attention: attention.place)
    return found


def _fused(node: Node) -> _Scores:
    scale = node.attributes.get("scale", 0.0) or None
    heads = node.attributes.get("num_heads", node.attributes.get("q_num_heads", 0))
    key, value = node.input(1) or node.inputs[0], node.input(2) or node.inputs[0]
    return _Scores(node, node.inputs[0], key, value, scale, heads, node.input(FUSED[node.op]))


def _decomposed(softmax: Node, end: Node) -> _Scores:
    return _Scores(end, "", "", end.inputs[1], 1.0, softmax=softmax.inputs[0])


def _after_softmax(graph: Graph, node: Node) -> Node | None:
    """The product of probabilities and values."""
    names, seen = list(node.outputs), set()
    while names:
        for consumer in graph.consumers.get(names.pop(0), []):
            if consumer.op in {*MATMULS, "Einsum"}:
                return consumer
            if consumer.op in {*MOVES, "Where", "Mul", "IsNaN"} and consumer.outputs[0] not in seen:
                seen.add(consumer.outputs[0])
                names.append(consumer.outputs[0])
    return None


def _resolve(graph: Graph, live: set[str], scores: _Scores) -> Attention:
    """Twice: attention's scale is often computed from the size of a head, which the queries' way tells."""
    heads = _heads(_with_heads(graph, live, scores, None), scores)
    if heads is None:
        raise ValueError(f"{graph.path.name}: an attention that does not tell its number of heads")
    return _with_heads(graph, live, scores, heads)


def _heads(attention: Attention, scores: _Scores) -> tuple[int, int] | None:
    query = attention.query
    width = query.source.shape[1] if query.part is None else query.part.stop - query.part.start
    if scores.heads:
        return scores.heads, width // scores.heads
    for heads in (query.heads, attention.position_query.heads if attention.position_query else None):
        if heads:
            number, size = heads
            number, size = (number if number > 0 else width // size), (size if size > 0 else width // number)
            if number * size == width:
                return number, size
    for array in query.added:
        sizes = [size for size in array.shape if size != 1]
        if len(sizes) == 2:
            return sizes[0], sizes[1]
    return None


class _Product(NamedTuple):
    """Scores before they are summed.  query, key: None: no product;  key_name: the value that is the key"""

    query: Way | None
    key: Way | None
    factor: float
    key_name: str


def _with_heads(graph: Graph, live: set[str], scores: _Scores, heads: tuple[int, int] | None) -> Attention:
    last = heads[1] if heads else None
    content, position = _content_and_position(graph, live, scores, last)
    if content is None or content.query is None:
        raise ValueError(f"{graph.path.name}: an attention whose queries are no product")
    query, key, value = content.query, content.key, _nearest(graph, scores.value, live, last)
    if scores.query and scores.query == scores.key:  # a fused operator, fed with all three side by side
        query, key, value = (replace(query, part=None, index=i) for i in range(3))
    _take_biases(graph, scores.end, (query, key, value))
    if key is not None and value is not None and key.source is value.source:
        query, key, value = _by_index(query, key, value)
    outside = key is None
    if outside:  # a cross-attention: keys and values are no work of the tokens
        key, value = (_nearest(graph, name, None, last) for name in (content.key_name, scores.value))
    total = content.factor * query.factor * (key.factor if key else _factor_from_outside(graph, content.key_name, last))
    attention = Attention(scores.end.place, query, key, value, total, heads or (1, 1))
    if key is not None and not outside:
        attention.extra_norms = tuple(_norms_apart(graph, live, query, key))
    if position is not None and position.query is not None:
        attention.position_query = position.query
        attention.position_key = _nearest(graph, position.key_name, None, last)
        key_factor = attention.position_key.factor if attention.position_key else 1
        own = position.factor * position.query.factor * key_factor
        if last and not np.isclose(own, total, rtol=1e-2):  # half precision is good for 1e-3
            raise ValueError(f"{graph.path.name}: scores scaled by {total:g}, of positions by {own:g}")
        if attention.position_key is None:
            attention.position_table = _leaf(graph, position.key_name)
    return attention


def _content_and_position(
    graph: Graph, live: set[str], scores: _Scores, last: int | None
) -> tuple[_Product | None, _Product | None]:
    """Scores of keys that are work of the audio (or tokens), or come from outside; and scores of relative positions."""
    added = scores.softmax or (scores.bias if scores.bias in live else "")
    found = [
        _Product(_nearest(graph, query, live, last), _nearest(graph, key, live, last), factor, key)
        for factor, query, key in _score_products(graph, live, added, last)
    ]
    if not scores.softmax:
        scale = scores.scale if scores.scale is not None else (last or 1) ** -0.5
        query, key = (_nearest(graph, name, live, last) for name in (scores.query, scores.key))
        return _Product(query, key, scale, scores.key), next(iter(found), None)
    content = [product for product in found if product.key is not None]
    position = [product for product in found if product.key is None]
    if not content:  # a cross-attention
        return next(iter(position), None), None
    return content[0], next(iter(position), None)


def _take_biases(graph: Graph, node: Node, ways: Iterable[Way | None]) -> None:
    """Biases that an optimiser has moved from the projections into the attention: of queries, keys and values."""
    name = node.input(3) if node.op == "MultiHeadAttention" else ""
    whole = graph.vector(name) if name else None
    if whole is None:
        return
    for i, way in enumerate(ways):
        part = whole.reshape(3, -1)[i]
        if way is None and part.any():
            raise ValueError(f"{graph.path.name}: a bias for keys or values that come from outside")
        if way is not None and way.source.bias is None:
            way.source.bias = partial(np.asarray, part)


def _by_index(query: Way, key: Way, value: Way) -> Iterator[Way]:
    """Packed projections that are told apart by an index: parts of the same size."""
    ways = (query, key, value)
    count = sum(way.source is key.source for way in ways)
    for i, way in enumerate(ways):
        if way.source is key.source and way.part is None:
            size = way.source.shape[1] // count
            index = i - (3 - count) if way.index is None else way.index
            way = replace(way, part=slice(index * size, (index + 1) * size))
        yield way


def _score_products(graph: Graph, live: set[str], value: str, last: int | None) -> Iterator[tuple[float, str, str]]:
    """(factor, query, key) of the products of activations that a value is the sum of."""
    pending = [(value, 1.0)]
    seen: set[str] = set()
    while pending:
        name, factor = pending.pop()
        node = graph.producer.get(name)
        if node is None or name not in live or name in seen or name in graph.by_out:
            continue
        seen.add(name)
        if node.op in {*MATMULS, "Einsum"}:
            first, second = node.inputs[:2]
            factor *= float(node.attributes.get("alpha", 1.0))
            yield (factor, first, second) if first in live else (factor, second, first)
            continue
        for part, moved in graph.step(node, name, Way(None, factor), last):  # type: ignore[arg-type]
            pending.append((part, moved.factor))


def _nearest(graph: Graph, name: str, live: set[str] | None, last: int | None) -> Way | None:
    """The way back to the product that a value comes from: the last one in the graph's order, since the caches of
    earlier layers may share a tensor with this one's."""
    paths = [path for path in graph.back(name, live, last) if path.source.kind == "P"]
    return max(paths, key=lambda path: path.source.node.place, default=None)


def _norms_apart(graph: Graph, live: set[str], query: Way, key: Way) -> Iterator[Weighted]:
    """Norms that the keys read and the queries do not: the same weights, over more rows."""
    norms = [
        [p.source for p in graph.back(path.source.node.inputs[0], live) if p.source.kind == "N"]
        for path in (query, key)
    ]
    for norm in norms[1]:
        if norm not in norms[0]:
            same = norms[0] and np.array_equal(norm.read(), norms[0][0].read())  # type: ignore[arg-type]
            if not same:
                raise ValueError(f"{graph.path.name}: keys are normalised with other weights than queries")
            yield norm


def _factor_from_outside(graph: Graph, name: str, last: int | None) -> float:
    """What multiplies an input of the graph on its way to a value."""
    pending = [(name, 1.0)]
    while pending:
        name, factor = pending.pop()
        if name in graph.inputs:
            return factor
        node = graph.producer.get(name)
        if node is not None and node.op not in SHAPES and name not in graph.constant_names:
            pending += [(part, way.factor) for part, way in graph.step(node, name, Way(None, factor), last)]  # type: ignore[arg-type]
    return 1.0


def _leaf(graph: Graph, name: str) -> str:
    while name not in graph.tensors:
        if name not in graph.producer:
            raise ValueError(f"{graph.path.name}: the keys of relative positions come from {name!r}")
        name = graph.producer[name].inputs[0]
    return name
