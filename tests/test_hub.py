"""Models by their name on the hub: the command in a process of its own, and a hub on the loopback interface with the
demonstration model. And what failed downloads leave in place of files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import COMMAND
from hub_server import COMMIT, NAME, HubServer
from scripted import END, A, B, C
from scripted_contracts import write_merged
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite.errors import ModelError, ModelFileNotFound
from cohere_lite.extras.hub import _choose_files
from cohere_lite.model import DEMO_FOLDER, load_model

GRAPHS = ["encoder.int8.onnx", "decoder.int8.onnx"]
WEIGHTS = [f"{graph}.data" for graph in GRAPHS]
NEEDED = [*GRAPHS, *WEIGHTS, "tokens.txt"]
# Other files of such a repository: other precisions, the checkpoint, texts for people.
OTHERS = [
    "README.md",
    ".gitattributes",
    "model.safetensors",
    "encoder.fp32.onnx",
    "encoder.fp32.onnx.data",
    "decoder_uint8.onnx",
    "frontend.onnx",
]
TRANSCRIBED = (0, f"{SAMPLE_TEXT}\n", "")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    pytest.importorskip("huggingface_hub")
    with HubServer({name: (DEMO_FOLDER / name).read_bytes() for name in NEEDED}) as server:
        yield server


def environment(tmp_path: Path, url: str, **more: str) -> dict[str, str]:
    """Nothing but the loopback interface, nothing but an empty cache."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HUGGING"))}
    kept = {name: value for name, value in kept.items() if not name.upper().endswith("_PROXY")}
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **home, "HF_ENDPOINT": url, **more}


def run(tmp_path: Path, url: str, name: str = NAME, **more: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    command = [*COMMAND, "--quiet", "--model", name, str(SAMPLE)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path, url, **more))
    return result.returncode, result.stdout, result.stderr


def refused(result: tuple[int, str, str], code: int = 1) -> str:
    """The message: one line, and nothing else."""
    found, text, message = result
    assert (found, text, message.count("\n")) == (code, "", 1)
    assert message.startswith("error: ")
    return message


@pytest.mark.reference
def test_downloads_what_it_needs_and_no_more(hub: HubServer, tmp_path: Path) -> None:
    hub.files |= dict.fromkeys(OTHERS, b"not needed")
    assert run(tmp_path, hub.url) == TRANSCRIBED  # stderr is no terminal: no progress bars
    assert sorted(hub.fetched) == sorted((name, None) for name in NEEDED)


@pytest.mark.reference
def test_the_second_start(hub: HubServer, tmp_path: Path) -> None:
    """Nothing is fetched again; where the hub does not answer, offline or by mistake, the copy is used."""
    assert run(tmp_path, hub.url) == TRANSCRIBED
    cache = tmp_path / "hf" / "hub" / "models--demo--tiny"
    assert (cache / "refs" / "main").read_text() == COMMIT  # the hub's own tools see the model as the current one
    hub.fetched.clear()
    assert run(tmp_path, hub.url) == TRANSCRIBED
    assert (hub.listed, hub.fetched) == (2, [])
    assert run(tmp_path, hub.url, HF_HUB_OFFLINE="1") == TRANSCRIBED
    assert hub.listed == 2
    hub.listing_refused = (503, "")
    assert run(tmp_path, hub.url) == TRANSCRIBED
    hub.stop()
    assert run(tmp_path, hub.url) == TRANSCRIBED


@pytest.mark.reference
def test_somebody_else_fetched_more(hub: HubServer, tmp_path: Path) -> None:
    """The cache is shared: other files of the repository in it must not confuse us, nor the list of all its files that
    snapshot_download leaves there."""
    hub.files["encoder.fp32.onnx"] = hub.files[GRAPHS[0]] + b"\x3a\x00"  # an empty field "graph": another file
    hub.files["README.md"] = b"not fetched by anybody"
    code = f"from huggingface_hub import snapshot_download as d; d('{NAME}', allow_patterns=['encoder.fp32.onnx'])"
    subprocess.run([sys.executable, "-c", code], env=environment(tmp_path, hub.url), check=True, capture_output=True)
    hub.fetched.clear()
    assert run(tmp_path, hub.url) == TRANSCRIBED
    assert sorted(hub.fetched) == sorted((name, None) for name in NEEDED)
    assert run(tmp_path, hub.url, HF_HUB_OFFLINE="1") == TRANSCRIBED


