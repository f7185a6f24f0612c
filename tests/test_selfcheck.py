"""The self-check at load: what is right passes, in every contract and precision; caches in the wrong memory, and
kernels that compute garbage, are refused with a sentence."""

import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from published import needs_espeak, standin
from scripted import END, A, B, C, write_model
from scripted_contracts import write_mems, write_merged
from test_published import RUNS
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite import ModelError, OptionError, ProviderError, Transcriber, model
from cohere_lite.cli.run import main
from cohere_lite.contracts import CONTRACTS
from cohere_lite.contracts.caches import Caches
from cohere_lite.contracts.contract import Clip
from cohere_lite.contracts.fast import FastContract
from cohere_lite.devices import selfcheck
from cohere_lite.devices.selfcheck import (
    GOLDEN_FOLDER,
    GOLDEN_PRECISIONS,
    check_caches,
    check_kernels,
    check_model,
    golden_precision,
)
from cohere_lite.graphfile import GraphFile, read_graph_file
from cohere_lite.mel import log_mel
from cohere_lite.model import DEMO_FOLDER, load_model
from cohere_lite.session import OrtValue, Session, open_session, session_options

OPTIONS = partial(session_options, 1, True, False)
LOST = "the decoder does not find in its caches what it wrote there"
SCRIPT = [C] * 9 + [A, B, END]


def open_graph(graph: GraphFile) -> Session:
    return open_session(graph, None, OPTIONS, "off")


def demo(kind: type[FastContract] = FastContract) -> FastContract:
    encoder, decoder = (
        open_graph(read_graph_file(DEMO_FOLDER / f"{part}.int8.onnx")) for part in ("encoder", "decoder")
    )
    return kind(encoder, decoder, {})


# Caches


class WrongMemory(FastContract):
    """As on a GPU whose caches were bound in the CPU's memory: the past is what it was when it was bound, once a clip;
    the present is written elsewhere."""

    def _bind_rows(self) -> None:
        super()._bind_rows()
        for name, buffer in self._past.items():
            self.decoder.bind(name, OrtValue.ortvalue_from_numpy(buffer[: len(self._lengths)].copy()))


def test_caches_in_the_wrong_memory() -> None:
    with pytest.raises(ModelError, match=rf"after another clip .* \d\d% off .* \(20% allowed\): {LOST}"):
        check_caches(demo(WrongMemory), "int8")


def test_caches_where_they_belong() -> None:
    check_caches(demo(), "int8")


def test_rows_of_a_batch_that_are_mixed_up() -> None:
    class Mixed(FastContract):
        def start(self, clips: Sequence[Clip]) -> None:
            super().start(clips[::-1])

    with pytest.raises(ModelError, match="beside another clip"):
        check_caches(demo(Mixed), "int8")


def test_a_decoder_that_chooses_another_token() -> None:
    """The graphs for GPUs choose by themselves."""

    class Other(FastContract):
        def choose(self, tokens):
            best, logprob = super().choose(tokens)
            return best - 1, logprob

    with pytest.raises(ModelError, match=r"the decoder chose token \d+, while its logits say \d+"):
        check_caches(demo(Other), "int8")


def test_logits_that_are_not_numbers() -> None:
    class Nan(FastContract):
        def step(self, tokens):
            return super().step(tokens) * np.float32(np.nan)

    with pytest.raises(ModelError, match=r"logits are not numbers: .* bf16 and fp32"):
        check_caches(demo(Nan), "int8")


def scripted(folder: Path, name: str) -> Path:
    """A model of that contract whose decoder answers by script where it is fed rightly."""
    writers: dict[str, Callable[[], object]] = {
        "static": lambda: write_model(folder, SCRIPT, max_positions=16),
        "audio": lambda: write_model(folder, SCRIPT, max_positions=16, encoder_input="audio"),
        "merged": lambda: write_merged(folder, SCRIPT),
        "pinned": lambda: write_merged(folder, SCRIPT, pinned=True),
        "mems": lambda: write_mems(folder, SCRIPT),
        "fast": lambda: None,
    }
    writers[name]()
    return DEMO_FOLDER if name == "fast" else folder


