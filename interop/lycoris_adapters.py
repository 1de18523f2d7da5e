"""Adapters between lowrank and LyCORIS, in both directions: the weights that one merges are those that the other merges.

PEFT is held against both where it can: what lowrank makes of a LyCORIS file loads there, and merges to LyCORIS's weights.
"""

import copy
import logging
import random
from pathlib import Path

import peft
import torch
from lycoris import LycorisNetwork, create_lycoris_from_weights
from lycoris.logging import logger
from lycoris.modules.locon import LoConModule
from safetensors.torch import save_file
from torch import nn

from chain import Chain
from combined_adapters import CLOSE, merged
from grouped import merge_by_formula
from lowrank import Lowrank
from random_models import convolution, describe, draw
from randomise import randomise
from tally import Tally

PREFIXES = ["lycoris", "lora_unet", "lora_te"]


def check(tally: Tally, binary: Lowrank, seeds: int, scratch: Path):
    logger.setLevel(logging.ERROR)
    for seed in range(seeds):
        torch.manual_seed(seed)
        from_lycoris(tally, binary, seed, scratch / f"from-lycoris-{seed}")
        to_lycoris(tally, binary, seed, scratch / f"to-lycoris-{seed}")
        project(tally, binary, seed, scratch / f"project-{seed}")


def from_lycoris(tally: Tally, binary: Lowrank, seed: int, folder: Path):
    rng = random.Random(seed)
    base, groups = model(rng)
    settings = {"use_tucker": rng.random() < 0.3, "weight_decompose": rng.random() < 0.3, "rs_lora": rng.random() < 0.3}
    prefix = rng.choice(PREFIXES)
    kinds = "+".join(type(base.get_submodule(path)).__name__ for path in base.paths)
    switches = [name for name, on in settings.items() if on]
    with tally.check(f"from LyCORIS {seed}: {' '.join([kinds, f'groups={groups}', prefix, *switches])}"):
        folder.mkdir()
        files = {name: folder / f"{name}.safetensors" for name in ("base", "lycoris", "merged")}
        save_file(base.state_dict(), files["base"])
        save_file(made_by_lycoris(rng, base, prefix, settings), files["lycoris"])
        expected = merged_by_lycoris(base, files["lycoris"], prefix)
        binary.convert(files["lycoris"], folder / "adapter", "peft", base=files["base"])
        assert_close(binary.merge(files["base"], folder / "adapter", files["merged"]), expected)
        if groups == 1:
            assert_close(merged(base, folder / "adapter"), expected)
        elif not settings["weight_decompose"]:
            # PEFT does not merge groups, but loads the dense form: its formula is the same.
            named = ",".join(f"{path}={groups}" for path in base.paths)
            binary.convert(files["lycoris"], folder / "dense", "peft", base=files["base"], groups=named)
            loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder / "dense").eval()
            assert_close(merge_by_formula(loaded, "default"), expected)
            assert_forward(loaded, base, expected)


def assert_forward(loaded: peft.PeftModel, base: Chain, expected: dict):
    """PEFT's unmerged output of every layer is that of the merged weight. PEFT forgets dilation and padding modes: not there."""
    for path in base.paths:
        layer = copy.deepcopy(base.get_submodule(path))
        if set(layer.dilation) != {1} or layer.padding_mode != "zeros":
            continue
        layer.load_state_dict({name: expected[f"{path}.{name}"] for name in layer.state_dict()})
        x = torch.randn(2, layer.in_channels, *[9] * len(layer.kernel_size))
        with torch.no_grad():
            found, wanted = loaded.get_base_model().get_submodule(path)(x), layer(x)
        assert (found - wanted).abs().max() <= CLOSE * wanted.abs().max(), f"{path}: another output"


