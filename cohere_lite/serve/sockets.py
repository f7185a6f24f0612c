"""What live sessions over WebSockets share: a sender, so that what is heard waits for nobody, and messages until the
server stops."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from .edge import KEY_PROTOCOL, error_response, unless_gone
from .log import logger
from .service import RETRY_AFTER_S, Asked, Refused, Service

GOING_AWAY, NORMAL, INTERNAL_ERROR, RESTARTS = 1001, 1000, 1011, 1012  # RFC 6455, and IANA's list
_IDLE_S = 1.0
_AHEAD_BYTES = 1 << 20  # of messages that are kept while a client has to wait
T = TypeVar("T")
Handler = Callable[["Socket", Asked], Awaitable[None]]


class Socket:
    """A WebSocket that was accepted."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket, self._service = websocket, service
        self._ahead: deque[Message] = deque()  # received and not asked for yet
        self._outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        self._sender = asyncio.ensure_future(self._send_all())

    def send(self, text: str) -> None:
        """Texts go out in order. A client that does not read them is cut off at the edge."""
        self._outgoing.put_nowait(text)

    async def receive(self, idle: Callable[[], Awaitable[object]]) -> str | bytes | None:
        """The next message, when all that was to be sent is on its way: a client that does not read is not read from.
        None when the server stops. idle: is called about once a second while nothing comes. Raises WebSocketDisconnect,
        TimeoutError where nothing has come for as long as a request may take, what `idle` raises."""
        receiving = asyncio.ensure_future(
            self._service.unless_stopping(asyncio.wait_for(self._receive(), self._service.timeout_s))
        )
        try:
            while not (await asyncio.wait({receiving}, timeout=_IDLE_S))[0]:
                await idle()
            message = receiving.result()
        finally:
            receiving.cancel()
        if message is None:
            return None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", NORMAL))
        text = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def _receive(self) -> Message:
        await self._outgoing.join()
        return self._ahead.popleft() if self._ahead else await self._websocket.receive()

    async def unless_gone(self, work: Awaitable[T]) -> T:
        """What `work` gives. Raises WebSocketDisconnect, after cancelling it, when the client leaves before. What else
        comes meanwhile is kept for `receive`."""
        try:
            return await unless_gone(self._receive_ahead, work)
        except ClientDisconnect:
            raise WebSocketDisconnect from None

    async def _receive_ahead(self) -> Message:
        if sum(len(message.get("bytes") or message.get("text") or "") for message in self._ahead) > _AHEAD_BYTES:
            await asyncio.Event().wait()  # for ever: behind so much nobody is seen to leave
        self._ahead.append(await self._websocket.receive())
        return self._ahead[-1]

    async def close(self, code: int, reason: str = "") -> None:
        """After all that was to be sent. Afterwards nothing can be sent."""
        self._outgoing.put_nowait(None)
        await self._sender
        with suppress(Exception):  # the client was faster
            await self._websocket.close(code, reason)

    async def _send_all(self) -> None:
        while (text := await self._outgoing.get()) is not None:
            with suppress(WebSocketDisconnect, RuntimeError):  # RuntimeError: it was closed
                await self._websocket.send_text(text)
            self._outgoing.task_done()

    def cancel(self) -> None:
        """Nothing more is sent."""
        self._sender.cancel()


async def serve_socket(websocket: WebSocket, service: Service, handler: Handler) -> None:
    """Lets a session in, runs it, and ends it whatever happens."""
    offered = [name for name in websocket.scope.get("subprotocols", []) if not name.startswith(KEY_PROTOCOL)]
    try:
        with service.admitted(websocket.url.path) as asked:
            await websocket.accept(offered[0] if offered else None)
            socket = Socket(websocket, service)
            try:
                await handler(socket, asked)
                asked.status = "ended"
            except WebSocketDisconnect:
                pass
            except asyncio.TimeoutError:
                asked.status = "idle"
                await socket.close(GOING_AWAY, "nothing has come for too long")
            except Exception:
                asked.status = "failed"
                logger.exception("a session failed")
                await socket.close(INTERNAL_ERROR)
            finally:
                socket.cancel()
    except Refused as refused:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        await websocket.send_denial_response(error_response(refused.status, str(refused), headers=headers))