@pytest.mark.reference
def test_an_older_copy_while_the_newer_one_is_incomplete(hub: HubServer, tmp_path: Path) -> None:
    assert run(tmp_path, hub.url) == TRANSCRIBED
    hub.commit = "2" * 40
    hub.files[GRAPHS[0]] += b"\x3a\x00"  # an empty field "graph": another file, the same model
    del hub.files[WEIGHTS[1]]
    assert run(tmp_path, hub.url) == TRANSCRIBED
    assert (GRAPHS[0], None) in hub.fetched[len(NEEDED) :]  # the newer one was tried
    assert run(tmp_path, hub.url, HF_HUB_OFFLINE="1") == TRANSCRIBED
    shutil.rmtree(tmp_path / "hf")
    message = refused(run(tmp_path, hub.url))
    assert "there is no complete copy in" in message
    assert f"{WEIGHTS[1]}" in message


@pytest.mark.reference
def test_the_newer_one_of_two_copies(hub: HubServer, tmp_path: Path) -> None:
    """Told apart by a token too many in the newer one."""
    assert run(tmp_path, hub.url) == TRANSCRIBED
    hub.commit = "0" * 40
    n_tokens = hub.files["tokens.txt"].count(b"\n")
    hub.files["tokens.txt"] += b"more %d\n" % n_tokens
    for options in ({}, {"HF_HUB_OFFLINE": "1"}):
        assert f"tokens.txt lists {n_tokens + 1} tokens" in refused(run(tmp_path, hub.url, **options))


@pytest.mark.reference
def test_not_reached_and_not_in_the_cache(hub: HubServer, tmp_path: Path) -> None:
    """Neither with an empty cache nor with one that lacks the weights."""
    expected = (
        f"there is no folder {NAME} here, and none to be had from the Hugging Face hub: there is no complete copy in"
    )
    message = refused(run(tmp_path, hub.url, HF_HUB_OFFLINE="1"))
    assert expected in message
    assert "offline mode is enabled" in message
    assert hub.listed == 0
    assert run(tmp_path, hub.url) == TRANSCRIBED
    (tmp_path / "hf" / "hub" / "models--demo--tiny" / "snapshots" / COMMIT / WEIGHTS[0]).unlink()
    hub.stop()
    message = refused(run(tmp_path, hub.url))
    assert f"{expected} {tmp_path / 'hf' / 'hub'}, and " in message


@pytest.mark.reference
def test_goes_on_after_a_dropped_transfer(hub: HubServer, tmp_path: Path) -> None:
    """huggingface_hub asks for what it has not written yet: old versions when started again, newer ones by themselves.
    Weights may be longer than they need be."""
    written_at_once = pytest.importorskip("huggingface_hub.constants").DOWNLOAD_CHUNK_SIZE
    hub.files[WEIGHTS[0]] += bytes(written_at_once)
    hub.breaks_off = {WEIGHTS[0]: written_at_once + 1}
    first = run(tmp_path, hub.url)
    assert (first if first[0] == 0 else run(tmp_path, hub.url))[:2] == TRANSCRIBED[:2]
    assert [asked for name, asked in hub.fetched if name == WEIGHTS[0]] == [None, f"bytes={written_at_once}-"]
    copy = tmp_path / "hf" / "hub" / "models--demo--tiny" / "snapshots" / COMMIT / WEIGHTS[0]
    assert copy.read_bytes() == hub.files[WEIGHTS[0]]


@pytest.mark.reference
def test_gated(hub: HubServer, tmp_path: Path) -> None:
    """The hub lists a gated repository's files to everybody, and gives them to those it knows."""
    hub.file_refused = (403, "GatedRepo")
    message = refused(run(tmp_path, hub.url))
    assert (
        f"there is no folder {NAME} here, and none to be had from the Hugging Face hub: it is gated: accept its terms "
        f"at https://huggingface.co/{NAME}, then `hf auth login`" in message
    )


@pytest.mark.reference
@pytest.mark.parametrize("status", [401, 404])
def test_neither_a_folder_nor_on_the_hub(hub: HubServer, tmp_path: Path, status: int) -> None:
    hub.listing_refused = (status, "RepoNotFound")
    message = refused(run(tmp_path, hub.url, "models/cohere"))
    assert (
        "there is no folder models/cohere here, and none to be had from the Hugging Face hub: no such model is there"
        in message
    )


