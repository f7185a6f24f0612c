"""What keeps an evaluation from its work."""

from ..errors import AudioError, CohereLiteError


class EvaluateError(CohereLiteError, ValueError):
    """Data that cannot be evaluated on: not found, not reachable, without texts, of an unknown layout."""


class NoRecordingError(EvaluateError, AudioError):
    """A recording that a table or an archive lacks: one failure, and no reason not to go on with the others."""
