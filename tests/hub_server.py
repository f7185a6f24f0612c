"""A hub on the loopback interface: as much of the Hugging Face hub's interface as huggingface_hub needs to download a
model, and the hub's ways to refuse."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

NAME = "demo/tiny"
COMMIT = "1" * 40
_API, _FILES = f"/api/models/{NAME}", f"/{NAME}/resolve/"


class HubServer(ThreadingHTTPServer):
    """Serves `files` (contents by path) as the repository NAME, and notes what it is asked for.

    listing_refused, file_refused: an HTTP status and the hub's code for it, in place of the list or of a file;
    breaks_off: after how many bytes the connection is dropped, once, by path.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.commit = COMMIT
        self.listing_refused: tuple[int, str] | None = None
        self.file_refused: tuple[int, str] | None = None
        self.breaks_off: dict[str, int] = {}
        self.fetched: list[tuple[str, str | None]] = []  # path and Range of every GET of a file
        self.listed = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "HubServer":
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path in (_API, f"{_API}/revision/main"):
            self._list()
        elif path.startswith(f"{_API}/tree/"):
            self._tree()
        elif path.startswith(_FILES):
            self._file(path.removeprefix(_FILES).partition("/")[2])
        else:
            self._refuse(404, "RepoNotFound")

    do_HEAD = do_GET

    def _list(self) -> None:
        self.server.listed += 1
        if self.server.listing_refused:
            self._refuse(*self.server.listing_refused)
            return
        siblings = [{"rfilename": path} for path in self.server.files]
        record = {"id": NAME, "modelId": NAME, "sha": self.server.commit, "siblings": siblings, "tags": []}
        self._answer(200, json.dumps(record).encode(), {"Content-Type": "application/json"})

    def _tree(self) -> None:
        """As snapshot_download asks for it."""
        tree = [
            {"type": "file", "path": path, "size": len(held), "oid": ""} for path, held in self.server.files.items()
        ]
        self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _file(self, path: str) -> None:
        if self.server.file_refused:
            self._refuse(*self.server.file_refused)
            return
        if path not in self.server.files:
            self._refuse(404, "EntryNotFound")
            return
        content = self.server.files[path]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.server.commit}
        asked = self.headers["Range"]
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if self.command == "GET":
            self.server.fetched.append((path, asked))
        self._answer(206 if asked else 200, content[first:], headers, self.server.breaks_off.get(path))
        if self.command == "GET":
            self.server.breaks_off.pop(path, None)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code} if code else {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        """sent: how much of the body; the connection ends after each answer."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])

    def log_message(self, *_: object) -> None:
        pass
