"""Word error rates of the model on the held-out recordings, decoded by transformers' own `generate`."""

import torch
from jiwer import wer
from sentencepiece import SentencePieceProcessor

from cohere_lite.mel import log_mel

from .acoustics import Samples
from .heldout import heldout
from .sentences import LANGUAGES, without_punctuation
from .tokenizer import prompt_ids

MAX_NEW_TOKENS = 60  # the longest held-out sentence has half as many
BATCH = 25  # recordings decoded together; the masks of the model keep them apart


@torch.inference_mode()
def transcribe(
    model, tokenizer: SentencePieceProcessor, recordings: list[Samples], language: str, punctuation: bool = True
) -> list[str]:
    """The texts of a batch of recordings (each float32 (n,), 16 kHz), decoded greedily."""
    features = [torch.from_numpy(log_mel(samples).T.copy()) for samples in recordings]
    frames = torch.tensor([len(rows) for rows in features])
    padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    prompt = prompt_ids(tokenizer, language, punctuation)
    ids = model.generate(
        input_features=padded,
        attention_mask=torch.arange(padded.shape[1]) < frames[:, None],
        decoder_input_ids=torch.tensor([prompt] * len(features)),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        num_beams=1,
    )
    return [tokenizer.decode(row[len(prompt) :].tolist()) for row in ids]


def word_error_rates(model, tokenizer, languages=LANGUAGES, count: int = 100, **condition) -> dict[str, dict]:
    """Per language: `words` (asked and compared without punctuation) and `written` (with; every comma counts).

    condition: `snr_db` and `kind` for `heldout`.
    """
    rates = {}
    for language in languages:
        recordings, written, _ = zip(*heldout(language, count, **condition), strict=True)
        heard, heard_written = [], []
        for start in range(0, count, BATCH):
            batch = recordings[start : start + BATCH]
            heard += transcribe(model, tokenizer, batch, language, punctuation=False)
            heard_written += transcribe(model, tokenizer, batch, language, punctuation=True)
        spoken = [without_punctuation(text) for text in written]
        rates[language] = {
            "words": round(100 * wer(spoken, heard), 2),
            "written": round(100 * wer(list(written), heard_written), 2),
        }
    return rates
