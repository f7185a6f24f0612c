"""The edge of the service: connections that must not wait for ever, keys, origins, and bodies counted as they come."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

REQUEST_S = 20.0  # from a connection, or an answer, to the end of the next request's headers
_BODY_S = 30.0  # without a byte of a body that is to come
_UNREAD_S = 60.0  # in which nothing of an answer is read
_OPEN = ("/", "/health")  # without a key: the page asks for it, and watchdogs have none
# Browsers set no headers for a WebSocket, so the key comes as a protocol's name, percent-encoded where that must be
KEY_PROTOCOL = "openai-insecure-api-key."
T = TypeVar("T")


class _ReadAnswers(asyncio.Protocol):
    """uvicorn waits for ever for clients that do not read what they are sent."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _unread_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._cancel_unread_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._cancel_unread_timer()
        super().connection_lost(exc)

    def _expect_reading(self) -> None:
        n_unread = self.transport.get_write_buffer_size()

        def look() -> None:  # nothing is written until it has been read: slow clients are no dead ones
            if self.transport.get_write_buffer_size() < n_unread:
                self._expect_reading()
            else:
                self.transport.abort()

        self._unread_timer = self.loop.call_later(_UNREAD_S, look)

    def _cancel_unread_timer(self) -> None:
        if self._unread_timer:
            self._unread_timer.cancel()


class PatientHTTP(_ReadAnswers, H11Protocol):
    """HTTP. uvicorn waits for ever for a request's headers, too, and for the rest of a body that has been answered."""

    _request_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio.Protocol."""
        super().connection_made(transport)
        self._expect_request(None)

    def on_response_complete(self) -> None:
        """Of uvicorn: the answer has been written."""
        answered = self.cycle
        super().on_response_complete()
        self._expect_request(answered)

    def _expect_request(self, answered: RequestResponseCycle | None) -> None:
        self._cancel_request_timer()
        n_unread = self.transport.get_write_buffer_size()

        def end() -> None:
            if self.cycle is not answered:
                return
            if self.transport.get_write_buffer_size() < n_unread:  # the answer is still being read
                self._expect_request(answered)
            else:
                self.transport.abort()

        self._request_timer = self.loop.call_later(REQUEST_S, end)

    def _cancel_request_timer(self) -> None:
        if self._request_timer:
            self._request_timer.cancel()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Of uvicorn: from here on another protocol has the connection."""
        self._cancel_request_timer()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._cancel_request_timer()
        super().connection_lost(exc)


class PatientSocket(_ReadAnswers, WebSocketsSansIOProtocol):
    """A WebSocket."""

    async def send(self, message: Any) -> None:
        """As ASGI."""
        await super().send(message)
        if self.initial_response and self.close_sent:
            self.handshake_complete = True  # by an answer of HTTP; uvicorn 0.54 would log an error


class Guard:
    """Lets in who has the key, and pages of this server's own or of the origins that were allowed: any page that
    somebody looks at can open a WebSocket to a server on the same machine."""

    def __init__(self, app: ASGIApp, key: str | None, origins: Sequence[str]) -> None:
        """key: None for none;  origins: whose pages may open WebSockets, "*" for all."""
        self._app, self._key, self._origins = app, key, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal: Response | None = None
        if scope["type"] == "websocket" and not self._is_known(headers):
            refusal = error_response(403, "this page's origin is not allowed; start the server with --cors ORIGIN")
        elif not (scope["type"] == "http" and scope["path"] in _OPEN) and not self._has_key(headers, scope):
            refusal = error_response(401, "the API key is missing or wrong", code="invalid_api_key")
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(refusal)

    def _is_known(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        is_own = origin is None or origin.partition("://")[2] == headers.get("host")
        return is_own or "*" in self._origins or origin in self._origins

    def _has_key(self, headers: Headers, scope: Scope) -> bool:
        if self._key is None:
            return True
        given = [re.sub("(?i)^bearer +", "", headers.get("authorization", "")).encode("latin-1", "replace")]
        for protocol in scope.get("subprotocols", []):
            if protocol.startswith(KEY_PROTOCOL):
                key = protocol.removeprefix(KEY_PROTOCOL)
                given += [key.encode("latin-1", "replace"), unquote_to_bytes(key)]
        return any([hmac.compare_digest(key, self._key.encode()) for key in given])


def error_response(
    status: int, message: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    return JSONResponse({"error": error_facts(status, message, param, code)}, status, headers)


def error_facts(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The four fields of OpenAI's errors."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"message": message, "type": kind, "param": param, "code": code}


class TooLarge(Exception):
    """A body has more bytes than it may have."""


class Stalled(Exception):
    """A body does not come to its end."""


async def counted_body(headers: Headers, receive: Receive, most: int) -> AsyncGenerator[bytes, None]:
    """The bytes of a body as they come. Raises TooLarge as soon as it is known, before the first byte if the headers
    tell; Stalled; ClientDisconnect."""
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise TooLarge(f"the upload is larger than {most / 1e6:g} MB")
    n_bytes = 0
    while True:
        try:
            message = await asyncio.wait_for(receive(), _BODY_S)
        except asyncio.TimeoutError:
            raise Stalled from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body = message.get("body", b"")
        n_bytes += len(body)
        if n_bytes > most:
            raise TooLarge(f"the upload is larger than {most / 1e6:g} MB")
        yield body
        if not message.get("more_body", False):
            return


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` gives. Raises ClientDisconnect, after cancelling it, when the client leaves before; the body must
    have been read."""

    async def gone() -> None:
        while not (await receive())["type"].endswith(".disconnect"):
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
