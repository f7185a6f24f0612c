"""What the writers ask of a source of weights, a checkpoint or published graphs. Names are transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .matrix import Matrix

if TYPE_CHECKING:
    from .checkpoint import Dimensions


class Source(Protocol):
    """Weights, read when asked for. Methods raise ValueError for an unknown name."""

    dimensions: Dimensions
    languages: str  # codes of those that the model was trained on, "en,de"; "" where nothing tells

    @property
    def decoder_precision(self) -> str | None:
        """ "int8" or "int4", where the decoder's products are quantised already."""

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of `tensor(name)`, without reading it."""

    def tensor(self, name: str) -> np.ndarray:
        """A weight as float32, C-contiguous."""

    def matrix(self, name: str) -> Matrix:
        """The weights of a product, (n_in, n_out), as stored; of a table, a column for each of its rows."""

    def linear(self, name: str) -> tuple[Matrix, np.ndarray]:
        """A product's weights and its bias, float32 (n_out,), zeros where there is none."""

    def scale(self, name: str) -> float:
        """What the model multiplies the result of a product by: attention's scale, for the queries, and so on."""

    def relative_keys(self, name: str, sinusoids: np.ndarray) -> Matrix:
        """The keys of relative positions in an attention, (positions, width), from sinusoids of the same shape."""

    def write_tokens(self, out: Path) -> None:
        """Write tokens.txt. Raises ValueError or OSError."""

    def finish(self) -> None:
        """Raises ValueError if there are weights that nobody asked for: a model that this exporter does not know."""
