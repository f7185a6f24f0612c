"""What kind of file it is, by its first bytes: for messages, and to refuse what cannot be audio."""

from __future__ import annotations

import codecs

from ..codings import A_LAW, EXTENSIBLE, IEEE_FLOAT, IMA_ADPCM, MS_ADPCM, MU_LAW, PCM
from ..errors import AudioError, NotWav
from .downloads import failed_download

# Of file names: what ffmpeg and libsndfile read most, for folders that hold other files, too.
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".oga", ".opus", ".webm", ".aac", ".wma", ".aif", ".aiff"),
    *(".au", ".caf", ".amr", ".mka", ".mkv", ".mov", ".sph", ".w64", ".rf64", ".3gp"),
)
# (offset, bytes there, name)
_AUDIO_MAGICS = [
    (8, b"AVI ", "an AVI video"),
    (8, b"AIFF", "an AIFF file"),
    (8, b"AIFC", "an AIFF-C file"),
    (0, b"OggS", "an Ogg file (Vorbis, Opus)"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"ID3", "an MP3 file"),
    (4, b"ftyp", "an MP4 file (M4A, MOV)"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"\x30\x26\xb2\x75", "a Windows Media (ASF) file"),
    (0, b".snd", "an AU file"),
    (0, b"dns.", "a little-endian AU file"),
    (0, b"caff\0\1", "a Core Audio file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"NIST_1A\n", "a NIST SPHERE file"),
]
_OTHER_MAGICS = [
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"\x89PNG\r\n", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"%PDF-", "a PDF document"),
]
# The codings of WAV files, by format tag (Microsoft's mmreg.h).
_CODINGS = {
    PCM: "PCM",
    MS_ADPCM: "Microsoft ADPCM",
    IEEE_FLOAT: "float",
    A_LAW: "A-law",
    MU_LAW: "mu-law",
    IMA_ADPCM: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0050: "MPEG audio",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x0161: "Windows Media Audio",
    0xF1AC: "FLAC",
    EXTENSIBLE: "EXTENSIBLE with an incomplete or foreign SubFormat",
}


class Refused(Exception):
    """A converter does not know the file; the message begins with its name."""


def identify(not_wav: NotWav, head: bytes) -> str:
    """What the file is that is not a WAV file of ours, for messages. Raises AudioError for what cannot be audio.

    head: the file's first bytes. The more there are, the less is taken for text that is not: the header of a MATLAB
    file, which may hold sound, is text for 116 bytes.
    """
    if not_wav.position is not None:
        return str(not_wav)
    if not_wav.format_tag is not None:
        return f"{_CODINGS.get(not_wav.format_tag, 'unknown coding')}: {not_wav}"
    if download := failed_download(head.removeprefix(codecs.BOM_UTF8)):
        raise AudioError(f"not audio, but {download}: a failed download; fetch it again")
    if kind := audio_kind(head):
        return kind
    for magic, other in _OTHER_MAGICS:
        if head.startswith(magic):
            raise AudioError(other)
    # UTF-16 begins FF FE, as does MPEG Layer I. Random bytes may decode, but not with ASCII among them.
    if head.startswith(codecs.BOM_UTF16_LE) and any(map(str.isascii, text := _as_text(head[2:], "utf-16-le"))):
        raise AudioError(f"a UTF-16 text file, beginning {text[:30]!r}")
    if head[:1] == b"\xff" and head[1:2] >= b"\xe0":  # eleven set bits: an MPEG audio frame
        return "an MP3 or AAC file"
    if text := _as_text(head, "utf-8-sig"):
        raise AudioError(f"a text file, beginning {text[:30]!r}")
    return str(not_wav)


def audio_kind(head: bytes) -> str | None:
    """A kind of file that may hold sound, by what it begins with; None: not a known one."""
    return next((kind for offset, magic, kind in _AUDIO_MAGICS if head[offset:].startswith(magic)), None)


def _as_text(head: bytes, encoding: str) -> str:
    """The bytes as text; empty where they are none."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)  # the last character may be incomplete
    except UnicodeDecodeError:
        return ""
    return text if all(character.isprintable() or character.isspace() for character in text) else ""
