"""Files that are not plain WAV: when their sound is heard, what is told of them, who reads them. Expected values are
those that were put in (tones, times, samples), ffmpeg's own decoding of the same file, or messages by record."""

import importlib
import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from conftest import COMMAND
from test_audio import Pipe, needs_ffmpeg, needs_soundfile, posix, read, run_ffmpeg, soundfile
from test_wav import wav

from cohere_lite.audio import open_audio
from cohere_lite.errors import AudioError, OptionError

convert = importlib.import_module("cohere_lite.extras.convert")  # also where all modules are one file
ffmpeg = importlib.import_module("cohere_lite.extras.ffmpeg")
lengths = importlib.import_module("cohere_lite.extras.lengths")

ffmpeg_path = shutil.which("ffmpeg")
VIDEO = ["-f", "lavfi", "-i", "color=black:s=64x64:r=25:d=6"]
CUT_SHORT, FOLLOWS = "was cut short", "another recording follows in the same file: only the first is used"
# ffmpeg's options for containers of a video with sound; what there is of encoders everywhere
CONTAINERS = {
    "mp4": "-c:v mpeg4 -c:a aac",
    "mov": "-c:v mpeg4 -c:a aac",
    "mkv": "-c:v mpeg4 -c:a flac",
    "flv": "-c:v flv -c:a aac",
    "ts": "-c:v mpeg2video -c:a mp2",
    "mpg": "-c:v mpeg2video -c:a mp2",
    "wmv": "-c:v wmv2 -c:a wmav2",
}


@pytest.fixture
def only_ffmpeg(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)


@pytest.fixture
def only_soundfile(monkeypatch):
    monkeypatch.setenv("PATH", "")


def tone(path, seconds=2.0, rate=16000, hz=1000):
    """A WAV file of a sine at half of full scale."""
    samples = np.sin(2 * np.pi * hz / rate * np.arange(round(seconds * rate))) * 2**14
    path.write_bytes(wav(samples.astype("<i2").tobytes(), rate=rate))
    return path


def opened(source, **options):
    """Samples of the first channel, rate, missing, warnings."""
    with open_audio(source, **options) as audio:
        frames = np.concatenate([*audio.blocks])
    return frames[:, 0], audio.rate, audio.missing, audio.warnings


