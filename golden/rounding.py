"""Where PEFT rounds an update to 16 bits before it adds it, so that a merged weight is rounded twice."""

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

HALF = (torch.float16, torch.bfloat16)


def rounds_delta(layer: LoraLayer, adapter: str) -> bool:
    """With a 16-bit adapter always, and in 16-bit embeddings whatever the adapter's precision is."""
    base = layer.get_base_layer()
    if base.weight.dtype not in HALF:
        return False
    return isinstance(base, nn.Embedding) or layer.lora_A[adapter].weight.dtype in HALF
