"""Cohere Transcribe speech recognition on numpy and onnxruntime alone.

    from cohere_lite import Transcriber
    print(Transcriber("path/to/model").transcribe("speech.wav").text)

A sample's way to text, one file each: wav (codings), audio, resample, chunk or phrases, speech, mel, model (graphfile,
tokens), decode, transcribe, output.
"""

from .audio import open_audio
from .cut import Pauses
from .errors import AudioError, CohereLiteError, ModelError, ModelFileNotFound, OptionError, ProviderError
from .transcribe import Segment, Transcriber, Transcript

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "CohereLiteError",
    "ModelError",
    "ModelFileNotFound",
    "OptionError",
    "Pauses",
    "ProviderError",
    "Segment",
    "Transcriber",
    "Transcript",
    "open_audio",
]
