"""A request that takes a place: the door, the deadline, and what is answered where it fails."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ..errors import AudioError, CohereLiteError, OptionError
from .edge import Stalled, TooLarge, error_response
from .log import logger
from .service import RETRY_AFTER_S, STOPPING, Asked, Refused, Service

_NOT_AGAIN = {"x-should-retry": "false"}  # OpenAI's clients obey it
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quotas
_FIELDS = ("language", "response_format", "timestamp_granularities")
T = TypeVar("T")


class AdmittedRoute:
    """A route of the application; what its requests do is `_serve`."""

    def __init__(self, service: Service, route: str) -> None:
        self._service, self._route = service, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        is_begun = False

        async def sending(message: Any) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        async def fail(response: JSONResponse) -> None:
            if not is_begun:
                await response(scope, receive, send)
            else:  # of a stream
                await send_event(send, json.loads(bytes(response.body)))
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            with self._service.admitted(self._route) as asked:
                try:
                    await asyncio.wait_for(self._serve(scope, receive, sending, asked), self._service.timeout_s)
                    asked.status = "200"
                except (ClientDisconnect, asyncio.CancelledError, Refused):
                    raise
                except Exception as error:
                    response = failure(error, self._service.timeout_s)
                    asked.status = str(response.status_code)
                    await fail(response)
        except Refused as refused:
            await fail(error_response(refused.status, str(refused), headers={"Retry-After": str(RETRY_AFTER_S)}))
        except ClientDisconnect:
            pass

    async def _serve(self, scope: Scope, receive: Receive, send: Send, asked: Asked) -> None:
        """Reads the request and sends the answer. Raises what `failure` knows, Refused, ClientDisconnect."""
        raise NotImplementedError

    async def _received(self, reading: Awaitable[T]) -> T:
        """What comes from the client. Raises Refused when the server stops before."""
        received = await self._service.unless_stopping(reading)
        if received is None:
            raise Refused(503, STOPPING)
        return received


async def send_event(send: Send, event: dict[str, Any]) -> None:
    """The next event of a stream."""
    data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


def failure(error: Exception, timeout_s: float) -> JSONResponse:
    """The answer to a request that failed."""
    if isinstance(error, TooLarge):
        return error_response(413, str(error))
    if isinstance(error, Stalled):
        return error_response(408, "the rest of the request does not come")
    if isinstance(error, asyncio.TimeoutError):
        message = f"there was no answer within {timeout_s:g} s; the work was given up"
        return error_response(504, message, headers=_NOT_AGAIN)
    if isinstance(error, OptionError):
        return error_response(400, str(error), _param(str(error)))
    if isinstance(error, AudioError):
        return error_response(400, f"the file cannot be read as audio: {error}", "file")
    if isinstance(error, OSError) and error.errno in _FULL:  # of uploads, and of their copies for ffmpeg
        logger.error("the disk for temporary files is full")
        message = f"the server has no room for the upload: {os.strerror(error.errno or 0)}"
        return error_response(507, message, headers=_NOT_AGAIN)
    logger.error("a request failed", exc_info=error)
    message = str(error) if isinstance(error, CohereLiteError) else f"{type(error).__name__}"
    return error_response(500, message, headers=_NOT_AGAIN)


def _param(message: str) -> str | None:
    """The field that a message is about: its first word."""
    word = message.split()[0]
    return word if word in _FIELDS else "file" if "file" in message else None
