"""The tiny model: transformers' own CohereAsr with small dimensions and its initialisation."""

import torch
from torch import nn
from transformers import CohereAsrConfig, CohereAsrForConditionalGeneration

from .tokenizer import END_OF_TEXT, PAD, START_OF_TRANSCRIPT

# 6.0 million parameters: 7.3 MB as INT8 with its scales, small enough to travel in the wheel.
ENCODER = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 640,
    "subsampling_conv_channels": 32,  # half of the training time would go into more
    "max_position_embeddings": 512,  # encoder frames of 80 ms; 35 s of audio, the longest piece, are 438
}
DECODER = {
    "hidden_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 640,
    "max_position_embeddings": 384,  # tokens; 34 s in the training set come to 149 at most, with the prompt
}
EMBEDDING_STD = 0.07


def new_model(vocab_size: int, first_token: int) -> CohereAsrForConditionalGeneration:
    """A fresh model.  first_token: the id that every prompt begins with ("▁").

    transformers draws every weight with standard deviation 0.02, right for a width of 1280; at 160 it starves the
    convolutions and nothing is learned, so Linear and Conv layers are drawn anew with PyTorch's defaults.  In the
    subsampling, six layers in a row without a norm, these would let the signal fade: there He's rule keeps its size.
    """
    config = CohereAsrConfig(
        encoder_config={"model_type": "parakeet_encoder", **ENCODER},
        vocab_size=vocab_size,
        pad_token_id=PAD,
        eos_token_id=END_OF_TEXT,
        bos_token_id=START_OF_TRANSCRIPT,
        decoder_start_token_id=first_token,  # `generate` puts it in front of prompts that begin with another
        tie_word_embeddings=True,
        **DECODER,
    )
    model = CohereAsrForConditionalGeneration(config)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) and module is not model.proj_out:
            module.reset_parameters()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
    for module in model.model.encoder.subsampling.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            before_relu = isinstance(module, nn.Conv2d) and module.groups == 1
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if before_relu else "linear")
            nn.init.zeros_(module.bias)
    nn.init.zeros_(model.proj_out.bias)
    positions = model.model.decoder.pos_emb.weight
    with torch.no_grad():
        positions.copy_(_sinusoids(*positions.shape) * 2**0.5 * EMBEDDING_STD)
    return model


def _sinusoids(count: int, width: int) -> torch.Tensor:
    """What tells positions apart in the real model (Vaswani et al., 2017): (count, width), neighbours alike.

    Training changes them, but late ones little: recordings with so many tokens are rare in the training set.
    """
    angles = torch.arange(count)[:, None] * 10_000 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
