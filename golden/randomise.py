"""Give a freshly made PEFT model the look of a trained one: no factor, magnitude or trainable bias is left at its starting value."""

import torch
from peft import PeftModel

from grouped import keep_own_group


def randomise(model: PeftModel, own_group_only: bool):
    """`own_group_only` makes A of every grouped convolution block-sparse, so that a merged weight exists."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if ".lora_B." in name and not tensor.any():
                tensor.normal_()
            if "lora_magnitude_vector" in name:
                tensor.mul_(0.8 + 0.4 * torch.rand_like(tensor))
            elif tensor.requires_grad and "lora_" not in name:
                tensor.add_(0.5 * torch.randn_like(tensor))
            if own_group_only and ".lora_A." in name:
                layer = model.get_submodule(name.split(".lora_A.")[0])
                keep_own_group(tensor, getattr(layer.get_base_layer(), "groups", 1))
