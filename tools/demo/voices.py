"""Who speaks: the voices of each synthesiser, those that are trained on, and those that are only ever tested with."""

from pathlib import Path
from random import Random
from typing import Any

from . import synthesisers
from .acoustics import Samples

# `espeak-ng --voices=variant` without whispers, croaks, robots and effects, under their file names: espeak-ng answers
# an unknown variant, or one in the wrong case, with the plain voice.
_ESPEAK = """
    f1 f2 f4 f5 Andrea anika aunty belinda grandma steph steph3 adam Alex Andy antonio benjamin boris david
    Diogo ed edward edward2 Gene Gene2 grandpa gustave Henrique Hugo iven iven2 iven3 iven4 Jacky john kaukovalta klatt
    klatt2 klatt3 klatt4 Lee marcelo Marco Mario max m1 m2 m3 m5 m6 m7 m8 michel miguel Nguyen norbert pablo pedro
    quincy RicishayMax rob robert sandro shelby travis victor zac
"""
# Language (a: American, b: British, e: Spanish, f: French, h: Hindi, i: Italian, j: Japanese, p: Portuguese,
# z: Chinese), sex, name.  Every voice speaks every language, with an accent.
_KOKORO = """
    af_alloy af_aoede af_heart af_jessica af_kore af_nicole af_river af_sarah af_sky am_adam am_echo am_eric am_fenrir
    am_liam am_puck am_santa bf_alice bf_isabella bf_lily bm_daniel bm_fable em_alex em_santa ff_siwis hf_alpha hf_beta
    hm_omega hm_psi if_sara jf_alpha jf_gongitsune jf_nezumi jf_tebukuro jm_kumo pm_alex pm_santa zf_xiaobei zf_xiaoni
    zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang
"""
_KOKORO_HELD_OUT = """
    af_bella af_nova am_michael am_onyx bf_emma bm_george bm_lewis ef_dora im_nicola pf_dora
"""
TRAINING: dict[str, list[str]] = {
    "espeak": _ESPEAK.split(),
    "pico": ["en-US", "en-GB", "de-DE", "fr-FR", "es-ES"],
    "flite": ["kal", "kal16", "awb", "rms"],
    "hibari": ["heart"],
    "kokoro": _KOKORO.split(),
}
# Never trained on: whole synthesisers, and of the others four women and four men, or five and five.
HELD_OUT: dict[str, list[str]] = {
    "espeak": ["f3", "Alicia", "linda", "steph2", "m4", "Michael", "paul", "Denis"],
    "flite": ["slt"],
    "festival": ["ked_diphone", "cmu_us_slt_arctic_hts"],
    "piper": ["joe"],
    "kokoro": _KOKORO_HELD_OUT.split(),
}

ACCENTS = {  # of espeak-ng
    "en": ["en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland"],
    "de": ["de"],
    "fr": ["fr-fr", "fr-be", "fr-ch"],
    "es": ["es", "es-419"],
}
RATES, SLOW_RATES, HELD_OUT_RATES = (125, 225), (85, 180), (145, 200)  # of espeak-ng: words a minute
PITCHES, HELD_OUT_PITCHES = (20, 80), (35, 65)  # espeak's scale, 0-99
SPEEDS, SLOW_SPEEDS, HELD_OUT_SPEEDS = (0.8, 1.3), (0.6, 1.1), (0.9, 1.15)  # of the others
PICO_PITCHES = (0.65, 1.45)
NATIVE = {"en": "a", "en-gb": "b", "fr": "f", "es": "e", "de": ""}  # Kokoro's voices
SHARES = (0.4, 0.9)  # of the first voice of a mixture


def speak(synthesiser: str, text: str, voice: dict[str, Any], kokoro: Path) -> Samples:
    """voice: from `random_voice`.  kokoro: the folder with Kokoro's files; the other synthesisers need none."""
    more = {"folder": kokoro} if synthesiser == "kokoro" else {}
    return getattr(synthesisers, synthesiser)(text, **voice, **more)


def random_voice(synthesiser: str, language: str, rng: Random, held_out: bool = False, slow: bool = False) -> dict:
    """Random arguments, apart from the text, for the function of this name in `synthesisers`.

    language: "en", "de", "fr" or "es"; flite, festival, hibari and piper speak English alone.
    slow: as people say single words to a machine.
    """
    names = (HELD_OUT if held_out else TRAINING)[synthesiser]
    if synthesiser == "espeak":
        return {
            "accent": rng.choice(ACCENTS[language]),
            "voice": rng.choice(names),
            "rate": rng.randint(*(HELD_OUT_RATES if held_out else SLOW_RATES if slow else RATES)),
            "pitch": rng.randint(*(HELD_OUT_PITCHES if held_out else PITCHES)),
        }
    speed = {"speed": round(rng.uniform(*(HELD_OUT_SPEEDS if held_out else SLOW_SPEEDS if slow else SPEEDS)), 2)}
    if synthesiser == "kokoro":
        return (_held_out_kokoro if held_out else _training_kokoro)(language, rng) | speed
    if synthesiser == "pico":
        accent = rng.choice([name for name in names if name.startswith(language)])
        return {"language": accent, "pitch": round(rng.uniform(*PICO_PITCHES), 2)} | speed
    return speed if len(names) == 1 and synthesiser != "flite" else {"voice": rng.choice(names)} | speed


def _training_kokoro(language: str, rng: Random) -> dict:
    """One voice, or one coloured by another; half of the French and Spanish, most of the English by native voices."""
    names = TRAINING["kokoro"]
    if language == "en":
        language = rng.choices(["en", "en-gb"], [2, 1])[0]
    native = [name for name in names if name[0] in NATIVE[language]]
    is_native = bool(native) and rng.random() < (0.7 if language.startswith("en") else 0.5)
    first, second = rng.choice(native if is_native else names), rng.choice(names)
    if is_native and len(native) > 5 and rng.random() < 0.4:  # others have to be coloured, or they would be few
        return {"language": language, "voice": first}
    share = round(rng.uniform(*SHARES), 2)
    return {"language": language, "voice": f"{first}:{share}+{second}:{1 - share:.2f}"}


def _held_out_kokoro(language: str, rng: Random) -> dict:
    """Natives of English, or any of them with an accent: one Spanish voice alone is kept from training."""
    names = HELD_OUT["kokoro"]
    voice = rng.choice([name for name in names if name[0] in "ab"] if language == "en" else names)
    return {"language": "en-gb" if language == "en" and voice[0] == "b" else language, "voice": voice}
