"""Layer norm, alone and fused with the residual sum before it: shared by the encoder and the decoder."""

from .checkpoint import Checkpoint
from .graph import CONTRIB, Graph

EPSILON = 1e-5  # torch.nn.LayerNorm's default, which the reference keeps


def layer_norm(graph: Graph, checkpoint: Checkpoint, name: str, x: str) -> str:
    """Normalise x over its last axis with the weights called `name`."""
    return graph.node("LayerNormalization", x, *_weights(graph, checkpoint, name), axis=-1, epsilon=EPSILON)


def add_and_norm(graph: Graph, checkpoint: Checkpoint, name: str, residual: str, branch: str) -> tuple[str, str]:
    """residual + branch, and its layer norm, in one pass over memory."""
    normed, _, _, total = graph.nodes(
        "SkipLayerNormalization",
        residual,
        branch,
        *_weights(graph, checkpoint, name),
        domain=CONTRIB,
        epsilon=EPSILON,
        out=[f"{name}.out", "", "", f"{name}.sum"],
    )
    return total, normed


def _weights(graph: Graph, checkpoint: Checkpoint, name: str) -> list[str]:
    return [graph.weight(f"{name}.{part}", checkpoint.tensor(f"{name}.{part}")) for part in ("weight", "bias")]
