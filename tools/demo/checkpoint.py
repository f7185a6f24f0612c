"""The checkpoint in the official format: model.safetensors (bfloat16, the hub's names), config, tokenizer.

Beside it letters.safetensors, the layer that training has on the encoder: a further round goes on with it.
"""

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CohereAsrForConditionalGeneration

LETTERS = "letters.safetensors"


def save(model: CohereAsrForConditionalGeneration, letters: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the model and the layer for letters, rounded to bfloat16, into `folder`."""
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in letters.items()}, folder / LETTERS)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    # transformers gives the weights their original names back, but leaves its own prefix on them
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path) -> CohereAsrForConditionalGeneration:
    """What `save` wrote, the rounded weights as float32."""
    return CohereAsrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def load_letters(folder: Path) -> dict[str, torch.Tensor]:
    """What `save` wrote of the layer for letters."""
    return load_file(folder / LETTERS)
