"""A web server for the page: with Range, which resumes downloads, and https for other devices in the house."""

import socket
import ssl
import subprocess
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PORT, TLS_PORT = 8000, 8443


def serve(folder: Path, tls: bool, port: int | None) -> None:
    """Until Ctrl-C. Raises ValueError, OSError."""
    if not (folder / "index.html").is_file():
        raise ValueError(f"{folder} has no index.html; python -m tools.web {folder} writes it")
    server = make_server(folder, "" if tls else "127.0.0.1", (TLS_PORT if tls else PORT) if port is None else port)
    host = _own_address() if tls else "localhost"
    if tls:
        server.socket = _secured(server.socket, host)
        print("Browsers warn of this certificate, which nobody else knows: choose to go on.")
    print(f"http{'s' * tls}://{host}:{server.server_port}/   (Ctrl-C ends it)", flush=True)
    with server:
        server.serve_forever()


def make_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """port: 0 for any that is free. Raises ValueError."""
    try:
        return Server((host, port), partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:  # it is taken, or for others; or no number of a port
        raise ValueError(f"port {port}: {getattr(error, 'strerror', None) or error}; --port names another") from error


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers end downloads, and connections over a certificate that they do not know: nothing to be told."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


class Handler(SimpleHTTPRequestHandler):
    """Files, or from one byte on."""

    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript", ".wasm": "application/wasm"}

    def end_headers(self) -> None:
        # Threads need these. The page's service worker adds them where a server does not, but browsers start none over
        # a certificate that they do not know.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def send_head(self) -> Any:
        """A file to send, at its first byte."""
        path = Path(self.translate_path(self.path))
        start = self._first_byte()
        if start is None or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        if start >= size:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        file.seek(start)
        return file

    def _first_byte(self) -> int | None:
        """Of a range to the end of the file, which is all that the page asks for."""
        unit, _, span = self.headers.get("Range", "").partition("=")
        first, _, last = span.partition("-")
        return int(first) if unit == "bytes" and first.isdecimal() and not last else None

    def log_message(self, format: str, *args: object) -> None:
        """Not every file."""


def _secured(listening: socket.socket, host: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        key, certificate = (str(Path(folder, name)) for name in ("key.pem", "certificate.pem"))
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={host}"]
        command += ["-addext", f"subjectAltName=IP:{host},DNS:localhost", "-keyout", key, "-out", certificate]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError as error:
            raise ValueError("--tls needs the program openssl, which makes the certificate") from error
        context.load_cert_chain(certificate, key)
    # The handshake takes place in a connection's own thread, or one silent client would hold up all others.
    return context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)


def _own_address() -> str:
    """In the local network: the address from which a packet to another one would go. None is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, which is nobody's
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
