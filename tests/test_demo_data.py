"""The demonstration model's training data: whose voices they are of, and what is done to them."""

import itertools
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tools.demo import acoustics, features, recordings, voices
from tools.demo.acoustics import SAMPLE_RATE, silence
from tools.demo.nospeech import no_speech
from tools.demo.recordings import Part, Recording, paused
from tools.demo.sentences import LANGUAGES

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")

NEVER_TRAINED_ON = {  # by hand
    "espeak": {"f3", "Alicia", "linda", "steph2", "m4", "Michael", "paul", "Denis"},
    "flite": {"slt"},
    "kokoro": {
        "af_bella",
        "am_michael",
        "bf_emma",
        "bm_george",
        "ef_dora",
        "im_nicola",
        "pf_dora",
        "am_onyx",
        "af_nova",
        "bm_lewis",
    },
}


def sine(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    """Hz of the strongest tone, to a part of one."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * SAMPLE_RATE))
    return float(np.argmax(spectrum)) / 16


def level_db(samples: np.ndarray) -> float:
    return 10 * np.log10(float(np.mean(samples.astype(np.float64) ** 2)))


# The voices


@pytest.mark.parametrize("synthesiser", voices.TRAINING)
def test_no_held_out_voice_is_trained_on(synthesiser: str) -> None:
    """By hand: the names that were promised; 10,000 draws find every voice there is."""
    drawn = set()
    for language in LANGUAGES if synthesiser in ("espeak", "pico", "kokoro") else ("en",):
        rng = Random(language)
        for i in range(10_000):
            voice = voices.random_voice(synthesiser, language, rng, slow=i % 2 == 0)
            drawn |= {part.split(":")[0] for part in str(voice.get("voice", voice.get("language"))).split("+")}
    assert not drawn & NEVER_TRAINED_ON.get(synthesiser, set())
    assert drawn == set(voices.TRAINING[synthesiser]) or synthesiser == "hibari"


def test_what_is_held_out() -> None:
    assert voices.HELD_OUT.keys() - voices.TRAINING.keys() == {"festival", "piper"}
    assert recordings.HOURS.keys() == voices.TRAINING.keys()
    for synthesiser, names in NEVER_TRAINED_ON.items():
        assert set(voices.HELD_OUT[synthesiser]) == names
        drawn = {
            voices.random_voice(synthesiser, language, Random(i), held_out=True)["voice"]
            for language in (LANGUAGES if synthesiser != "flite" else ("en",))
            for i in range(200)
        }
        assert drawn == names


def test_digits_in_a_row_are_spoken_with_pauses() -> None:
    """By hand; a half of the time."""
    rng = Random(1)
    assert {paused("Seven nine three.", "en", rng) for _ in range(20)} == {"Seven nine three.", "Seven, nine, three."}
    assert {paused("Der Code ist eins zwei drei.", "de", rng) for _ in range(20)} >= {"Der Code ist eins, zwei, drei."}
    assert {paused("Four nine.", "en", rng) for _ in range(20)} == {"Four nine."}
    assert {paused("One hundred two.", "en", rng) for _ in range(20)} == {"One hundred two."}
    assert {paused("Seventy nine three two one.", "en", rng) for _ in range(20)} >= {"Seventy nine, three, two, one."}


# The acoustics


@pytest.mark.parametrize("ratio", [0.82, 1.0, 1.22])
def test_warp(ratio: float) -> None:
    """By formula: another length, and every frequency times the ratio."""
    warped = acoustics.warp(sine(440), ratio)
    assert len(warped) == round(SAMPLE_RATE / ratio)
    assert pitch(warped) == pytest.approx(440 * ratio, rel=1e-3)


@pytest.mark.parametrize("tempo", [0.85, 1.0, 1.18])
@pytest.mark.parametrize("hertz", [90, 440])
def test_stretch(tempo: float, hertz: float) -> None:
    """By formula: another length, the same pitch and level."""
    stretched = acoustics.stretch(sine(hertz), tempo)
    assert len(stretched) == round(SAMPLE_RATE / tempo)
    assert pitch(stretched) == pytest.approx(hertz, rel=0.01)
    assert level_db(stretched[512:-512]) == pytest.approx(level_db(sine(hertz)), abs=0.5)


def test_bands() -> None:
    """By construction: tones inside pass as they are, tones outside are gone."""
    tones = sine(150) + sine(1000) + sine(5000)
    for band, left in (
        (acoustics.telephone, sine(1000)),
        (lambda x: acoustics.narrow(x, 4000), sine(150) + sine(1000)),
    ):
        heard = band(tones)
        assert len(heard) == len(tones)
        # cutting so sharply rings at both ends
        np.testing.assert_allclose(heard[2000:-2000], left[2000:-2000], atol=0.02)


def test_mu_law_has_the_noise_of_g711() -> None:
    """By formula: about 38 dB below a tone, whether it is loud or 20 dB lower."""
    for gain in (0.9, 0.09):
        tone = gain * sine(1000)
        assert 30 < level_db(tone) - level_db(acoustics.mu_law(tone) - tone) < 45


@pytest.mark.reference
def test_gsm_keeps_the_length_and_the_words_place() -> None:
    """By construction: a second of a voice's pulses in the middle of silence; soundfile codes and decodes."""
    pytest.importorskip("soundfile")
    pulses = np.convolve((np.arange(SAMPLE_RATE) % 133 == 0).astype(np.float32), np.hanning(20))[:SAMPLE_RATE]
    samples = np.concatenate([silence(0.5), pulses.astype(np.float32), silence(0.513)])
    heard = acoustics.gsm(samples)
    assert len(heard) == len(samples)
    assert level_db(heard[9000:23000]) > level_db(heard[:7000] + 1e-6) + 20


@pytest.mark.parametrize("kind", [*acoustics.NOISES, "hum", "babble"])
def test_noise_comes_at_the_level_asked_for(kind: str) -> None:
    rng = np.random.default_rng(1)
    noise = acoustics.noise(kind, 20_000, rng, sine(300, 0.7))
    assert noise.shape == (20_000,)
    assert noise.dtype == np.float32
    speech = sine(440, 1.25)
    noisy = acoustics.add_noise(speech, noise, 10)
    assert level_db(speech) - level_db(noisy - speech) == pytest.approx(10, abs=0.01)


def test_noise_falls_with_frequency() -> None:
    """By formula: an octave lower, power is the same for white, 3 dB more for pink and 6 for brown."""
    rng = np.random.default_rng(1)
    for kind, slope_db in (("white", 0), ("pink", 3), ("brown", 6)):
        power = np.abs(np.fft.rfft(acoustics.noise(kind, 1 << 18, rng, silence(0)))) ** 2
        octave = 10 * np.log10(power[20_000:21_000].mean() / power[40_000:42_000].mean())
        assert octave == pytest.approx(slope_db, abs=0.5)


@pytest.mark.parametrize("clean", [True, pytest.param(False, marks=pytest.mark.reference)])
def test_recordings_keep_their_length_and_have_a_level(clean: bool) -> None:
    if not clean:
        pytest.importorskip("soundfile")  # for GSM
    speech = np.concatenate([silence(0.3), 0.5 * sine(200), silence(0.3)])
    for seed in range(40):
        heard = acoustics.recorded(speech, np.random.default_rng(seed), sine(300), clean)
        assert heard.shape == speech.shape
        assert heard.dtype == np.float32
        assert -30.1 < 20 * np.log10(np.abs(heard).max()) < -0.9


def test_without_speech() -> None:
    rng = np.random.default_rng(1)
    lengths, silent = [], 0
    for _ in range(200):
        samples = no_speech(rng)
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 0.75
        lengths.append(len(samples) / SAMPLE_RATE)
        silent += not samples.any()
    assert 0.3 <= min(lengths) < max(lengths) <= 8
    assert 5 < silent < 40  # an eighth is silence, half of that without any noise


# The stages


def fake_part(folder: Path, name: str, count: int = 30) -> None:
    """Recordings of buzzing, as wide in its spectrum as a voice, six of each voice."""
    rng = np.random.default_rng(list(name.encode()))
    tones = [0.7 * np.sign(sine(rng.uniform(100, 300), rng.uniform(0.5, 3))) for _ in range(count)]
    pcm = [np.rint(tone * 32767).astype(np.int16) for tone in tones]
    starts = np.cumsum([0, *map(len, pcm)]).tolist()
    lines = [
        Recording("en", f"Sentence {i}.", f"Sentence {i}!", f"voice {i // 6}", starts[i], len(pcm[i]))
        for i in range(count)
    ]
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}.npy", np.concatenate(pcm))
    (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(asdict(line)) for line in lines), "utf-8")


