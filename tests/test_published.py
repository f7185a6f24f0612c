"""Every kind of published folder, as it is: the words of the reference, by our own front end and loop."""

import numpy as np
import pytest
from published import needs_espeak, recordings, standin

from cohere_lite import Transcriber

pytestmark = [pytest.mark.slow, pytest.mark.reference, pytest.mark.folder, needs_espeak]

# kind: contract, precision as facts has it, whether one buffer is input and output
RUNS = {
    "card": ("static", "int8", True),
    "card-per-channel": ("static", "int8", True),
    "card-uint8": ("static", "int8", True),
    "card-fp32": ("static", "fp32", True),
    "card-fp16": ("static", "fp16", True),  # its names say nothing; its weights do
    "card-inline": ("static", "int8", True),
    "card-batch-1": ("static", "int8", True),
    "card-dynamo": ("static", "int8", False),  # it reads all positions under a mask, NaN too
    "card-renamed-as-C": ("static", "int8", True),
    "sherpa": ("static", "int8", True),
    "audio-int8": ("audio", "int8", True),
    "audio-int4": ("audio", "q4", True),
    "merged-fp32": ("merged", "fp32", True),
    "merged-fp16": ("merged", "fp16", True),
    "merged-int8": ("merged", "int8", True),
    "merged-q4": ("merged", "q4", True),
    "merged-q4f16": ("merged", "q4f16", True),
    "merged-all": ("merged", "int8", True),
    "merged-arabic": ("merged", "q4", False),
    "merged-arabic-fp16": ("merged", "fp16", False),
    "masterx": ("merged", "int8", False),
    "merged-flat": ("merged", "q4f16", True),
    "mems-int8": ("mems", "int8", False),
    "mems-fp32": ("mems", "fp32", False),
}


def test_all_kinds_are_here() -> None:
    pytest.importorskip("torch")
    from tools.published.kinds import KINDS

    assert RUNS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", RUNS)
def test_as_it_is(kind: str) -> None:
    """By reference: the token ids that transformers generates from the checkpoint, on nine recordings. Quantised kinds
    say the same there; and so do all others, whose caches turn or stay."""
    transcriber = Transcriber(standin(kind))
    contract, precision, in_place = RUNS[kind]
    assert (transcriber.facts["contract"], transcriber.facts["precision"]) == (contract, precision)
    assert transcriber._model.contract._caches.in_place == in_place  # type: ignore[attr-defined]
    for recording in recordings():
        found = transcriber.transcribe(recording.samples, rate=16000, language=recording.language, skip_silence=False)
        assert [*found.segments[0].tokens] == recording.ids, recording.text


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "q4", "q4f16"])
def test_each_precision_of_a_repository(precision: str) -> None:
    transcriber = Transcriber(standin("merged-all"), precision=precision)
    assert transcriber.facts["precision"] == precision
    assert transcriber.transcribe(recordings()[0].samples, rate=16000).text == recordings()[0].text


def test_the_decoder_for_directml(tmp_path) -> None:
    """Masterx's other decoder, alone."""
    for path in standin("masterx").rglob("*"):
        if path.is_file() and "_dyn" not in path.name:
            target = tmp_path / path.relative_to(standin("masterx"))
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    transcriber = Transcriber(tmp_path)
    assert transcriber.facts["contract"] == "pinned"
    for recording in recordings():
        found = transcriber.transcribe(recording.samples, rate=16000, language=recording.language, skip_silence=False)
        assert [*found.segments[0].tokens] == recording.ids, recording.text


@pytest.mark.parametrize("kind", ["card", "merged-int8", "merged-arabic", "mems-int8"])
def test_clip_after_clip(kind: str) -> None:
    """What a long clip leaves in the caches changes nothing of the next."""
    transcriber = Transcriber(standin(kind))
    samples = [recording.samples for recording in recordings()]
    (alone,) = transcriber.transcribe(samples[0], rate=16000, skip_silence=False).segments
    transcriber.transcribe(np.concatenate(samples[1:5]), rate=16000, skip_silence=False)
    (again,) = transcriber.transcribe(samples[0], rate=16000, skip_silence=False).segments
    assert again == alone
