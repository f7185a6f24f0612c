"""Which operation a value comes from, and what happens to its result on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from .onnxfile import MOVES, SHAPES, Node
from .weighted import Weighted, Weights

# Of these only the first input is data; the others are shapes, axes, indices, scales and zero points.
FIRST_INPUT = MOVES | {
    *("Expand", "Slice", "Gather", "GatherElements", "GatherND", "Tile", "Split", "Pad", "Clip", "Trilu", "CumSum"),
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ReduceMean", "ReduceSum", "CastLike"),
}


@dataclass
class Way:
    """A way back from a value to the operation it comes from. factor: what multiplies the operation's result on it;
    added: constants, in the units of the operation's result;  gains: vectors that multiply;  part: its columns;
    index: which of equal parts;  heads: (number, size) where the way leads through a reshape by head."""

    source: Weighted
    factor: float = 1.0
    added: list[np.ndarray] = field(default_factory=list)
    gains: list[np.ndarray] = field(default_factory=list)
    part: slice | None = None
    index: int | None = None
    heads: tuple[int, int] | None = None


class Graph(Weights):
    """A file, its weighted operations, and the ways between them."""

    def dependents(self, *seeds: str) -> set[str]:
        """The values that depend on the numbers, not just on the shapes, of these."""
        found = set(seeds)
        for node in self.nodes:
            if node.op in SHAPES:
                continue
            if any(name in found for name in node.inputs):
                found.update(name for name in node.outputs if name)
        return found

    def back(self, value: str, live: set[str] | None, last: int | None = None) -> list[Way]:
        """The ways back from a value to the nearest weighted operations, in the order of the inputs. live: follow these
        values only."""
        found: list[Way] = []
        seen: set[str] = set()

        def follow(name: str, path: Way) -> None:
            if not name or name in self.constant_names or (live is not None and name not in live):
                return
            if name in self.by_out:
                source = self.by_out[name]
                total = path.factor * source.factor
                added = [array / total for array in path.added]
                part = _proper(path.part, source.shape[-1])
                heads = [path.heads, *map(self._heads, source.shapes)]
                heads = [pair for pair in heads if pair is not None] or [None]
                found.append(replace(path, source=source, factor=total, added=added, part=part, heads=heads[0]))
                return
            node = self.producer.get(name)
            if node is None or node.op in SHAPES or name in seen:
                return
            if live is None:
                seen.add(name)
            for next_, moved in self.step(node, name, path, last):
                follow(next_, moved)

        follow(value, Way(None))  # type: ignore[arg-type]
        return found

    def step(self, node: Node, name: str, path: Way, last: int | None) -> Iterator[tuple[str, Way]]:
        """One node back: its inputs, and the way including it."""

        if node.op in ("Mul", "Div", "Add", "Sub"):
            for i, part in enumerate(node.inputs):
                other = node.inputs[1 - i]
                number = self.scalar(other, last) if node.op in ("Mul", "Div") else None
                vector = self.vector(other) if number is None else None
                if number is not None and (node.op == "Mul" or i == 0):
                    yield part, replace(path, factor=path.factor * (number if node.op == "Mul" else 1 / number))
                elif vector is not None and node.op in ("Add", "Sub"):
                    sign = 1 if node.op == "Add" else -1
                    yield part, replace(path, added=[*path.added, vector.astype(np.float64) * path.factor * sign])
                elif vector is not None and node.op == "Mul":
                    yield part, replace(path, gains=[*path.gains, vector])
                else:
                    yield part, path
        elif node.op in ("ScatterND", "ScatterElements", "TensorScatter"):
            yield node.inputs[1 if node.op == "TensorScatter" else 2], path
        elif node.op == "Where":
            yield from ((part, path) for part in node.inputs[1:])
        elif node.op in ("Split", "Slice", "Gather"):
            yield node.inputs[0], self._packed(path, node, name)
        elif node.op == "Reshape" and path.heads is None:
            yield node.inputs[0], replace(path, heads=self._heads(node.inputs[1]))
        elif node.op in FIRST_INPUT:
            yield node.inputs[0], path
        elif node.op == "SkipLayerNormalization":  # the sum
            yield from ((part, path) for part in node.inputs[:2])
        else:
            yield from ((part, path) for part in node.inputs)

    def _packed(self, way: Way, node: Node, name: str) -> Way:
        """With the part that a node takes of packed columns."""
        if node.op == "Split":
            i = node.outputs.index(name)
            sizes = self.value(node.input(1)) if node.input(1) else np.array(node.attributes.get("split", []))
            if sizes is None or len(sizes) == 0 or node.attributes.get("axis", 0) not in (2, -1):
                return replace(way, index=i)
            return replace(way, part=slice(int(sizes[:i].sum()), int(sizes[: i + 1].sum())))
        if node.op == "Gather":
            index = self.scalar(node.inputs[1])
            return way if index is None else replace(way, index=int(index))
        start, end, axis = (self.scalar(part) for part in (*node.inputs[1:4], "", "", "")[:3])
        if axis not in (2, -1) or start is None or end is None:
            return way
        return replace(way, part=slice(int(start), int(min(end, 2**31))))

    def _heads(self, shape: str) -> tuple[int, int] | None:
        """(heads, size of a head), from the last two sizes of a reshape's four; -1: unknown."""
        value = self.value(shape)
        if value is not None:
            return (int(value[-2]), int(value[-1])) if value.size == 4 else None
        node = self.producer.get(shape)
        if node is None or node.op != "Concat":
            return None
        parts = [self.value(part) for part in node.inputs]
        if pairs := [part for part in parts if part is not None and part.size > 1]:  # what follows is empty
            return int(pairs[-1][-2]), int(pairs[-1][-1])
        sizes = [-1 if part is None or part.size != 1 else int(part.reshape(())) for part in parts]
        return (sizes[-2], sizes[-1]) if len(sizes) == 4 else None


def _proper(part: slice | None, n_columns: int) -> slice | None:
    """A part of packed columns, in numbers from 0; None for what is none: a cut along another axis."""
    if part is None:
        return None
    start, stop, _ = part.indices(n_columns)
    size = stop - start
    return slice(start, stop) if 0 < size < n_columns and n_columns % size == 0 else None
