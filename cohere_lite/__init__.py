"""Cohere Transcribe speech recognition on numpy and onnxruntime alone.

    from cohere_lite import Transcriber
    print(Transcriber("path/to/model").transcribe("speech.wav").text)

The files in the order in which a sample becomes text: reader, wav (codings), audio, resample, cut, mel, model
(graphfile, turns, session, contracts), decode, tokens, transcript, recording, transcribe. Folders but contracts/ are
optional."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "AudioError", "CohereLiteError", "ModelError", "ModelFileNotFound", "OptionError", "Pauses", "ProviderError",
    "Recording", "Segment", "StateError", "Transcriber", "Transcript", "Word", "open_audio",
]  # fmt: skip

if TYPE_CHECKING:  # for type checkers and editors
    from .audio import open_audio
    from .errors import (
        AudioError,
        CohereLiteError,
        ModelError,
        ModelFileNotFound,
        OptionError,
        ProviderError,
        StateError,
    )
    from .extras.phrases import Pauses
    from .recording import Recording
    from .transcribe import Transcriber
    from .transcript import Segment, Transcript, Word
else:

    def __getattr__(name: str) -> object:
        """Imports a public name when it is first asked for (PEP 562): the command's --help passes through this file,
        and numpy and onnxruntime, which it does not need, take 0.7 s to import."""
        if name in __all__:
            for module in ("errors", "transcript", "audio", "recording", "transcribe", "extras.phrases"):
                try:
                    found = vars(import_module(f".{module}", __name__)).get(name)
                except ModuleNotFoundError as error:
                    raise AttributeError(f"{name} needs a file that is not in this copy: {error}") from error
                if found:
                    return globals().setdefault(name, found)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
