"""onnxruntime, without its telemetry: the one place where it is imported.

Since 1.29 its packages send events to their maker and keep an identifier in the user's cache, on Linux and macOS too,
unless this variable is set before the first import (its Privacy.md). What somebody sets it to is left alone.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort  # noqa: F401
from onnxruntime import OrtValue  # noqa: F401
