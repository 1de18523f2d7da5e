"""Random models that can be run, over every kind of layer, and random configurations for them."""

import math
import random
from dataclasses import dataclass, field

import peft
import torch
from torch import nn

from chain import Chain, gpt2_linear, is_convolution

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
LENGTHS = {1: (5, 16), 2: (4, 8), 3: (3, 5)}
PARENTS = ["encoder", "net.layers", "a.b.c"]


@dataclass
class Drawn:
    base: Chain
    x: torch.Tensor
    config: peft.LoraConfig
    # What the case is about, as rows of the table.
    features: list[str] = field(default_factory=list)

    def layer(self, path: str) -> nn.Module:
        return self.base.get_submodule(path)

    def targets(self) -> list[str]:
        names = set(self.config.target_modules)
        return [path for path in self.base.paths if path.rsplit(".", 1)[-1] in names]

    def groups(self) -> int:
        """What every rank must be a multiple of for PEFT to make the adapter."""
        return math.lcm(*(getattr(self.layer(path), "groups", 1) for path in self.targets()))


def convolution(rng: random.Random, axes: int, channels: int, unit: int, plain: bool) -> nn.Module:
    groups = 1 if plain else rng.choice([1, unit, channels])
    stride = rng.choice([1, 1, 2, 3])
    padding = rng.choice([0, 1, 2, 3, "valid", "same"] if stride == 1 else [0, 1, 2, 3, "valid"])
    outputs = math.lcm(groups, unit) * rng.randint(1, 3)
    return CONVOLUTIONS[axes](
        channels,
        outputs,
        [rng.randint(1, 7 if axes == 1 else 3) for _ in range(axes)],
        stride=stride,
        padding=padding,
        dilation=1 if plain else rng.randint(1, 3),
        groups=groups,
        padding_mode="zeros" if plain else rng.choice(["zeros", "zeros", "reflect", "replicate", "circular"]),
        bias=rng.random() < 0.7,
    )


def layer(rng: random.Random, shape: list[int], unit: int, plain: bool) -> nn.Module:
    axes = len(shape) - 2
    kind = rng.choice(["conv", "conv", "conv", "linear", "transposed", "norm"])
    if kind == "conv":
        return convolution(rng, axes, shape[1], unit, plain)
    if kind == "transposed":
        return gpt2_linear(shape[-1], rng.randint(1, 12))
    if kind == "norm" and axes == 1 and shape[2] > 1:
        return nn.GroupNorm(unit, shape[1])
    return nn.Linear(shape[-1], rng.randint(1, 12), bias=rng.random() < 0.7)


def draw_chain(rng: random.Random) -> tuple[Chain, torch.Tensor]:
    axes = rng.choice([1, 1, 1, 2, 3])
    unit, plain = rng.choice([1, 1, 2, 3, 4]), rng.random() < 0.5
    tokens = rng.random() < 0.2
    if tokens:
        axes = 1
    channels = unit * rng.randint(1, 3)
    shape = [2, channels, *(rng.randint(*LENGTHS[axes]) for _ in range(axes))]
    layers = []
    if tokens:
        vocabulary = rng.randint(2, 20)
        layers.append(nn.Embedding(vocabulary, shape[2]))
        x = torch.randint(vocabulary, shape[:2])
    else:
        x = torch.randn(shape)
    y = layers[0](x) if tokens else x
    for _ in range(rng.randint(0 if tokens else 1, 3)):
        for _ in range(20):
            new = layer(rng, list(y.shape), unit, plain)
            try:
                with torch.no_grad():
                    following = new(y)
            except RuntimeError:
                # Shorter than the kernel, or padded by more than the mode allows.
                continue
            if following.numel():
                layers.append(new)
                y = following
                break
    if all(isinstance(new, nn.GroupNorm) for new in layers):
        return draw_chain(rng)
    named = [(f"{rng.choice(PARENTS)}.{i}.layer{i}", new) for i, new in enumerate(layers)]
    return Chain(named).eval(), x


