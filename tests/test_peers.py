"""The stand-ins that tools/published makes are what they stand for: the programs that others wrote run them, and hear
what transformers hears. A kind that none of them runs here is run by a plain loop over onnxruntime, written after the
program that does.

transformers.js: COHERE_LITE_NODE_MODULES is the folder into which npm put @huggingface/transformers.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from published import CHECKPOINT, MAX_NEW_TOKENS, Recording, needs_espeak, recordings, standin

from cohere_lite.tokens import read_tokens

# folder: none of this is about the package
pytestmark = [pytest.mark.slow, pytest.mark.reference, pytest.mark.folder, needs_espeak]

VOCABULARY = read_tokens(CHECKPOINT / "tokens.txt")
NODE_MODULES = os.environ.get("COHERE_LITE_NODE_MODULES", "")
TRANSCRIBE_JS = Path(__file__).parent / "peers" / "transcribe.mjs"

Arrays = dict[str, np.ndarray]
Step = Callable[[list[int], int], np.ndarray]  # new tokens and how many came before -> logits (1, k, vocabulary)

CARD = ("card", "card-per-channel", "card-uint8", "card-fp32", "card-fp16", "card-inline", "card-batch-1")
CARD += ("card-dynamo", "card-renamed-as-C", "sherpa")


class Session:
    """A graph, run by name; what it takes beyond what is given is not fed."""

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = [value.name for value in self.session.get_outputs()]

    def __call__(self, given: Arrays) -> Arrays:
        fed = {name: value for name, value in given.items() if name in self.inputs}
        return dict(zip(self.outputs, self.session.run(None, fed), strict=True))

    def empty(self, name: str, length: int = 0) -> np.ndarray:
        """A cache (1, heads, length, channels), zeros in the type that is asked for."""
        value = self.inputs[name]
        kind = np.float16 if value.type == "tensor(float16)" else np.float32
        return np.zeros((1, value.shape[1], length, value.shape[3]), kind)


def graph(folder: Path, part: str, but_not: str = "?") -> Session:
    (path,) = [path for path in folder.rglob(f"*{part}*.onnx") if but_not not in path.name]
    return Session(path)


def greedy(step: Step, prompt: list[int]) -> list[int]:
    new, found, past = prompt, [], 0
    while len(found) < MAX_NEW_TOKENS:
        token = int(step(new, past)[0, -1].argmax())
        if token == VOCABULARY.end_of_text:
            break
        found.append(token)
        past += len(new)
        new = [token]
    return found


def static(folder: Path) -> Callable[[Recording], Step]:
    """Contracts A and B, after the card's script and transcribe-rs."""
    encoder, decoder = graph(folder, "encoder"), graph(folder, "decoder")

    def start(recording: Recording) -> Step:
        state = encoder({"mel": recording.mel[None], "audio": recording.samples[None]})
        shape = [size if isinstance(size, int) else 1 for size in decoder.inputs["in_n_layer_self_k_cache"].shape]
        state |= {f"in_n_layer_self_{x}_cache": np.zeros(shape, np.float32) for x in "kv"}

        def step(tokens: list[int], past: int) -> np.ndarray:
            made = decoder(state | {"tokens": np.array([tokens]), "offset": np.array(past)})
            state.update({f"in_n_layer_self_{x}_cache": made[f"out_n_layer_self_{x}_cache"] for x in "kv"})
            return made["logits"]

        return step

    return start


