"""A weight matrix as a file stores it: floats, INT8 numbers with a scale per column, or blocks with a scale each. What
writers do with one (multiply it, lay several side by side, take some of its columns) leaves its numbers as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Columns:
    """numbers int8 (n_in, n_out), scale float32 (n_out,), zero int8 (n_out,): weight = (numbers - zero) * scale."""

    numbers: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None) -> Columns:
        """From int8 or uint8 numbers; scale and zero point have one element or one per column. Unsigned numbers become
        signed ones (onnxruntime's products of those are five times as fast): the weights stay what they are."""
        zero = np.zeros(1, numbers.dtype) if zero is None else zero
        if numbers.dtype == np.uint8:
            # a zero point may have no axis, and NumPy 1 then makes int64 of it
            numbers, zero = ((part ^ np.uint8(0x80)).view(np.int8) for part in (numbers, zero.astype(np.uint8)))
        n_out = numbers.shape[1]
        if scale.size not in (1, n_out) or zero.size not in (1, n_out):
            raise ValueError(f"a matrix of {n_out} columns has {scale.size} scales and {zero.size} zero points")
        wide = (np.broadcast_to(part.reshape(-1), (n_out,)) for part in (scale.astype(np.float32), zero))
        return cls(numbers, *(np.array(part) for part in wide))

    @property
    def shape(self) -> tuple[int, int]:
        """(n_in, n_out)."""
        return self.numbers.shape

    def dense(self) -> np.ndarray:
        """float32 (n_in, n_out)."""
        return (self.numbers.astype(np.float32) - self.zero) * self.scale

    def scaled(self, factor: np.float32) -> Columns:
        """The matrix times a number."""
        return replace(self, scale=self.scale * factor)

    def columns(self, part: slice) -> Columns:
        """Some of the columns."""
        return Columns(self.numbers[:, part], self.scale[part], self.zero[part])

    def in_blocks(self, size: int) -> Blocks:
        """The same weights in 8-bit blocks, as MatMulNBits has them: each block has its column's scale."""
        n_in, n_out = self.shape
        n_blocks = -(-n_in // size)
        stored = np.empty((n_out, n_blocks * size), np.uint8)
        zero = self.zero.view(np.uint8) ^ 0x80
        stored[:, :n_in] = (self.numbers.view(np.uint8) ^ 0x80).T
        stored[:, n_in:] = zero[:, None]
        by_block = [np.repeat(part[:, None], n_blocks, axis=1) for part in (self.scale, zero)]
        return Blocks(stored.reshape(n_out, n_blocks, size), by_block[0], by_block[1], 8, size, n_in)


@dataclass(frozen=True)
class Blocks:
    """stored uint8 (n_out, blocks, bytes of a block), 4-bit numbers in pairs, low half first;  scale float32 and zero
    uint8, (n_out, blocks);  size: weights in a block. The last block of a row may be padded."""

    stored: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    bits: int
    size: int
    n_in: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n_in, n_out)."""
        return self.n_in, len(self.stored)

    @property
    def has_zero_points(self) -> bool:
        """Whether any differs from the operator's default, the middle."""
        return bool((self.zero != 2 ** (self.bits - 1)).any())

    def dense(self) -> np.ndarray:
        """float32 (n_in, n_out)."""
        numbers = unpacked(self.stored) if self.bits == 4 else self.stored
        weight = (numbers.astype(np.float32) - self.zero[..., None]) * self.scale[..., None]
        return np.ascontiguousarray(weight.reshape(len(weight), -1)[:, : self.n_in].T)

    def scaled(self, factor: np.float32) -> Blocks:
        """The matrix times a number."""
        return replace(self, scale=self.scale * factor)

    def columns(self, part: slice) -> Blocks:
        """Some of the columns."""
        return replace(self, stored=self.stored[part], scale=self.scale[part], zero=self.zero[part])

    def packed_zero_points(self) -> np.ndarray:
        """As MatMulNBits takes them: uint8 (n_out, bytes of a row)."""
        return packed(self.zero) if self.bits == 4 else self.zero


Matrix = np.ndarray | Columns | Blocks  # an array is float32 (n_in, n_out)


def dense(matrix: Matrix) -> np.ndarray:
    """float32 (n_in, n_out)."""
    return matrix if isinstance(matrix, np.ndarray) else matrix.dense()


def scaled(matrix: Matrix, factor: float | np.floating) -> Matrix:
    """The matrix times a number, which goes into the scales."""
    number = np.float32(factor)
    return matrix * number if isinstance(matrix, np.ndarray) else matrix.scaled(number)


def columns(matrix: Matrix, part: slice) -> Matrix:
    """Some of the columns."""
    return matrix[:, part] if isinstance(matrix, np.ndarray) else matrix.columns(part)


def side_by_side(matrices: Sequence[Matrix]) -> Matrix:
    """Matrices of one form with the same n_in as one; floats if they are of different forms."""
    kinds = {(type(matrix), *((m.bits, m.size) if isinstance(m := matrix, Blocks) else ())) for matrix in matrices}
    first = matrices[0]
    if len(kinds) > 1 or isinstance(first, np.ndarray):
        return np.concatenate([dense(matrix) for matrix in matrices], axis=1)
    if isinstance(first, Columns):
        names, axes = ("numbers", "scale", "zero"), (1, 0, 0)
    else:
        names, axes = ("stored", "scale", "zero"), (0, 0, 0)
    parts = {n: np.concatenate([getattr(m, n) for m in matrices], axis=a) for n, a in zip(names, axes, strict=True)}
    return type(first)(**{**vars(first), **parts})


def same(one: Matrix, other: Matrix) -> bool:
    """Whether they are stored alike, to the last bit."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(one, other)
    return type(one) is type(other) and all(
        np.array_equal(value, getattr(other, name)) for name, value in vars(one).items()
    )


def unpacked(stored: np.ndarray) -> np.ndarray:
    """Pairs of 4-bit numbers along the last axis, low half first -> uint8, twice as long."""
    return np.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:-1], -1)


def packed(numbers: np.ndarray) -> np.ndarray:
    """The inverse of `unpacked`; an odd row is padded with a zero."""
    if numbers.shape[-1] % 2:
        numbers = np.concatenate([numbers, np.zeros_like(numbers[..., :1])], axis=-1)
    return numbers[..., 0::2] | numbers[..., 1::2] << 4
