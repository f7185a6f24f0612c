"""Training: cross-entropy on the text; CTC of its letters on the encoder, which finds the alignment sooner; and that
the decoder listens to the sentence it writes, without which it loses its place in recordings of several."""

import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor
from torch import nn
from torch.nn import functional

from cohere_lite.mel import STD_GUARD

from . import checkpoint
from .features import Utterance, load, trimmed
from .model import new_model
from .sentences import without_punctuation
from .tokenizer import END_OF_TEXT, PAD, letters, prompt_ids

WORKERS = 2  # processes of one thread, each with its share of a batch: 1.6 times as fast as one process of two threads
STEPS = {1: 20_000, 2: 20_000, 3: 20_000}  # of each round
# Rises in the first steps of each round and falls in the last one alone: when it falls and rises again, much is
# forgotten, and learning that anew takes 6000 steps.
LEARNING_RATE = 1.5e-3
WARM_UP = 300  # steps
# In the first round clean sentences without the silence around them come first.  With all conditions and silence from
# the beginning the alignment is not found: the losses stay where guessing from the language alone brings them (tried
# for 1300 steps).
EASY_STEPS = 1500
CLEAN_STEPS = 4000  # up to here no noise, rooms and telephones: earlier they cost more than they teach
FRAMES_PER_BATCH = 6000  # mel frames with padding, of all workers: 20-50 sentences, or one or two long recordings
# Mel frames a batch is padded to.  Few different shapes, because oneDNN compiles its kernels for every new one: with
# lengths as they come a step took three times as long.
LENGTHS = (*range(32, 640, 32), 640, 800, 1024, 1280, 1600, 2000, 2400, 2700, 3000, 3500)
TOKENS_MULTIPLE = 16  # and the tokens, for the same reason
KERNEL_CACHE = 16384  # compiled kernels that oneDNN keeps; its default of 1024 is too few for these shapes
WEIGHT_DECAY = 0.01
CTC_STEPS = 3000  # the alignment is found; from then on CTC counts for less
CTC_WEIGHT = (0.5, 0.3)  # share of the loss, before and after
CTC_RATE = 3  # CTC outputs an encoder frame (80 ms): fast speech has more than 12.5 letters a second
LABEL_SMOOTHING = 0.05
PLACE_WEIGHT = 0.5  # of the logarithm of how much of the attention is outside of the sentence
PLACE_FRAMES = 25  # mel frames before and after a sentence that count as its own: an encoder frame hears around itself
CLIP = 1.0  # norm of the gradient
SAVE_EVERY = 500  # steps
LOG_EVERY = 50
FIGURES = ("loss", "ctc_loss", "place_loss", "token_accuracy")
TIME_MASKS, TIME_MASK = 1, 20  # SpecAugment: how many, at most how many frames
MEL_MASKS, MEL_MASK = 1, 20  # and mel bins
ITN = 0.3  # share of the texts with digits
IGNORED = -100  # as a label
BLANK = 0  # of CTC
MEL_FRAMES = 8  # an encoder frame
NOWHERE = (0, 0)  # mel frames: the place of what belongs to no sentence, which may listen to anything