@pytest.mark.parametrize("name", [contract.name for contract in CONTRACTS])
def test_each_contract_passes(tmp_path: Path, name: str) -> None:
    folder = scripted(tmp_path / "model", name)
    assert load_model(folder, self_check=True).contract.name == name


def test_caches_that_do_not_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This decoder answers wrongly where a row of the caches is not the position's."""
    contract = load_model(scripted(tmp_path / "model", "mems")).contract
    monkeypatch.setattr(Caches, "turn", lambda _: None)
    with pytest.raises(ModelError, match=LOST):
        check_caches(contract, "fp32")


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.folder
@needs_espeak
@pytest.mark.parametrize("kind", RUNS)
def test_each_published_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes as it is; is refused where its caches are not what the last step gave."""
    loaded = load_model(standin(kind), self_check=True)
    kept = Caches.inputs

    def copies(caches: Caches, length: int) -> dict[str, OrtValue]:
        return {name: OrtValue.ortvalue_from_numpy(value.numpy() * 0) for name, value in kept(caches, length).items()}

    monkeypatch.setattr(Caches, "inputs", copies)
    with pytest.raises(ModelError, match=LOST):
        check_caches(loaded.contract, loaded.precision)


# Kernels


@pytest.mark.parametrize("name", GOLDEN_PRECISIONS)
def test_each_precision_passes(name: str) -> None:
    check_kernels({"int4": "q4"}.get(name, name), True, open_graph)


@pytest.mark.parametrize(
    ("precision", "on_cpu", "name"),
    [
        *(("int8", True, "int8"), ("int8 and q4", True, "int4"), ("q4", True, "int4"), ("fp32", True, "fp32")),
        *(("uint8", True, "int8"), ("unknown", True, "int8"), ("fp16", True, "fp16"), ("q8f16", True, "q8f16")),
        # an accelerator may have no kernels for the graphs that are made for CPUs
        *(("int8", False, "fp32"), ("q4", False, "fp32"), ("fp32", False, "fp32"), ("q4f16", False, "q4f16")),
        *(("bf16", False, "fp16"), ("q8bf16", False, "q8f16"), ("q4bf16", False, "q4f16")),
    ],
)
def test_the_nearest_precision(precision: str, on_cpu: bool, name: str) -> None:
    assert golden_precision(precision, on_cpu) == name


def graphs(name: str) -> dict[str, onnx.ModelProto]:
    """The golden graphs of a precision, by their files' names."""
    files = [f"encoder.{name.replace('int4', 'int8')}.onnx", f"decoder.{name}.onnx"]
    return {file: onnx.load(GOLDEN_FOLDER / file) for file in files}


COMPUTE = {
    *("MatMul", "DynamicQuantizeMatMul", "MatMulNBits", "Conv", "QuickGelu", "Sigmoid", "Relu", "LayerNormalization"),
    *("MultiHeadAttention", "GroupQueryAttention", "GatherElements", "GatherBlockQuantized"),
}


@pytest.mark.parametrize("name", ["fp32", "fp16", "q8f16", "q4f16"])
def test_an_encoder_of_standard_operators_passes(name: str) -> None:
    """For models that have one."""
    opened = []

    def opener(graph: GraphFile) -> Session:
        opened.append(graph.path.name)
        return open_graph(graph)

    check_kernels(name, False, opener, True)
    assert opened == [f"encoder.{'fp32' if name == 'fp32' else 'fp16'}.standard.onnx", f"decoder.{name}.onnx"]