@pytest.mark.reference
def test_the_hub_is_down(hub: HubServer, tmp_path: Path) -> None:
    hub.listing_refused = (503, "")
    assert "503" in refused(run(tmp_path, hub.url))


@pytest.mark.reference
def test_a_folder_of_that_name_comes_first(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And paths of other forms are not looked for on the hub."""
    shutil.copytree(DEMO_FOLDER, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    assert run(tmp_path, hub.url) == TRANSCRIBED
    for path in ("models", "./models/cohere", "a/b/c", "../cohere", "models/", "~/models", "models/.cohere"):
        assert "does not exist; a model is a folder" in refused(run(tmp_path, hub.url, path))
    assert hub.listed == 0


@pytest.mark.reference
def test_in_a_sub_folder(hub: HubServer, tmp_path: Path) -> None:
    """As some repositories have it, beside files for other programs; in capitals, too."""
    hub.files = {f"onnx/int8/{name}": content for name, content in hub.files.items()}
    hub.files["onnx/int8/Cohere-ENCODER.INT8.onnx"] = hub.files.pop(f"onnx/int8/{GRAPHS[0]}")
    hub.files |= dict.fromkeys(["encoder.int8.onnx", "decoder.int8.onnx", "merges.txt"], b"of another program")
    assert run(tmp_path, hub.url) == TRANSCRIBED
    assert all(name.startswith("onnx/int8/") for name, _ in hub.fetched)


@pytest.fixture
def community(hub: HubServer, tmp_path: Path) -> dict[str, list[str]]:
    """A repository of onnx-community's layout, with three precisions; the files that each needs."""
    folder = write_merged(tmp_path / "community", [C] * 9 + [A, B, END])
    hub.files = {name: (folder / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    needed = {}
    for suffix in "", "_quantized", "_q4":
        graphs = [f"onnx/{graph}{suffix}.onnx" for graph in ("encoder_model", "decoder_model_merged")]
        for graph in graphs:
            hub.files[graph] = (folder / graph.replace(suffix, "")).read_bytes()
        needed[suffix] = sorted([*graphs, "config.json", "tokenizer.json"])
    hub.files |= dict.fromkeys(["README.md", "generation_config.json", "onnx/encoder_model.onnx_data"], b"not needed")
    return needed


@pytest.mark.reference
@pytest.mark.parametrize(
    ("asked", "used"), [("", "_quantized"), (":q4", "_q4"), (":int4", "_q4"), (":fp32", ""), (":int8", "_quantized")]
)
def test_a_precision_of_several(hub: HubServer, community, tmp_path: Path, asked: str, used: str) -> None:
    """INT8 by default, or the one that is named; and only that one is fetched."""
    result = (0, "a b\n", "")
    assert run(tmp_path, hub.url, NAME + asked) == result
    assert sorted({name for name, _ in hub.fetched}) == community[used]
    assert run(tmp_path, hub.url, NAME + asked, HF_HUB_OFFLINE="1") == result
    message = refused(run(tmp_path, hub.url, f"{NAME}:q4f16"), code=2)
    assert message == f"error: {NAME} has no precision 'q4f16'; it has fp32, int8, q4\n"


BESIDE = ["language.json", "align.fp16.onnx"]


@pytest.mark.parametrize(
    ("on_cpu", "expected"),
    [
        (True, ["encoder.fp16.onnx", "decoder.fp16.onnx", *BESIDE, "tokens.txt"]),
        (False, ["encoder.fp16.onnx", "decoder.fp16.onnx", *BESIDE, "step.fp16.onnx", "tokens.txt"]),
    ],
)
def test_the_graph_of_a_step_is_for_gpus_the_others_for_all(on_cpu: bool, expected: list[str]) -> None:
    """By hand."""
    held = [
        "tokens.txt",
        "align.fp16.onnx",
        "decoder.fp16.onnx",
        "encoder.fp16.onnx",
        "language.json",
        "step.fp16.onnx",
        "step.fp32.onnx",
    ]
    assert _choose_files("demo/tiny", held, None, on_cpu) == expected
    capitals = ["ENCODER.onnx", "DECODER.onnx", "tokens.txt"]  # whose step would have the decoder's own name
    assert _choose_files("demo/tiny", capitals, None, on_cpu) == capitals


@pytest.mark.reference
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["README.md", ".gitattributes", "model.safetensors", "tokens.txt"],
            "no encoder and decoder (.onnx) beside a list of tokens; it holds README.md, model.safetensors, tokens.txt"
            ": a checkpoint, to be exported first (pip install 'cohere-lite[export]', python -m cohere_lite.export)",
        ),
        ([*GRAPHS, "onnx/tokens.txt"], "it holds decoder.int8.onnx, encoder.int8.onnx, onnx/tokens.txt\n"),
        ([], "it holds nothing\n"),
        (
            ["encoder.fp16.onnx", "encoder-fp16.onnx", "decoder.onnx", "tokens.txt"],
            "has more than one model: decoder.onnx, encoder-fp16.onnx, encoder.fp16.onnx; fetch one",
        ),
        (
            [f"{folder}/{name}" for folder in "ab" for name in NEEDED],
            "has more than one model: a/decoder.int8.onnx, a/encoder.int8.onnx, b/decoder.int8.onnx, b/encoder.int8",
        ),
    ],
)
def test_repositories_that_do_not_fit(hub: HubServer, tmp_path: Path, files: list[str], expected: str) -> None:
    hub.files = dict.fromkeys(files, b"")
    assert expected in refused(run(tmp_path, hub.url))
    assert hub.fetched == []