@pytest.mark.reference
def test_features_go_on_where_they_were_interrupted(tmp_path: Path) -> None:
    """By construction: the second part half written; the same files as in one go."""
    pytest.importorskip("soundfile")
    hours = {"hibari": {"en": 0.3}}
    for part in recordings.parts(hours):
        fake_part(tmp_path / "recordings", part.name, 4)
    out = tmp_path / "features"
    features.build(out, tmp_path / "recordings", hours)
    whole = (out / "features.f16").read_bytes(), (out / "utterances.jsonl").read_text("utf-8")
    assert len(recordings.parts(hours)) == 3

    first, second, third = sorted(out.glob("hibari*.jsonl"))
    second.unlink()
    third.unlink()
    (out / "utterances.jsonl").unlink()
    end = sum(json.loads(line)["frames"] for line in first.read_text("utf-8").splitlines())
    (out / "features.f16").write_bytes(whole[0][: end * 256 + 1000])
    features.build(out, tmp_path / "recordings", hours)
    assert ((out / "features.f16").read_bytes(), (out / "utterances.jsonl").read_text("utf-8")) == whole
    utterances, frames = features.load(out)
    assert utterances[-1].start + utterances[-1].frames == len(frames)


@pytest.mark.reference
def test_the_training_set_has_what_it_is_to_have(tmp_path: Path) -> None:
    """By construction: of 30 recordings about 150 utterances, and among them joined ones, and some without speech."""
    pytest.importorskip("soundfile")
    fake_part(tmp_path, "kokoro-en-00")
    utterances, frames = features.make("kokoro", "kokoro-en-00", tmp_path)
    assert frames.dtype == np.float16
    assert np.isfinite(frames).all()
    assert [u.start for u in utterances] == np.cumsum([0, *(u.frames for u in utterances)]).tolist()[:-1]
    counts = [len(u.sentences) for u in utterances]
    assert 150 <= counts.count(1) < 160  # some joined ones had no room for a second sentence
    assert 25 < sum(count > 1 for count in counts) < 62  # three in ten of 150, 3 standard deviations off at most
    assert 2000 < max(u.frames for u in utterances) <= 3500  # 35 s
    assert all(u.sentences for u in utterances if u.clean)
    assert 0.4 < np.mean([u.clean for u in utterances]) < 0.6
    for utterance in utterances:
        assert all(sentence.written == sentence.spoken.replace(".", "!") for sentence in utterance.sentences)
        if utterance.sentences:  # one after the other
            numbers = [int(sentence.spoken.split()[1][:-1]) for sentence in utterance.sentences]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        for before, after in itertools.pairwise(utterance.sentences):
            assert 9 <= after.start - before.end <= 501  # pauses of 0.1 to 5 s
            if utterance.clean and after.start - before.end > 20:
                level = frames[utterance.start : utterance.start + utterance.frames].mean(axis=1, dtype=np.float32)
                pause = level[before.end + 5 : after.start - 5].mean()
                assert pause < min(level[before.start : before.end].mean(), level[after.start : after.end].mean())


