"""A hub on the loopback interface: as much of the Hugging Face hub's interface as huggingface_hub needs to download a
model or to read in a data set, and the hub's ways to refuse."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

NAME = "demo/tiny"
COMMIT = "1" * 40


class HubServer(ThreadingHTTPServer):
    """Serves `files` (contents by path) as the repository NAME, and notes what it is asked for.

    kind: "models" or "datasets"; branches: the commits and files of other branches than main;
    listing_refused, file_refused: an HTTP status and the hub's code for it, in place of the list or of a file;
    breaks_off: after how many bytes the connection is dropped, once, by path.
    """

    def __init__(self, files: dict[str, bytes], kind: str = "models") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.api = f"/api/{kind}/{NAME}"
        self.resolve = f"/{NAME}/resolve/" if kind == "models" else f"/{kind}/{NAME}/resolve/"
        self.commit = COMMIT
        self.branches: dict[str, tuple[str, dict[str, bytes]]] = {}
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
        api, files = self.server.api, self.server.resolve
        revision, _, rest = path.removeprefix(f"{api}/tree/").removeprefix(files).partition("/")
        if path == api or path.startswith(f"{api}/revision/"):
            self._list(path.removeprefix(api).removeprefix("/revision/") or "main")
        elif path.startswith(f"{api}/tree/"):
            self._tree(self._held(revision), rest)
        elif path.startswith(files):
            self._file(self._held(revision), rest)
        else:
            self._refuse(404, "RepoNotFound")

    do_HEAD = do_GET

    def _held(self, revision: str) -> dict[str, bytes]:
        return dict(self.server.branches.values()).get(revision, self.server.files)

    def _list(self, revision: str) -> None:
        self.server.listed += 1
        if self.server.listing_refused:
            self._refuse(*self.server.listing_refused)
            return
        main = self.server.commit, self.server.files
        revisions = {"main": main, **self.server.branches}
        found = [held for name, held in revisions.items() if revision in (name, held[0])]
        if not found:
            self._refuse(404, "RevisionNotFound")
            return
        commit, files = found[0]
        siblings = [{"rfilename": path} for path in files]
        record = {"id": NAME, "modelId": NAME, "sha": commit, "siblings": siblings, "tags": []}
        self._answer(200, json.dumps(record).encode(), {"Content-Type": "application/json"})

    def _tree(self, files: dict[str, bytes], folder: str) -> None:
        """As snapshot_download asks for it, of all files; and as HfFileSystem does, of those in a folder."""
        tree = [
            {"type": "file", "path": path, "size": len(held), "oid": ""}
            for path, held in files.items()
            if path.startswith(folder)
        ]
        self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _file(self, files: dict[str, bytes], path: str) -> None:
        if self.server.file_refused:
            self._refuse(*self.server.file_refused)
            return
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        content = files[path]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.server.commit}
        asked = self.headers["Range"]
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        if asked:
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        if self.command == "GET":
            self.server.fetched.append((path, asked))
        self._answer(206 if asked else 200, part, headers, self.server.breaks_off.get(path))
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
