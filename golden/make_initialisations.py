"""Makes initialisations.safetensors: weights, and what PEFT's initialisations make of them."""

import argparse
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

# Scale 1.5.
R, ALPHA = 4, 6


def layers() -> dict[str, nn.Module]:
    return {"wide": nn.Linear(20, 12), "tall": nn.Linear(10, 24), "transposed": Conv1D(12, 20)}


def initialised(layer: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """The weight before, the factors, and the weight after."""
    model = nn.Sequential()
    model.add_module("layer", layer)
    torch.nn.init.normal_(layer.weight)
    weight = layer.weight.detach().clone()
    adapted = get_peft_model(model, LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["layer"], init_lora_weights=name)).base_model.model.layer
    tensors = {"weight": weight, "A": adapted.lora_A["default"].weight, "B": adapted.lora_B["default"].weight, "base": adapted.base_layer.weight}
    return {key: tensor.detach().contiguous().clone() for key, tensor in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "initialisations.safetensors")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {}
    for name in ("pissa", "olora", "mica"):
        for kind, layer in layers().items():
            # PEFT decomposes a transposed weight as it lies for OLoRA, so that its factors fit square layers alone.
            if (name, kind) != ("olora", "transposed"):
                found |= {f"{name}.{kind}.{key}": tensor for key, tensor in initialised(layer, name).items()}
    save_file(found, options.output)


if __name__ == "__main__":
    main()