def draw(rng: random.Random) -> Drawn:
    """A model and a configuration that PEFT can build, as far as ranks and biases go."""
    base, x = draw_chain(rng)
    adaptable = [path for path in base.paths if not isinstance(base.get_submodule(path), nn.GroupNorm)]
    targets = rng.sample(adaptable, rng.randint(1, len(adaptable)))
    names = [path.rsplit(".", 1)[-1] for path in targets]
    drawn = Drawn(base, x, peft.LoraConfig(target_modules=sorted(names), init_lora_weights=False))
    step = drawn.groups()

    def rank() -> int:
        return step * rng.randint(1, max(1, 8 // step))

    config = drawn.config
    config.r, config.lora_alpha = rank(), rng.randint(1, 16)
    config.rank_pattern = {name: rank() for name in names if rng.random() < 0.2}
    config.alpha_pattern = {name: rng.randint(1, 16) for name in names if rng.random() < 0.2}
    config.use_rslora = rng.random() < 0.3
    layers = [base.get_submodule(path) for path in targets]
    embedded = any(isinstance(layer, nn.Embedding) for layer in layers)
    if all(getattr(layer, "bias", None) is not None for layer in layers) and not embedded and rng.random() < 0.4:
        config.lora_bias = True
    elif rng.random() < 0.35:
        config.use_dora = all(told_apart(layer) for layer in layers)
    return drawn


def told_apart(layer: nn.Module) -> bool:
    """Whether DoRA can be compared in single precision: it divides by the length of a row, and one of few numbers may cancel to nearly nothing."""
    return min(layer.weight.shape[0], layer.weight[0].numel()) >= 4


def surround(rng: random.Random, drawn: Drawn):
    """What an adapter file may carry beside factors: trained biases, whole modules."""
    targets = drawn.targets()
    drawn.config.bias = rng.choice(["none", "none", "none", "all", "lora_only"])
    # transformers' Conv1D lies in Burn's linear layer, which would be saved the other way round.
    whole = [path for path in drawn.base.paths if path not in targets and type(drawn.layer(path)).__name__ != "Conv1D"]
    if whole and rng.random() < 0.4:
        drawn.config.modules_to_save = [rng.choice(whole).rsplit(".", 1)[-1]]


def describe(drawn: Drawn) -> list[str]:
    """The rows of the table that a case counts for."""
    config, found = drawn.config, []
    for path in drawn.targets():
        layer = drawn.layer(path)
        kind = type(layer).__name__
        found.append("layer: transformers' Conv1D" if kind == "Conv1D" else f"layer: {kind}")
        if is_convolution(layer):
            found += of_convolution(layer)
    switches = {
        "DoRA": config.use_dora,
        "rsLoRA": config.use_rslora,
        "lora_bias": config.lora_bias,
        "rank_pattern, alpha_pattern": bool(config.rank_pattern or config.alpha_pattern),
        "lora_dropout in the configuration": config.lora_dropout > 0,
        f"bias={config.bias}": config.bias != "none",
        "modules_to_save": bool(config.modules_to_save),
    }
    found += [name for name, there in switches.items() if there]
    dtype = next(drawn.base.parameters()).dtype
    if dtype != torch.float32:
        found.append(f"base in {str(dtype).removeprefix('torch.')}")
    return sorted(set(found))


def of_convolution(layer: nn.Module) -> list[str]:
    found = {
        "stride": max(layer.stride) > 1,
        "dilation": max(layer.dilation) > 1 and max(layer.kernel_size) > 1,
        "padding same": layer.padding == "same",
        f"padding mode {layer.padding_mode}": layer.padding_mode != "zeros" and any(layer._reversed_padding_repeated_twice),
        "groups": 1 < layer.groups < layer.in_channels,
        "depthwise": 1 < layer.groups == layer.in_channels,
    }
    return [name for name, there in found.items() if there]
