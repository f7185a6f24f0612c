"""LibriSpeech as OpenSLR packs it: test-clean/6930/75918/6930-75918.trans.txt, a line for each of the recordings that
lie beside it: "6930-75918-0000 CONCORD RETURNED TO ITS PLACE"."""

import io
import posixpath
from collections.abc import Iterator

from ..errors import EvaluateError
from .layout import Request, Utterance, choose, refuse_columns

_SUFFIXES = (".flac", ".wav", ".mp3")


def read_librispeech(request: Request) -> Iterator[Utterance] | None:
    """The utterances of one subset; None if this is no such tree. Raises EvaluateError for a list that cannot be
    read."""
    lists = [path for path in request.place.files if path.endswith(".trans.txt")]
    if not lists:
        return None
    refuse_columns(request, "LibriSpeech's tree")
    subset = {path: "/".join([*path.split("/")[:-3], "trans.txt"]) for path in lists}  # of subset/speaker/chapter/list
    chosen = choose(sorted({*subset.values()}), request, "subsets")
    return _read_lists([path for path in lists if subset[path] in chosen], request)


def _read_lists(paths: list[str], request: Request) -> Iterator[Utterance]:
    for path in paths:
        folder = posixpath.dirname(path)
        try:
            with io.TextIOWrapper(request.place.open(path), encoding="utf-8-sig") as file:
                lines = [line.strip().partition(" ") for line in file if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluateError(f"{request.spec}: {path} cannot be read: {error}") from error
        for name, _, text in lines:
            speaker, chapter, *_ = [*name.split("-"), ""]
            files = [posixpath.join(folder, name + suffix) for suffix in _SUFFIXES]
            found = next(filter(request.place.exists, files), None)
            if found is None:
                request.left_out["a recording that is not there"] += 1
                continue
            language = request.language_of(path)
            yield Utterance(name, text, language, request.place.audio(found), speaker, chapter)
