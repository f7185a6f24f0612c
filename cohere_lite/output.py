"""A transcript as text for people or for programs."""

import json
from dataclasses import asdict

from .transcribe import Transcript


def render(transcript: Transcript, file: str, style: str) -> str:
    """One line: the text alone ("txt"), or everything known, with the file it came from, as an object ("json")."""
    if style == "txt":
        return transcript.text
    return json.dumps({"file": file, **asdict(transcript)}, ensure_ascii=False)
