"""What follows a recording in its file: more of it, other recordings that were laid end to end, tags, junk.

A recording of unknown size, or one that was cut short, ends where the header of another begins."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from ..reader import Reader
from ..wav import CONTAINERS, NO_FILE_IS_LONGER, READ_BYTES, TRAILING_CHUNKS, Data, decode_data, find_data
from .payload import PAYLOAD_BYTES, refuse_payload

_MOST_PADDING = 16  # bytes after a recording that are no chunk: some writers leave so many
# How files begin, in so many bytes that samples never hold them by chance. WAVE first: what a search of 100 MB looks
# for, 0.1 s; the alternatives first took 2 s.
_HEADER_BYTES = 16
_HEADERS = (
    (re.compile(rb"WAVE(?:fmt |ds64|bext|LIST|JUNK|junk|PAD |FLLR)(?<=(?:RIF[FX]|RF64|BW64).{12})", re.DOTALL), 8),
    (re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"), 0),
)


def chained(reader: Reader, data: Data, missing: list[str]) -> Generator[NDArray[np.float64], None, None]:
    """The frames of a data chunk, float64 (n, channels), and of all that follow it: more of the same recording, or
    recordings that were laid end to end.  missing: for what follows and is left out"""
    yield from decode_data(reader, data, missing, _until_header)
    following: Data | None = data
    before: Data | None = None
    try:
        # of a socket: whoever sent it may wait for an answer
        while following and (reader.ahead or ((following.size or following is before) and not reader.is_socket)):
            if (part := reader.some(READ_BYTES, pauses=True)) is None:  # before each chunk: a phrase may end meanwhile
                yield data.coding.decode(b"")
                continue
            reader.put_back(part.lstrip(b"\0"))
            if part and not reader.ahead:
                continue
            before = following
            following = find_data(reader, following.container, before, partial(_pass_over_rest, missing))
            if following and following is not before:
                if _described(following) != _described(data):
                    raise AudioError(f"it has {_described(following)}, the first one {_described(data)}")
                yield from decode_data(reader, following, missing, _until_header)
    except AudioError as error:
        missing.append(f"another recording follows, which is left out: {error}")


def _described(data: Data) -> str:
    n_channels = data.coding.decode(b"").shape[1]
    return f"{n_channels} channel{'' if n_channels == 1 else 's'} at {data.rate} Hz"


def _until_header(reader: Reader, data: Data) -> Iterator[bytes | None]:
    """The bytes of a data chunk, as they come, up to the header of another recording; None for a pause. Raises NotWav
    if they begin with compressed sound."""
    end = data.size or NO_FILE_IS_LONGER
    n_beyond = 0 if reader.is_socket else _HEADER_BYTES
    pending = b""  # may begin a header, or lies beyond the end
    head = b""
    n_given = n_examined = 0
    is_header, raw = False, None
    while n_given < end and not is_header and raw != b"":
        n_wanted = min(end + n_beyond - n_given - len(pending), READ_BYTES)
        raw = reader.some(n_wanted, pauses=True) if n_wanted else b""  # all is there, and its end may begin a header
        if raw is None:
            yield None
            continue
        pending += raw
        found, is_header = _find_header(pending) if raw else (len(pending), False)
        part = pending[: min(found, end - n_given)]
        pending = pending[len(part) :]
        n_given += len(part)
        if len(head) < PAYLOAD_BYTES:
            head += part
            if len(head) >= 2 * n_examined:  # a pipe may give a few bytes at a time
                n_examined = len(head)
                refuse_payload(head, data.coding)
        if raw or part:
            yield part  # none of it, as long as it may begin a header
    reader.put_back(pending)


def _find_header(data: bytes) -> tuple[int, bool]:
    """Where the first WAV header begins, True; or where one may, in the last bytes, or else their end, False."""
    if found := [match.start() - n for pattern, n in _HEADERS if (match := pattern.search(data))]:
        return min(found), True
    for i in range(max(0, len(data) - _HEADER_BYTES + 1), len(data)):
        if any(name.startswith(data[i : i + 4]) for name in CONTAINERS):
            return i, False
    return len(data), False


def _pass_over_rest(missing: list[str], reader: Reader, count: int) -> None:
    """Passes over a chunk of `count` bytes, over a tag, or over what is neither, to the next WAV header or the end; and
    tells of bytes that may have been sound."""
    start = reader.peek(10)
    is_text = start[:4].upper().rstrip(b" ") in TRAILING_CHUNKS or start[:1] == b"<"
    if re.match(rb"TAG|ID3[\2-\4]", start):
        count = 128 if start[:1] == b"T" else 10 + sum(byte << 7 * i for i, byte in enumerate(start[:5:-1]))
        is_text = True
    elif not re.match(rb"[ -~]{4}", start):
        count = NO_FILE_IS_LONGER
    n_passed = n_zeros = 0
    is_header = False
    while not is_header and (part := reader.exactly(min(count - n_passed, READ_BYTES))):
        end, is_header = _find_header(part)
        if not is_header and len(part) < READ_BYTES:
            end = len(part)
        reader.put_back(part[end:])
        n_passed += end
        n_zeros += part.count(0, 0, end)
    if not is_text and n_passed < count and n_passed - n_zeros > _MOST_PADDING:
        missing.append(f"{n_passed} bytes follow the recording that are no part of it, and are left out")
