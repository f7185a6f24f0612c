"""The server, from the loading of the model to the last answer."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import uvicorn

from ..errors import OptionError
from ..transcribe import Transcriber
from .app import make_app
from .edge import PatientHTTP, PatientSocket
from .log import log
from .service import Service

if TYPE_CHECKING:
    from .wyoming import WyomingServer

_MOST_CONNECTIONS = 2048
_SOCKET_BYTES = 20 << 20  # of one message: OpenAI's clients send up to 15 MiB of base64
_LEFT_S = 30  # for connections that do not end when all recordings are answered


async def serve(args: argparse.Namespace, key: str | None) -> None:
    """Until a signal. args: see __main__.py. Raises OptionError, ModelError, OSError for an address that is taken."""
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listener(args.host, args.port))
        transcriber = stack.enter_context(
            Transcriber(
                args.model,
                providers=[args.provider],
                threads=args.threads,
                cache=args.cache,
                batch_size=args.batch_size,
                precision=args.precision,
            )
        )
        service = Service(transcriber, args.language, args.max_queue, args.max_upload * 10**6, args.timeout)
        stack.callback(service.close)
        wyoming = None
        if args.wyoming:
            wyoming = _wyoming(service, args.wyoming)
            await wyoming.start()
            stack.push_async_callback(wyoming.close)
        if args.zeroconf:
            if not wyoming:
                raise OptionError("--zeroconf announces the Wyoming service: it needs --wyoming")
            stack.push_async_callback(await wyoming.announce(args.zeroconf))
        config = uvicorn.Config(
            make_app(service, key, args.cors),
            http=PatientHTTP,
            ws=PatientSocket,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_raise_descriptor_limit(),
            ws_max_size=_SOCKET_BYTES,
            ws_ping_timeout=None,  # pongs are not read while the model is behind
            ws_per_message_deflate=False,  # a message of 20 KiB may be one of 20 MiB
            timeout_graceful_shutdown=_LEFT_S,
        )
        host, port = listener.getsockname()[:2]
        log("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", model=service.model_id)
        await _Server(config, service, wyoming).serve([listener])
    log("stopped")


class _Server(uvicorn.Server):
    """Answers what has begun before it closes connections: uvicorn would close WebSockets at once."""

    def __init__(self, config: uvicorn.Config, service: Service, wyoming: WyomingServer | None) -> None:
        super().__init__(config)
        self._service, self._wyoming = service, wyoming

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Of uvicorn, which then waits for its connections."""
        log("stopping", recordings=self._service.n_open)
        for listening in self.servers:
            listening.close()
        if self._wyoming:
            self._wyoming.stop_listening()
        draining = asyncio.ensure_future(self._service.drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait({draining}, timeout=0.1)
        draining.cancel()
        self._service.give_up()
        await super().shutdown(sockets)
        self._captured_signals.clear()  # uvicorn would raise them again, before everything is closed


def _wyoming(service: Service, uri: str) -> WyomingServer:
    try:
        from .wyoming import WyomingServer
    except ImportError as error:
        raise OptionError(f"--wyoming needs more: pip install 'cohere-lite[wyoming]' ({error})") from error
    return WyomingServer(service, uri)


def _listener(host: str, port: int) -> socket.socket:
    """Before the model is loaded: an address that is taken is known at once, and clients that come early wait."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise OptionError(f"--host {host} --port {port}: {error}") from error
    try:
        return socket.create_server(address[:2], family=family, backlog=_MOST_CONNECTIONS)
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: {os.strerror(error.errno or 0)}") from error


def _raise_descriptor_limit() -> int:
    """As many descriptors as this process may have; how many connections they are enough for."""
    try:
        import resource
    except ImportError:  # Windows
        return _MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says "unlimited", and allows less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return _MOST_CONNECTIONS if soft < 0 else max(8, min(_MOST_CONNECTIONS, soft // 2 - 200))
