"""Grouped convolutions: PEFT gives each rank channel all inputs (A is `(r, in, k)`) and refuses to merge.

If row p of A is zero outside the inputs of its own group, the update stays within the groups, and the merged weight exists all the same.
"""

import torch
from torch import nn


def keep_own_group(a: torch.Tensor, groups: int):
    """Zeroes, in place, the entries of A `(r, in, ...)` that reach from a rank channel into another group's inputs."""
    rank, channels = a.shape[0] // groups, a.shape[1] // groups
    mask = torch.zeros_like(a)
    for j in range(groups):
        mask[j * rank : (j + 1) * rank, j * channels : (j + 1) * channels] = 1
    a.mul_(mask)


def delta(a: torch.Tensor, b: torch.Tensor, scaling: float, groups: int) -> torch.Tensor:
    """The update in the shape of the grouped weight, `(out, in / groups, ...)`, from a block-sparse A."""
    channels = a.shape[1] // groups
    parts = []
    for j, (rows, outputs) in enumerate(zip(a.chunk(groups), b.chunk(groups))):
        own = rows[:, j * channels : (j + 1) * channels]
        parts.append(torch.einsum("op,p...->o...", outputs.flatten(1), own))
    return torch.cat(parts) * scaling


def dora_gain(layer: nn.Module, adapter: str) -> torch.Tensor:
    """What DoRA multiplies the rows of a convolution's weight with, by the norm that PEFT's forward takes."""
    dora, weight = layer.lora_magnitude_vector[adapter], layer.get_base_layer().weight
    update = dora.get_lora_weight(layer.lora_A[adapter], layer.lora_B[adapter]).reshape(weight.shape)
    norm = dora.get_weight_norm(weight, update, layer.scaling[adapter])
    return (dora.weight / norm).reshape(-1, *[1] * (weight.dim() - 1))


@torch.no_grad()
def merge_by_formula(model: nn.Module, adapter: str) -> dict[str, torch.Tensor]:
    """State dict of the base model with the update of every grouped convolution added. Other adapted layers are not handled."""
    merged = {}
    for name, layer in model.get_base_model().named_modules():
        if hasattr(layer, "lora_A") and adapter in layer.lora_A:
            base = layer.get_base_layer()
            a, b, scaling = layer.lora_A[adapter], layer.lora_B[adapter], layer.scaling[adapter]
            change = delta(a.weight, b.weight, scaling, base.groups)
            weight = base.weight + change
            if adapter in layer.lora_magnitude_vector:
                weight *= dora_gain(layer, adapter)
            merged[f"{name}.weight"] = weight.to(base.weight.dtype)
            if base.bias is not None:
                change = 0 if b.bias is None else b.bias * scaling
                merged[f"{name}.bias"] = (base.bias + change).to(base.bias.dtype)
    return merged
