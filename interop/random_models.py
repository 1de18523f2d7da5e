"""Random models over every kind of layer: PEFT saves an adapter, lowrank merges it, and the weights are PEFT's."""

import random
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import nn

from chain import Chain, gpt2_linear
from closeness import assert_same
from grouped import merge_by_formula
from lowrank import Lowrank
from randomise import randomise
from rounding import rounds_delta
from tally import Tally

CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d]


def convolution(rng: random.Random, groups: int) -> nn.Module:
    axes = rng.choice([1, 1, 1, 2, 2, 3])
    kernel = [rng.randint(1, 7 if axes == 1 else 3) for _ in range(axes)]
    if axes == 3 and kernel[:2] == [1, 1]:
        # PEFT takes it for a 1 x 1 kernel in two dimensions and fails.
        kernel[0] = 2
    return CONVOLUTIONS[axes - 1](
        groups * rng.randint(1, 5),
        groups * rng.randint(1, 5),
        kernel,
        stride=rng.randint(1, 3),
        padding=rng.randint(0, 3),
        dilation=rng.randint(1, 3),
        groups=groups,
        padding_mode=rng.choice(["zeros", "reflect", "replicate", "circular"]),
        bias=rng.random() < 0.7,
    )


def plain_layer(rng: random.Random, fan_in_fan_out: bool) -> nn.Module:
    kind = rng.choice(["dense", "embedding", "convolution", "convolution"])
    if kind == "convolution":
        return convolution(rng, groups=1)
    width, height = rng.randint(1, 24), rng.randint(1, 24)
    if kind == "embedding":
        return nn.Embedding(width, height)
    return gpt2_linear(width, height) if fan_in_fan_out else nn.Linear(width, height, bias=rng.random() < 0.7)


def draw(seed: int) -> tuple[Chain, peft.LoraConfig, bool]:
    """A base model, a configuration for it, and whether its convolutions are grouped (PEFT then cannot merge it)."""
    rng = random.Random(seed)
    grouped = rng.random() < 0.3
    fan_in_fan_out = rng.random() < 0.3
    groups = rng.randint(2, 4)
    layers = []
    for i in range(rng.randint(1, 5)):
        layer = convolution(rng, groups) if grouped else plain_layer(rng, fan_in_fan_out)
        layers.append((f"{rng.choice(['encoder', 'net.layers', 'a.b.c'])}.{i}.layer{i}", layer))
    # Layers of several kinds do not follow on one another: this model has weights, and is never run.
    model = Chain(layers).to(rng.choice([torch.float32] * 3 + [torch.float16, torch.bfloat16]))

    def rank() -> int:
        return groups * rng.randint(1, 3) if grouped else rng.randint(1, 12)

    names = [f"layer{i}" for i in range(len(layers))]
    biased = all(getattr(layer, "bias", None) is not None for _, layer in layers)
    config = peft.LoraConfig(
        r=rank(),
        lora_alpha=rng.randint(1, 32),
        target_modules=names,
        rank_pattern={name: rank() for name in names if rng.random() < 0.3},
        alpha_pattern={name: rng.randint(1, 32) for name in names if rng.random() < 0.3},
        use_rslora=rng.random() < 0.3,
        lora_bias=biased and rng.random() < 0.5,
        fan_in_fan_out=fan_in_fan_out and not grouped,
        init_lora_weights=False,
    )
    if not grouped:
        config.bias = rng.choice(["none", "none", "all", "lora_only"])
    return model, config, grouped


def describe(model: Chain, config: peft.LoraConfig) -> str:
    kinds = "+".join(type(model.get_submodule(path)).__name__ for path in model.paths)
    switches = [name for name in ("use_rslora", "lora_bias", "use_dora") if getattr(config, name)]
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return " ".join([kinds, dtype, f"r={config.r}", *switches])


def check(tally: Tally, binary: Lowrank, seeds: int, scratch: Path):
    for seed in range(seeds):
        torch.manual_seed(seed)
        model, config, grouped = draw(seed)
        config.use_dora = not config.lora_bias and seed % 3 == 0
        with tally.check(f"random {seed}: {describe(model, config)}"):
            base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            save_file(base, scratch / "base.safetensors")
            adapted = peft.get_peft_model(model, config)
            randomise(adapted, own_group_only=grouped)
            adapter = scratch / f"random-{seed}"
            adapted.save_pretrained(adapter)
            rounded = {f"{path}.weight" for path in model.paths if rounds_delta(model.get_submodule(path), "default")}
            expected = merge_by_formula(adapted, "default") if grouped else adapted.merge_and_unload().state_dict()
            found = binary.merge(scratch / "base.safetensors", adapter, scratch / f"random-{seed}.safetensors")
            assert_same(found, expected, base, rounded)
