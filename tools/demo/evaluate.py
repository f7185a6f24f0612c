"""Word error rates of the model on the held-out recordings, decoded by transformers' own `generate`."""

import torch
from jiwer import wer
from sentencepiece import SentencePieceProcessor

from cohere_lite.mel import log_mel

from .heldout import heldout
from .sentences import LANGUAGES, without_punctuation
from .synthesise import Samples
from .tokenizer import prompt_ids

MAX_NEW_TOKENS = 300


@torch.inference_mode()
def transcribe(
    model, tokenizer: SentencePieceProcessor, samples: Samples, language: str, punctuation: bool = True
) -> str:
    """The text of one recording (float32 (n,), 16 kHz)."""
    features = torch.from_numpy(log_mel(samples).T.copy())[None]
    prompt = prompt_ids(tokenizer, language, punctuation)
    ids = model.generate(
        input_features=features,
        attention_mask=torch.ones(features.shape[:2], dtype=torch.bool),
        decoder_input_ids=torch.tensor([prompt]),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        num_beams=1,
    )
    return tokenizer.decode(ids[0, len(prompt) :].tolist())


def word_error_rates(model, tokenizer, languages=LANGUAGES, count: int = 100, **condition) -> dict[str, dict]:
    """Per language: `words` (asked and compared without punctuation) and `written` (with; every comma counts).

    condition: `snr_db` and `kind` for `heldout`.
    """
    rates = {}
    for language in languages:
        spoken, written, heard, heard_written = [], [], [], []
        for samples, text, _ in heldout(language, count, **condition):
            written.append(text)
            spoken.append(without_punctuation(text))
            heard.append(transcribe(model, tokenizer, samples, language, punctuation=False))
            heard_written.append(transcribe(model, tokenizer, samples, language, punctuation=True))
        rates[language] = {
            "words": round(100 * wer(spoken, heard), 2),
            "written": round(100 * wer(written, heard_written), 2),
        }
    return rates
