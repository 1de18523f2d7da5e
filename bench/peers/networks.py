"""The networks of the whole-step benchmark, with random weights, and the batch that each is trained on."""

import math
from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    """The mean over time of features `(batch, time, width)`, and a linear head."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.head = nn.Linear(width, classes)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features.mean(dim=1))


class TcnBlock(nn.Module):
    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.relu(self.conv2(F.relu(self.conv1(x))))


class Tcn(Classifier):
    """Sensor windows `(batch, 6, 128)`, after Bai, Kolter and Koltun, 2018; as `lowrank_burn::models::Tcn`."""

    def __init__(self):
        super().__init__(64, 7)
        self.stem = nn.Conv1d(6, 64, 5, padding=2)
        self.blocks = nn.ModuleList(TcnBlock(64, dilation) for dilation in (1, 2, 4, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classify(x.transpose(1, 2))


class WhisperLayer(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))
        self.k_proj = nn.Linear(width, width, bias=False)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        q, k, v = (
            projection(x).view(batch, time, self.heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(y.transpose(1, 2).reshape(batch, time, width))


class Whisper(Classifier):
    """The encoder of Whisper tiny (Radford et al., 2022) on log-mel frames `(batch, 80, frames)`."""

    def __init__(self, width: int = 384, heads: int = 6, layers: int = 4, positions: int = 1500):
        super().__init__(width, 10)
        self.conv1 = nn.Conv1d(80, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(positions, width))
        self.layers = nn.ModuleList(WhisperLayer(width, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(x)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.classify(self.layer_norm(x))


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Sines then cosines, their periods spaced geometrically from 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(width // 2) * (-math.log(10_000) / (width // 2 - 1)))
    angles = torch.arange(positions).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Wav2Vec2Layer(nn.Module):
    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, norm: bool):
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels, kernel, stride=stride, bias=False)
        self.layer_norm = nn.GroupNorm(channels, channels) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.layer_norm(self.conv(x)))


class Wav2Vec2(Classifier):
    """The feature encoder of wav2vec 2.0 base (Baevski et al., 2020) on samples `(batch, 1, samples)`."""

    def __init__(self, channels: int = 512):
        super().__init__(channels, 10)
        sizes = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]
        self.conv_layers = nn.ModuleList(
            Wav2Vec2Layer(channels if i else 1, channels, kernel, stride, norm=i == 0)
            for i, (kernel, stride) in enumerate(sizes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.conv_layers:
            x = layer(x)
        return self.classify(x.transpose(1, 2))


class ResBlock(nn.Module):
    def __init__(self, channels: int, kernel: int):
        super().__init__()

        def conv(dilation: int) -> nn.Conv1d:
            return nn.Conv1d(channels, channels, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation)

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in (1, 3, 5))
        self.convs2 = nn.ModuleList(conv(1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv1, conv2 in zip(self.convs1, self.convs2):
            x = x + conv2(F.leaky_relu(conv1(F.leaky_relu(x, 0.1)), 0.1))
        return x


class HifiGan(nn.Module):
    """One multi-receptive-field fusion of HiFi-GAN's generator V1 (Kong et al., 2020) on `(batch, 128, length)`; the weight
    norm is folded, as for fine-tuning with adapters."""

    def __init__(self, channels: int = 128):
        super().__init__()
        self.resblocks = nn.ModuleList(ResBlock(channels, kernel) for kernel in (3, 7, 11))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(block(x) for block in self.resblocks) / len(self.resblocks)


def labels(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(x)) % 7


@dataclass
class Task:
    network: Callable[[], nn.Module]
    # Of one example.
    input: tuple[int, int]
    batch: int
    # Of a batch of inputs.
    target: Callable[[torch.Tensor], torch.Tensor]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


TASKS = {
    "tcn": Task(Tcn, (6, 128), 16, labels, F.cross_entropy),
    "whisper": Task(Whisper, (80, 300), 8, labels, F.cross_entropy),
    "wav2vec2": Task(Wav2Vec2, (1, 48_000), 2, labels, F.cross_entropy),
    "hifigan": Task(HifiGan, (128, 4096), 1, torch.randn_like, F.mse_loss),
}


def adapted_paths(model: nn.Module) -> list[str]:
    """Every convolution, and the query and value projections of attention."""
    def chosen(path: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv1d) or path.endswith((".q_proj", ".v_proj"))

    return [path for path, module in model.named_modules() if chosen(path, module)]


def initialise(model: nn.Module) -> None:
    """Weights that keep the size of the signal through layers without a norm."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight)
