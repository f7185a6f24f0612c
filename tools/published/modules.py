"""transformers' own layers behind the inputs and outputs that each contract has. Shapes: B clips, T mel frames, T_enc
encoder frames, n new tokens, P tokens before them, H heads of d channels, D = H * d, L decoder layers, M positions.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad
from transformers import CohereAsrFeatureExtractor, CohereAsrForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .fused import group_query_attention, multi_head_attention

KeysValues = tuple[Tensor, Tensor]  # of one layer, (B, H, n, d) each
HIDDEN = -60000.0  # added to the scores of what must not be seen; float16 can hold it


def by_head(x: Tensor, head_dim: int) -> Tensor:
    """(B, n, D) -> (B, H, n, d)"""
    return x.unflatten(2, (-1, head_dim)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, H, n, d), twice (B, H, m, d) -> (B, n, D).  mask: True where a key is seen, or added to its score."""
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


class Encoder(nn.Module):
    """features (B, T, n_mels) -> states (B, T_enc, D) (C)."""

    def __init__(self, model: CohereAsrForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = model.model.encoder
        self.proj = model.model.decoder.proj
        self.layers = nn.ModuleList(layer.encoder_attn for layer in model.model.decoder.layers)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(self.encoder(features, attention_mask=mask).last_hidden_state)


class FusedEncoder(Encoder):
    """With com.microsoft's MultiHeadAttention, the relative positions as its bias (C, 03-2026)."""

    def __init__(self, model: CohereAsrForConditionalGeneration) -> None:
        super().__init__(model)
        ALL_ATTENTION_FUNCTIONS.register("fused", self.attention)
        self.encoder.config._attn_implementation = "fused"

    @staticmethod
    def attention(module, query, key, value, attention_mask, scaling, **_) -> tuple[Tensor, None]:
        query, key, value = (x.transpose(1, 2).flatten(2) for x in (query, key, value))
        return multi_head_attention(query, key, value, attention_mask, module.config.num_attention_heads, scaling), None


class HoistedEncoder(FusedEncoder):
    """-> states, keys and values of the cross-attention padded to M frames, and their bias (C, Masterx)."""

    def __init__(self, model: CohereAsrForConditionalGeneration) -> None:
        super().__init__(model)
        self.max_frames = model.config.max_position_embeddings

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        states = super().forward(features)
        n_frames = states.shape[1]
        cross = [
            pad(by_head(projection(states), layer.head_dim), (0, 0, 0, self.max_frames - n_frames))
            for layer in self.layers
            for projection in (layer.k_proj, layer.v_proj)
        ]
        bias = torch.where(torch.arange(self.max_frames) < n_frames, 0.0, HIDDEN)
        return states, *cross, bias[None, None, None]


class MelEncoder(Encoder):
    """mel (B, n_mels, T) -> keys and values of the cross-attention, (L, B, T_enc, D) each (A)."""

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        states = super().forward(mel.transpose(1, 2))
        keys = torch.stack([layer.k_proj(states) for layer in self.layers])
        return keys, torch.stack([layer.v_proj(states) for layer in self.layers])


class AudioEncoder(MelEncoder):
    """audio (B, samples) -> as MelEncoder (B): the extractor's features without dither, its last, empty frame too."""

    def __init__(self, model: CohereAsrForConditionalGeneration) -> None:
        super().__init__(model)
        extractor = CohereAsrFeatureExtractor(feature_size=model.config.encoder_config.num_mel_bins)
        self.hop, self.preemphasis, n_fft = extractor.hop_length, extractor.preemphasis, extractor.n_fft
        margin = (n_fft - extractor.win_length) // 2
        window = pad(torch.hann_window(extractor.win_length, periodic=False), (margin, margin))
        angles = torch.outer(torch.arange(n_fft // 2 + 1), torch.arange(n_fft)) % n_fft * (2 * math.pi / n_fft)
        self.register_buffer("waves", (torch.cat([angles.cos(), angles.sin()]) * window)[:, None])
        self.register_buffer("mel_filters", extractor.mel_filters)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        n_frames = audio.shape[1] // self.hop
        audio = torch.cat([audio[:, :1], audio[:, 1:] - self.preemphasis * audio[:, :-1]], 1)
        middle = self.waves.shape[2] // 2
        real, imaginary = conv1d(pad(audio, (middle, middle))[:, None], self.waves, stride=self.hop).chunk(2, 1)
        mel = (self.mel_filters @ (real**2 + imaginary**2) + 2**-24).log()
        valid = mel[:, :, :n_frames]
        mel = (mel - valid.mean(2, keepdim=True)) / (valid.std(2, keepdim=True) + 1e-5)
        return super().forward(mel * (torch.arange(mel.shape[2]) < n_frames))


class MaskedEncoder(Encoder):
    """mel (B, n_mels, T), length (B,) -> states (B, T_enc, D), which of them are real (B, T_enc) (D)."""

    def forward(self, mel: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        mask = torch.arange(mel.shape[2]) < length[:, None]
        states = super().forward(mel.transpose(1, 2), mask)
        return states, self.encoder._get_output_attention_mask(mask, states.shape[1]).long()


class Decoder(nn.Module):
    """What the decoders have in common: everything but where keys and values come from."""

    def __init__(self, model: CohereAsrForConditionalGeneration) -> None:
        super().__init__()
        self.decoder = model.model.decoder
        self.proj_out = model.proj_out
        self.head_dim = model.config.head_dim
        self.n_heads = model.config.num_attention_heads

    def layers(
        self,
        tokens: Tensor,
        positions: Tensor,
        self_attention: Callable[[int, Tensor], Tensor],
        cross_attention: Callable[[int, Tensor], Tensor],
    ) -> Tensor:
        """(B, n), (n,) or (B, n) -> (B, n, D), normalised.  self_attention: from a layer's number and what comes in;
        cross_attention: from its number and the normed states."""
        decoder = self.decoder
        x = decoder.embedding_layernorm(decoder.embed_tokens(tokens) + decoder.pos_emb(positions))
        for i, layer in enumerate(decoder.layers):
            x = x + layer.self_attn.o_proj(self_attention(i, x))
            x = x + layer.encoder_attn.o_proj(cross_attention(i, layer.post_attention_layernorm(x)))
            x = x + layer.mlp(layer.final_layernorm(x))
        return decoder.norm(x)

    def project(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> query, key and value of the self-attention, (B, n, D)."""
        normed, attention = self.decoder.layers[i].input_layernorm(x), self.decoder.layers[i].self_attn
        return attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)

    def split(self, key: Tensor, value: Tensor) -> KeysValues:
        return by_head(key, self.head_dim), by_head(value, self.head_dim)

    def plain(
        self,
        tokens: Tensor,
        positions: Tensor,
        remember: Callable[[int, Tensor, Tensor], KeysValues],
        visible: Tensor,
        cross: Callable[[int], KeysValues],
        cross_mask: Tensor | None = None,
    ) -> Tensor:
        """`layers` with attention written out.  remember: from a layer's number, its new keys and its new values to all
        that there are; cross: from its number to those of the encoder."""

        def self_attention(i: int, x: Tensor) -> Tensor:
            query, *new = self.project(i, x)
            return attend(by_head(query, self.head_dim), *remember(i, *self.split(*new)), visible)

        def cross_attention(i: int, normed: Tensor) -> Tensor:
            query = self.decoder.layers[i].encoder_attn.q_proj(normed)
            return attend(by_head(query, self.head_dim), *cross(i), cross_mask)

        return self.layers(tokens, positions, self_attention, cross_attention)

    def cached(
        self, tokens, positions, past: Sequence[Tensor], update: Callable[[Tensor, Tensor], Tensor], *rest
    ) -> tuple[Tensor, list[Tensor]]:
        """`plain` after caches, keys and values of each layer in turn -> also the caches with what `update` makes of an
        old one and what is new.  rest: as in `plain`."""
        present: list[Tensor] = []

        def remember(i: int, *new: Tensor) -> KeysValues:
            present.extend(update(*each) for each in zip(pair(past, i), new, strict=True))
            return pair(present, i)

        return self.plain(tokens, positions, remember, *rest), present


class SliceDecoder(Decoder):
    """One step over caches of all positions, (L, B, H, M, d), returned whole; attends to what is filled (A)."""

    def forward(self, tokens, self_k, self_v, cross_k, cross_v, offset) -> tuple[Tensor, Tensor, Tensor]:
        end = offset + tokens.shape[1]
        positions = torch.arange(tokens.shape[1]) + offset

        def remember(i: int, key: Tensor, value: Tensor) -> KeysValues:
            self_k[i, :, :, offset:end] = key
            self_v[i, :, :, offset:end] = value
            return self_k[i, :, :, :end], self_v[i, :, :, :end]

        visible = torch.arange(self_k.shape[3])[None, :end] <= positions[:, None]
        states = self.plain(tokens, positions, remember, visible, lambda i: self.split(cross_k[i], cross_v[i]))
        return self.proj_out(states), self_k, self_v


class MaskDecoder(Decoder):
    """The same, attending to every position under a mask."""

    def forward(self, tokens, self_k, self_v, cross_k, cross_v, offset) -> tuple[Tensor, Tensor, Tensor]:
        positions = torch.arange(tokens.shape[1]) + offset
        past = [cache[i] for i in range(len(self.decoder.layers)) for cache in (self_k, self_v)]
        visible = torch.arange(self_k.shape[3])[None] <= positions[:, None]
        rest = (visible, lambda i: self.split(cross_k[i], cross_v[i]))
        states, made = self.cached(tokens, positions, past, lambda old, new: old.index_copy(2, positions, new), *rest)
        return self.proj_out(states), torch.stack(made[::2]), torch.stack(made[1::2])


class MergedDecoder(Decoder):
    """One step after caches that grow, (B, H, P, d), two a layer (C, 03-2026). The keys and values of the
    cross-attention are inputs here: first_step.py puts in front what makes them."""

    def forward(self, tokens, attention_mask, positions, keep, *caches: Tensor) -> tuple[Tensor, ...]:
        past, cross = caches[: len(caches) // 2], caches[len(caches) // 2 :]
        n_total = torch._shape_as_tensor(attention_mask)[1]  # the tracer would take an int for constant
        padding = ((1.0 - attention_mask) * HIDDEN)[:, None, None].expand(-1, 1, tokens.shape[1], -1)
        seen = ((attention_mask.sum(1) - 1).int(), n_total.int(), padding)
        present: list[Tensor] = []
        settings = (self.n_heads, self.head_dim**-0.5)

        def self_attention(i: int, x: Tensor) -> Tensor:
            found, *kept = group_query_attention(*self.project(i, x), *pair(past, i), *seen, *settings)
            present.extend(kept)
            return found

        def cross_attention(i: int, normed: Tensor) -> Tensor:
            query = self.decoder.layers[i].encoder_attn.q_proj(normed)
            return multi_head_attention(query, *pair(cross, i), None, *settings)

        states = self.layers(tokens, positions, self_attention, cross_attention)
        return self.proj_out(states[:, -keep:]).log_softmax(-1), *present  # 0: all of them


class GrowingDecoder(Decoder):
    """The same with plain attention, cross keys and values under a bias (C, Masterx's _dyn). It does not read the
    encoder's states and the past of the cross-attention."""

    def forward(self, tokens, attention_mask, positions, keep, states, *caches: Tensor) -> tuple[Tensor, ...]:
        *pairs, bias = caches
        past, _, cross = thirds(pairs)
        return self.step(tokens, attention_mask, positions, keep, past, lambda i: pair(cross, i), bias)

    def step(self, tokens, attention_mask, positions, keep, past, *cross) -> tuple[Tensor, ...]:
        visible = torch.arange(attention_mask.shape[1]) <= positions[:, None, :, None]
        visible = visible & (attention_mask[:, None, None] == 1)
        states, present = self.cached(
            tokens, positions, past, lambda old, new: torch.cat([old, new], 2), visible, *cross
        )
        return self.proj_out(states[:, states.shape[1] - keep :]), *present  # 0: none of them


class EchoDecoder(GrowingDecoder):
    """The same, cross keys and values made anew at each step, and given out after the caches (C, Arabic)."""

    def forward(self, tokens, attention_mask, positions, keep, states, *caches: Tensor) -> tuple[Tensor, ...]:
        attentions = [layer.encoder_attn for layer in self.decoder.layers]
        cross = [self.split(attention.k_proj(states), attention.v_proj(states)) for attention in attentions]
        made = self.step(tokens, attention_mask, positions, keep, caches[: len(caches) // 2], lambda i: cross[i])
        return *made, *(x for pair in cross for x in pair)


class StaticDecoder(Decoder):
    """As GrowingDecoder, one token a call, into caches of all positions through masks that the caller makes (C,
    Masterx)."""

    def forward(self, tokens, attention_mask, positions, keep, states, *caches: Tensor) -> tuple[Tensor, ...]:
        *pairs, cross_bias, keep_mask, write_mask, bias = caches
        past, _, cross = thirds(pairs)
        rest = (bias, lambda i: pair(cross, i), cross_bias)
        states, present = self.cached(
            tokens, positions, past, lambda old, new: old * keep_mask + write_mask @ new, *rest
        )
        return self.proj_out(states), *present


def pair(values: Sequence[Tensor], i: int) -> KeysValues:
    return values[2 * i], values[2 * i + 1]


def thirds(values: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    third = len(values) // 3
    return [values[:third], values[third : 2 * third], values[2 * third :]]


class MemsDecoder(Decoder):
    """One step after `mems` (L + 1, B, P, D), what went into each layer so far and what came out of the last (D)."""

    def forward(self, tokens: Tensor, states: Tensor, mask: Tensor, mems: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(tokens.shape[1]) + mems.shape[2]
        visible = torch.arange(tokens.shape[1] + mems.shape[2]) <= positions[:, None]
        kept: list[Tensor] = []

        def self_attention(i: int, x: Tensor) -> Tensor:
            kept.append(torch.cat([mems[i], x], 1))
            query, (_, key, value) = self.project(i, x)[0], self.project(i, kept[i])
            return attend(by_head(query, self.head_dim), *self.split(key, value), visible)

        def cross_attention(i: int, normed: Tensor) -> Tensor:
            attention = self.decoder.layers[i].encoder_attn
            keys_values = self.split(attention.k_proj(states), attention.v_proj(states))
            query = by_head(attention.q_proj(normed), self.head_dim)
            return attend(query, *keys_values, mask[:, None, None] == 1)

        last = self.layers(tokens, positions, self_attention, cross_attention)
        mems = torch.stack([*kept, torch.cat([mems[len(kept)], last], 1)])
        return self.proj_out(last).log_softmax(-1), mems