@pytest.mark.reference
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["encoder-0.onnx", "encoder-3.onnx", "cross_kv.onnx", "decoder.onnx"], "eschmidbauer's export"),
        (["mel.onnx", "encoder.onnx", "decoder_init.onnx", "decoder_step.onnx"], "vernacula's export"),
        (["encoder-model.onnx", "decoder_joint-model.int8.onnx", "decoder_joint-model.onnx"], "transducer (Parakeet)"),
    ],
)
def test_repositories_of_other_kinds_are_named(hub: HubServer, tmp_path: Path, files: list[str], expected: str) -> None:
    hub.files = dict.fromkeys([*files, "vocab.txt"], b"")
    assert expected in refused(run(tmp_path, hub.url))
    assert hub.fetched == []


@pytest.mark.reference
def test_another_model_is_refused_before_its_weights_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    hub.files[GRAPHS[1]] = hub.files[GRAPHS[0]] + b"\x3a\x00"  # an empty field "graph": another file
    assert "no encoder and decoder that belong together" in refused(run(tmp_path, hub.url))
    assert sorted(name for name, _ in hub.fetched) == sorted(GRAPHS)


def test_without_huggingface_hub(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ModuleNotFoundError('No module named huggingface_hub')")
    message = refused(run(tmp_path, "http://127.0.0.1:9", PYTHONPATH=str(tmp_path)))
    assert f"there is no folder {NAME} here; to fetch it from the Hugging Face hub: pip install " in message
    assert f"by hand from https://huggingface.co/{NAME}" in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"Entry not found", "the hub's message that there is no such file, 15 bytes"),
        (b"\n<!DOCTYPE html>\n<html>", "an HTML page, 23 bytes"),
        (b"<html><head>", "an HTML page, 12 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4231040\n", "a Git LFS pointer"),
        (b"Access to model demo/tiny is restricted.", "the hub's message that the repository is gated, 40 bytes"),
    ],
)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (GRAPHS[0], "an ONNX file"),
        (WEIGHTS[1], f"the weights of {GRAPHS[1]}"),
        ("tokens.txt", "a list of tokens"),
    ],
)
def test_failed_downloads(tmp_path: Path, content: bytes, found: str, name: str, expected: str) -> None:
    """Written as wget, a browser or git leave them. The sizes are counted by hand."""
    folder = shutil.copytree(DEMO_FOLDER, tmp_path / "model")
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{folder / name}: not {expected}, but {found}")
    assert str(caught.value).endswith("a failed download; fetch it again")


def test_only_names_are_looked_for_on_the_hub(tmp_path: Path) -> None:
    """A Path is one on this machine, whatever it looks like."""
    with pytest.raises(ModelFileNotFound, match="models/cohere does not exist; a model is a folder"):
        load_model(Path("models/cohere"))
