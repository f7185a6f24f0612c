"""Speech cut where the speaker pauses: nothing lost for any samples, by hand on tone bursts, on espeak's sentences."""

import shutil
from math import inf

import numpy as np
import pytest
from decoding import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from cohere_lite.cut import Chunks
from cohere_lite.errors import OptionError
from cohere_lite.extras.loudness import Loudness, holds_speech
from cohere_lite.extras.phrases import Pauses, Phrases
from cohere_lite.mel import log_mel
from cohere_lite.model import load_model

SECOND = 16_000
FRAME = 320  # samples, 20 ms
LANGUAGES = ("de", "en", "es", "fr")

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")


def cut(samples, pauses=None, at=()):
    """The pieces; the samples are pushed in blocks, cut at `at`."""
    phrases = Phrases(pauses or Pauses())
    return [piece for block in np.split(samples, at) for piece in phrases.push(block)] + phrases.finish()


def frames_cut(samples, pauses=None):
    """Frame by frame -> (start, end, now) of each piece: `now` frames had been pushed when it came."""
    phrases = Phrases(pauses or Pauses())
    result, start = [], 0
    for now, frame in enumerate(np.split(samples, np.arange(FRAME, len(samples), FRAME)), 1):
        for piece in phrases.push(frame):
            result.append((start, start + len(piece) // FRAME, now))
            start = result[-1][1]
    return [*result, (start, start + len(phrases.finish()[0]) // FRAME, None)]


def spoken(samples, pauses=None):
    """(start, end) in seconds of the pieces that are not skipped as silent."""
    loudness, result, start = Loudness(), [], 0
    for piece in cut(samples, pauses):
        end = start + len(piece)
        if holds_speech(loudness.push(piece)):
            result.append((start / SECOND, end / SECOND))
        start = end
    return result


def tone(n_frames, amplitude=0.1, hz=1000):
    return (amplitude * np.sin(2 * np.pi * hz / SECOND * np.arange(n_frames * FRAME))).astype(np.float32)


def silence(n_frames):
    return np.zeros(n_frames * FRAME, np.float32)


def noise(n_frames, level_db, slope=0.0, seed=0):
    """slope: of the amplitude over frequency; 0 is white, -1 brown noise."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n_frames * FRAME))
    spectrum *= np.maximum(1e-3, np.linspace(0, 1, len(spectrum))) ** slope
    samples = np.fft.irfft(spectrum)
    return (samples * 10 ** (level_db / 20) / np.sqrt(np.mean(samples**2))).astype(np.float32)


# What must hold for any samples


STRETCHES = st.lists(
    st.tuples(st.sampled_from([0.0, 1e-5, 1e-4, 0.01, 0.3, 10.0]), st.integers(0, 12_000)), min_size=1, max_size=24
)


@st.composite
def some_pauses(draw):
    max_phrase_s = draw(st.floats(1, 4))
    return Pauses(draw(st.floats(0.5, 20)), draw(st.floats(0.1, max_phrase_s) | st.just(0.1)), max_phrase_s)


@settings(deadline=None, max_examples=200)
@given(stretches=STRETCHES, pauses=some_pauses(), sizes=st.lists(st.integers(0, 3) | st.integers(1, 50_000)))
def test_pieces_are_the_whole_recording(stretches, pauses, sizes):
    """By construction, and none longer than a phrase may be, and the same however the samples are pushed."""
    random = np.random.default_rng(len(stretches))
    samples = np.concatenate([level * random.standard_normal(n) for level, n in stretches]).astype(np.float32)
    pieces = cut(samples, pauses)
    assert np.array_equal(np.concatenate(pieces), samples)
    assert max(map(len, pieces)) <= pauses.max_phrase_s * SECOND
    assert all(map(len, pieces[:-1]))
    assert list(map(len, cut(samples, pauses, at=np.cumsum(sizes)))) == list(map(len, pieces))


@settings(deadline=None, max_examples=100)
@given(stretches=STRETCHES, pauses=some_pauses(), sizes=st.lists(st.integers(1, 50_000), min_size=1))
def test_silences_asked_for_lose_nothing(stretches, pauses, sizes):
    """By construction, as above, when after each block the silence so far is taken; and the phrases begin no later."""
    random = np.random.default_rng(len(stretches))
    samples = np.concatenate([level * random.standard_normal(n) for level, n in stretches]).astype(np.float32)
    phrases, pieces = Phrases(pauses), []
    for block in np.split(samples, np.cumsum(sizes)):
        pieces += phrases.push(block) + phrases.silence()
    pieces += phrases.finish()
    assert np.array_equal(np.concatenate(pieces), samples)
    assert max(map(len, pieces)) <= pauses.max_phrase_s * SECOND
    assert all(map(len, pieces[:-1]))


def test_silence_so_far():
    """By hand: of 100 frames of silence all but half a pause, then nothing more; none in a phrase."""
    phrases = Phrases(Pauses())
    assert phrases.push(silence(100)) == []
    assert [len(piece) // FRAME for piece in phrases.silence()] == [85]
    assert phrases.silence() == []
    assert phrases.push(tone(20)) == []
    assert phrases.silence() == []


def test_a_source_that_sends_nothing_ends_the_phrase():
    """By hand: 1.2 s of a tone and 0.2 s of silence, no pause yet; less than a frame is held back. A second without
    samples ends the phrase, and a pause of 1.5 s lasts as long. Silences and chunks have no end of this kind."""
    for pauses, least_s in (Pauses(), 1.0), (Pauses(min_pause_s=1.5), 1.5):
        phrases = Phrases(pauses)
        assert phrases.push(np.concatenate([tone(60), silence(10), np.zeros(100, np.float32)])) == []
        assert phrases.idle(least_s - 0.01) == []
        (phrase,) = phrases.idle(least_s)
        assert len(phrase) == 70 * FRAME
        assert phrases.idle(100) == []
        assert phrases.push(np.concatenate([silence(10), tone(60)])) == []  # the next one
        assert [len(piece) for piece in phrases.idle(100)] == [70 * FRAME]
        assert len(phrases.finish()[0]) == 100
    phrases = Phrases(Pauses())
    phrases.push(silence(10))
    assert phrases.idle(100) == []
    assert [len(piece) for piece in phrases.idle(inf)] == [10 * FRAME]  # where another channel's phrase is over
    assert phrases.idle(inf) == []
    chunks = Chunks()
    chunks.push(tone(100))
    assert chunks.idle(100) == []


def test_pieces_do_not_change_with_the_blocks_they_came_in():
    """By construction: whoever records into one buffer again and again does not overwrite what is held."""
    samples = np.concatenate([tone(50), silence(50), tone(50)])
    buffer, phrases, pieces = np.empty(FRAME, np.float32), Phrases(Pauses()), []
    for frame in samples.reshape(-1, FRAME):
        buffer[:] = frame
        pieces += phrases.push(buffer)
    assert np.array_equal(np.concatenate([*pieces, *phrases.finish()]), samples)


# By hand, in frames of 20 ms. Loudness is taken over 5 frames: a sound is heard from its first frame on to 4 after its
# last one. min_pause_s is 30 frames, half of it 15.


def test_a_phrase_ends_when_the_pause_is_long_enough():
    """By hand: the tones are heard in frames 50-103 and 200-253. Half a pause before frame 51 has come, frame 36, the
    silence ends; 30 frames after 104 the phrase does, half a pause back; and so on."""
    samples = np.concatenate([silence(50), tone(50), silence(100), tone(50), silence(100)])
    assert frames_cut(samples) == [(0, 36, 51), (36, 119, 134), (119, 186, 201), (186, 269, 284), (269, 350, None)]


def test_shorter_pauses_do_not_cut():
    """By hand: 33 silent frames have 29 quiet ones. With 34 the phrase ends, and too little is left for a silence."""
    assert frames_cut(np.concatenate([tone(50), silence(33), tone(50), silence(34)])) == [
        (0, 152, 167),
        (152, 167, None),
    ]
    assert frames_cut(np.concatenate([tone(50), silence(34), tone(50), silence(34)])) == [
        (0, 69, 84),
        (69, 153, 168),
        (153, 168, None),
    ]


def test_long_silence_is_cut_too():
    """By hand: the longest piece is 1500 frames; half a pause of it is kept, for a phrase may begin."""
    assert frames_cut(silence(4000)) == [(0, 1485, 1500), (1485, 2970, 2985), (2970, 4000, None)]


def test_silence_where_a_pause_is_as_long_as_a_phrase():
    """By hand: half of the 50 frames are kept for the phrase that begins in the last of them."""
    pauses = Pauses(min_pause_s=1, max_phrase_s=1)
    assert frames_cut(np.concatenate([silence(49), tone(21)]), pauses) == [(0, 25, 50), (25, 70, None)]


def syllables(n):
    """n times 0.2 s loud, 0.1 s quiet."""
    return np.concatenate([tone(10), tone(5, 0.001)] * n)


def test_without_pauses_the_cut_is_at_the_quietest_place():
    """By hand: of the windows of 0.1 s from 25 s on, the one at 27.5 s is silent; from 27.5 + 25 s on all quiet ones
    are alike, so it is the first, after 0.2 s of tone."""
    samples = syllables(200)
    samples[int(27.5 * SECOND) : int(27.6 * SECOND)] = 0
    assert [end for _, end, _ in frames_cut(samples)] == [1375, 2635, 3000]


def test_a_pause_in_which_the_phrase_was_cut():
    """By hand: the first 50 frames are cut in their last 25, at the last place looked at, 40, for the hum, which is not
    heard, grows ever quieter. Frame 50 is the 30th quiet one, but ends no phrase: since 40 there was no speech. What
    began there is a silence, and ends half a pause before frame 71 has come."""
    samples = np.concatenate([tone(17), silence(53), tone(10), silence(10)])
    samples += np.linspace(0.3, 0, len(samples), dtype=np.float32) * tone(90, 1, 50)
    assert frames_cut(samples, Pauses(max_phrase_s=1)) == [(0, 40, 50), (40, 56, 71), (56, 90, None)]


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (lambda samples: samples * 10 ** (-27 / 20), 0),  # -50 dB
        (lambda samples: np.round(samples * 10 ** (-27 / 20) * 32768) / 32768, 0),
        (lambda samples: np.clip(30 * samples, -1, 1), 0),
        (lambda samples: samples + 0.3, 0),
        (lambda samples: samples + noise(650, -43), 3),  # 20 dB below the tone
        (lambda samples: samples + noise(650, -33), 3),
        (lambda samples: samples + noise(650, -33, -0.5), 3),
        (lambda samples: samples + noise(650, -33, -1), 3),
        (lambda samples: samples + sum(tone(650, 0.02 / k, 50 * k) for k in range(1, 20)), 3),
    ],
    ids=["quiet", "quiet-16-bit", "clipped", "offset", "white-20", "white-10", "pink-10", "brown-10", "hum"],
)
def test_recording_conditions(change, tolerance):
    """By hand as above: tones in frames 200-249 and 400-449 are phrases from 15 frames before to 19 after them. A sound
    begins to be heard a frame later, and ends up to 3 earlier, in noise."""
    samples = np.concatenate([silence(200), tone(50), silence(150), tone(50), silence(200)])
    phrases = np.array(spoken(change(samples).astype(np.float32))) * SECOND / FRAME
    assert phrases == pytest.approx(np.array([(186, 269), (386, 469)]), abs=tolerance)


def test_noise_that_begins_is_speech_until_it_is_known():
    """By hand: the silence before frame 500 is forgotten 500 frames after the last loudness that has some of it, 503.
    30 frames later, at 1034 or so, a piece ends, half a pause back. The tone at 1200 is a phrase again."""
    samples = np.concatenate([silence(1200), tone(50), silence(200)])
    samples[500 * FRAME :] += noise(950, -43, -1)
    pieces = frames_cut(samples)
    assert pieces[1][1:] == pytest.approx((1019, 1034), abs=5)
    assert spoken(samples) == [
        (pieces[1][0] * 0.02, pieces[1][1] * 0.02),
        pytest.approx((1186 * 0.02, 1269 * 0.02), abs=0.06),
    ]


def test_noise_from_the_start_is_skipped_in_hindsight():
    """By hand: for 2 s all may be speech; 30 frames later, at 130, the piece ends, and then its noise is known."""
    samples = noise(400, -43)
    assert frames_cut(samples)[0] == (0, 115, 130)
    assert spoken(samples) == []


def test_wrong_values():
    for wrong in (0, -1, 100, float("nan")):
        with pytest.raises(OptionError, match="threshold_db is"):
            Pauses(threshold_db=wrong)
    for wrong in (0, 0.09, 30.1, float("nan")):
        with pytest.raises(OptionError, match="min_pause_s is"):
            Pauses(min_pause_s=wrong)
    for wrong in (0.9, 35.1, float("inf"), float("nan")):
        with pytest.raises(OptionError, match="max_phrase_s is"):
            Pauses(max_phrase_s=wrong)
    Pauses(99, 0.1, 1)
    Pauses(1e-3, 35, 35)


# Sentences of espeak's


def joined(language, count, snr_db=None):
    """2 s of silence, by which the noise is known, and `count` held-out recordings with 1 s after each, in white noise:
    samples, and for each (first, last second of speech, text)."""
    from tools.demo.heldout import heldout

    parts, spans, start = [silence(100)], [], 2 * SECOND
    for samples, text, _ in heldout(language, count):
        audible = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
        spans.append(((start + audible[0]) / SECOND, (start + audible[-1]) / SECOND, text))
        parts += [samples, silence(50)]
        start += len(samples) + SECOND
    whole = np.concatenate(parts)
    if snr_db is not None:
        speech = np.concatenate(parts[1::2])
        whole += noise(len(whole) // FRAME + 1, 10 * np.log10(np.mean(speech**2)) - snr_db)[: len(whole)]
    return whole, spans


@pytest.mark.slow
@needs_espeak
@pytest.mark.parametrize("snr_db", [None, 20, 10])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_phrase_per_sentence(language, snr_db):
    """By record, of all 400 held-out sentences (here 25 a language): each whole in one phrase, which holds no other.

    So it is in noise 5 dB below the speech; in noise as loud as the speech 12 of the 400 are cut in two."""
    samples, spans = joined(language, 25, snr_db)
    phrases = spoken(samples)
    assert len(phrases) == len(spans)
    for (start, end), (first, last, text) in zip(phrases, spans, strict=True):
        assert start < first, text
        assert last < end, text


@pytest.mark.slow
@pytest.mark.reference
@needs_espeak
@pytest.mark.parametrize("language", LANGUAGES)
def test_word_error_rate_of_long_recordings(language):
    """By record, of 99 sentences a language in one recording (here of its first 18) 1.3 to 3.1 % of the words are
    wrong, as of single sentences. In chunks of 35 s, 61 to 68 % are: the model mostly learnt one or two at a time."""
    jiwer = pytest.importorskip("jiwer")
    from tools.demo.sentences import without_punctuation

    samples, spans = joined(language, 18)
    model = load_model()
    prompt = model.vocabulary.prompt(language, punctuation=False)
    pieces = [samples[round(start * SECOND) : round(end * SECOND)] for start, end in spoken(samples)]
    decoded = Decoder(model).decode([log_mel(piece) for piece in pieces], prompt)
    heard = " ".join(model.vocabulary.decode(each.tokens).strip() for each in decoded)
    assert jiwer.wer(" ".join(without_punctuation(text) for *_, text in spans), heard) <= 0.05
