"""The package's errors: one base class to catch, each also the built-in error a caller would expect. And the
log for what is worth telling and no error."""

import logging

logger = logging.getLogger("cohere_lite")


class CohereLiteError(Exception):
    """Base of everything this package raises on purpose."""


class AudioError(CohereLiteError, ValueError):
    """The audio cannot be read or used: damaged, unsupported, empty, not finite."""


class ModelError(CohereLiteError, ValueError):
    """A model folder is not one this package can run."""


class ModelFileNotFound(ModelError, FileNotFoundError):
    """A model file, or the external data that it names, is missing."""


class OptionError(CohereLiteError, ValueError):
    """An argument has a value that the model or the package does not know."""


class ProviderError(CohereLiteError, RuntimeError):
    """An execution provider that was asked for is not the one that would run."""
