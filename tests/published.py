"""Stand-ins of the folders that others publish, and what transformers itself says on the same checkpoint."""

import atexit
import shutil
import tempfile
import wave
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cohere_lite.tokens import read_tokens

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
SAMPLE = Path(__file__).parents[1] / "cohere_lite" / "demo" / "sample.wav"
MAX_NEW_TOKENS = 60
# Held-out sentences of which 4 bits change no token.
CLEAR = {"de": (3, 11), "en": (5, 17), "es": (10, 17), "fr": (1, 17)}

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")
_folder = tempfile.TemporaryDirectory(prefix="published-")
atexit.register(_folder.cleanup)


@cache
def standin(kind: str) -> Path:
    """A folder of that kind (tools/published/kinds.py), made once a session from the embedded model's checkpoint. Skips
    the test where torch or transformers is absent."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tools.published.kinds import write_published

    out = Path(_folder.name, kind)
    write_published(CHECKPOINT, out, kind)
    return out


class Recording(NamedTuple):
    samples: np.ndarray  # float32 (n,), 16 kHz
    language: str
    mel: np.ndarray  # float32 (n_mels, T), transformers' features, valid frames only
    ids: list[int]  # what transformers' `generate` answers, without prompt and end
    text: str


@cache
def recordings(prompt_from: int = 0, dither: float = 1e-5) -> tuple[Recording, ...]:
    """The sample, and two held-out sentences in each language.  prompt_from: leave out the prompt's first tokens."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sentencepiece = pytest.importorskip("sentencepiece")
    from tools.demo.heldout import heldout

    spoken = [(_read(SAMPLE), "en")]
    for language, numbers in CLEAR.items():
        sentences = [samples for samples, _, _ in heldout(language, max(numbers) + 1)]
        spoken += [(sentences[number], language) for number in numbers]
    model = transformers.CohereAsrForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    extractor = transformers.CohereAsrFeatureExtractor(dither=dither)
    tokenizer = sentencepiece.SentencePieceProcessor(str(CHECKPOINT / "tokenizer.model"))
    found = []
    for samples, language in spoken:
        prompt = read_tokens(CHECKPOINT / "tokens.txt").prompt(language)[prompt_from:]
        features = extractor([samples], sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            answer = model.generate(
                features["input_features"],
                attention_mask=features["attention_mask"],
                decoder_input_ids=torch.tensor([prompt]),
                decoder_start_token_id=prompt[0],  # or generate puts its own start token before the prompt
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
            )[0].tolist()
        ids = [i for i in answer[len(prompt) :] if i != model.config.eos_token_id]
        mel = features["input_features"][0, : len(samples) // 160].numpy().T
        found.append(Recording(samples, language, mel, ids, tokenizer.decode(ids)))
    return tuple(found)


def _read(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
