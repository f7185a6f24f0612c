"""What others have published of the full-size model, for comparison."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

FULL_SIZE = "CohereLabs/cohere-transcribe-03-2026"


class Anchor(NamedTuple):
    """Percent of words wrong: by the card (30 recordings, FP32, in lower case), and by the Open ASR Leaderboard (all
    recordings, normalised); None where one has no figure."""

    card: float | None
    leaderboard: float | None


# By what names of the data sets hold, in lower case.
_ANCHORS = {
    r"librispeech.*other|test-other": Anchor(None, 2.37),
    r"librispeech|test-clean": Anchor(0.99, 1.25),
    r"voxpopuli": Anchor(12.16, 5.87),
    r"(?<![a-z])ami(?![a-z])": Anchor(16.24, 8.13),
    r"peoples?[ _-]*speech": Anchor(21.97, None),
    r"earnings-?22": Anchor(26.38, 10.86),
    r"gigaspeech": Anchor(None, 9.34),
    r"spgispeech": Anchor(None, 3.08),
    r"tedlium": Anchor(None, 2.49),
}


def anchor_of(about: Mapping[str, Any]) -> Anchor:
    """By the name of a data set, and by what was asked for; all of them are in English."""
    if about["languages"] != ["en"]:
        return Anchor(None, None)
    said = f"{about['name']} {about['spec']}".lower().replace("'", "")
    return next((anchor for pattern, anchor in _ANCHORS.items() if re.search(pattern, said)), Anchor(None, None))
