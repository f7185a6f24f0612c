"""What to say of published files that could be faster, and the command that makes them so."""

from ..transcribe import Transcriber

# How many times a 10 s clip with 35 tokens takes as long as once converted, on a CPU, and why (tools/bench: rows
# "cohere_lite, ..." and "..., converted" in results.json).
SLOWER = {
    ("static", "int8"): (0.0, "copies its caches at every token"),
    ("audio", "int8"): (0.0, "copies its caches at every token"),
    ("merged", "int8"): (0.0, ""),
    ("merged", "q4"): (0.0, "multiplies by 4-bit numbers in the encoder, too"),
    ("mems", "int8"): (0.0, "works out all keys and values anew at every token"),
}


def hint(transcriber: Transcriber) -> str | None:
    """A sentence; None for our own exports, for other providers than the CPU, and for what was not measured."""
    facts, encoder = transcriber.facts, transcriber._model.contract.encoder
    if "contract" in encoder.metadata or facts["provider"] != "cpu":  # as export/ writes it
        return None
    times, why = SLOWER.get((facts["contract"], facts["precision"]), (0.0, ""))
    return times and (
        f"this export {why} (10 s of speech take about {times:g} times as long as they could); "
        f"python -m cohere_lite.export {encoder.path.parent} NEW_FOLDER makes it fast"
    )
