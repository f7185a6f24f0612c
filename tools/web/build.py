"""The page's files, onnxruntime-web and the models -> a folder to be served."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import east_asian_width

from cohere_lite.model import DEMO_FOLDER

from .models import describe_model

PAGE = Path(__file__).with_name("page")
ONNXRUNTIME = "onnxruntime-web@1.30.0"
# Of onnxruntime-web's builds the plain one is half the size of those with WebGPU, and what most visitors need. The
# other runs in every browser with WebGPU; JSPI's is smaller, and for Chromium alone.
RUNTIMES = {
    "WASM": ("ort.wasm.min", "ort-wasm-simd-threaded"),
    "WEBGPU": ("ort.webgpu.min", "ort-wasm-simd-threaded.asyncify"),
}
DEMONSTRATION = "demonstration"
PART_BYTES = 20_000_000  # of WebAssembly files: Cloudflare Pages takes 25 MiB a file
DEMO_CHECKPOINT = Path(__file__).parents[1] / "demo" / "checkpoint"


def build(out: Path, model: Path | None) -> None:
    """Raises ValueError, OSError. What is in its way stays until the new page is complete."""
    out = out.resolve()  # "." has no name to be written beside, and a link is to stay one
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "models.json").is_file())):
        raise ValueError(f"{out} is neither an empty folder nor one that this command wrote: name another one")
    name = model.resolve().name if model else ""
    if model:
        describe_model(model, name)  # raises what is to be said of it before anything is fetched
    if name == DEMONSTRATION:
        raise ValueError(f"{model} is called as the page's small model is: give the folder another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as folder:
        page = Path(shutil.copytree(PAGE, Path(folder, "page")))
        (page / "wide.js").write_text(wide_module(), encoding="utf-8")
        _add_onnxruntime(page)
        models = [_add_model(page, model, name)] if model else []
        models.append(_add_demonstration(page))
        (page / "models.json").write_text(json.dumps(models, indent=1) + "\n", encoding="utf-8")
        _fill_in_service_worker(page)
        if out.exists():
            out.rename(Path(folder, "before"))  # which ends with this block; what cannot be moved stays whole
        page.rename(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.0f} MB; python -m tools.web --serve {out}")


def wide_module() -> str:
    """Characters that take two columns where letters have a fixed width, by Python's table of Unicode."""
    wide = [code for code in range(0x110000) if east_asian_width(chr(code)) in "WF"]
    ends = [code for code in wide if east_asian_width(chr(min(code + 1, 0x10FFFF))) not in "WF" or code == 0x10FFFF]
    starts = [code for code in wide if east_asian_width(chr(code - 1)) not in "WF"]
    ranges = "".join(f"\\u{{{start:x}}}-\\u{{{end:x}}}" for start, end in zip(starts, ends, strict=True))
    about = "// Made by tools/web: characters of two columns, East Asian Width W and F."
    return f"{about}\nexport const WIDE = /[{ranges}]/u;\n"


def _add_onnxruntime(out: Path) -> None:
    """From npm, in parts and with names that every host serves rightly: some know no .mjs."""
    folder = out / "onnxruntime"
    folder.mkdir()
    listed = {}
    with TemporaryDirectory() as packages:
        command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]
        try:
            subprocess.run([*command, "--prefix", packages, ONNXRUNTIME], check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise ValueError(f"{ONNXRUNTIME} could not be installed with npm: {error}") from error
        dist = Path(packages, "node_modules", "onnxruntime-web", "dist")
        for name, (module, binary) in RUNTIMES.items():
            for script in (module, binary):
                shutil.copy(dist / f"{script}.mjs", folder / f"{script}.js")
            parts = _write_parts(dist / f"{binary}.wasm", folder)
            listed[name] = {
                "module": f"./onnxruntime/{module}.js",
                "glue": f"./onnxruntime/{binary}.js",
                "parts": [f"./onnxruntime/{part}" for part in parts],
            }
    exports = "".join(f"export const {name} = {json.dumps(files)};\n" for name, files in listed.items())
    (out / "runtime.js").write_text(f"// Made by tools/web: {ONNXRUNTIME}.\n{exports}", encoding="utf-8")


def _write_parts(path: Path, folder: Path) -> list[str]:
    data = path.read_bytes()
    parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
    names = [path.name if len(parts) == 1 else f"{path.stem}.{i}.wasm" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(part)
    return names


def _add_model(out: Path, source: Path, name: str) -> dict:
    model, files = describe_model(source, name)
    folder = out / "models" / name
    folder.mkdir(parents=True)
    for path in files:
        shutil.copy(path, folder / path.name)
    return model


def _add_demonstration(out: Path) -> dict:
    """As shipped, for WebAssembly; and in fp32 for WebGPU, some of which has no float16."""
    from cohere_lite.export.__main__ import export

    with TemporaryDirectory() as folder:
        export(DEMO_CHECKPOINT, Path(folder), "fp32")
        for path in DEMO_FOLDER.iterdir():
            shutil.copy(path, folder)
        return _add_model(out, Path(folder), DEMONSTRATION)


def _fill_in_service_worker(out: Path) -> None:
    """The files that work offline after the first visit: all but models, which worker.js keeps, and WebGPU's runtime,
    which is kept when it is first used. Their checksum is the version."""
    paths = sorted(
        path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] not in ("models",)
    )
    names = [path.relative_to(out).as_posix() for path in paths]
    kept = [name for name in names if "asyncify" not in name and name != "service-worker.js"]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
    script = out / "service-worker.js"
    text = script.read_text(encoding="utf-8")
    text = text.replace("const VERSION = '';", f"const VERSION = '{version}';")
    text = text.replace("const FILES = [];", f"const FILES = {json.dumps(['./', *kept])};")
    script.write_text(text, encoding="utf-8")