def merged(folder: Path) -> Callable[[Recording], Step]:
    """Contract C, after voxtype and parakeet-rs; with the cross-attention's keys and values from the encoder, Masterx's
    _dyn."""
    encoder, decoder = graph(folder, "encoder"), graph(folder, "decoder", "int8.onnx")

    def start(recording: Recording) -> Step:
        state = encoder({"input_features": recording.mel.T[None]})
        state["encoder_hidden_states"] = state["last_hidden_state"]
        state |= {name: decoder.empty(name) for name in decoder.inputs if name.startswith("past_key_values.")}

        def step(tokens: list[int], past: int) -> np.ndarray:
            total = past + len(tokens)
            new = {"input_ids": np.array([tokens]), "position_ids": np.arange(past, total)[None]}
            new |= {"attention_mask": np.ones((1, total), np.int64), "num_logits_to_keep": np.array(1)}
            made = decoder(state | new)
            for name, value in made.items():
                if ".decoder." in name or (".encoder." in name and not past):
                    state[name.replace("present.", "past_key_values.")] = value
            return made["logits"]

        return step

    return start


def masterx_static(folder: Path) -> Callable[[Recording], Step]:
    """Masterx's other decoder, after WinSTT: one token a call, into caches of all positions."""
    encoder, decoder = graph(folder, "encoder"), graph(folder, "decoder", "dyn")
    positions = decoder.inputs["attn_bias"].shape[3]

    def start(recording: Recording) -> Step:
        state = encoder({"input_features": recording.mel.T[None]})
        state["encoder_hidden_states"] = state["last_hidden_state"][:, :1]
        state["attention_mask"] = np.ones((1, positions), np.int64)
        state["num_logits_to_keep"] = np.array(1)
        for name in decoder.inputs:
            if name.startswith("past_key_values."):
                state[name] = decoder.empty(name, positions if ".decoder." in name else 0)

        def step(tokens: list[int], past: int) -> np.ndarray:
            for at, token in enumerate(tokens, past):
                here = (np.arange(positions) == at).astype(np.float32)
                masks = {"kv_write_mat": here[None, None, :, None], "kv_keep_mask": 1 - here[None, None, :, None]}
                masks["attn_bias"] = np.where(np.arange(positions) <= at, 0, -3e38)[None, None, None].astype(np.float32)
                made = decoder(state | masks | {"input_ids": np.array([[token]]), "position_ids": np.array([[at]])})
                state.update({f"past_key_values{name.removeprefix('present')}": made[name] for name in made})
            return made["logits"]

        return step

    return start


@pytest.mark.parametrize(
    ("kind", "loop"),
    [
        *((kind, static) for kind in (*CARD, "audio-int8", "audio-int4")),
        *((kind, merged) for kind in ("merged-flat", "merged-arabic", "masterx")),
        ("masterx", masterx_static),
    ],
)
def test_plain_loop(kind: str, loop: Callable[[Path], Callable[[Recording], Step]]) -> None:
    start = loop(standin(kind))
    for recording in recordings():
        assert greedy(start(recording), VOCABULARY.prompt(recording.language)) == recording.ids, recording.text


def test_tokenizer_json_is_what_tokenizers_reads() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(standin("merged-q4") / "tokenizer.json"))
    for recording in recordings():
        assert tokenizer.decode(recording.ids) == recording.text
    assert tokenizer.token_to_id("<|endoftext|>") == VOCABULARY.end_of_text


def test_the_two_families_of_contract_c_differ() -> None:
    """By hand, from SPEC's sources (voxtype, WinSTT): branches and fused attention or none; cross keys and values of
    length 0 at later steps or echoed; all logits or none when none are asked for."""
    onnx = pytest.importorskip("onnx")
    for kind, n_ifs, later, no_logits in (("merged-fp32", 2, 0, 2), ("merged-arabic-fp16", 0, 7, 0)):
        path = next(standin(kind).rglob("decoder*.onnx"))
        nodes = onnx.load(path, load_external_data=False).graph.node
        fused = [node for node in nodes if node.op_type in ("GroupQueryAttention", "MultiHeadAttention")]
        assert [node.op_type for node in nodes].count("If") == n_ifs
        assert [len(node.input) for node in fused] == [11, 3] * n_ifs  # 11: the bias for padding is the last
        decoder = Session(path)
        state = {name: decoder.empty(name) for name in decoder.inputs if name.startswith("past_key_values.")}
        state["encoder_hidden_states"] = np.ones((1, 7, decoder.inputs["encoder_hidden_states"].shape[2]), np.float32)
        state |= {"input_ids": np.array([[4, 5]]), "position_ids": np.array([[0, 1]])}
        state |= {"attention_mask": np.ones((1, 2), np.int64), "num_logits_to_keep": np.array(0)}
        made = decoder(state)
        assert made["logits"].shape[1] == no_logits
        assert made["present.0.encoder.key"].shape[2] == 7
        state |= {f"past_key_values{name.removeprefix('present')}": made[name] for name in made if name != "logits"}
        state |= {"position_ids": np.array([[2, 3]]), "attention_mask": np.ones((1, 4), np.int64)}
        assert decoder(state)["present.0.encoder.key"].shape[2] == later


