"""The temporal convolutional network of `examples/watch`, in PyTorch, under the module paths that lowrank gives it."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


@dataclass
class TcnConfig:
    in_channels: int
    channels: int
    stem_kernel_size: int
    kernel_size: int
    dilations: list[int]
    causal: bool
    dropout: float
    num_labels: int
    labels: list[str]
    sample_rate: float
    # In samples.
    window: int
    mean: torch.Tensor
    std: torch.Tensor


def read_config(base: Path) -> TcnConfig:
    """config.json of a model folder: all knowledge of its keys is here."""
    raw = json.loads((base / "config.json").read_text())
    assert raw["model_type"] == "tcn", f"model_type {raw['model_type']!r}, expected 'tcn'"
    signal = raw.get("signal", {})
    names = ("normalization", "normalisation")
    norm = next(place[name] for place in (raw, signal) for name in names if name in place)
    rate, window = signal["sample_rate"], signal["window"]
    labels = raw["id2label"]
    return TcnConfig(
        **{key: raw[key] for key in ("in_channels", "channels", "stem_kernel_size", "kernel_size", "dilations")},
        num_labels=len(labels),
        causal=raw.get("causal", False),
        dropout=raw.get("dropout", 0.0),
        labels=[labels[str(i)] for i in range(len(labels))],
        sample_rate=rate,
        window=window if isinstance(window, int) else round(window * rate),
        mean=torch.tensor(norm["mean"], dtype=torch.float32),
        std=torch.tensor(norm["std"], dtype=torch.float32),
    )


def pad(x: torch.Tensor, kernel_size: int, dilation: int, causal: bool) -> torch.Tensor:
    """Zeros enough that a convolution keeps the length: all before the signal if causal, else as many on each side."""
    reach = dilation * (kernel_size - 1)
    return F.pad(x, (reach, 0) if causal else (reach // 2, reach // 2))


class Block(nn.Module):
    def __init__(self, config: TcnConfig, dilation: int):
        super().__init__()
        self.config, self.dilation = config, dilation
        self.conv1 = nn.Conv1d(config.channels, config.channels, config.kernel_size, dilation=dilation)
        self.conv2 = nn.Conv1d(config.channels, config.channels, config.kernel_size, dilation=dilation)
        self.dropout = nn.Dropout(config.dropout)

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        return pad(x, self.config.kernel_size, self.dilation, self.config.causal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.dropout(F.relu(self.conv1(self.pad(x))))
        return x + F.relu(self.conv2(self.pad(h)))


class Tcn(nn.Module):
    """Signals `(batch, channels, samples)`, normalised, to logits `(batch, labels)`."""

    def __init__(self, config: TcnConfig):
        super().__init__()
        # Not called `config`, which PEFT would take for a transformers configuration.
        self.tcn_config = config
        self.stem = nn.Conv1d(config.in_channels, config.channels, config.stem_kernel_size)
        self.blocks = nn.ModuleList(Block(config, dilation) for dilation in config.dilations)
        self.head = nn.Linear(config.channels, config.num_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(pad(x, self.tcn_config.stem_kernel_size, 1, self.tcn_config.causal)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=2))


def fold_weight_norm(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`weight` in the place of magnitude and direction, whichever of PyTorch's two namings they have."""
    folded = dict(tensors)
    for magnitude, direction in (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")):
        for name in [name for name in tensors if name.endswith(magnitude)]:
            path = name.removesuffix(magnitude)
            g, v = folded.pop(name), folded.pop(path + direction)
            folded[path + "weight"] = g * v / v.flatten(1).norm(dim=1).view(-1, 1, 1)
    return folded


def load_tcn(base: Path) -> Tcn:
    """The base model, in evaluation, every tensor of the file used and none missing."""
    model = Tcn(read_config(base))
    model.load_state_dict(fold_weight_norm(load_file(base / "model.safetensors")))
    return model.eval()
