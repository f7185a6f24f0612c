"""What a decoder takes and gives again, longer by the new tokens: buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..session import CPU, OrtValue, Session
from .contract import Clip, Contract


class Caches:
    """Two buffers for each, which take turns as input and output; or one for both, where the graph allows it."""

    def __init__(self, decoder: Session, names: Mapping[str, str], shape: tuple[int, ...], axis: int) -> None:
        """names: of the outputs, by those of the inputs;  shape: of each when all positions are filled;  axis: of the
        positions."""
        self.names, self.axis, self.max_length = names, axis, shape[axis]
        self.in_place = False
        self._shape, self._value = shape, decoder.inputs[next(iter(names))]
        # np.zeros takes no memory until it is written to
        self._arrays = [{name: np.zeros(shape, self._value.dtype) for name in names} for _ in range(2)]
        self._whole = [self._values(arrays) for arrays in self._arrays]
        self._parts: list[dict[str, OrtValue]] = [{}, {}]  # of fewer positions, on other devices than the CPU

    def inputs(self, length: int) -> dict[str, OrtValue]:
        """The buffers as inputs, of so many positions."""
        return {name: self._part(0, name, length) for name in self.names}

    def outputs(self, length: int) -> dict[str, OrtValue]:
        """The buffers as outputs, by the outputs' names."""
        return {output: self._part(int(not self.in_place), name, length) for name, output in self.names.items()}

    def bind(self, decoder: Session, n_past: int, n_present: int) -> None:
        """Bind the buffers as inputs and as outputs, of so many positions, for the next run."""
        for name, value in (self.inputs(n_past) | self.outputs(n_present)).items():
            decoder.bind(name, value)
        self.turn()

    def turn(self) -> None:
        """What was output is input from now on."""
        if not self.in_place:
            for buffers in self._arrays, self._whole, self._parts:
                buffers.reverse()

    def fill(self, numbers: Callable[[tuple[int, ...]], NDArray]) -> None:
        """Overwrite the inputs' buffers with numbers of their shape."""
        for name, array in self._arrays[0].items():
            array[...] = numbers(array.shape)
            self._whole[0][name].update_inplace(array)

    def spread(self, given: Mapping[str, OrtValue]) -> None:
        """Lay out in the inputs' whole buffers what the decoder gave as outputs of fewer positions."""
        for name, output in self.names.items():
            part, array = given[output].numpy(), self._arrays[0][name]
            array[(slice(None),) * self.axis + (slice(part.shape[self.axis]),)] = part
            if self._value.device != CPU:
                self._whole[0][name].update_inplace(array)

    def _values(self, arrays: Mapping[str, NDArray]) -> dict[str, OrtValue]:
        return {name: OrtValue.ortvalue_from_numpy(array, *self._value.device) for name, array in arrays.items()}

    def _part(self, which: int, name: str, length: int) -> OrtValue:
        if length == self.max_length:
            return self._whole[which][name]
        shape = (*self._shape[: self.axis], length, *self._shape[self.axis + 1 :])
        if self._value.device != CPU:  # where no part of a buffer can be had
            parts = self._parts[which]
            if name not in parts or tuple(parts[name].shape()) != shape:
                parts[name] = OrtValue.ortvalue_from_shape_and_type(shape, self._value.dtype, *self._value.device)
            return parts[name]
        start = self._arrays[which][name].reshape(-1)[: int(np.prod(shape))]
        return OrtValue.ortvalue_from_numpy(start.reshape(shape))


def noise(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Numbers that stand for another clip's: normal ones, the same for every call."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def try_in_place(contract: Contract, caches: Caches, clip: Clip) -> None:
    """Go in place if a few steps give the same logits, to the last bit, with two clean buffers and with one full of
    NaN, which a clip that failed may leave: nothing is read there that this clip has not written. Raises ModelError for
    a decoder that does not run."""

    def steps() -> list[NDArray]:
        contract.start([clip])
        return [contract.step(tokens).copy() for tokens in ([[0, 1, 2]], [[3]], [[1]], [[2]])]

    caches.in_place = True
    caches.fill(lambda shape: np.full(shape, np.nan))
    found = None
    with suppress(ModelError):  # where the graph says how long its outputs are
        found = steps()
    caches.in_place = False
    caches.fill(np.zeros)
    expected = steps()
    caches.in_place = found is not None and np.array_equal(expected, found)
    contract.release()