def loud_at(samples, rate):
    """Where sound begins after silence, in seconds, by the RMS of 10 ms each."""
    n = rate // 100
    loud = (samples[: len(samples) // n * n].reshape(-1, n) ** 2).mean(axis=1) > 0.1**2
    return [i / 100 for i in np.flatnonzero(loud) if not loud[max(0, i - 20) : i].any()]


def pitch_hz(samples, rate):
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples)


# The clock of the container


@needs_ffmpeg
@pytest.mark.parametrize("container", CONTAINERS)
def test_sound_that_begins_late(tmp_path, only_ffmpeg, container):
    """A tone of 2 s that begins at 3 s of the picture."""
    path = tmp_path / f"a.{container}"
    source = tone(tmp_path / "a.wav", rate=44100)
    run_ffmpeg(
        *VIDEO, "-itsoffset", 3, "-i", source, "-map", "0:v", "-map", "1:a", *CONTAINERS[container].split(), path
    )
    samples, rate, missing, warnings = opened(path)
    assert loud_at(samples, rate) == [pytest.approx(3, abs=0.1)]
    assert len(samples) / rate == pytest.approx(5, abs=0.15)
    assert (missing, warnings) == ([], [])


@needs_ffmpeg
@pytest.mark.parametrize("container", CONTAINERS)
def test_sound_that_was_lost(tmp_path, only_ffmpeg, container):
    """Tones from 0 to 1 s and from 4 to 5 s; what was between them, silence, is not in the file."""
    path = tmp_path / f"a.{container}"
    samples = np.sin(np.arange(5 * 44100) / 8) * 2**14
    samples[44100 : 4 * 44100] = 0
    (tmp_path / "a.wav").write_bytes(wav(samples.astype("<i2").tobytes(), rate=44100))
    lost = ["-af", "aselect='not(between(t,1.5,3.5))'"]
    run_ffmpeg(
        *VIDEO, "-i", tmp_path / "a.wav", *lost, "-map", "0:v", "-map", "1:a", *CONTAINERS[container].split(), path
    )
    heard, rate, _, _ = opened(path)
    assert loud_at(heard, rate) == [pytest.approx(0, abs=0.1), pytest.approx(4, abs=0.1)]


@needs_ffmpeg
@pytest.mark.parametrize("container", ["ts", "mpg", "mkv"])
def test_videos_one_behind_the_other(tmp_path, only_ffmpeg, container):
    """Timestamps that begin anew cost no sound: two tones of 2 s, as far apart as each is long."""
    one, both = tmp_path / f"one.{container}", tmp_path / f"both.{container}"
    source = tone(tmp_path / "a.wav", rate=44100)
    output = ["-af", "apad=pad_dur=1", "-shortest", "-map", "0:v", "-map", "1:a", *CONTAINERS[container].split()]
    run_ffmpeg(*VIDEO, "-i", source, *output, one)
    both.write_bytes(one.read_bytes() * 2)
    length_s = len(opened(one)[0]) / 44100
    samples, rate, _, _ = opened(both)
    assert loud_at(samples, rate) == [pytest.approx(0, abs=0.1), pytest.approx(length_s, abs=0.1)]
    assert len(samples) / rate == pytest.approx(2 * length_s, abs=0.1)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp3", ""),
        ("a.m4a", ""),
        ("a.ogg", ""),
        ("a.ts", "-c:a mp2"),
        ("a.mka", ""),
        ("two.ogg", ""),
        ("two.opus", "-ar 48000"),
        ("two.ts", "-c:a mp2"),
        ("two.mp3", ""),
        ("two.webm", "-ar 48000 -live 1"),
        ("cover.m4a", ""),
    ],
)
def test_sound_alone_is_as_ffmpeg_decodes_it(tmp_path, only_ffmpeg, monkeypatch, name, options):
    """By reference, sample for sample; also where timestamps begin anew, and where there is a cover."""
    monkeypatch.setattr(ffmpeg, "_ON_THE_CLOCK", "no such filter")
    path, first = tmp_path / name, tmp_path / f"a.{name.split('.')[1]}"
    run_ffmpeg("-itsoffset", 1, "-i", tone(tmp_path / "a.wav", rate=44100), *options.split(), first)
    if name.startswith("two"):
        path.write_bytes(first.read_bytes() * 2)
    elif name.startswith("cover"):
        run_ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=0.04", "-frames:v", 1, tmp_path / "a.png")
        both = ["-i", first, "-i", tmp_path / "a.png", "-map", "0", "-map", "1", "-c", "copy"]
        run_ffmpeg(*both, "-disposition:v", "attached_pic", path)
    command = [ffmpeg_path, "-v", "quiet", "-i", path, "-map", "0:a", "-c:a", "pcm_f32le", "-f", "f32le", "-"]
    expected = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4")
    samples, _, missing, warnings = opened(path)
    np.testing.assert_array_equal(samples, expected)
    assert (missing, warnings) == ([], [])


# Several audio tracks


@needs_ffmpeg
def test_the_track(tmp_path, only_ffmpeg):
    """The one that the file calls its default, told by its pitch; any other by its number."""
    pitches = 500, 1000, 2000
    inputs = [x for hz in pitches for x in ("-i", tone(tmp_path / f"{hz}.wav", hz=hz))]
    output = [
        "-map",
        "0",
        "-map",
        "1",
        "-map",
        "2",
        "-c:a",
        "flac",
        "-metadata:s:a:0",
        "language=ger",
        "-metadata:s:a:2",
        "language=fre",
    ]
    for default, path in (1, tmp_path / "1.mkv"), (None, tmp_path / "none.mkv"):
        flags = [x for n in range(3) for x in (f"-disposition:a:{n}", "default" if n == default else "0")]
        run_ffmpeg(*inputs, *output, *flags, path)
        samples, rate, missing, warnings = opened(path)
        assert pitch_hz(samples, rate) == pytest.approx(pitches[default or 0], abs=1)
        assert missing == []
        using = f"using {default or 0}; --track N (track=N) chooses another"
        assert warnings == [f"3 audio tracks (0 ger, 1 ?, 2 fre): {using}"]
        for track, hz in enumerate(pitches):
            samples, rate, missing, warnings = opened(path, track=track)
            assert pitch_hz(samples, rate) == pytest.approx(hz, abs=1)
            assert (missing, warnings) == ([], [])
        with pytest.raises(OptionError, match="track is 3, but the recording has 3, counted from 0"):
            opened(path, track=3)


