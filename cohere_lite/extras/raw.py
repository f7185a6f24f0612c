"""Samples without a header: "RATE:FORMAT:CHANNELS" -> how they are coded."""

from ..codings import A_LAW, IEEE_FLOAT, MU_LAW, PCM, Coding, find_coding
from ..errors import OptionError

# Raw sample formats by ffmpeg's names: format tag, bits, byte order.
RAW_FORMATS = {
    "u8": (PCM, 8, "<"),
    **{f"s{bits}{end}": (PCM, bits, order) for bits in (16, 24, 32) for end, order in (("le", "<"), ("be", ">"))},
    **{f"f{bits}{end}": (IEEE_FLOAT, bits, order) for bits in (32, 64) for end, order in (("le", "<"), ("be", ">"))},
    "alaw": (A_LAW, 8, "<"),
    "mulaw": (MU_LAW, 8, "<"),
}
_MAX_CHANNELS = 65535  # what a WAV header can say


def parse_raw(raw: str) -> tuple[Coding, int]:
    """ "16000:s16le:1" -> coding, rate. Raises OptionError."""
    try:
        rate, format, channels = raw.lower().split(":")
        format_tag, bits, byte_order = RAW_FORMATS[format]
        if not (0 < int(channels) <= _MAX_CHANNELS and int(rate) > 0):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):  # the last two: of what is no text
        expected = f"RATE:FORMAT:CHANNELS, such as 16000:s16le:1; formats: {', '.join(RAW_FORMATS)}"
        raise OptionError(f"raw is {raw!r}; expected {expected}") from None
    return find_coding(format_tag, bits, int(channels), 0, byte_order), int(rate)
