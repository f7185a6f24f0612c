"""The embedded model end to end: checkpoint, export, INT8, runtime, words, on held-out sentences and voices."""

import os
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from decoding import Decoder

from cohere_lite import Transcriber, mel
from cohere_lite.export.__main__ import export
from cohere_lite.mel import log_mel
from cohere_lite.model import DEMO_FOLDER, load_model

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
LANGUAGES = ("de", "en", "es", "fr")
MAX_WER = 0.05
MAX_BYTES = 8e6  # in the wheel

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")


def test_shipped_files_come_from_the_checkpoint(tmp_path: Path) -> None:
    """By construction: the same graphs, and the same weights but for roundings that another BLAS may tip."""
    export(CHECKPOINT, tmp_path)
    for made in tmp_path.iterdir():
        shipped = np.fromfile(DEMO_FOLDER / made.name, np.uint8)
        assert shipped.size == made.stat().st_size, made.name
        different = np.count_nonzero(shipped != np.fromfile(made, np.uint8))
        assert different <= (1e-4 * shipped.size if made.suffix == ".data" else 0), made.name


def test_size() -> None:
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) <= MAX_BYTES


@pytest.mark.reference
@pytest.mark.skipif("COHERE_LITE_KOKORO" not in os.environ, reason="needs COHERE_LITE_KOKORO, a folder of tools.demo")
def test_the_sample_comes_from_its_voice() -> None:
    """By construction, but for what another processor's INT8 products round. By record: 0 on the same one; 0.83 apart
    is the sentence at another speed, 1.1 for 1.0."""
    from tools.demo.sample import spoken

    made = log_mel(spoken(Path(os.environ["COHERE_LITE_KOKORO"])))
    with wave.open(str(DEMO_FOLDER / "sample.wav")) as file:
        shipped = log_mel(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32767)
    assert abs(made.shape[1] - shipped.shape[1]) <= 2
    n_frames = min(made.shape[1], shipped.shape[1])
    assert np.abs(made[:, :n_frames] - shipped[:, :n_frames]).mean() < 0.2


@pytest.fixture(scope="module")
def recordings() -> dict[str, list[tuple[np.ndarray, str]]]:
    from tools.demo.heldout import heldout

    return {language: [(samples, text) for samples, text, _ in heldout(language)] for language in LANGUAGES}


@pytest.mark.reference
@needs_espeak
@pytest.mark.parametrize("language", LANGUAGES)
def test_word_error_rate(recordings: dict, language: str) -> None:
    """The INT8 files as shipped; case and punctuation count in neither text."""
    jiwer = pytest.importorskip("jiwer")
    from tools.demo.sentences import without_punctuation

    transcriber = Transcriber()
    heard = [
        transcriber.transcribe(samples, rate=16000, language=language, punctuation=False).text
        for samples, _ in recordings[language]
    ]
    said = [without_punctuation(text) for _, text in recordings[language]]
    assert jiwer.wer(said, heard) <= MAX_WER


@pytest.mark.slow
@needs_espeak
def test_float16_hears_what_int8_hears(recordings: dict, tmp_path: Path) -> None:
    """By record: of 100 texts 0, 0 and 4 are other than INT8's; of 400, 3, 3 and 13."""
    models = {None: Transcriber()}
    for name, weight_bits in (("fp16", None), ("q8f16", 8), ("q4f16", 4)):
        export(CHECKPOINT, tmp_path / name, "fp16", weight_bits=weight_bits)
        models[name] = Transcriber(tmp_path / name)
    different = dict.fromkeys(models, 0)
    for language, spoken in recordings.items():
        for samples, _ in spoken[:25]:
            texts = {n: m.transcribe(samples, rate=16000, language=language).text for n, m in models.items()}
            for name, text in texts.items():
                different[name] += text != texts[None]
    print(f"different: {different}")
    assert all(different[name] <= most for name, most in (("fp16", 2), ("q8f16", 2), ("q4f16", 8)))


