"""One step of the decoder as one launch. A GPU's own work on a token is short, and most of a step's time is spent on
launching some hundred kernels; recorded once, they are launched together (CUDA graphs, WebGPU's graph capture).

A recording reads and writes the same addresses for ever. So buffers are kept, a set for each number of rows, and what
the encoder gave is copied into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..contracts.contract import fixed_size
from ..errors import CohereLiteError, logger
from ..session import BFLOAT16, OrtValue, Session, Value, ort
from .side_by_side import SideBySide


def find_step(decoder: Session) -> RecordedStep | None:
    """Of the graph that the exporter writes beside a decoder; None where there is none, or no provider to record it."""
    path = decoder.path.with_name(decoder.path.name.replace("decoder", "step"))
    if decoder.recorded is None or path == decoder.path or not path.is_file():
        return None
    try:
        return RecordedStep(decoder.recorded(path), SideBySide(decoder))
    except CohereLiteError as error:
        logger.warning("steps of the decoder are launched kernel by kernel, which is slower: %s", error)
        return None


class _Recording(NamedTuple):
    """For one number of rows.  values: what is bound, by the names of inputs and outputs"""

    values: dict[str, OrtValue]
    binding: ort.IOBinding
    options: ort.RunOptions


class RecordedStep:
    """n_frames: of the longest clip that it takes."""

    def __init__(self, session: Session, lay_out: SideBySide) -> None:
        self.n_frames = fixed_size(session, "cross_value_0", 2)
        self._session, self._lay_out = session, lay_out
        self._recordings: dict[int, _Recording] = {}

    def start(self, rows: Sequence[Mapping[str, OrtValue]], caches: Mapping[str, OrtValue]) -> dict[str, OrtValue]:
        """Begin with what the encoder gave for each row; the buffers that it is copied to, for the decoder to read.
        caches: the same ones whenever there are so many rows"""
        if len(rows) not in self._recordings:
            self._recordings[len(rows)] = self._prepare(len(rows), caches)
        self._recording = self._recordings[len(rows)]
        values = self._recording.values
        lengths = [row["cross_value_0"].shape()[2] for row in rows]
        values["encoder_length"].update_inplace(np.array(lengths, np.int32))
        for name in rows[0]:
            self._lay_out(name, [row[name] for row in rows], values[name])
        return {name: values[name] for name in rows[0]}

    def __call__(self, tokens: NDArray[np.int64], position: int, outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Feed tokens (rows, 1) at this position; these of the outputs. The first call for a number of rows records."""
        values, binding, options = self._recording
        values["tokens"].update_inplace(tokens.astype(np.int32))
        values["last_position"].update_inplace(np.full(len(tokens), position, np.int32))
        self._session.run(binding, options)
        return [values[name].numpy() for name in outputs]

    def _prepare(self, n_rows: int, caches: Mapping[str, OrtValue]) -> _Recording:
        values = {**caches, **{name.replace("past_", "present_"): value for name, value in caches.items()}}
        binding = self._session._session.io_binding()
        for name, value in (self._session.inputs | self._session.outputs).items():
            if name not in values:
                values[name] = zeros(value, [size if isinstance(size, int) else n_rows for size in value.shape])
            is_input = name in self._session.inputs
            (binding.bind_ortvalue_input if is_input else binding.bind_ortvalue_output)(name, values[name])
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(n_rows))
        return _Recording(values, binding, options)


def zeros(value: Value, shape: Sequence[int]) -> OrtValue:
    """Of this type, in this memory."""
    if value.dtype == BFLOAT16:
        made = OrtValue.ortvalue_from_shape_and_type(shape, 16, *value.device)  # TensorProto.BFLOAT16 of onnx.proto
        made.update_inplace(np.zeros(shape, np.uint16))
        return made
    return OrtValue.ortvalue_from_numpy(np.zeros(shape, value.dtype), *value.device)
