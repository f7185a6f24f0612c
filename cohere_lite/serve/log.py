"""The log: a line of JSON for each thing that happened, on standard error. Never what was said, nor names of files."""

from __future__ import annotations

import json
import logging
import sys
import time

logger = logging.getLogger("cohere_lite.serve")


def log(event: str, **facts: object) -> None:
    """A line about something that happened."""
    logger.info(event, extra={"facts": facts})


def log_to_stderr() -> None:
    """Of this service everything, of the package warnings, of others errors: of bad requests their libraries write
    warnings, as many as there are requests."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.ERROR, force=True)
    logging.getLogger("cohere_lite").setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """As logging.Formatter."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        facts = {"time": when, "event": record.getMessage(), **getattr(record, "facts", {})}
        if record.levelno > logging.INFO:
            facts |= {"level": record.levelname.lower()}
            facts |= {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps(facts, ensure_ascii=False)
