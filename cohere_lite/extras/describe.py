"""What a graph is that belongs to no model here: one sentence for a message."""

from ..contracts import CONTRACTS
from ..graphfile import GraphFile
from ..model import is_decoder

# Exports that cannot be run, by an input or output that only they have.
_SPLIT = "of eschmidbauer's export, which splits the encoder into parts"
_INIT_STEP = "of vernacula's export, with graphs for the first and the later steps"
_TRANSDUCER = "of a transducer (Parakeet), which is another kind of model"
FOREIGN = {
    **dict.fromkeys(("hidden_states_out", "encoder_lengths", "cross_k_0", "self_k_in_0"), _SPLIT),
    **dict.fromkeys(("waveforms", "input_lengths", "self_key_0", "new_self_key_0"), _INIT_STEP),
    **dict.fromkeys(("encoded_lengths", "encoder_outputs", "targets"), _TRANSDUCER),
}


def describe(graph: GraphFile) -> str:
    """ "a.onnx is an encoder of the 'fast' contract", or what else it is."""
    for contract in CONTRACTS:
        for role, is_one in (
            ("an encoder", graph.has(*contract.encoder_graph)),
            ("a decoder", is_decoder(graph, contract)),
        ):
            if is_one:
                return f"{graph.path.name} is {role} of the {contract.name!r} contract"
    for name in (*graph.inputs, *graph.outputs):
        if name in FOREIGN:
            return f"{graph.path.name} is {FOREIGN[name]}, and not supported"
    return f"{graph.path.name} takes {', '.join(graph.inputs[:4])} and gives {', '.join(graph.outputs[:4])}: unknown"
