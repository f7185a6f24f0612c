"""What others have published of the full-size model, for comparison."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .utterances import DEFAULTS

FULL_SIZE = "CohereLabs/cohere-transcribe-03-2026"


class Anchor(NamedTuple):
    """Percent of words wrong: by the card (30 recordings, FP32, in lower case), and by the Open ASR Leaderboard (all
    recordings, normalised); None where one has no figure."""

    card: float | None
    leaderboard: float | None


# By the name of a data set, its own, without folders, and the parts that are named, in lower case.
_ANCHORS = {
    r"librispeech.*other|^test-other$": Anchor(None, 2.37),
    r"librispeech.*clean|^test-clean$": Anchor(0.99, 1.25),
    r"voxpopuli": Anchor(12.16, 5.87),
    r"(?<![a-z])ami(?![a-z])": Anchor(16.24, 8.13),
    r"peoples?[ _-]*speech": Anchor(21.97, None),
    r"earnings-?22": Anchor(26.38, 10.86),
    r"gigaspeech": Anchor(None, 9.34),
    r"spgispeech": Anchor(None, 3.08),
    r"tedlium": Anchor(None, 2.49),
}
# Words of a name that is another part's, of which these are not the figures: other splits; AMI by distant microphones;
# whole calls of Earnings-22, and its texts as others have corrected them; VoxPopuli's speakers with an accent.
_OTHERS = {"train", "dev", "valid", "validation", "sdm", "mdm", "full", "cleaned", "accented"}


def anchor_of(about: Mapping[str, Any]) -> Anchor:
    """By the name of a data set; all of them are in English."""
    name, *parts = about["name"].lower().replace("'", "").split(":")
    said = ":".join([name.rpartition("/")[2], *(parts or DEFAULTS.get(name, ()))])
    if about["languages"] != ["en"] or _OTHERS & {*re.split("[^a-z]+", said)}:
        return Anchor(None, None)
    return next((anchor for pattern, anchor in _ANCHORS.items() if re.search(pattern, said)), Anchor(None, None))
