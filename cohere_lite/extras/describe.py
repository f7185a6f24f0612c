"""What a graph is that belongs to no model here: one sentence for a message."""

from ..contracts import CONTRACTS
from ..graphfile import GraphFile

# Published exports that cannot be run yet, by an input or output that only they have.
FOREIGN = {
    "input_features": "an Optimum export (input_features in)",
    "past_key_values.0.decoder.key": "an Optimum export (past_key_values)",
    "decoder_mems": "an onnx-asr export (decoder_mems)",
    "audio_signal": "an onnx-asr export (audio_signal in)",
}


def describe(graph: GraphFile) -> str:
    """ "a.onnx is an encoder of the 'fast' contract", or what else it is."""
    for contract in CONTRACTS:
        for role, names in (("an encoder", contract.encoder_graph), ("a decoder", contract.decoder_graph)):
            if graph.has(*names):
                return f"{graph.path.name} is {role} of the {contract.name!r} contract"
    for name in (*graph.inputs, *graph.outputs):
        if name in FOREIGN:
            return f"{graph.path.name} is {FOREIGN[name]}, which is not supported"
    return f"{graph.path.name} takes {', '.join(graph.inputs[:4])} and gives {', '.join(graph.outputs[:4])}: unknown"
