"""Data sets as people have them: one file per layout. Which one it is, its files tell."""

from collections.abc import Callable, Iterator

from ..errors import EvaluateError
from .calls import read_calls
from .folder import read_folder
from .kaldi import read_kaldi
from .layout import Request, Utterance
from .librispeech import read_librispeech
from .parquet import read_parquet
from .tables import read_tables

# In this order: a Kaldi folder may have tables beside it, and any folder text files.
LAYOUTS: list[Callable[[Request], Iterator[Utterance] | None]] = [
    read_kaldi,
    read_parquet,
    read_librispeech,
    read_calls,
    read_tables,
    read_folder,
]


def read_utterances(request: Request) -> Iterator[Utterance]:
    """The utterances of a data set, in its order. Raises EvaluateError for a layout that is not known."""
    for read in LAYOUTS:
        if (rows := read(request)) is not None:
            return rows
    raise EvaluateError(
        f"{request.spec} holds neither parquet files nor a CSV, TSV or JSONL list of recordings; of scripts and "
        f"archives, fetch a copy, unpack it, and name the folder"
    )