@pytest.mark.reference
def test_clean_ones_are_trimmed_to_their_speech(tmp_path: Path) -> None:
    """By construction: as long as the buzzing was, but for the change of tempo, and 3 frames at each end."""
    pytest.importorskip("soundfile")
    fake_part(tmp_path, "flite-en-00")
    pcm = recordings.load(tmp_path, "flite-en-00")[0]
    utterances, frames = features.make("flite", "flite-en-00", tmp_path)
    by_text = {recording.spoken: recording.n / SAMPLE_RATE for recording in pcm}
    clean = [u for u in utterances if u.clean and len(u.sentences) == 1]
    assert clean
    for utterance in clean:
        trimmed = features.trimmed(utterance)
        (sentence,) = trimmed.sentences
        assert sentence.start == min(3, utterance.sentences[0].start)
        assert trimmed.frames - 3 <= sentence.end <= trimmed.frames
        level = frames[trimmed.start : trimmed.start + trimmed.frames].mean(axis=1, dtype=np.float32)
        loud = np.flatnonzero(level > level.min() + 0.3 * np.ptp(level))
        assert loud[0] <= 10
        assert loud[-1] >= trimmed.frames - 10
        seconds = by_text[sentence.spoken]
        assert seconds / (1.22 * 1.18) - 0.05 < trimmed.frames / 100 < seconds / (0.82 * 0.85) + 0.15
        assert utterance.start <= trimmed.start
        assert trimmed.start + trimmed.frames <= utterance.start + utterance.frames


@needs_espeak
def test_recordings_are_speech_and_the_same_every_time(tmp_path: Path) -> None:
    part = Part("espeak", "de", 3, 20.0)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        recordings.make(part, folder, tmp_path)
    assert (tmp_path / "a" / f"{part.name}.npy").read_bytes() == (tmp_path / "b" / f"{part.name}.npy").read_bytes()
    spoken, pcm = recordings.load(tmp_path / "a", part.name)
    assert 20 <= len(pcm) / SAMPLE_RATE < 35
    assert spoken[-1].start + spoken[-1].n == len(pcm)
    for recording in spoken:
        samples = pcm[recording.start : recording.start + recording.n]
        assert np.abs(samples).max() == round(0.7 * 32767)
        assert 2.5 <= len(recording.spoken) * SAMPLE_RATE / recording.n <= 40


