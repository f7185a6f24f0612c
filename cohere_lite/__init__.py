"""Cohere Transcribe speech recognition on numpy and onnxruntime alone.

    from cohere_lite import Transcriber
    print(Transcriber("path/to/model").transcribe("speech.wav").text)

A sample's way to text, one file each: wav (codings), resample, mel, chunk, model (graphfile, tokens), decode,
transcribe, output.
"""

from .errors import AudioError, CohereLiteError, ModelError, ModelFileNotFound, OptionError, ProviderError
from .transcribe import Segment, Transcriber, Transcript

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "CohereLiteError",
    "ModelError",
    "ModelFileNotFound",
    "OptionError",
    "ProviderError",
    "Segment",
    "Transcriber",
    "Transcript",
]