@needs_ffmpeg
def test_a_track_of_a_single_one(tmp_path):
    with pytest.raises(OptionError, match="track is 0, but WAV files and raw samples have no tracks"):
        opened(wav(bytes(100)), track=0)
    run_ffmpeg("-i", tone(tmp_path / "a.wav"), tmp_path / "a.flac")
    assert opened(tmp_path / "a.flac", track=0)[3] == []
    with pytest.raises(OptionError, match="track is 1, but the recording has 1"):
        opened(tmp_path / "a.flac", track=1)


@needs_soundfile
def test_soundfile_knows_one_track(tmp_path, only_soundfile):
    soundfile.write(tmp_path / "a.flac", np.zeros(1000), 8000)
    assert len(opened(tmp_path / "a.flac", track=0)[0]) == 1000
    with pytest.raises(OptionError, match="track is 1, but the recording has 1"):
        opened(tmp_path / "a.flac", track=1)


@needs_ffmpeg
def test_the_command_takes_a_track(tmp_path):
    run = [*COMMAND, "--quiet", "--track", "1"]
    path = tmp_path / "a.wav"
    tone(path)
    done = subprocess.run([*run, "--raw", "8000:u8:1", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("--raw")) == (2, 1)
    run_ffmpeg("-i", path, "-i", path, "-map", 0, "-map", 1, tmp_path / "a.mkv")
    assert subprocess.run([*run, tmp_path / "a.mkv"], capture_output=True).returncode == 0
    done = subprocess.run([*run[:-1], "2", tmp_path / "a.mkv"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "track is 2, but the recording has 2" in done.stderr


# Cut short


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp3", ""),
        ("a.aiff", ""),
        ("a.au", ""),
        ("a.caf", ""),
        ("a.voc", ""),
        ("a.wv", ""),
        ("a.tta", ""),
        ("a.flac", ""),
        ("a.opus", "-ar 48000"),
        ("a.ogg", ""),
        ("a.m4a", "-movflags faststart"),
        ("a.mka", ""),
        ("a.avi", ""),
        ("a.wma", ""),
        ("a.wav", "-c:a libmp3lame"),
        ("a.wav", "-c:a g726 -ar 8000"),
    ],
)
def test_halves_through_ffmpeg(tmp_path, only_ffmpeg, name, options):
    """Half of a file is told, the whole says nothing, however it was cut."""
    path = tmp_path / f"sound.{name.split('.')[1]}"
    run_ffmpeg("-i", tone(tmp_path / "tone.wav", 10, 44100), *options.split(), path)
    samples, _, missing, warnings = opened(path)
    assert (missing, warnings) == ([], [])
    data = path.read_bytes()
    for n_bytes in len(data) // 2, len(data) // 4 * 2, len(data) // 4 * 2 + 1:
        half, _, missing, _ = opened(data[:n_bytes])
        assert 0 < len(half) < 0.6 * len(samples)
        assert missing


@needs_soundfile
@pytest.mark.parametrize("format", ["AIFF", "AU", "CAF", "VOC", "MP3", "OGG"])
def test_halves_through_soundfile(tmp_path, only_soundfile, format):
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 100_000)
    soundfile.write(tmp_path / "a", samples, 44100, format=format, subtype="PCM_16" if format == "VOC" else None)
    data = (tmp_path / "a").read_bytes()
    assert opened(data)[2:] == ([], [])
    missing = ""
    try:
        _, _, (missing,), _ = opened(data[: len(data) // 2])
    except AudioError as error:  # of CAF, libsndfile reads no halves at all
        missing = f"{error}: was cut short" if format == "CAF" else ""
    assert CUT_SHORT in missing


def au(samples, size):
    return struct.pack(">4s5I", b".snd", 24, size, 3, 8000, 1) + samples.astype(">i2").tobytes()


def aiff(samples, size):
    common = struct.pack(">4sIhIhQ2s", b"COMM", 18, 1, len(samples), 16, 0x400BFA0000000000, b"\0\0")  # 8000 Hz
    sound = struct.pack(">4sIII", b"SSND", 8 + 2 * len(samples), 0, 0) + samples.astype(">i2").tobytes()
    return struct.pack(">4sI4s", b"FORM", size, b"AIFF") + common + sound


@needs_soundfile
@pytest.mark.parametrize("converter", [pytest.param("only_ffmpeg", marks=needs_ffmpeg), "only_soundfile"])
def test_sizes_that_are_not_known(request, converter):
    """By hand: what writers leave that cannot go back to the header, or count a byte that they do not write."""
    request.getfixturevalue(converter)
    samples = np.arange(1000, dtype=np.int16)
    for data in [
        *(au(samples, size) for size in (0xFFFFFFFF, 2000, 2001)),
        *(aiff(samples, size) for size in (4 + 26 + 16 + 2000, 4 + 26 + 16 + 2001, 0x7FFFFFFF)),
    ]:
        heard, _, missing, warnings = opened(data)
        assert (heard * 2**15).tolist() == samples.tolist()
        assert (missing, warnings) == ([], [])


@needs_soundfile
def test_lengths_that_are_estimates(only_soundfile, tmp_path):
    """FLAC without a number of frames, as written to a pipe, has no length; of MP3 without a Xing header, libsndfile
    estimates it: nothing to warn of."""
    soundfile.write(tmp_path / "a.flac", np.zeros(10_000), 8000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # RFC 9639, 8.2: the last 36 bits of bytes 18 to 26
    data[22:26] = bytes(4)
    with open_audio(bytes(data)) as audio:
        assert audio.duration is None
    if ffmpeg_path:
        xing = ["-write_xing", "0"]
        command = [ffmpeg_path, "-v", "error", "-i", tone(tmp_path / "a.wav", 10), *xing, tmp_path / "a.mp3"]
        subprocess.run(command, check=True)
        assert opened(tmp_path / "a.mp3")[2] == []


# Recordings one behind the other


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.aiff", "a.caf", "a.wma", "a.wv", "a.tta", "a.voc"])
def test_a_second_recording_that_ffmpeg_leaves_out(tmp_path, only_ffmpeg, name):
    run_ffmpeg("-i", tone(tmp_path / "tone.wav"), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert opened(data + bytes(100))[2] == []  # padding is none
    assert opened(data + data)[2] == [FOLLOWS]


@pytest.mark.slow
@needs_soundfile
@needs_ffmpeg
@pytest.mark.parametrize(
    ("converter", "name"),
    [
        *(("only_ffmpeg", name) for name in ("a.flac", "a.ogg", "a.mp3", "a.mka")),
        *(("only_soundfile", name) for name in ("a.flac", "a.ogg", "a.mp3")),
    ],
)
def test_a_second_recording_of_another_kind(request, tmp_path, converter, name):
    """With and without padding between them."""
    source = tone(tmp_path / "a.wav")
    for each in name, "b.flac", "b.mp3", "b.ogg", "b.wv", "b.m4a":
        run_ffmpeg("-i", source, tmp_path / each)
    request.getfixturevalue(converter)
    data = (tmp_path / name).read_bytes()
    for other in "a.wav", "b.flac", "b.mp3", "b.ogg", "b.wv", "b.m4a":
        if other[1:] != name[1:]:
            assert FOLLOWS in opened(data + (tmp_path / other).read_bytes())[2]
            assert FOLLOWS in opened(data + bytes(1000) + (tmp_path / other).read_bytes())[2]


@needs_soundfile
@needs_ffmpeg
@pytest.mark.parametrize("converter", ["only_ffmpeg", "only_soundfile"])
def test_a_second_recording_is_looked_for_in_the_end(request, tmp_path, converter, monkeypatch):
    """All of a FLAC file is read for that: for an hour, 1.8 s before the first sample if it were done at once."""
    run_ffmpeg("-i", tone(tmp_path / "a.wav"), tmp_path / "a.flac")
    request.getfixturevalue(converter)
    searched = []
    beginnings = lengths._beginnings
    monkeypatch.setattr(lengths, "_beginnings", lambda *args: searched.append(1) or beginnings(*args))
    with open_audio(tmp_path / "a.flac") as audio:
        assert len(next(audio.blocks)) > 0
        assert searched == []
        assert all(len(frames) for frames in audio.blocks)  # the others, if there are any
    assert searched


@pytest.mark.parametrize("n_before", [0, 1, 50, 99, 100, 1000])
def test_beginnings_across_blocks(n_before):
    """By hand: a WAV file begins near the end of a block; reported once or twice, never not at all."""
    at = lengths._BLOCK_BYTES - n_before
    found = lengths._beginnings(io.BytesIO(bytes(at) + wav(bytes(2000))), 0)
    assert set(found) == {("wav", at)}


@needs_ffmpeg
def test_flac_behind_flac_through_ffmpeg(tmp_path, only_ffmpeg):
    """What ffmpeg loses between them is told, by the lengths that were put in."""
    run_ffmpeg("-i", tone(tmp_path / "a.wav"), tmp_path / "a.flac")
    data = (tmp_path / "a.flac").read_bytes()
    samples, rate, missing, _ = opened(data * 2)
    lost = f"decoded {len(samples) / rate:.2f} s of 4.00 s"
    assert len(samples) == 4 * rate or lost in missing[0]


@needs_soundfile
@pytest.mark.parametrize("converter", [pytest.param("only_ffmpeg", marks=needs_ffmpeg), "only_soundfile"])
def test_a_wav_header_in_flac_metadata(request, tmp_path, converter):
    """By hand: what `flac --keep-foreign-metadata` writes (RFC 9639, 8.4) is no second recording."""
    soundfile.write(tmp_path / "a.flac", np.zeros(10_000), 8000)
    data = (tmp_path / "a.flac").read_bytes()
    request.getfixturevalue(converter)
    header = b"riff" + wav(bytes(100))[:44]
    application = b"\2" + len(header).to_bytes(3, "big") + header
    assert opened(data[:42] + application + data[42:])[2:] == ([], [])


@needs_soundfile
@needs_ffmpeg
@pytest.mark.parametrize("tag", ["", "-id3v2_version 0"])
def test_a_second_mp3_that_soundfile_leaves_out(tmp_path, monkeypatch, tag):
    """libmpg123 ends where the Xing header says. A tag at the end is no recording (ID3v2.4, 5: appended tags)."""
    run_ffmpeg("-i", tone(tmp_path / "a.wav"), *tag.split(), tmp_path / "a.mp3")
    run_ffmpeg("-i", tmp_path / "a.wav", "-write_xing", 0, *tag.split(), tmp_path / "bare.mp3")
    monkeypatch.setenv("PATH", "")
    data, bare = (tmp_path / "a.mp3").read_bytes(), (tmp_path / "bare.mp3").read_bytes()
    assert opened(data + b"ID3\4\0\x10\0\0\0\0" + b"3DI\4\0\x10\0\0\0\0")[2] == []
    assert opened(data + data)[2] == [FOLLOWS]
    assert opened(data + bare)[2] == [FOLLOWS]


@needs_soundfile
@pytest.mark.parametrize("format", ["FLAC", "OGG", "AU", "CAF"])
def test_a_second_recording_that_soundfile_leaves_out(tmp_path, only_soundfile, format):
    soundfile.write(tmp_path / "a", np.random.default_rng(0).uniform(-0.1, 0.1, 300_000), 44100, format=format)
    data = (tmp_path / "a").read_bytes()
    assert opened(data)[2] == []
    assert opened(data + data)[2] == [FOLLOWS]


# Forked processes


FORKS = """
import io, multiprocessing, os, sys
from cohere_lite import open_audio

how, path = sys.argv[1:]
opened = open_audio(io.BytesIO(open(path, "rb").read()))
blocks = opened.__enter__().blocks
n_frames = len(next(blocks))


def child():
    global opened, blocks
    if how != "keep":
        opened = blocks = None


if how == "multiprocessing":
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    code = process.exitcode
else:
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0) if how == "_exit" else sys.exit(0)
    code = os.waitpid(pid, 0)[1]
print(code, len(os.listdir(os.environ["TMPDIR"])), n_frames + sum(map(len, blocks)))
"""


@pytest.mark.slow
@posix
@needs_ffmpeg
@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
@pytest.mark.parametrize("how", ["exit", "_exit", "multiprocessing", "keep"])
def test_a_forked_process_leaves_its_parents_recording_alone(tmp_path, how):
    """It ends, and takes neither the copy of the file nor its samples. 10 minutes: ffmpeg is still at work then."""
    run_ffmpeg("-i", tone(tmp_path / "a.wav", 600), tmp_path / "a.flac")
    (tmp_path / "copies").mkdir()
    # Python 3.12 and newer warn of a fork beside other threads
    run = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, how, tmp_path / "a.flac"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "copies")}
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout.split(), done.stderr) == (["0", "1", str(600 * 16000)], "")
    assert list((tmp_path / "copies").iterdir()) == []


# What the file is


@needs_soundfile
@needs_ffmpeg
def test_soundfile_looks_at_the_bytes(tmp_path, only_soundfile):
    """Names that libsndfile takes for a format without looking: no text may be made of such noise."""
    m4a = tmp_path / "a.m4a"
    subprocess.run([ffmpeg_path, "-v", "error", "-i", tone(tmp_path / "a.wav"), m4a], check=True)
    noise = b"\x11" + np.random.default_rng(1).bytes(20_000)  # no MPEG frame
    for suffix in "au", "snd", "gsm", "vox", "raw", "sd2", "wav", "mp3":
        for data in noise, m4a.read_bytes():
            path = tmp_path / f"x.{suffix}"
            path.write_bytes(data)
            with pytest.raises(AudioError, match="soundfile: Format not recognised"):
                read(path)


@needs_ffmpeg
def test_mpeg_layer_1_is_no_text(only_ffmpeg):
    """By hand: frames of silence of MPEG-1 layer I with CRC; FF FE is the mark of UTF-16, too. 384 samples each."""
    frame = bytes([0xFF, 0xFE, 0x40, 0xC4]).ljust(4 * (12 * 128_000 // 44_100), b"\0")
    assert len(opened(frame * 20)[0]) == 20 * 384


@pytest.mark.parametrize("text", ["hi", "Übung macht den Meister\r\n", "会議のメモ: 1\n" * 20])
def test_utf_16_is_text(text):
    for source in (data := b"\xff\xfe" + text.encode("utf-16-le")), Pipe(data, 99):
        with pytest.raises(AudioError, match=f"a UTF-16 text file, beginning '{text[:2]}"):
            read(source)


@needs_soundfile
def test_a_header_of_text_is_no_text(tmp_path):
    """A MATLAB file begins with 116 bytes of text; soundfile reads the sound in it."""
    samples = np.linspace(-1, 1, 1000)
    soundfile.write(tmp_path / "a", samples, 8000, format="MAT5", subtype="DOUBLE")
    assert (tmp_path / "a").read_bytes()[:64].isascii()
    assert opened(tmp_path / "a")[0].tolist() == samples.tolist()


def test_refusals_are_short(tmp_path):
    """The codings of WAV files belong to files with another coding only."""
    for data, kind in [
        (b"PK\3\4" + bytes(30), "a zip archive: unpack it first"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "a picture \\(PNG\\)"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "a picture \\(JPEG\\)"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"hello", "a text file, beginning 'hello'"),
    ]:
        with pytest.raises(AudioError, match=f"^audio bytes: {kind}$"):
            read(data)
    with pytest.raises(AudioError, match="supported: WAV with PCM"):
        read(Pipe(wav(b"", tag=0x1234), 99))


@needs_ffmpeg
@needs_soundfile
def test_the_other_converter(tmp_path):
    """ffmpeg does not know little-endian AU files, soundfile does. What neither knows is refused by both."""
    samples = np.linspace(-1, 1, 1000).astype("<f4")
    data = b"dns." + struct.pack("<5I", 24, 0xFFFFFFFF, 6, 16000, 1) + samples.tobytes()
    heard, rate, missing, warnings = opened(data)
    np.testing.assert_array_equal(heard, samples)
    assert (rate, missing, warnings) == (16000, [], [])
    with pytest.raises(AudioError, match=r"^audio bytes: not a WAV .*; ffmpeg: .*; soundfile: Format not recognised"):
        read(bytes(1000))


# Compressed sound under a PCM header


def pcm_wav(payload, rate=48000):
    return wav(payload, channels=2, rate=rate)


@pytest.fixture
def ac3(tmp_path):
    """A tone of 1 kHz as AC-3, in bursts for S/PDIF (IEC 61937) of 6144 bytes."""
    source = tone(tmp_path / "a.wav", rate=48000)
    run_ffmpeg("-i", source, "-ac", 2, "-c:a", "ac3", "-f", "spdif", tmp_path / "a.spdif")
    return (tmp_path / "a.spdif").read_bytes()


@needs_ffmpeg
@pytest.mark.parametrize("n_zeros", [0, 4, 40_000])
def test_ac3_in_place_of_samples(only_ffmpeg, ac3, n_zeros):
    samples, rate, missing, warnings = opened(pcm_wav(bytes(n_zeros) + ac3))
    assert pitch_hz(samples[rate // 2 : rate], rate) == pytest.approx(1000, abs=2)
    assert (missing, warnings) == ([], [])
    for n_at_once in 100, 5000, 100_000:
        with pytest.raises(AudioError, match=r"AC-3, .* in place of its samples; for a pipe, convert before it"):
            read(Pipe(pcm_wav(bytes(n_zeros) + ac3), n_at_once))
    assert len(read(ac3, "48000:s16le:2")[0]) == len(ac3) // 4  # samples without a header are what the caller says


@needs_ffmpeg
@needs_soundfile
def test_ac3_without_ffmpeg(only_soundfile, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(ffmpeg_path))
    source = tone(tmp_path / "a.wav", rate=48000)
    run_ffmpeg("-i", source, "-ac", 2, "-c:a", "ac3", "-f", "spdif", tmp_path / "a.spdif")
    monkeypatch.setenv("PATH", "")
    path = tmp_path / "x.wav"
    path.write_bytes(pcm_wav((tmp_path / "a.spdif").read_bytes()))
    with pytest.raises(AudioError, match=r"AC-3, DTS .* in place of its samples; soundfile: Format not recognised"):
        read(path)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.wv", "a.flac", "a.ogg", "a.mp3"])
def test_files_in_place_of_samples(tmp_path, only_ffmpeg, name):
    """Heard as the file by itself."""
    run_ffmpeg("-i", tone(tmp_path / "tone.wav", rate=44100), "-id3v2_version", 0, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    np.testing.assert_array_equal(opened(pcm_wav(data))[0], opened(data)[0])
    with pytest.raises(AudioError, match=r"in place of its samples; for a pipe, convert before it"):
        read(Pipe(pcm_wav(data), 5000))


def test_dts_in_place_of_samples():
    """By hand: frames of a DTS-CD, 14 bits to a word, and of 16 bits; noise behind their headers."""
    noise = np.random.default_rng(0)
    for header in bytes.fromhex("FF1F00E8F107"), bytes.fromhex("FE7F018000FC"):
        payload = b"".join(header + noise.bytes(4096 - len(header)) for _ in range(10))
        with pytest.raises(AudioError, match="a WAV file with DTS in place of its samples"):
            read(Pipe(pcm_wav(payload), 9999))


def test_samples_that_look_alike():
    """By hand: a square wave whose steps are those of a DTS header, one burst by itself, words that begin like bursts
    at all distances, and the beginning of a file's name: samples all of them."""
    square = np.tile(np.repeat(np.array([32766, -32767], "<i2"), 500), 50).tobytes()
    burst = struct.pack("<4H", 0xF872, 0x4E1F, 1, 100)
    scattered = b"".join(burst + bytes(4 * n) for n in range(300, 340))
    for payload in square, bytes(400) + burst + bytes(50_000), scattered, b"fLaC" + bytes(5000), b"OggS" + bytes(99):
        for source in pcm_wav(payload), Pipe(pcm_wav(payload), 7777):
            frames, _, warnings = read(source)
            assert (frames * 2**15).astype("<i2").tobytes() == payload[: len(frames) * 4]
            assert warnings == (
                [f"the last frame has {len(payload) % 4} of its 4 bytes: using the whole samples"]
                * bool(len(payload) % 4)
            )


# Sources that cannot go back


@pytest.fixture
def mp3(tmp_path):
    if ffmpeg_path is None:
        pytest.skip("ffmpeg is not on the PATH")
    run_ffmpeg("-i", tone(tmp_path / "tone.wav"), tmp_path / "a.mp3")
    return (tmp_path / "a.mp3").read_bytes()


class Tells(io.RawIOBase):
    """As urllib3's responses: they say where they are, and cannot go elsewhere."""

    def __init__(self, data):
        self._file = io.BytesIO(data)
        self.tell = self._file.tell

    def readable(self):
        return True

    def readinto(self, into):
        return self._file.readinto(into)


class StaysWhereItIs(Tells):
    def seek(self, *_):
        return 0


class HasNoSeek:
    def __init__(self, data):
        file = io.BytesIO(data)
        self.read, self.tell = file.read, file.tell


def member_of_a_tar_stream(data):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("a.mp3")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    archive.seek(0)
    tar = tarfile.open(fileobj=archive, mode="r|")  # noqa: SIM115 - of memory
    return tar.extractfile(tar.next())


@pytest.mark.parametrize("source", [Tells, StaysWhereItIs, HasNoSeek, member_of_a_tar_stream])
def test_streams_that_cannot_go_back(mp3, source):
    with pytest.raises(AudioError, match="an MP3 file; for a pipe, convert before it: ffmpeg"):
        read(source(mp3))
    assert len(read(source(wav(bytes(1000))))[0]) == 500  # which need not go back


def test_a_full_disk_is_an_oserror(mp3, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left on device"):
        read(mp3)


@posix
def test_descriptors_as_names(tmp_path, mp3):
    """Another program's /dev/fd is another one; nor may it need the file's name, which may be gone."""
    expected, _, _ = read(mp3)
    path = tmp_path / "b.mp3"
    path.write_bytes(mp3)
    with open(path, "rb") as file:
        (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
        for deleted in False, True:
            if deleted:
                path.unlink()
                (tmp_path / "b.mp3 (deleted)").write_bytes(b"another")  # what Linux calls it then
            for name in f"/dev/fd/{file.fileno()}", str(tmp_path / "link"):
                np.testing.assert_array_equal(read(name)[0], expected)


# What ffmpeg says


# By record: ffmpeg 5.1, then 7.0, of a broadcast from the middle and of a damaged packet.
CHATTER = """\
libgomp: Invalid value for environment variable OMP_NUM_THREADS

[h264 @ 0x5599ab] [error] non-existing PPS 0 referenced
[h264 @ 0x5599ab] [error] no frame!
    Last message repeated 3 times
"""
DAMAGE = """\
[mp3float @ 0x562e] [error] Header missing
[error] Error while decoding stream #0:1: Invalid data found when processing input
[aist#0:1/mp3 @ 0x1438] [dec:mp3float @ 0x1439] [error] Error submitting packet to decoder: Invalid data found
"""


def test_messages():
    found = ffmpeg._Found("mpegts", 0.0, 0.0, {1: ": Audio: mp3"}, True, {"Video", "h264", "High"})
    errors, others = ffmpeg._messages((CHATTER + DAMAGE).splitlines(), "a.ts", found)
    assert errors == [
        "ffmpeg: [mp3float] Header missing",
        "ffmpeg: Error while decoding stream #0:1: Invalid data found when processing input",
        "ffmpeg: [dec:mp3float] Error submitting packet to decoder: Invalid data found",
    ]
    assert others[0] == "ffmpeg: libgomp: Invalid value for environment variable OMP_NUM_THREADS"


@needs_ffmpeg
def test_chatter_is_no_warning(tmp_path, only_ffmpeg, monkeypatch):
    """A library's complaint; a broadcast joined in the middle; tags and padding behind an MP3 file's last frame."""
    monkeypatch.setenv("OMP_NUM_THREADS", "abc")
    source = tone(tmp_path / "tone.wav", 6, 44100)
    run_ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=320x240:d=6",
        "-i",
        source,
        "-c:v",
        "mpeg2video",
        "-g",
        100,
        "-c:a",
        "mp2",
        tmp_path / "a.ts",
    )
    data = (tmp_path / "a.ts").read_bytes()
    assert opened(data[len(data) // 3 // 188 * 188 :])[2:] == ([], [])
    run_ffmpeg("-i", source, tmp_path / "a.mp3")
    mp3 = (tmp_path / "a.mp3").read_bytes()
    lyrics = b"LYRICSBEGININD0000200LYR00005hello000043LYRICS200"
    for tail in b"", bytes(5000), lyrics + b"TAG".ljust(128, b"\0"), b"TAG".ljust(128, b"\0"), mp3:
        assert opened(mp3 + tail)[2:] == ([], [])
    run_ffmpeg("-i", source, tmp_path / "a.wv")
    ape = struct.pack("<8s4I8x", b"APETAGEX", 2000, 32, 0, 0x80000000)  # a tag without an item
    assert opened((tmp_path / "a.wv").read_bytes() + ape)[2:] == ([], [])
    middle = len(mp3) // 2
    assert opened(mp3[:middle] + b"\xaa" * 300 + mp3[middle + 300 :])[2]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_a_device_without_an_end_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: pytest.fail("it would fill the disk"))
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in "/dev/zero", tmp_path / "link":
        with pytest.raises(AudioError, match="for a pipe, convert before it"), open_audio(name):
            pass
    with open("/dev/zero", "rb") as file, pytest.raises(AudioError, match="for a pipe"), open_audio(file):
        pass
