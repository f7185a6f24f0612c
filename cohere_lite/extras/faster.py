"""What to say of published files that could be faster, and the command that makes them so."""

import shlex

from ..transcribe import Transcriber

# How many times a 10 s clip with 35 tokens takes as long as once converted, on a CPU, and why (tools/bench: rows
# "cohere_lite, ..." and "..., converted" in results.json).
SLOWER = {
    ("static", "int8"): (5.7, "copies its caches at every token"),
    ("audio", "int8"): (5.2, "copies its caches at every token"),
    ("merged", "int8"): (1.5, "has an encoder that is partly float32"),
    ("merged", "q4"): (3.5, "has an encoder in 4 bits, which is slow on a CPU"),
    ("mems", "int8"): (1.6, "works out keys and values anew at every token"),
}


def hint(transcriber: Transcriber, precision: str | None) -> str | None:
    """A sentence; None for our own exports, for other providers than the CPU, and for what was not measured.
    precision: the one that was asked for."""
    facts = transcriber.facts
    if "contract" in transcriber._model.contract.encoder.metadata or facts["provider"] != "cpu":  # export/ writes it
        return None
    if (known := SLOWER.get((facts["contract"], facts["precision"]))) is None:
        return None
    times, why = known
    source = shlex.join([facts["name"], "NEW_FOLDER", *(["--from", precision] if precision else [])])
    return (
        f"this export {why} (10 s of speech take about {times:g} times as long as they could); "
        f"python -m cohere_lite.export {source} makes it fast"
    )
