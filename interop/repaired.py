"""PEFT with its A of convolutions given the base layer's dilation and padding mode, which PEFT 0.21.2 forgets.

Everything else is PEFT's own code: where PEFT is right this changes nothing, elsewhere it is the function that the merged weights have.
"""

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def repair(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        base = getattr(layer, "base_layer", None)
        if not isinstance(base, CONVOLUTIONS) or not hasattr(layer, "lora_A"):
            continue
        for name, a in layer.lora_A.items():
            layer.lora_A[name] = like(base, a.weight)
    return model


def like(base: nn.Module, weight: torch.Tensor) -> nn.Module:
    """A convolution over all channels, with that weight, which reads its input as `base` does."""
    conv = type(base)(
        weight.shape[1],
        weight.shape[0],
        base.kernel_size,
        stride=base.stride,
        padding=base.padding,
        dilation=base.dilation,
        padding_mode=base.padding_mode,
        bias=False,
    ).to(weight.dtype)
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    return conv
