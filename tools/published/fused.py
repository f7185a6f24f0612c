"""onnxruntime's own attention operators, as functions that a trace writes as one node: their shapes, no arithmetic."""

from typing import Any

import torch
from torch import Tensor


def group_query_attention(query, key, value, past_key, past_value, last, total, bias, n_heads: int, scale: float):
    """q, k, v (B, n, D), the past (B, H, P, d), last: index of each row's last token, total: tokens, both int32, bias
    (B, 1, n, total), added to the scores; causal by itself.  -> (B, n, D), keys and values (B, H, total, d)."""
    return _GroupQueryAttention.apply(query, key, value, past_key, past_value, last, total, bias, n_heads, scale)


def multi_head_attention(query, key, value, bias: Tensor | None, n_heads: int, scale: float) -> Tensor:
    """q (B, n, D), k and v (B, m, D) or (B, H, m, d), bias (B, H, n, m) added to the scores -> (B, n, D)."""
    return _MultiHeadAttention.apply(query, key, value, bias, n_heads, scale)


def _absent(graph: Any) -> Any:
    """An input that is left out."""
    nothing = graph.op("prim::Constant")
    nothing.setType(torch._C.NoneType.get())
    return nothing


class _GroupQueryAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, past_key, past_value, last, total, bias, n_heads, scale):
        shape = (*past_key.shape[:2], past_key.shape[2] + key.shape[1], past_key.shape[3])
        return query.clone(), query.new_zeros(shape), query.new_zeros(shape)

    @staticmethod
    def symbolic(g, query, key, value, past_key, past_value, last, total, bias, n_heads, scale):
        inputs = (query, key, value, past_key, past_value, last, total, *(_absent(g) for _ in range(3)), bias)
        heads = {"num_heads_i": n_heads, "kv_num_heads_i": n_heads, "do_rotary_i": 0, "scale_f": scale}
        found, *present = g.op("com.microsoft::GroupQueryAttention", *inputs, **heads, outputs=3)
        found.setType(query.type())
        for new, past in zip(present, (past_key, past_value), strict=True):
            new.setType(past.type())
        return found, *present


class _MultiHeadAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, bias, n_heads, scale):
        return query.clone()

    @staticmethod
    def symbolic(g, query, key, value, bias, n_heads, scale):
        rest = () if bias is None else (_absent(g), _absent(g), bias)
        settings = {"num_heads_i": n_heads, "scale_f": scale}
        found = g.op("com.microsoft::MultiHeadAttention", query, key, value, *rest, **settings)
        found.setType(query.type())
        return found