@pytest.mark.slow
@pytest.mark.reference
@needs_espeak
def test_fp32_tokens_equal_transformers_generate(recordings: dict, tmp_path: Path) -> None:
    """By reference, on every held-out recording: the same ids, whether they are right or wrong."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    reference = transformers.CohereAsrForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    export(CHECKPOINT, tmp_path, "fp32")
    model = load_model(tmp_path)
    decoder = Decoder(model)
    for language, spoken in recordings.items():
        prompt = model.vocabulary.prompt(language)
        for samples, text in spoken:
            features = log_mel(samples)
            with torch.inference_mode():
                ids = reference.generate(
                    torch.from_numpy(features.T[None].copy()),
                    decoder_input_ids=torch.tensor([prompt]),
                    decoder_start_token_id=prompt[0],  # or generate puts its own start token before the prompt
                    max_length=decoder.contract.max_positions,
                    do_sample=False,
                )[0].tolist()
            decoded = decoder.decode([features], prompt)[0]
            assert [*prompt, *decoded.tokens, *([] if decoded.truncated else [3])] == ids, text


@pytest.mark.slow
@needs_espeak
def test_batches_give_the_same_text(recordings: dict) -> None:
    """By construction, in INT8 as shipped, for every held-out recording: eight at once, and alone."""
    decoder = Decoder(load_model())
    for language, spoken in recordings.items():
        prompt = load_model().vocabulary.prompt(language)
        clips = [log_mel(samples) for samples, _ in spoken]
        together = [decoded for i in range(0, len(clips), 8) for decoded in decoder.decode(clips[i : i + 8], prompt)]
        alone = [decoder.decode([clip], prompt)[0] for clip in clips]
        assert [decoded.tokens for decoded in together] == [decoded.tokens for decoded in alone]


@pytest.mark.slow
@pytest.mark.reference
@needs_espeak
@pytest.mark.parametrize("snr_db", [None, 10])
def test_no_speech_is_taken_for_silence_or_for_a_loop(snr_db: float | None) -> None:
    """By construction: there is a sentence in each, and none repeats itself."""
    from tools.demo.heldout import heldout

    transcriber = Transcriber()
    for language in LANGUAGES:
        for samples, text, _ in heldout(language, snr_db=snr_db):
            for segment in transcriber.segments(samples, rate=16000, language=language):
                assert (segment.silent, segment.looped) == (False, False), text


@pytest.mark.slow
@pytest.mark.reference
@needs_espeak
def test_sherpa_onnx_reads_the_static_contract(recordings: dict, tmp_path: Path, monkeypatch) -> None:
    """By reference: what sherpa-onnx writes, letter for letter what we write in its way from the same files: a prompt
    without the leading "▁", at most 6 tokens a second, special tokens left in, features without dither.

    The tiny model has never seen such a prompt and stumbles on it, so the last differences between the features change
    words in 3 recordings of 10. By record 78 of 120 are the same and not empty; with a wrong export, none would be,
    and on a failure sherpa-onnx answers with an empty text."""
    monkeypatch.setattr(mel, "DITHER", 0.0)
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    export(CHECKPOINT, tmp_path, contract="static")
    model = load_model(tmp_path)
    decoder = Decoder(model)
    same = 0
    for language, spoken in recordings.items():
        recognizer = sherpa_onnx.OfflineRecognizer.from_cohere_transcribe(
            encoder=str(tmp_path / "encoder.int8.onnx"),
            decoder=str(tmp_path / "decoder.int8.onnx"),
            tokens=str(tmp_path / "tokens.txt"),
            language=language,
            use_itn=False,
        )
        for samples, _ in spoken[:30]:
            stream = recognizer.create_stream()
            stream.accept_waveform(16000, samples)
            recognizer.decode_stream(stream)
            tokens = decoder.decode([log_mel(samples)], model.vocabulary.prompt(language)[1:])[0].tokens
            pieces = [model.vocabulary.pieces[token] for token in tokens[: 6 * len(samples) // 16000]]
            said = stream.result.text.strip()
            same += bool(said) and said == "".join(pieces).replace("▁", " ").strip()
    assert same >= 60
