"""The encoder of standard operators alone, for providers that have none of onnxruntime's own: TensorRT and CoreML.

CoreML, and TensorRT at its fastest, want lengths that do not vary, so clips may come padded: an input `mel_mask` says
which frames are a clip's. It is applied where the reference masks (transformers' Parakeet encoder): after each
subsampling convolution, before the depthwise ones, and to the keys of attention. So every frame of a clip gets the
numbers that it has without padding."""

import numpy as np

from .graph import MASKED, Graph


class Padding:
    """What tells a clip's frames from padding, at each level of subsampling.

    unseen: what is added to the scores of attention, (B, 1, 1, T / 8)"""

    def __init__(self, graph: Graph, n_halvings: int) -> None:
        self._graph = graph
        mask = graph.input("mel_mask", "float32", ["batch", "mel_frames"])
        mask = graph.cast(mask, "float32", graph.float_type)
        self._masks = [graph.node("Unsqueeze", mask, graph.constant([1, 2]))]
        # a convolution of stride 2 turns n frames into ceil(n / 2), the frames of even number
        every_second = [graph.constant([value]) for value in (0, np.iinfo(np.int64).max, 3, 2)]
        for _ in range(n_halvings):
            self._masks.append(graph.node("Slice", self._masks[-1], *every_second))
        masked = graph.node("Sub", self._masks[-1], graph.constant(1, graph.float_type))
        self.unseen = graph.node("Mul", masked, graph.constant(-MASKED, graph.float_type))

    def clear(self, x: str, level: int = -1) -> str:
        """x (B, channels, rows, frames), with zeros in place of padding.  level: halvings before, -1 for all of them"""
        return self._graph.node("Mul", x, self._masks[level])


def by_distance(graph: Graph, by_column: str, frames: str) -> str:
    """Scores of positions, (B, heads, T, 2 T), by column -> by key, (B, heads, T, T): query i finds key j at column
    T - i + j. Read as one row, that is number T + (2 T - 1) i + j: without the first T numbers, and in rows of 2 T - 1,
    keys stand in order.  frames: T, (1,)"""
    rest, same = graph.constant([-1]), graph.constant([0, 0])
    in_rows_of_keys = graph.node("Reshape", by_column, graph.node("Concat", same, rest, frames, axis=0))
    end = graph.constant([np.iinfo(np.int64).max])
    later = graph.node("Slice", in_rows_of_keys, graph.constant([1]), end, graph.constant([2]))
    shifted = graph.node("Reshape", later, graph.node("Concat", same, frames, rest, axis=0))
    return graph.node("Slice", shifted, graph.constant([0]), frames, graph.constant([3]))


def attention_of_standard_operators(
    graph: Graph, query: str, key: str, value: str, scores: str, by_head: tuple[int, int]
) -> str:
    """query, key, value (B, T, width) -> what each query reads, (B, T, width).  scores: added to those of the contents,
    (B, heads, T, T);  by_head: heads, and their size"""
    sizes = graph.constant([0, 0, *by_head])

    def transposed(x: str, perm: list[int]) -> str:
        return graph.node("Transpose", graph.node("Reshape", x, sizes), perm=perm)

    contents = graph.node("MatMul", transposed(query, [0, 2, 1, 3]), transposed(key, [0, 2, 3, 1]))
    shares = graph.node("Softmax", graph.node("Add", contents, scores), axis=-1)
    mixed = graph.node("MatMul", shares, transposed(value, [0, 2, 1, 3]))
    together = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.node("Reshape", together, graph.constant([0, 0, by_head[0] * by_head[1]]))
