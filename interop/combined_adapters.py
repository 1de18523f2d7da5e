"""Random adapters, combined by lowrank: PEFT loads the result, and merges it to the weights that it has from its own combination.

`cat` and `svd` are held against the sum of what PEFT merges from the single adapters, so also where PEFT's own combination fails (Conv1d and Conv3d)
or is another function (rsLoRA, lora_bias, rank patterns).
"""

import copy
import random
from pathlib import Path

import peft
import torch

from features import Features
from lowrank import Lowrank
from random_models import describe, draw
from randomise import randomise
from tally import Tally

# The weighted sum of the deltas, for which no PEFT is needed.
SUMS = ["cat", "svd"]
FACTORS = ["linear", "cat", "ties", "magnitude_prune"]
DELTAS = ["svd", "ties_svd", "magnitude_prune_svd"]
# float32 factors and products; a decomposition adds to both.
CLOSE = 1e-5


def settings(rng: random.Random, base, config: peft.LoraConfig, adapters: int) -> dict:
    kind = rng.choice(FACTORS + DELTAS)
    if not works_in_peft(kind, base, config, adapters):
        kind = rng.choice(SUMS)
    if kind == "svd":
        # No rank is cut off, whose choice rounding could turn.
        return {"combination_type": kind, "svd_rank": 64}
    chosen = {"combination_type": kind}
    if "ties" in kind or "prune" in kind:
        chosen["density"] = rng.choice([0.3, 0.5, 0.8, 1.0])
    if "ties" in kind:
        chosen["majority_sign_method"] = rng.choice(["total", "frequency"])
    return chosen


def works_in_peft(kind: str, base, config: peft.LoraConfig, adapters: int) -> bool:
    """Whether PEFT makes the combination that was asked for. One adapter it takes linearly, whatever the type."""
    if kind in SUMS:
        return True
    if config.use_rslora or config.lora_bias or config.rank_pattern or adapters == 1:
        return False
    weights = [tensor for tensor in base.parameters() if tensor.dim() > 1]
    if kind.endswith("_svd"):
        enough = all(min(tensor.shape[0], tensor[0].numel()) >= config.r for tensor in weights)
        return enough and all(tensor.dim() in (2, 4) for tensor in weights)
    return True


def merged(base, adapter: Path) -> dict[str, torch.Tensor]:
    """The weights that PEFT merges an adapter to."""
    return peft.PeftModel.from_pretrained(copy.deepcopy(base), adapter).merge_and_unload().state_dict()


def sum_of_deltas(base, adapters: list[Path], weights: list[float], _chosen: dict) -> dict[str, torch.Tensor]:
    before = base.state_dict()
    result = {name: tensor.double().clone() for name, tensor in before.items()}
    for adapter, weight in zip(adapters, weights):
        for name, tensor in merged(base, adapter).items():
            result[name] += weight * (tensor.double() - before[name].double())
    return result


def assert_close(found: dict, expected: dict, base: dict):
    for name, tensor in expected.items():
        update = tensor.double() - base[name].double()
        scale = max(base[name].double().abs().max().item(), update.abs().max().item())
        gap = (found[name].double() - tensor.double()).abs().max().item()
        assert gap <= CLOSE * scale, f"{name}: off by {gap:.3g}, updates up to {update.abs().max().item():.3g}"


def models(seeds: int):
    """Models without groups, in float32, each with its seed, its generator and a configuration."""
    for seed in range(seeds):
        torch.manual_seed(seed)
        rng = random.Random(seed)
        base, config, grouped = draw(seed)
        if not grouped:
            config.bias = "none"
            yield seed, rng, base.float(), config


def peft_agrees(base, adapters: list[Path], weights: list[float], chosen: dict, expected: dict) -> bool:
    """Whether PEFT itself makes the combination, and makes it right. It takes no rank that one of the layers has not."""
    if "svd_rank" in chosen:
        weights_of = [tensor for tensor in base.parameters() if tensor.dim() > 1]
        chosen = chosen | {"svd_rank": min(min(tensor.shape[0], tensor[0].numel()) for tensor in weights_of)}
    try:
        assert_close(combined_by_peft(base, adapters, weights, chosen), expected, base.state_dict())
    except Exception:
        return False
    return True


def describe_kind(kind: str, base) -> str:
    """The row of the table: PEFT treats convolutions over two axes as linear layers, and the others not at all."""
    others = any(tensor.dim() in (3, 5) for tensor in base.parameters())
    return f"combination {kind}" + (", with Conv1d or Conv3d" if others else "")


def check(tally: Tally, features: Features, binary: Lowrank, seeds: int, scratch: Path):
    for seed, rng, base, config in models(seeds):
        weights = [rng.choice([1.0, -1.0, round(rng.uniform(-2, 2), 2)]) for _ in range(rng.choice([1, 2, 2, 3]))]
        chosen = settings(rng, base, config, len(weights))
        kind = chosen["combination_type"]
        expected = None
        with tally.check(f"combine {seed}: {kind} of {len(weights)}: {describe(base, config)}") as passed:
            folder = scratch / f"combine-{seed}"
            adapters = make(rng, base, config, len(weights), kind in SUMS, folder)
            binary.combine(adapters, weights, folder / "combined", chosen)
            expect = sum_of_deltas if kind in SUMS else combined_by_peft
            expected = expect(base, adapters, weights, chosen)
            assert_close(merged(base, folder / "combined"), expected, base.state_dict())
        if expected is not None:
            peft_works = peft_agrees(base, adapters, weights, chosen, expected)
            features.add([describe_kind(kind, base)], peft_works, passed.yes)


def make(rng: random.Random, base, config: peft.LoraConfig, count: int, any_rank: bool, folder: Path) -> list[Path]:
    adapters = [folder / str(number) for number in range(count)]
    for adapter in adapters:
        own = copy.deepcopy(config)
        own.lora_alpha = rng.randint(1, 32)
        if any_rank:
            own.r = rng.randint(1, 12)
        model = peft.get_peft_model(copy.deepcopy(base), own)
        randomise(model, own_group_only=False)
        model.save_pretrained(adapter)
    return adapters


def combined_by_peft(base, adapters: list[Path], weights: list[float], chosen: dict) -> dict[str, torch.Tensor]:
    model = peft.PeftModel.from_pretrained(copy.deepcopy(base), adapters[0], adapter_name="0")
    for adapter in adapters[1:]:
        model.load_adapter(adapter, adapter_name=adapter.name)
    model.add_weighted_adapter([adapter.name for adapter in adapters], weights, "combined", **chosen)
    return model.merge_and_unload(adapter_names=["combined"]).state_dict()
