"""What keeps an evaluation from its work."""

from ..errors import CohereLiteError


class EvaluateError(CohereLiteError, ValueError):
    """Data that cannot be evaluated on: not found, not reachable, without texts, of an unknown layout."""