@pytest.mark.parametrize("kind", CARD)
def test_sherpa_onnx(kind: str) -> None:
    """Against transformers in sherpa-onnx's way: no "▁" before the prompt, no dither, at most 6 tokens a second. The
    tiny model has never seen such a prompt and stumbles on it, so that the last differences between features change
    words. By record 6 texts of 9 are the same; of a wrong graph none would be, and on a failure all are empty."""
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    (encoder,), (decoder,) = ([*standin(kind).glob(f"*{part}*.onnx")] for part in ("encoder", "decoder"))
    same = 0
    for recording in recordings(prompt_from=1, dither=0.0):
        recognizer = sherpa_onnx.OfflineRecognizer.from_cohere_transcribe(
            encoder=str(encoder),
            decoder=str(decoder),
            tokens=str(standin(kind) / "tokens.txt"),
            language=recording.language,
            use_itn=False,
        )
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, recording.samples)
        recognizer.decode_stream(stream)
        pieces = [VOCABULARY.pieces[i] for i in recording.ids[: 6 * len(recording.samples) // 16000]]
        same += stream.result.text.strip() == "".join(pieces).replace("▁", " ").strip()
    assert same >= 5


@pytest.mark.parametrize(("kind", "quantization"), [("mems-fp32", None), ("mems-int8", "int8")])
def test_onnx_asr(kind: str, quantization: str | None) -> None:
    onnx_asr = pytest.importorskip("onnx_asr")
    model = onnx_asr.load_model("nemo-conformer-aed", standin(kind), quantization=quantization)
    for recording in recordings():
        assert model.recognize(recording.samples, language=recording.language).strip() == recording.text
    # a batch ends when all rows have; what a row says after its end is appended
    english = [recording for recording in recordings() if recording.language == "en"]
    for text, recording in zip(
        model.recognize([recording.samples for recording in english], language="en"), english, strict=True
    ):
        assert text.strip().startswith(recording.text)


@pytest.mark.skipif(
    not NODE_MODULES, reason="needs @huggingface/transformers; COHERE_LITE_NODE_MODULES says where it is"
)
@pytest.mark.skipif(shutil.which("node") is None, reason="needs the program node")
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((f"merged-{dtype}", dtype) for dtype in ("fp32", "fp16", "q4", "q4f16")),
        ("merged-int8", "q8"),
        *(("merged-all", dtype) for dtype in ("fp32", "q8", "q4f16")),
        ("merged-arabic", "q4"),
        ("merged-arabic-fp16", "fp16"),
    ],
)
def test_transformers_js(kind: str, dtype: str, tmp_path: Path) -> None:
    files = []
    for i, recording in enumerate(recordings()):
        recording.samples.astype("<f4").tofile(tmp_path / str(i))
        files.append(f"{recording.language}={tmp_path / str(i)}")
    command = ["node", str(TRANSCRIBE_JS), NODE_MODULES, str(standin(kind)), dtype, *files]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    assert found == [{"ids": recording.ids, "text": recording.text} for recording in recordings()]