@needs_espeak
def test_finished_recordings_are_left_alone(tmp_path: Path) -> None:
    """By construction: one of two parts is missing, the other one is marked."""
    hours = {"espeak": {"en": 0.002, "fr": 0.002}}
    recordings.build(tmp_path, tmp_path, hours)
    english, french = (tmp_path / f"{part.name}.npy" for part in recordings.parts(hours))
    made = french.read_bytes()
    english.write_bytes(b"untouched")
    french.with_suffix(".jsonl").unlink()
    recordings.build(tmp_path, tmp_path, hours)
    assert english.read_bytes() == b"untouched"
    assert french.read_bytes() == made


def test_parts_take_turns() -> None:
    """By construction: at any time about the same share of every synthesiser is finished."""
    parts = recordings.parts()
    assert len({part.name for part in parts}) == len(parts)
    for synthesiser, languages in recordings.HOURS.items():
        own = [i for i, part in enumerate(parts) if part.synthesiser == synthesiser]
        assert sum(parts[i].seconds for i in own) == pytest.approx(3600 * sum(languages.values()))
        assert np.mean(own) / len(parts) == pytest.approx(0.5, abs=0.05)


@needs_espeak
def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tools.demo import synthesisers

    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="flite is missing: apt install flite"):
        synthesisers.flite("Yes.", "rms")
    monkeypatch.setitem(__import__("sys").modules, "py_nanotts", None)
    with pytest.raises(ImportError, match="pip install py-nanotts"):
        synthesisers.pico("Yes.", "en-US")
    with pytest.raises(FileNotFoundError, match=r"python -m tools\.demo voices"):
        synthesisers.kokoro("Yes.", "en", "af_heart", folder=tmp_path)


