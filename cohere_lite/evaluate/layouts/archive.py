"""The files of .tar and .tar.gz, read in any order."""

import gzip
import shutil
import tarfile
from tempfile import TemporaryFile
from threading import Lock
from typing import BinaryIO, cast
from weakref import finalize

from ..errors import EvaluateError, NoRecordingError
from .places import Place, one_line


def read_from(archives: "list[Archive]", name: str) -> bytes:
    """A file out of the first archive that has it. Raises EvaluateError."""
    for archive in archives:
        if (content := archive.read(name)) is not None:
            return content
    raise NoRecordingError(f"there is no {name} in {', '.join(archive.path for archive in archives)}")


class Archive:
    """An archive in a folder or repository. It is opened when the first of its files is read; a compressed one is
    unpacked into a temporary file then, since a file in it could be reached through all before it alone."""

    def __init__(self, place: Place, path: str) -> None:
        self._place, self.path = place, path
        self._lock = Lock()
        self._file: BinaryIO | None = None
        self._members: dict[str, tuple[int, int]] = {}  # by name without folders: position, bytes

    def read(self, name: str) -> bytes | None:
        """A file by its name without folders; None if there is none. Raises EvaluateError."""
        with self._lock:
            try:
                file = self._file = self._file or self._open()
                if name not in self._members:
                    return None
                position, size = self._members[name]
                file.seek(position)
                return file.read(size)
            except Exception as error:  # of tarfile, gzip, and of the hub's connections
                raise EvaluateError(f"{self.path} cannot be read: {one_line(error)}") from error

    def _open(self) -> BinaryIO:
        file = self._place.open(self.path)
        if self.path.endswith("gz"):
            unpacked = cast(BinaryIO, TemporaryFile())  # noqa: SIM115 - open as long as the archive
            with file, gzip.open(file) as packed:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
            file = unpacked
            file.seek(0)
        finalize(self, file.close)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            self._members = {
                member.name.rpartition("/")[2]: (member.offset_data, member.size)
                for member in archive
                if member.isfile()
            }
        return file