@pytest.mark.parametrize("operator", ["MatMul", "Softmax", "Sigmoid", "Slice", "Conv", "LayerNormalization", "Split"])
def test_garbage_of_a_standard_operator_is_refused(
    operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last node's output negated."""
    shutil.copytree(GOLDEN_FOLDER, tmp_path / "golden")
    monkeypatch.setattr(selfcheck, "GOLDEN_FOLDER", tmp_path / "golden")
    graph = onnx.load(tmp_path / "golden" / "encoder.fp32.standard.onnx", load_external_data=False)
    index, node = [(i, node) for i, node in enumerate(graph.graph.node) if node.op_type == operator][-1]
    output = node.output[0]
    node.output[0] += "_right"
    graph.graph.node.insert(index + 1, onnx.helper.make_node("Neg", [node.output[0]], [output]))
    onnx.save(graph, tmp_path / "golden" / "encoder.fp32.standard.onnx")
    with pytest.raises(ModelError, match=r"% off their golden numbers .* compute wrong numbers"):
        check_kernels("fp32", False, open_graph, True)


@pytest.mark.parametrize("name", GOLDEN_PRECISIONS)
def test_garbage_of_any_kernel_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node's output negated, one after the other."""
    np.save(tmp_path / "logits.npy", np.load(GOLDEN_FOLDER / "logits.npy"))
    monkeypatch.setattr(selfcheck, "GOLDEN_FOLDER", tmp_path)
    whole = graphs(name)
    for file, graph in whole.items():
        onnx.save(graph, tmp_path / file)
    check_kernels({"int4": "q4"}.get(name, name), True, open_graph)
    n_broken = 0
    for file, graph in whole.items():
        for index, node in enumerate(graph.graph.node):
            if node.op_type not in COMPUTE:
                continue
            broken = onnx.ModelProto()
            broken.CopyFrom(graph)
            broken.graph.node[index].output[0] += "_right"
            negated = onnx.helper.make_node("Neg", [node.output[0] + "_right"], [node.output[0]])
            broken.graph.node.insert(index + 1, negated)
            onnx.save(broken, tmp_path / file)
            with pytest.raises(ModelError, match=r"% off their golden numbers .* compute wrong numbers"):
                check_kernels({"int4": "q4"}.get(name, name), True, open_graph)
            n_broken += 1
        onnx.save(graph, tmp_path / file)
    assert n_broken > 30


def test_golden_graphs_have_every_operator_of_the_real_ones() -> None:
    """By comparison with the embedded model, which the same exporter wrote."""
    for file, golden in graphs("int8").items():
        real = onnx.load(DEMO_FOLDER / file, load_external_data=False)
        assert {node.op_type for node in golden.graph.node} == {node.op_type for node in real.graph.node}


def test_a_copy_without_golden_numbers_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selfcheck, "GOLDEN_FOLDER", Path("no such folder"))
    with caplog.at_level(logging.INFO, "cohere_lite"):
        check_kernels("int8", True, open_graph)
    assert caplog.messages == ["kernels were not compared with golden numbers: cohere_lite/golden is not in this copy"]


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", None])
@pytest.mark.parametrize("name", ["logits.npy", "encoder.int8.onnx"])
def test_golden_files_that_are_damaged_or_missing(
    content: bytes | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, a Git LFS pointer, and not there."""
    shutil.copytree(GOLDEN_FOLDER, tmp_path / "golden")
    monkeypatch.setattr(selfcheck, "GOLDEN_FOLDER", tmp_path / "golden")
    (tmp_path / "golden" / name).unlink()
    if content is not None:
        (tmp_path / "golden" / name).write_bytes(content)
    with pytest.raises(
        ModelError, match=r"the small int8 model .* does not run: |golden, the self-check's own, is not c"
    ):
        check_kernels("int8", True, open_graph)


def test_shipped_files_are_what_the_tool_makes(tmp_path: Path) -> None:
    """By construction: the same graphs, and the same weights but for the relative keys, which another BLAS may round
    otherwise."""
    pytest.importorskip("safetensors")
    from tools.golden_model import main as make

    make([str(tmp_path)])
    shipped = {path.name: path.read_bytes() for path in GOLDEN_FOLDER.iterdir()}
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made.keys() == shipped.keys()
    for name, data in made.items():
        assert len(data) == len(shipped[name]), name
        different = np.count_nonzero(np.frombuffer(data, np.uint8) != np.frombuffer(shipped[name], np.uint8))
        assert different <= (0.1 * len(data) if name.endswith(".data") else 0) or name == "logits.npy", name
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), np.load(GOLDEN_FOLDER / "logits.npy"), atol=1e-4)


def test_golden_files_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN_FOLDER.iterdir()) < 700_000


@pytest.mark.reference
def test_golden_numbers_are_those_of_transformers(tmp_path: Path) -> None:
    """By reference: logits on the same checkpoint, of the same features."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    from tools.golden_model import write_golden_checkpoint

    write_golden_checkpoint(tmp_path)
    reference = transformers.CohereAsrForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    mel = log_mel(selfcheck.golden_samples())
    with torch.inference_mode():
        features = torch.from_numpy(mel.T[None].copy())
        mask = torch.ones(features.shape[:2], dtype=torch.long)
        tokens = torch.from_numpy(selfcheck.GOLDEN_TOKENS)
        logits = reference(input_features=features, attention_mask=mask, decoder_input_ids=tokens).logits[0].numpy()
    golden = np.load(GOLDEN_FOLDER / "logits.npy")
    np.testing.assert_allclose(logits[selfcheck.N_PROMPT - 1 :], golden, atol=1e-4 * np.abs(golden).max())


# At load


def test_what_fails_is_said_of_the_provider() -> None:
    def check(provider: str, on_cpu: bool, precision: str = "int8") -> None:
        check_model(demo(WrongMemory), precision, provider, on_cpu, open_graph)

    with pytest.raises(ProviderError, match=rf"^webgpu failed the self-check: .*{LOST}; --provider cpu, or .*$"):
        check("webgpu", False)
    with pytest.raises(ProviderError, match=rf"^openvino failed .*{LOST}; --precision fp32, --provider cpu, or .*$"):
        check("openvino", False, "q4f16")
    with pytest.raises(ModelError, match=f"^tokens .*{LOST}$"):
        check("cpu", True)


def test_a_provider_that_cannot_run_the_model() -> None:
    contract = demo()
    contract.decoder.path = Path("decoder.onnx")
    contract.encoder.feed("mel", np.zeros((1, 128, 8)))

    def fail() -> None:
        raise ModelError("onnxruntime failed to run decoder.onnx: not implemented")

    contract.decoder.run = fail  # type: ignore[method-assign]
    with pytest.raises(ProviderError, match="webgpu failed the self-check: onnxruntime failed to run decoder"):
        check_model(contract, "int8", "webgpu", False, open_graph)


def test_every_other_provider_is_checked_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the other provider is the CPU once more; the golden model is opened on it, too."""
    opened = []

    def opener(graph: GraphFile, *_: object) -> Session:
        opened.append(graph.path.name)
        return open_graph(graph)

    monkeypatch.setattr(model, "find_opener", lambda _: opener)
    load_model(DEMO_FOLDER, providers=["other"])
    assert opened == ["encoder.int8.onnx", "decoder.int8.onnx", "encoder.fp32.onnx", "decoder.fp32.onnx"]
    monkeypatch.setattr(selfcheck, "MAX_OFF", -1)
    with pytest.raises(ProviderError, match=r"other failed the self-check: logits of a small fp32 model are 0\.0% off"):
        load_model(DEMO_FOLDER, providers=["other"])


def test_the_cpu_is_checked_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(selfcheck, "check_model", lambda *how: checked.append(how[1:4]))
    Transcriber()
    assert checked == []
    Transcriber(self_check=True)
    assert checked == [("int8", "cpu", True)]
    with pytest.raises(OptionError, match="self_check is 'yes'; it must be True or False"):
        Transcriber(self_check="yes")  # type: ignore[arg-type]


def test_the_option(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["-q", "--self-check", str(SAMPLE)]) == 0
    assert capsys.readouterr().out == f"{SAMPLE_TEXT}\n"
    monkeypatch.setattr(selfcheck, "MAX_OFF_INT8", -1)
    assert main(["-q", "--self-check", str(SAMPLE)]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert main(["-q", str(SAMPLE)]) == 0
