"""The published kinds of ONNX files of this model, told apart by what their graphs take and give. contract.py has the
interface; each kind has a file of its own, and a line here, the best first."""

from .audio import AudioContract
from .contract import Contract
from .fast import FastContract
from .mems import MemsContract
from .merged import MergedContract
from .pinned import PinnedContract
from .static import StaticContract

CONTRACTS: tuple[type[Contract], ...] = (
    FastContract, StaticContract, AudioContract, MergedContract, PinnedContract, MemsContract,
)  # fmt: skip