def test_the_record_names_all_code_that_worked_on_a_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By construction: begun by one commit, finished by another, then asked for once more."""
    from tools.demo import stages

    for commit, minutes, facts in (("a", 0, {}), ("b", 2.5, {"hours": 3}), ("b", 0, {})):
        monkeypatch.setattr(stages, "revision", lambda commit=commit: commit)
        stages.record(tmp_path, "recordings", minutes, facts)
    assert stages.recorded_stages(tmp_path) == {"recordings": {"minutes": 2.5, "revisions": ["a", "b"], "hours": 3}}


@pytest.mark.reference
@pytest.mark.parametrize(
    ("stage", "before"), [("make_features", "recordings"), ("train_model", "features"), ("export_model", "training")]
)
def test_a_stage_before_its_turn_says_what_is_missing(tmp_path: Path, stage: str, before: str) -> None:
    pytest.importorskip("torch")
    from tools.demo import __main__ as demo

    with pytest.raises(SystemExit, match=f"is missing: the stage {before} makes it"):
        getattr(demo, stage)(demo.Job(tmp_path, 1, quick=True))


def test_recordings_need_the_voices_first(tmp_path: Path) -> None:
    from tools.demo import __main__ as demo

    with pytest.raises(SystemExit, match=r"kokoro/model\.onnx is missing: the stage voices makes it"):
        demo.make_recordings(demo.Job(tmp_path, 1, quick=False))
    assert not [*tmp_path.iterdir()]


# The training


@pytest.fixture(scope="module")
def tokenizer():
    sentencepiece = pytest.importorskip("sentencepiece")
    model = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint" / "tokenizer.model"
    return sentencepiece.SentencePieceProcessor(model_file=str(model))


@pytest.mark.reference
def test_batches_are_shared_equally() -> None:
    """By construction: of one length, an even number of them, and at most the frames asked for."""
    pytest.importorskip("torch")
    from tools.demo import train

    lengths = np.random.default_rng(1).integers(40, 3000, 500).tolist()
    utterances = [features.Utterance("en", [], i, length, True) for i, length in enumerate(lengths)]
    chosen = train.batches(utterances, np.random.default_rng(1), 6000)
    for batch in chosen:
        (length,) = {train.padded(utterance.frames) for utterance in batch}
        assert len(batch) % train.WORKERS == 0
        assert len(batch) * length <= 6000 or len(batch) == train.WORKERS
        assert (len(batch) + train.WORKERS) * length > 6000
    starts = [utterance.start for batch in chosen for utterance in batch]
    assert len(starts) == len(set(starts)) > 350


@pytest.mark.reference
def test_positions_begin_as_sinusoids() -> None:
    """By hand: the sine and cosine of the position, and of a hundredth of it; as loud as the tokens."""
    torch = pytest.importorskip("torch")
    from tools.demo import model

    expected = [[0, 1, 0, 1], [np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)]]
    torch.testing.assert_close(model._sinusoids(2, 4), torch.tensor(expected), check_dtype=False)
    decoder = model.new_model(300, 5).model.decoder
    loud = torch.stack(
        [embedding.weight.square().mean().sqrt() for embedding in (decoder.pos_emb, decoder.embed_tokens)]
    )
    torch.testing.assert_close(loud, torch.full((2,), model.EMBEDDING_STD), rtol=0.05, atol=0)


@pytest.mark.reference
def test_the_learning_rate_falls_in_the_last_round_alone() -> None:
    """By hand."""
    pytest.importorskip("torch")
    from tools.demo.train import rate

    assert [rate(step, 1000, False) for step in (0, 149, 299, 999)] == [1 / 300, 0.5, 1, 1]
    assert [rate(step, 1000, True) for step in (0, 149, 500, 999)] == pytest.approx([1 / 300, 0.5, 0.5, 0.001])


@pytest.mark.reference
def test_prompt_and_text_go_together(tokenizer) -> None:
    """By hand: digits where the prompt asks for them, marks and capitals where it does; letters as spoken."""
    pytest.importorskip("torch")
    from tools.demo import train

    frames = np.random.default_rng(1).standard_normal((100, 128)).astype(np.float16)
    collate = train.Collator(frames, tokenizer)
    said = [features.Sentence("Wake me", "Wake me", 10, 40), features.Sentence("at seven.", "at 7.", 50, 90)]
    utterance = features.Utterance("en", said, 0, 100, True)
    rng, seen = np.random.default_rng(1), {}
    for _ in range(40):
        batch = collate([utterance], rng)
        ids, labels = batch["ids"][0].tolist(), batch["labels"][0].tolist()
        prompt = tokenizer.id_to_piece(ids[:10])
        text = [label for label in labels[9:] if label != train.IGNORED]
        assert labels[:9] == [train.IGNORED] * 9
        assert text == [*ids[10 : 9 + len(text)], 3]  # each position's label is the next token, the last one the end
        seen[prompt[6], prompt[7]] = tokenizer.decode(text[:-1])
        places = batch["places"][0].tolist()
        heard = {place: [] for place in [(-15, 65), (25, 115)]}  # 0.25 s around the sentence
        for label, place in zip(labels, map(tuple, places), strict=True):
            assert (place == train.NOWHERE) == (label in (train.IGNORED, 3))
            if place != train.NOWHERE:
                heard[place].append(label)
        assert tokenizer.decode(heard[-15, 65]).lower() == "wake me"
        assert heard[25, 115] == text[len(heard[-15, 65]) : -1]
        names = dict(map(reversed, collate.letters.items()))
        assert "".join(names[letter] for letter in batch["ctc"].tolist()) == "wake me at seven"
    assert seen == {
        ("<|pnc|>", "<|noitn|>"): "Wake me at seven.",
        ("<|pnc|>", "<|itn|>"): "Wake me at 7.",
        ("<|nopnc|>", "<|noitn|>"): "wake me at seven",
        ("<|nopnc|>", "<|itn|>"): "wake me at 7",
    }


@pytest.mark.reference
def test_attention_outside_of_the_sentence_costs() -> None:
    """By hand: of one head's attention a half is in place, of the other's nothing; what has no place is free."""
    torch = pytest.importorskip("torch")
    from tools.demo import train

    heads = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])  # of three encoder frames
    attention = heads[None, None, :, None].expand(2, 1, 2, 2, 3)  # (layers, batch, heads, tokens, frames)
    places = torch.tensor([[[8, 16], train.NOWHERE]])  # in mel frames: the second encoder frame
    torch.testing.assert_close(train._place_loss(attention, places), torch.tensor(4.0).log())
    assert train._place_loss(attention, torch.zeros_like(places)) == 0


@pytest.mark.reference
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_alignment_has_every_letter(tokenizer, language: str) -> None:
    """By construction, of 2000 sentences and short items."""
    from tools.demo.sentences import Grammar, without_punctuation
    from tools.demo.tokenizer import letters

    grammar, rng = Grammar(language), Random(1)
    texts = [*grammar.training(1000, rng), *grammar.short(1000, rng)]
    assert {letter for text in texts for letter in without_punctuation(text.spoken)} <= {*letters(tokenizer)}