def project(tally: Tally, binary: Lowrank, seed: int, folder: Path):
    """Dense factors that reach outside their groups: what is left of them is what the formula, which looks inside, takes."""
    base, config, grouped = draw(seed)
    if not grouped:
        return
    base = base.float()
    with tally.check(f"project {seed}: {describe(base, config)}"):
        model = peft.get_peft_model(copy.deepcopy(base), config)
        randomise(model, own_group_only=False)
        model.save_pretrained(folder / "adapter")
        save_file(base.state_dict(), folder / "base.safetensors")
        binary.convert(folder / "adapter", folder / "projected", "peft", "--project")
        found = binary.merge(folder / "base.safetensors", folder / "projected", folder / "merged.safetensors")
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder / "projected")
        for expected in (merge_by_formula(model, "default"), merge_by_formula(loaded, "default")):
            assert_close({name: found[name] for name in expected}, expected)


def to_lycoris(tally: Tally, binary: Lowrank, seed: int, folder: Path):
    base, config, grouped = draw(seed)
    base = base.float()
    # LyCORIS has adapters for nn.Linear and convolutions, and nothing beside the factors.
    config.lora_bias, config.bias, config.fan_in_fan_out = False, "none", False
    plain = [path for path in base.paths if isinstance(base.get_submodule(path), (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    if not plain:
        return
    config.target_modules, config.use_dora = plain, not grouped and seed % 3 == 0
    with tally.check(f"to LyCORIS {seed}: {describe(base, config)}"):
        model = peft.get_peft_model(copy.deepcopy(base), config)
        randomise(model, own_group_only=grouped)
        model.save_pretrained(folder / "adapter")
        expected = merge_by_formula(model, "default") if grouped else model.merge_and_unload().state_dict()
        prefix = PREFIXES[seed % 3]
        file = folder / "lycoris.safetensors"
        binary.convert(folder / "adapter", file, "lycoris", prefix=prefix)
        assert_close(merged_by_lycoris(base, file, prefix), expected)


def model(rng: random.Random) -> tuple[Chain, int]:
    """Layers that LyCORIS can adapt, and the groups of all of them."""
    groups = rng.choice([1, 1, 2, 3])
    layers = []
    for number in range(rng.randint(1, 4)):
        linear = groups == 1 and rng.random() < 0.3
        layer = nn.Linear(rng.randint(1, 24), rng.randint(1, 24)) if linear else convolution(rng, groups)
        layers.append((f"{rng.choice(['down_blocks', 'net.mid_layers'])}.{number}.layer_{number}", layer))
    return Chain(layers), groups


def made_by_lycoris(rng: random.Random, base: Chain, prefix: str, settings: dict) -> dict[str, torch.Tensor]:
    state = {}
    for path in base.paths:
        name = f"{prefix}_{path}".replace(".", "_")
        module = LoConModule(name, base.get_submodule(path), lora_dim=rng.randint(1, 12), alpha=rng.uniform(0.5, 16), **settings)
        with torch.no_grad():
            module.lora_up.weight.normal_()
            if module.wd:
                module.dora_scale.mul_(0.8 + 0.4 * torch.rand_like(module.dora_scale))
        state |= {f"{name}.{key}": tensor.detach().clone() for key, tensor in module.state_dict().items()}
    return state


def merged_by_lycoris(base: nn.Module, file: Path, prefix: str) -> dict[str, torch.Tensor]:
    model = copy.deepcopy(base)
    LycorisNetwork.LORA_PREFIX = prefix
    network, _ = create_lycoris_from_weights(1.0, str(file), model)
    assert network.loras, "LyCORIS finds no module"
    network.merge_to(1.0)
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def assert_close(found: dict, expected: dict):
    assert found.keys() == expected.keys(), f"{sorted(found.keys() ^ expected.keys())}"
    for name, tensor in expected.items():
        gap = (found[name].double() - tensor.double()).abs().max().item()
        assert gap <= CLOSE * tensor.double().abs().max().item(), f"{name}: off by {gap:.3g}"
