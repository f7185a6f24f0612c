"""What graphs are that are no model here: one sentence for a message."""

from collections.abc import Sequence

from ..contracts import CONTRACTS
from ..graphfile import GraphFile
from ..model import is_decoder

_SPLIT = "of eschmidbauer's export, which splits the encoder into parts, and not supported"
_INIT_STEP = "of vernacula's export, with graphs for the first and the later steps, and not supported"
_TRANSDUCER = "of a transducer (Parakeet), which is another kind of model"
# Exports that cannot be run, by an input or output that only they have, and by the beginning of a file's
# name that only they have.
FOREIGN = {
    **dict.fromkeys(("hidden_states_out", "encoder_lengths", "cross_k_0", "self_k_in_0"), _SPLIT),
    **dict.fromkeys(("waveforms", "input_lengths", "self_key_0", "new_self_key_0"), _INIT_STEP),
    **dict.fromkeys(("encoded_lengths", "encoder_outputs", "targets"), _TRANSDUCER),
}
FOREIGN_FILES = {"cross_kv": _SPLIT, "encoder-3": _SPLIT, "decoder_init": _INIT_STEP, "decoder_joint": _TRANSDUCER}


def describe(graphs: Sequence[GraphFile]) -> str:
    """ "a.onnx is an encoder of the 'fast' contract; b.onnx, c.onnx: of ..."."""
    names: dict[str, list[str]] = {}
    for graph in graphs:
        names.setdefault(_describe(graph), []).append(graph.path.name)
    return "; ".join(f"{', '.join(files)} {'are' if files[1:] else 'is'} {what}" for what, files in names.items())


def _describe(graph: GraphFile) -> str:
    for contract in CONTRACTS:
        for role, is_one in (
            ("an encoder", graph.has(*contract.encoder_graph)),
            ("a decoder", is_decoder(graph, contract)),
        ):
            if is_one:
                return f"{role} of the {contract.name!r} contract, in {graph.path.parent.name}/"
    for name in (*graph.inputs, *graph.outputs):
        if name in FOREIGN:
            return FOREIGN[name]
    return f"unknown: it takes {', '.join(graph.inputs[:4])} and gives {', '.join(graph.outputs[:4])}"