def batches(utterances: list[Utterance], rng: np.random.Generator, frames: int) -> list[list[Utterance]]:
    """One epoch of batches of `frames` mel frames in random order; what does not fill a batch waits for the next.

    Each is of one length, and can be shared equally among the workers, or they would wait for each other.
    """
    by_length: dict[int, list[Utterance]] = {}
    for i in rng.permutation(len(utterances)).tolist():
        by_length.setdefault(padded(utterances[i].frames), []).append(utterances[i])
    groups = []
    for length, same in by_length.items():
        size = WORKERS * max(1, frames // WORKERS // length)
        groups += [same[start : start + size] for start in range(0, len(same) - size + 1, size)]
    return [groups[i] for i in rng.permutation(len(groups))]


def padded(frames: int) -> int:
    """The length in LENGTHS that `frames` is padded to."""
    return next(length for length in LENGTHS if length >= frames)


class Collator:
    """Utterances to tensors: masked features, prompt and text, CTC targets."""

    def __init__(self, features: np.ndarray, tokenizer: SentencePieceProcessor):
        self.features, self.tokenizer = features, tokenizer
        self.letters = {letter: i for i, letter in enumerate(letters(tokenizer), BLANK + 1)}

    def __call__(self, chosen: list[Utterance], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        n_frames = padded(max(utterance.frames for utterance in chosen))
        features = np.zeros((len(chosen), n_frames, 128), np.float32)
        ids, labels, places, texts = [], [], [], []
        for row, utterance in enumerate(chosen):
            recording = self.features[utterance.start : utterance.start + utterance.frames].astype(np.float32)
            recording -= recording.mean(axis=0)  # changes nothing but what was trimmed: as log_mel would have done
            recording /= recording.std(axis=0, ddof=1) + STD_GUARD
            _mask(recording, rng)
            features[row, : utterance.frames] = recording
            punctuation, itn = bool(rng.random() < 0.5), bool(rng.random() < ITN)
            prompt = prompt_ids(self.tokenizer, utterance.language, punctuation, itn)
            tokens: list[int] = []
            place = [NOWHERE] * (len(prompt) - 1)
            for sentence in utterance.sentences:
                text = sentence.written if itn else sentence.spoken
                added = self.tokenizer.encode(text if punctuation else without_punctuation(text))
                tokens += added
                place += [(sentence.start - PLACE_FRAMES, sentence.end + PLACE_FRAMES)] * len(added)
            ids.append(torch.tensor(prompt + tokens))
            labels.append(torch.tensor([IGNORED] * (len(prompt) - 1) + tokens + [END_OF_TEXT]))
            places.append(torch.tensor([*place, NOWHERE]))
            spoken = " ".join(without_punctuation(sentence.spoken) for sentence in utterance.sentences)
            texts.append([self.letters[letter] for letter in spoken])
        frames = torch.tensor([utterance.frames for utterance in chosen])
        return {
            "features": torch.from_numpy(features),
            "frames": frames,
            "ids": _pad(ids, PAD),
            "labels": _pad(labels, IGNORED),
            "places": _pad(places, 0),
            "ctc": torch.tensor([letter for text in texts for letter in text]),
            "ctc_lengths": torch.tensor([len(text) for text in texts]),
        }


def _pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    """Rows, of ids or of places, to one tensor, its width a multiple of TOKENS_MULTIPLE."""
    width = -(-max(map(len, rows)) // TOKENS_MULTIPLE) * TOKENS_MULTIPLE
    return torch.stack(
        [functional.pad(row, (0, 0) * (row.dim() - 1) + (0, width - len(row)), value=value) for row in rows]
    )


def _mask(features: np.ndarray, rng: np.random.Generator) -> None:
    """SpecAugment, in place: hide a few short times and a few bands of mel bins.  features: (frames, 128)."""
    for _ in range(TIME_MASKS):
        width = rng.integers(min(TIME_MASK, len(features) // 10) + 1)
        start = rng.integers(len(features) - width + 1)
        features[start : start + width] = 0
    for _ in range(MEL_MASKS):
        width = rng.integers(MEL_MASK + 1)
        start = rng.integers(128 - width + 1)
        features[:, start : start + width] = 0


def rate(step: int, steps: int, is_last_round: bool) -> float:
    """The learning rate at a step of a round, as a share of the highest."""
    return min((step + 1) / WARM_UP, 1 - step / steps if is_last_round else 1)


def train(
    training_set: Path,
    tokenizer: SentencePieceProcessor,
    folder: Path,
    round_number: int,
    begin: Path | None,
    steps: int,
    frames_per_batch: int,
):
    """Train a new model, or one that a round before has made; returns it in eval mode, the layer that writes its
    encoder's letters, and the history [{step, FIGURES}].

    training_set: the folder that `features.build` wrote;  round_number: seeds what is random;  begin: the checkpoint of
    the round before, None for a new model.
    Saves folder/state.pt every SAVE_EVERY steps, and goes on from there when it exists.
    """
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(KERNEL_CACHE)  # read when the first kernel is compiled
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)  # of a run that was interrupted
    arguments = (training_set, tokenizer, folder, round_number, begin, steps, frames_per_batch)
    torch.multiprocessing.spawn(_work, arguments, nprocs=WORKERS)
    saved = torch.load(folder / "state.pt", weights_only=False)
    model = new_model(tokenizer.vocab_size(), first_token=tokenizer.piece_to_id("▁"))
    model.load_state_dict(saved["model"])
    return model.eval(), saved["letters"], saved["history"]


def _work(
    rank: int,
    training_set: Path,
    tokenizer: SentencePieceProcessor,
    folder: Path,
    round_number: int,
    begin: Path | None,
    steps: int,
    frames_per_batch: int,
) -> None:
    """What one of the WORKERS does; the first one saves and tells."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder.resolve()}/meeting", rank=rank, world_size=WORKERS)
    torch.manual_seed(round_number)
    utterances, features = load(training_set)
    model = new_model(tokenizer.vocab_size(), first_token=tokenizer.piece_to_id("▁"))
    # channels-last and bfloat16 products halve the time of a step on a CPU that has AVX-512
    model.model.encoder.subsampling.to(memory_format=torch.channels_last)
    model.set_attn_implementation({"": "eager", "encoder_config": "sdpa"})  # the decoder tells its attention
    easy_steps, clean_steps, ctc_steps = (EASY_STEPS, CLEAN_STEPS, CTC_STEPS) if begin is None else (0, 0, 0)
    collate = Collator(features, tokenizer)
    losses = Losses(model, len(collate.letters))
    if begin is not None:
        model.load_state_dict(checkpoint.load(begin).state_dict())
        losses.letters.load_state_dict(checkpoint.load_letters(begin))
    parameters = list(losses.parameters())
    decayed = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
        fused=True,
    )
    history: list[dict] = []
    step, epoch, begun = 0, 0, time.time()
    state = folder / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=False)
        step, epoch, history = saved["step"], saved["epoch"], saved["history"]
        for part, name in ((model, "model"), (losses.letters, "letters"), (optimizer, "optimizer")):
            part.load_state_dict(saved[name])
    first_step = step
    together = nn.parallel.DistributedDataParallel(losses, gradient_as_bucket_view=True)
    easy = {i: trimmed(utterance) for i, utterance in enumerate(utterances) if utterance.clean}
    sums = torch.zeros(len(FIGURES), dtype=torch.float64)
    model.train()
    while step < steps:
        rng = np.random.default_rng([round_number, epoch])
        lesson = _lesson(utterances, easy, step < easy_steps, step < clean_steps, rng)
        chosen_batches = batches(lesson, rng, frames_per_batch)
        if not chosen_batches:
            raise ValueError(f"{len(utterances)} utterances do not fill a batch of {frames_per_batch} frames")
        rng = np.random.default_rng([round_number, epoch, rank])
        for chosen in chosen_batches:
            batch = collate(chosen[rank::WORKERS], rng)
            ctc_weight = CTC_WEIGHT[step >= ctc_steps]
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * rate(step, steps, round_number == max(STEPS))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                text_loss, ctc_loss, place_loss, correct = together(batch)
            optimizer.zero_grad()
            ((1 - ctc_weight) * text_loss + ctc_weight * ctc_loss + PLACE_WEIGHT * place_loss).backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            step += 1
            sums += torch.stack([text_loss, ctc_loss, place_loss, correct]).detach()
            if step % LOG_EVERY == 0 and rank == 0:
                figures = (sums / LOG_EVERY).numpy().round(4).tolist()
                history.append({"step": step, **dict(zip(FIGURES, figures, strict=True))})
                left = (time.time() - begun) / (step - first_step) * (steps - step) / 60
                print(f"step {step} of {steps}, {left:.0f} min left: {json.dumps(history[-1])}", flush=True)
                sums[:] = 0
            if (step % SAVE_EVERY == 0 or step == steps) and rank == 0:
                saved = {"step": step, "epoch": epoch + 1, "history": history, "model": model.state_dict()}
                saved |= {"letters": losses.letters.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(saved, folder / "state.tmp")
                (folder / "state.tmp").replace(state)
            if step in (easy_steps, clean_steps, steps):
                break
        epoch += 1
    torch.distributed.destroy_process_group()


def _lesson(
    utterances: list[Utterance], easy: dict[int, Utterance], is_easy: bool, is_clean: bool, rng: np.random.Generator
) -> list[Utterance]:
    """What an epoch consists of."""
    if is_easy:
        return [utterance for utterance in easy.values() if len(utterance.sentences) == 1]
    # half of the clean ones without the silence around them
    chosen = [easy[i] if i in easy and rng.random() < 0.5 else utterance for i, utterance in enumerate(utterances)]
    return [utterance for utterance in chosen if utterance.clean or not is_clean]


class Losses(nn.Module):
    """Cross-entropy on text and end of text; CTC loss a letter; how little the decoder listens to the right place; and
    the share of the tokens that were predicted right.

    A module because that is what DistributedDataParallel takes; the layer for the letters is dropped after training.
    """

    def __init__(self, model: nn.Module, n_letters: int):
        super().__init__()
        self.model = model
        self.letters = nn.Linear(model.config.encoder_config.hidden_size, CTC_RATE * (1 + n_letters))

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        mask = torch.arange(batch["features"].shape[1]) < batch["frames"][:, None]
        encoded = self.model.model.encoder(batch["features"], attention_mask=mask)
        letters = self.letters(encoded.last_hidden_state).float()
        log_probs = letters.unflatten(-1, (CTC_RATE, -1)).flatten(1, 2).log_softmax(-1).transpose(0, 1)
        ctc_loss = functional.ctc_loss(
            log_probs,
            batch["ctc"],
            CTC_RATE * encoded.attention_mask.sum(1),
            batch["ctc_lengths"],
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,
        ) / max(1, len(batch["ctc"]))
        # No mask for the padding after the text: attention is causal, and the loss ignores it
        decoded = self.model(
            encoder_outputs=encoded, decoder_input_ids=batch["ids"], use_cache=False, output_attentions=True
        )
        logits, labels = decoded.logits.float(), batch["labels"]
        text_loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=LABEL_SMOOTHING)
        place_loss = _place_loss(torch.stack(decoded.cross_attentions), batch["places"])
        correct = (logits.argmax(-1) == labels)[labels != IGNORED].float().mean()
        return text_loss, ctc_loss, place_loss, correct


def _place_loss(attention: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """How little the tokens listen to the sentence they belong to: -log of the share of the attention.

    attention: (layers, batch, heads, tokens, encoder frames);  places: (batch, tokens, 2), first and last mel frames
    """
    middle = torch.arange(attention.shape[-1]) * MEL_FRAMES + MEL_FRAMES // 2
    inside = (middle >= places[..., :1]) & (middle < places[..., 1:])
    share = (attention.float().mean(2) * inside).sum(-1)
    costs = -share.clamp(min=1e-4).log()[:, places[..., 1] > 0]
    return costs.sum() / max(1, costs.numel())
